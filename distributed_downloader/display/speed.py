"""How far each job is and how fast: bytes in flight, measured rate, time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from distributed_downloader.models import JobState, JobStatus, Transfer, WorkerStatus

#: Seconds over which a rate is measured.
WINDOW = 15.0


@dataclass(frozen=True)
class JobProgress:
    """One job at one moment, with what follows from its counters and its workers' reports."""

    job: JobStatus
    #: Bytes that are there: of finished files and parts, and of those in flight as far as they are.
    bytes_now: int
    #: Bytes per second, 0 where nothing moves.
    rate: float = 0.0
    #: Whether a worker is there that could go on.
    workers: bool = True

    @property
    def eta(self) -> float | None:
        """Seconds until the job ends at this rate; None if that cannot be known yet."""
        if not self.job.listed or self.job.state is not JobState.RUNNING or self.rate < 1:
            return None
        return (self.job.bytes_total - self.bytes_now) / self.rate

    @property
    def fraction(self) -> float:
        """How much of the job is there, or on the NAS once all is there, 0.0 to 1.0."""
        job = self.job
        if job.state is JobState.DONE:
            return 1.0
        part, whole = (self.bytes_now, job.bytes_total) if job.bytes_total else (job.files_done, job.files)
        if job.state is JobState.DELIVERING:
            part, whole = self.delivery
        return min(part / whole, 1.0) if whole else 0.0

    @property
    def delivery(self) -> tuple[int, int]:
        """How many bytes are on the NAS, and of how many; counted in files where all are empty."""
        job = self.job
        if job.bytes_done:
            return job.bytes_delivered, job.bytes_done
        return job.delivered, job.owed + job.delivered


class Meter:
    """The rate of one growing number, over the last `WINDOW` seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, now: float, count: int, reported: float) -> float:
        """Note that the number is `count` at `now`; until a window is full, `reported` fills it up."""
        if self._seen and count < self._seen[-1][1]:
            # A transfer was lost and starts over: what was measured before says nothing about now.
            self._seen.clear()
        self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()
        began, first = self._seen[0]
        missing = max(0.0, WINDOW - (now - began))
        return (count - first + reported * missing) / (now - began + missing)


class Speedometer:
    """Turns what Redis says about jobs and workers, look after look, into progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._meters: dict[int, Meter] = {}

    def measure(self, jobs: Iterable[JobStatus], workers: Sequence[WorkerStatus]) -> list[JobProgress]:
        """Return the progress of each job; rates come from this look and the ones before it."""
        flights = _by_job(workers)
        return [self._progress(job, flights.get(job.id, []), bool(workers)) for job in jobs]

    def _progress(self, job: JobStatus, transfers: list[Transfer], workers: bool) -> JobProgress:
        flying = _in_flight(job, transfers)
        now = min(job.bytes_done + sum(t.bytes_done for t in flying), max(job.bytes_total, job.bytes_done))
        if job.state is not JobState.RUNNING:
            self._meters.pop(job.id, None)
            return JobProgress(job, now, 0.0, workers)
        meter = self._meters.setdefault(job.id, Meter())
        return JobProgress(job, now, meter.rate(self._clock(), now, _rate(flying)), workers)


def _rate(transfers: Iterable[Transfer]) -> float:
    return sum(transfer.bytes_per_second for transfer in transfers)


def _by_job(workers: Iterable[WorkerStatus]) -> dict[int, list[Transfer]]:
    found: dict[int, list[Transfer]] = {}
    for worker in workers:
        for transfer in worker.transfers:
            found.setdefault(transfer.job, []).append(transfer)
    return found


def _in_flight(job: JobStatus, transfers: list[Transfer]) -> list[Transfer]:
    """Leave out what is only checked, and what has just finished: reports are older than counters."""
    if job.state.ended:
        return []
    fetched = [transfer for transfer in transfers if not transfer.sealing]
    return sorted(fetched, key=lambda t: t.bytes_done - t.size)[: job.active]
