"""Looks at Redis, once or again and again, and makes snapshots of what it finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from distributed_downloader.display.snapshot import Silence, Snapshot
from distributed_downloader.display.speed import Speedometer
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.models import Failure, JobState, JobStatus, WorkerStatus
from distributed_downloader.outage import Absence

if TYPE_CHECKING:
    from distributed_downloader.display.progress import Viewer
    from distributed_downloader.redis_view import RedisView
    from distributed_downloader.redis_waiting import NextTry

#: Failures shown of one job that was asked for; of each job where all are shown; and of all together.
OF_ONE, OF_EACH, OF_ALL = 20, 5, 50
#: The same of what waits for its next try.
WAITING_OF_ONE, WAITING_OF_EACH = 10, 3
#: Seconds for which a time without Redis is worth a line.
NEWS = 600


class Lookout:
    """Looks at everything, or at the jobs that `target` (a job id or a repo) names."""

    def __init__(self, view: RedisView, target: str | None = None) -> None:
        self._view, self._target = view, target
        self._speedometer = Speedometer()

    def look(self) -> Snapshot:
        """Return what is there now; raises UnknownJobError and RedisUnavailableError."""
        jobs = self._view.find(self._target) if self._target else self._view.jobs()
        workers = self._view.workers()
        queue = None if self._target else self._view.queue(jobs)
        return Snapshot(
            jobs=self._speedometer.measure(jobs, workers),
            failures=self._failures(jobs),
            workers=_busy_with(jobs, workers) if self._target else workers,
            queue=queue,
            waiting=self._waiting(jobs),
            pauses=queue.pauses if queue else self._view.pauses(jobs),
            budgets=self._view.budgets(jobs),
            full=queue.full if queue else self._view.full(),
            absence=_recent(worker.absence for worker in workers if not _made_up_for(worker.absence, jobs)),
        )

    def _waiting(self, jobs: list[JobStatus]) -> list[tuple[int, NextTry]]:
        ids = {job.id for job in jobs if not job.state.ended}
        return self._view.next_tries(ids, WAITING_OF_ONE if self._target else WAITING_OF_EACH)[:OF_ALL]

    def _failures(self, jobs: list[JobStatus]) -> list[tuple[int, Failure]]:
        found: list[tuple[int, Failure]] = []
        for job in jobs:
            if job.failed and len(found) < OF_ALL:
                limit = OF_ONE if self._target else OF_EACH
                found += [(job.id, failure) for failure in self._view.failures(job.id, limit)]
        return found


def _recent(absences: Iterable[Absence | None]) -> Absence | None:
    """Return the last time without Redis, unless that is long ago."""
    recent = [each for each in absences if each and abs(time.time() - each.back_at) <= NEWS]
    return max(recent, key=lambda each: (each.lost, each.back_at), default=None)


def _made_up_for(absence: Absence | None, jobs: Iterable[JobStatus]) -> bool:
    """Whether Redis lost its data, and somebody has queued something since, as they were asked to."""
    if not absence or not absence.lost:
        return False
    return any(job.created_at >= absence.back_at - absence.seconds for job in jobs)


def _busy_with(jobs: list[JobStatus], workers: list[WorkerStatus]) -> list[WorkerStatus]:
    ids = {job.id for job in jobs}
    return [worker for worker in workers if any(transfer.job in ids for transfer in worker.transfers)]


class Patient:
    """Looks as `look` does, and where Redis goes away meanwhile, shows what was last seen, and says so."""

    def __init__(self, look: Callable[[], Snapshot], address: str) -> None:
        self._look, self._address = look, address
        self._last: Snapshot | None = None
        self._silence: Silence | None = None
        #: The last time without Redis that was seen here.
        self._absence: Absence | None = None

    def look(self) -> Snapshot:
        """Return what is there now, or was when Redis last answered; raises as the first look does."""
        try:
            found = self._look()
        except RedisUnavailableError as error:
            if self._last is None:
                raise
            since = self._silence.since if self._silence else time.time()
            self._silence = Silence(since, str(error), self._address)
            self._last = self._last.silent(self._silence)
            return self._last
        if self._silence is not None:
            now = time.time()
            self._absence = Absence(back_at=now, seconds=max(0.0, now - self._silence.since))
            self._silence = None
        self._last = replace(found, absence=self._news(found.absence))
        return self._last

    def _news(self, told: Absence | None) -> Absence | None:
        """Choose between what was seen here and what a worker tells: it may know more."""
        return told if told and told.lost else _recent([self._absence]) or told


def follow(look: Callable[[], Snapshot], view: Viewer, interval: float, *, until_ended: bool) -> Snapshot:
    """Show look after look, every `interval` seconds, until all jobs have ended if that is wanted."""
    while True:
        snapshot = look()
        view(snapshot)
        if until_ended and not snapshot.silence and all(each.job.state.ended for each in snapshot.jobs):
            return snapshot
        time.sleep(interval)


def important_first(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with what runs at the top and what ended last before what ended long ago."""
    jobs = sorted(
        snapshot.jobs, key=lambda each: (each.job.state.ended, -(each.job.ended_at or 0), each.job.id)
    )
    return replace(snapshot, jobs=jobs)


def exit_code(snapshot: Snapshot) -> int:
    """Return 0 if all jobs are done, else 1."""
    return int(any(each.job.state is not JobState.DONE for each in snapshot.jobs))
