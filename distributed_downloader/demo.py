"""The demo: real master, real workers and a real Redis on this machine, against a hub of our own."""

from __future__ import annotations

import filecmp
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rich.console import Console

from distributed_downloader.config import RedisConfig
from distributed_downloader.display.progress import watch
from distributed_downloader.embedded import GUARD
from distributed_downloader.errors import DownloaderError
from distributed_downloader.models import JobState
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView

REPO = "demo/sample-model"
#: What each worker of the demo may use.
BANDWIDTH = "1MB/s"

_FOREIGN = re.compile(
    r"(REDIS_|HF_|HUGGING_?FACE|NAS_|LOG_)|(HEALTH_FILE|OUTPUT_DIR|\w+_proxy)$", re.IGNORECASE
)

#: Seconds between two looks at the job: short, for the result is a time.
_LOOK = 0.1
_START_SECONDS = 20.0


@dataclass(frozen=True)
class Result:
    """One run: the job's files by so many workers in so many seconds."""

    workers: int
    seconds: float
    files: int
    bytes: int

    @property
    def rate(self) -> float:
        """Bytes per second over the whole run."""
        return self.bytes / self.seconds


class Demo:
    """Runs `master` and `worker` processes in one folder, against one Redis and one hub."""

    def __init__(self, folder: Path, redis_url: str, endpoint: str, console: Console) -> None:
        self._folder, self._console = folder, console
        self._log = folder / "workers.log"
        self._workers: list[subprocess.Popen[bytes]] = []
        self._client = RedisClient(RedisConfig.model_validate({"url": redis_url}))
        self._view = RedisView(self._client)
        self._settings = folder / "demo.ini"
        self._settings.write_text(
            f"[redis]\nurl = {redis_url}\n[huggingface]\nendpoint = {endpoint}\n[app]\nlog_level = WARNING\n"
        )
        # Nothing of the user's own settings: the demo is about this machine alone.
        self._environ = {key: value for key, value in os.environ.items() if not _FOREIGN.match(key)}
        self._environ["HF_TOKEN_PATH"] = str(folder / "no-token")  # nor the one that `hf auth login` left

    def run(self, workers: int, output: Path) -> Result:
        """Fetch the sample repo with so many workers; raises DownloaderError if it fails."""
        with self._fleet(workers):
            job = self._view.job(self._queue(output))
            with watch(self._console, alone=True) as show:
                while not job.state.ended:
                    show(job, self._view.workers(), self._view.failures(job.id) if job.failed else [])
                    self._check_fleet()
                    time.sleep(_LOOK)
                    job = self._view.job(job.id)
                show(job)
        if job.state is not JobState.DONE or job.ended_at is None:
            raise DownloaderError(f"the demo's job ended as {job.state.value}; please report this")
        # Redis' own times: from the job's first entry in the queue to its last verified file.
        return Result(workers, job.ended_at - job.created_at, job.files, job.bytes_total)

    def close(self) -> None:
        """Let go of Redis."""
        self._client.close()

    def _queue(self, output: Path) -> int:
        done = subprocess.run(
            self._command("master", REPO, "--output-dir", str(output)),
            env=self._environ,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DownloaderError(f"`master` failed: {done.stderr.strip()}")
        return int(done.stdout.split("Job ID: ")[1].split()[0])

    @contextmanager
    def _fleet(self, count: int) -> Iterator[None]:
        with ExitStack() as stack:
            out = stack.enter_context(self._log.open("a"))
            self._workers = [self._start_worker(stack, out) for _ in range(count)]
            self._await_workers(count)
            yield

    def _start_worker(self, stack: ExitStack, out: IO[str]) -> subprocess.Popen[bytes]:
        words = self._command("worker", "--concurrency", "1", "--max-bandwidth", BANDWIDTH)
        worker = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", *words],
            env=self._environ,
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
        )
        stack.enter_context(worker)
        return worker

    def _await_workers(self, count: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while len(self._view.workers()) < count:
            self._check_fleet()
            if time.monotonic() > deadline:
                raise DownloaderError(f"the demo's workers did not start: {self._log.read_text()[-500:]}")
            time.sleep(_LOOK)

    def _check_fleet(self) -> None:
        """Raise DownloaderError if a worker has died, or cannot work."""
        if any(worker.poll() is not None for worker in self._workers):
            raise DownloaderError(f"one of the demo's workers died: {self._log.read_text()[-500:]}")
        if trouble := next((each.trouble for each in self._view.workers() if each.trouble), ""):
            raise DownloaderError(f"the demo's workers cannot work: {trouble}")

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "distributed_downloader", "--config", str(self._settings), *words]


def differences(left: Path, right: Path) -> list[str]:
    """Return the relative paths that are not the same, byte for byte, in both trees."""
    names = {str(path.relative_to(top)) for top in (left, right) for path in top.rglob("*") if path.is_file()}
    _, mismatch, errors = filecmp.cmpfiles(left, right, names, shallow=False)
    return sorted(mismatch + errors)
