"""A fleet on one machine, and a hub in this process that counts what it is asked."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from benchmarks.here import Loopback
from benchmarks.machines import Machine, Network
from benchmarks.rig import Rig, Setup, job_id
from benchmarks.waiting import Child, until
from distributed_downloader.local_hub import LocalHub
from distributed_downloader.local_hub.http import WINDOW_SECONDS, Reply, Request, Window
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.models import JobStatus
from distributed_downloader.redis_view import RedisView

REPO = "bench/polite"
_TOKEN = "hf_shared_by_all"  # noqa: S105 - of a hub of our own
_SECONDS = 60.0
#: Requests in a window of a hub whose patience is not what is measured.
PLENTY = 1_000_000


class _Counted(Window):
    """A window of requests that remembers how many it allowed, and how many it did not."""

    def __init__(self, name: str, quota: int, seconds: int) -> None:
        super().__init__(name, quota, seconds)
        self._whole = threading.Lock()
        #: Window by window, in order: True -> served, False -> refused.
        self.counts: defaultdict[float, Counter[bool]] = defaultdict(Counter)

    def spend(self) -> tuple[bool, dict[str, str]]:
        """Take one request, and count it."""
        with self._whole:
            allowed, headers = super().spend()
            self.counts[self._end][allowed] += 1
        return allowed, headers


class CountingHub(LocalHub):
    """A hub that allows its one account `quota` files in `window` seconds; it runs until `close`."""

    def __init__(self, repo: Path | LocalRepo, quota: int = PLENTY, window: int = WINDOW_SECONDS) -> None:
        super().__init__({f"models/{REPO}": repo}, tokens=[_TOKEN])
        self.resolves = self._windows["resolvers"] = _Counted("resolvers", quota, window)
        #: Unix time of the first request for a file's bytes; 0 before.
        self.first_bytes = 0.0
        self.__enter__()

    def answer(self, request: Request) -> Reply:
        """Return the answer to a request."""
        if request.route in ("cdn", "cache") and not self.first_bytes:
            self.first_bytes = time.time()
        return super().answer(request)


class Fleet(Rig):
    """Workers with one token, started with the same options; on loopback, unless there is another network."""

    def __init__(
        self,
        folder: Path,
        hub: CountingHub,
        workers: int,
        slots: int,
        *options: str,
        network: Network | None = None,
    ) -> None:
        self._hub, self._options, self._slots = hub, options, slots
        super().__init__(network or Loopback(workers), folder, {})

    @property
    def view(self) -> RedisView:
        """What `status` reads."""
        assert self._client
        return RedisView(self._client)

    @property
    def pids(self) -> list[int]:
        """The processes of the workers that run."""
        return [worker.pid for worker in self._workers.values() if worker.running]

    def begin(self, output: Path, workers: int, split: str = "never") -> int:
        """Have so many idle workers, and queue the repo for them; returns the job."""
        self._configure(Setup(self._slots))
        for machine in self.machines[:workers]:
            self.join(machine)
        until(lambda: self._blocked() >= workers, f"{workers} idle workers", _SECONDS)
        words = self._command("master", REPO, "--output-dir", str(output), "--split", split)
        master = self._start(self._network.head, "master", words)
        self._result(master, _SECONDS)
        return job_id(master)

    def ended(self, job: int) -> JobStatus | None:
        """Return a job that has ended, else None; raises BenchmarkError if a worker ended by itself."""
        self._check_workers(0)
        found = self.view.job(job)
        return found if found.state.ended else None

    def join(self, machine: Machine) -> None:
        """Start a worker."""
        self._workers[machine.name] = self._start_worker(machine, None)

    def leave(self, machine: Machine) -> None:
        """Ask a worker to leave, and let it."""
        self._workers.pop(machine.name).end()

    def shape(self, rate: int) -> None:
        """Give each line so many bytes a second."""
        for machine in self.machines:
            self._network.shape(machine, rate)

    def status(self) -> str:
        """Return what `hf-downloader status` prints."""
        return self._result(self._start(self._network.head, "status", self._command("status")), _SECONDS)

    def _start_worker(self, machine: Machine, lease: float | None) -> Child:
        return self._start(machine, "worker", self._command("worker", *self._options))

    def _start(self, machine: Machine, name: str, words: list[str], told: str = "", **settings: str) -> Child:
        return super()._start(machine, name, words, told, HF_TOKEN=_TOKEN, **settings)

    def _start_hub(self, repos: Mapping[str, Path]) -> str:
        return self._hub.endpoint
