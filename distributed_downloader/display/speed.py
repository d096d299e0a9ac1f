"""How far each job is and how fast: bytes in flight, measured rate, time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from distributed_downloader.models import JobState, JobStatus, Transfer, WorkerStatus

#: Seconds over which a rate is measured.
WINDOW = 15.0
#: Seconds between two reports of a worker.
_PULSE = 1.0


@dataclass(frozen=True)
class JobProgress:
    """One job at one moment, with what follows from its counters and its workers' reports."""

    job: JobStatus
    #: Bytes that are there: of finished files and parts, and of those in flight as far as they are.
    bytes_now: int
    #: Bytes per second that are downloaded, or delivered once all is there; 0 where nothing moves.
    rate: float = 0.0
    #: Whether a worker is there that could go on.
    workers: bool = True
    #: Why all workers claim nothing, or "".
    trouble: str = ""
    #: Why nobody brings anything to the NAS, or "".
    nas_trouble: str = ""
    #: Whether this is what was seen before Redis went away, so that nobody knows a rate.
    stale: bool = False

    @property
    def eta(self) -> float | None:
        """Seconds until all is there, or delivered, at this rate; None if that cannot be known yet."""
        job = self.job
        if not job.listed or self.rate < 1:
            return None
        if job.state is JobState.DELIVERING:
            return max(0, job.bytes_done - job.bytes_delivered) / self.rate
        return (job.bytes_total - self.bytes_now) / self.rate if job.state is JobState.RUNNING else None

    @property
    def waits(self) -> str:
        """Why nobody goes on with a job that somebody could go on with, or ""."""
        job = self.job
        idle = job.state is JobState.RUNNING and not job.active and not job.blocked
        return self.trouble if idle and job.pending + job.delayed else ""

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


class _Download:
    """The rate of one job's download, without the bytes that were there before it began."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._last: tuple[float, JobStatus, set[int]] | None = None
        self._found = 0.0

    def rate(self, now: float, job: JobStatus, flying: Sequence[Transfer]) -> float:
        """Take note of one look; return bytes a second."""
        if self._last:
            self._found += _found(now - self._last[0], *self._last[1:], job, flying)
        self._last = (now, job, {transfer.task for transfer in flying})
        count = job.bytes_done + sum(transfer.bytes_done for transfer in flying)
        return self._meter.rate(now, int(count - self._found), _rate(flying))


class _Delivery:
    """The rate of one job's delivery since it was first seen: the NAS gets bytes by whole files."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def rate(self, now: float, job: JobStatus) -> float:
        """Take note of one look; return bytes a second."""
        began, there = self._first = self._first or (now, job.bytes_delivered)
        return max(0, job.bytes_delivered - there) / max(now - began, _PULSE)


class Speedometer:
    """Turns what Redis says about jobs and workers, look after look, into progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._downloads: dict[int, _Download] = {}
        self._deliveries: dict[int, _Delivery] = {}

    def measure(self, jobs: Iterable[JobStatus], workers: Sequence[WorkerStatus]) -> list[JobProgress]:
        """Return the progress of each job; rates come from this look and the ones before it."""
        flights = _by_job(workers)
        troubles = _trouble(workers), _nas_trouble(workers)
        found = []
        for job in jobs:
            flying = _in_flight(job, flights.get(job.id, []))
            there = job.bytes_done + sum(transfer.bytes_done for transfer in flying)
            there = min(there, max(job.bytes_total, job.bytes_done))
            found.append(JobProgress(job, there, self._speed(job, flying), bool(workers), *troubles))
        return found

    def _speed(self, job: JobStatus, flying: Sequence[Transfer]) -> float:
        if job.state is JobState.DELIVERING:
            return self._deliveries.setdefault(job.id, _Delivery()).rate(self._clock(), job)
        self._deliveries.pop(job.id, None)
        if job.state is JobState.RUNNING:
            return self._downloads.setdefault(job.id, _Download()).rate(self._clock(), job, flying)
        self._downloads.pop(job.id, None)
        return 0.0


def _found(
    seconds: float, before: JobStatus, known: set[int], job: JobStatus, flying: Iterable[Transfer]
) -> float:
    """Return the bytes that came since the look `before`, so many seconds ago, and were on disk already.

    A transfer that is new went on from them, except for what its own rate makes since its worker's last
    report. Bytes that no finished task brought were there when a file was split.
    """
    seconds = max(seconds, _PULSE)
    fresh = (each for each in flying if each.task not in known)
    resumed = sum(max(0.0, each.bytes_done - each.bytes_per_second * seconds) for each in fresh)
    split = max(0, job.bytes_done - before.bytes_done) if job.done == before.done else 0
    return resumed + split


def _trouble(workers: Sequence[WorkerStatus]) -> str:
    """Return why all workers claim nothing, "" if one does."""
    return _first([(worker.id, worker.trouble) for worker in workers])


def _nas_trouble(workers: Sequence[WorkerStatus]) -> str:
    """Return why no worker brings files to the NAS, "" if one does."""
    return _first([(worker.id, worker.nas_trouble) for worker in workers if worker.nas or worker.nas_trouble])


def _first(troubles: Sequence[tuple[str, str]]) -> str:
    """Return the first of the troubles if all workers have one, with its name if there are several."""
    if not troubles or not all(trouble for _, trouble in troubles):
        return ""
    name, trouble = troubles[0]
    return f"{name}: {trouble}" if len(troubles) > 1 else trouble


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
