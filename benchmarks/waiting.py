"""Waiting that a signal ends, and processes that are ended by whoever started them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: The checkout, in which the product and its tests lie.
PROJECT = Path(__file__).parents[1]

#: Seconds between two looks at what is waited for: a small part of what is measured, unless told otherwise.
_LOOK = 0.02
#: Seconds that a process gets to leave by itself.
_LEAVE_SECONDS = 10.0
#: What the user has set for their own use, and would change the figures, beside our own settings' variables.
_FOREIGN = re.compile(r"(HF_|HUGGING|PYTHON|TOKIO_)|\w+_proxy$", re.IGNORECASE)

_stopping = threading.Event()


class BenchmarkError(Exception):
    """The benchmark cannot go on, or its figures would be worth nothing."""


class InterruptedBenchmarkError(Exception):
    """A signal asked to stop."""


def stop_on_signals() -> None:
    """Let SIGINT and SIGTERM end the next wait instead of breaking into whatever runs, and leave nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _stopping.set())


def until(what: Callable[[], T | None], describe: str, seconds: float, look: float = _LOOK) -> T:
    """Wait until `what()` is true, and return it; raises BenchmarkError, and InterruptedBenchmarkError.

    There are `look` seconds between two looks.
    """
    deadline = time.monotonic() + seconds
    while not (result := what()):
        check_interrupted()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {seconds:.0f} s in vain: {describe}")
        time.sleep(look)
    return result


def check_interrupted() -> None:
    """Raise InterruptedBenchmarkError if a signal asked to stop."""
    if _stopping.is_set():
        raise InterruptedBenchmarkError


def environment(**values: str) -> dict[str, str]:
    """Return the environment without what belongs to the user's own fleet, and with `values`."""
    # Every contestant imports this module, and must not pay for what only its parent needs.
    from distributed_downloader.config import SETTINGS  # noqa: PLC0415

    ours = {setting.source.env for setting in SETTINGS.values()}
    foreign = {name for name in os.environ if name in ours or _FOREIGN.match(name)}
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(PROJECT)}
    return {**kept, **quiet, **values}


class Child:
    """One process in a session of its own, so that Ctrl+C is for us; its output lies in a file."""

    def __init__(
        self, words: Sequence[str], *, folder: Path, name: str, environ: Mapping[str, str], told: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self._out, self._err = name, folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self._process = subprocess.Popen(
                words,
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.PIPE if told else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                text=True,
            )
        if self._process.stdin:
            self._process.stdin.write(told)
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise BenchmarkError if it has ended."""
        if not self.running:
            raise self._error(f"ended with {self._process.returncode}")

    def result(self, seconds: float) -> str:
        """Return what it printed, when it has ended well; raises BenchmarkError."""
        until(lambda: not self.running, f"the end of {self.name}", seconds)
        if self._process.returncode:
            raise self._error(f"failed with {self._process.returncode}")
        return self.output

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def ask(self) -> None:
        """Ask it to leave."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.terminate()

    def end(self) -> None:
        """Ask it to leave, and end it if it does not."""
        self.ask()
        try:
            self._process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def complaint(self) -> str:
        """The end of what it printed."""
        return (self.output + self._err.read_text())[-1500:].strip()

    def _error(self, what: str) -> BenchmarkError:
        return BenchmarkError(f"{self.name} {what}: {self.complaint}")
