"""A fleet on this machine: real commands in real processes, against a Redis and a hub that the test gives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from distributed_downloader.config import RedisConfig
from distributed_downloader.models import JobStatus, WorkerStatus
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView

T = TypeVar("T")

#: How long an event may take before the test gives up on it; no test passes or fails by a time below that.
PATIENCE = 90.0


def until(
    what: Callable[[], T | None], describe: str = "", seconds: float = PATIENCE, pause: float = 0.02
) -> T:
    """Wait until `what()` is true, and return it; `pause` is longer where it costs more to ask."""
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {describe or what}"
        time.sleep(pause)
    return result


@dataclass
class Worker:
    """One worker process and what it said."""

    process: subprocess.Popen[str]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = PATIENCE) -> int:
        return self.process.wait(seconds)


@dataclass
class Fleet:
    """Runs `hf-downloader` commands in one folder with one environment."""

    folder: Path
    redis_url: str
    endpoint: str
    python: str = sys.executable
    environ: dict[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)

    def env(self) -> dict[str, str]:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not re.match(r"HF_|REDIS_|NAS_|LOG_|HEALTH_FILE|OUTPUT_DIR|\w*_proxy$", key, re.IGNORECASE)
        }
        return {
            **inherited,
            "HOME": str(self.folder),
            "REDIS_URL": self.redis_url,
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / "hf-home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONWARNINGS": "default",
            **self.environ,
        }

    def command(self, *words: str) -> list[str]:
        return [self.python, "-m", "distributed_downloader", *words]

    def run(self, *words: str, code: int | None = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; `code` is what it must exit with."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.env() | environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def queue(self, *words: str, code: int = 0) -> int:
        """Run `master` and return the job id."""
        done = self.run("master", *words, code=code)
        match = re.search(r"^Job ID: (\d+)$", done.stdout, re.MULTILINE)
        assert match, done.stdout + done.stderr
        return int(match[1])

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Start a command; its output goes to pipes."""
        return subprocess.Popen(
            self.command(*words),
            cwd=self.folder,
            env=self.env() | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def worker(self, *words: str, lease: float | None = None, **environ: str) -> Worker:
        """Start a worker; `lease` shortens the time after which it is taken for dead."""
        log_file = self.folder / f"worker-{len(self.workers)}.log"
        command = self.command("worker", *words)
        if lease is not None:
            command[1:3] = ["-m", "tests.e2e.short_lease", str(lease)]
        with log_file.open("w") as out:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.env() | environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                text=True,
            )
        self.workers.append(Worker(process, log_file))
        return self.workers[-1]

    def close(self) -> None:
        """End what the test left running."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.process.kill()
            worker.process.wait()

    @contextmanager
    def view(self) -> Iterator[RedisView]:
        """Look at Redis directly."""
        client = RedisClient(RedisConfig.model_validate({"url": self.redis_url, **self._user()}))
        try:
            yield RedisView(client)
        finally:
            client.close()

    def _user(self) -> dict[str, str]:
        """Return as whom the commands come, where it is not the default user."""
        names = {"username": "REDIS_USERNAME", "password": "REDIS_PASSWORD"}
        return {key: self.environ[name] for key, name in names.items() if name in self.environ}

    def job(self, number: int) -> JobStatus:
        with self.view() as view:
            return view.job(number)

    def live(self) -> list[WorkerStatus]:
        with self.view() as view:
            return view.workers()

    def until_ended(self, number: int, seconds: float = PATIENCE) -> JobStatus:
        return until(
            lambda: job if (job := self.job(number)).state.ended else None,
            f"the end of job {number}",
            seconds,
        )


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
