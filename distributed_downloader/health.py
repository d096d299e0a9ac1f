"""Whether a worker goes on: it says so in a file, and probes read it.

The file is written by the very threads whose life it proves, each at its turn; one that hangs shows by the
age of its last turn, in a file that the other one writes. Redis may be away all the while: the threads go on.
"""

from __future__ import annotations

import enum
import json
import logging
import os
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from distributed_downloader.errors import ConfigError

log = logging.getLogger(__name__)

#: Seconds between two writes, unless the state changes.
_PERIOD = 1.0
#: Leases without a turn after which a thread hangs: longer than an idle claim waits in Redis, and than the
#: longest call to a Redis whose name server is silent.
_LEASES = 10


class State(str, enum.Enum):
    """What a worker is at."""

    #: It is in the fleet, and claims tasks.
    RUNNING = "running"
    #: Its machine is at fault, so it claims nothing for a while; `trouble` says why.
    RESTING = "resting"
    #: It waits for Redis: to enter the fleet, or to report. What it has begun goes on.
    WAITING = "waiting"
    #: It finishes what it has, or gives it back.
    LEAVING = "leaving"


@dataclass(frozen=True)
class Health:
    """What lies in the file; no model, for a probe starts every few seconds and pydantic takes its time."""

    worker: str
    pid: int
    state: State
    #: Unix time since which it has been in this state.
    since: float
    #: Why it rests, or "".
    trouble: str
    #: Seconds without a turn after which a thread hangs.
    patience: float
    #: The last turn of each thread: time.monotonic(), which is the same for all processes of a machine.
    turns: dict[str, float]

    @classmethod
    def parse(cls, text: str) -> Health:
        """Return what `write` has written; raises ValueError for anything else."""
        said: Any = json.loads(text)
        try:
            return cls(
                worker=str(said["worker"]),
                pid=int(said["pid"]),
                state=State(said["state"]),
                since=float(said["since"]),
                trouble=str(said["trouble"]),
                patience=float(said["patience"]),
                turns={str(thread): float(turn) for thread, turn in said["turns"].items()},
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a worker's health: {error}") from error

    def write(self) -> str:
        """Return it as a line of JSON."""
        return f"{json.dumps(asdict(self))}\n"

    @property
    def is_ready(self) -> bool:
        """Whether it can fetch, if it is alive."""
        return self.state is State.RUNNING

    def silent(self, now: float) -> dict[str, float]:
        """Return the seconds since each thread's last turn; negative where the machine has started since."""
        return {thread: now - turn for thread, turn in self.turns.items()}

    def ailment(self, now: float) -> str:
        """Return why the worker is not alive at `now` (time.monotonic()), or ""."""
        if not _exists(self.pid):
            return "its process is gone"
        for thread, seconds in self.silent(now).items():
            if not 0 <= seconds <= self.patience:
                return f"its {thread} has not gone on for {abs(seconds):.0f} s"
        return ""


class Owner(Protocol):
    """The worker that is spoken of."""

    @property
    def id(self) -> str:
        """Its name in the fleet."""

    @property
    def trouble(self) -> str:
        """Why it claims nothing at the moment, or ""."""

    @property
    def state(self) -> State:
        """What it is at."""


class HealthFile:
    """Writes one worker's health into a file, if it has one."""

    def __init__(self, path: str, lease: float) -> None:
        self._path = Path(path) if path else None
        self._patience = _LEASES * lease
        self._lock = threading.Lock()
        self._turns: dict[str, float] = {}
        self._state: State | None = None
        self._since = self._written = 0.0
        self._works = True

    def begin(self, owner: Owner) -> None:
        """Write it for the first time; raises ConfigError if that cannot be, or it is somebody else's."""
        if self._path and os.path.exists(self._path) and not self._path.is_file():  # noqa: PTH110 - Path's may raise
            raise ConfigError(f"[app] health_file: {self._path} is there, and no file: name another")
        other = read(self._path) if self._path else None
        if other and other.pid != os.getpid() and not other.ailment(time.monotonic()):
            whose = f"{self._path} is that of worker {other.worker} (process {other.pid})"
            raise ConfigError(f"[app] health_file: {whose}: give each worker a file of its own")
        try:
            self._note("fetcher", owner)
        except OSError as error:
            raise ConfigError(
                f"[app] health_file: {self._path} cannot be written: {error.strerror}"
            ) from error

    def turn(self, thread: str, owner: Owner) -> None:
        """Take note that a thread goes on."""
        try:
            self._note(thread, owner)
        except OSError as error:
            if self._works:
                why = "%s cannot be written (%s): probes will take this worker for dead"
                log.warning(why, self._path, error.strerror)
            self._works = False

    def end(self) -> None:
        """Remove the file: there is no worker any more."""
        with suppress(OSError):  # then a probe sees that the process is gone
            if self._path:
                self._path.unlink(missing_ok=True)

    def _note(self, thread: str, owner: Owner) -> None:
        if self._path is None:
            return
        with self._lock:
            now, state = time.monotonic(), owner.state
            self._turns[thread] = now
            if state is self._state and now - self._written < _PERIOD:
                return
            if state is not self._state:
                self._state, self._since = state, time.time()
            self._write(self._path, self._health(owner, state))
            self._written, self._works = now, True

    def _health(self, owner: Owner, state: State) -> Health:
        return Health(
            worker=owner.id,
            pid=os.getpid(),
            state=state,
            since=self._since,
            trouble=owner.trouble,
            patience=self._patience,
            turns=self._turns,
        )

    def _write(self, path: Path, health: Health) -> None:
        """Replace the file as a whole: whoever reads it sees the last one or this one."""
        new = path.with_name(f".{path.name}.{health.pid}")
        new.unlink(missing_ok=True)
        with new.open("x", encoding="ascii") as file:  # never through a link that somebody left there
            file.write(health.write())
        new.replace(path)


def read(path: Path) -> Health | None:
    """Return what a worker has written there; None if there is nothing, or nothing of a worker's."""
    try:
        return Health.parse(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True
