"""What `metrics` reads: the whole fleet in counters, in a few round trips, however many files there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from distributed_downloader.checks import number_or
from distributed_downloader.errors import RefusedError, kinds
from distributed_downloader.models import JobState, JobStatus, Token, WorkerStatus
from distributed_downloader.queue_terms import QueueStatus
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import translated
from distributed_downloader.redis_view import RedisView

#: Seconds for which a job that has ended is still counted by itself.
_NEWS = 24 * 3600
#: Why tries went wrong: kinds of errors, their worker was lost, or nobody could read what Redis held of it.
_REASONS = sorted(kinds() | {"lost", "other"})


@dataclass(frozen=True)
class FleetMetrics:
    """The fleet at one moment."""

    #: Those that have not ended, or did so a day ago at most.
    jobs: Sequence[JobStatus]
    workers: Sequence[WorkerStatus]
    queue: QueueStatus
    #: Tries that went wrong: job -> reason -> how many.
    failed_tries: Mapping[int, Mapping[str, int]]
    #: Seconds for which the task that is next in line of a job has waited there.
    ages: Mapping[int, float]
    #: The longest of these, of jobs that run and of what lies ready; 0 where nothing waits.
    age: float


class RedisMetrics:
    """Reads one Redis."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._view = RedisView(client)

    def look(self) -> FleetMetrics:
        """Return what is there now; raises RedisUnavailableError."""
        every = self._view.jobs()
        queue, workers = self._view.queue(every), self._view.workers()
        waiting = [job.id for job in every if not job.state.ended and job.pending]
        with translated(self._client.address), self._client.commands.pipeline(transaction=False) as pipe:
            pipe.time()
            for name in ("ready", *(f"job:{job}:pending" for job in waiting)):
                pipe.lrange(self._client.key(name), -1, -1)
            (now, _), ready, *nexts = pipe.execute()
            jobs = [job for job in every if not job.ended_at or now - job.ended_at < _NEWS]
            for job in jobs:
                pipe.hmget(self._client.key(f"job:{job.id}:reasons"), _REASONS)
            reasons = pipe.execute()
        ages = {job: _age(tokens, now) for job, tokens in zip(waiting, nexts, strict=True)}
        runs = [ages.get(job.id, 0.0) for job in jobs if job.state is JobState.RUNNING]
        return FleetMetrics(
            jobs=jobs,
            workers=workers,
            queue=queue,
            failed_tries={job.id: _counts(found) for job, found in zip(jobs, reasons, strict=True)},
            ages=ages,
            age=max([_age(ready, now), *runs]),
        )


def _age(tokens: Iterable[str], now: int) -> float:
    """Return the age of a token: its epoch is the time at which it was put there; 0 without one."""
    try:
        return max((max(0.0, now - Token.parse(token).epoch / 1000) for token in tokens), default=0.0)
    except RefusedError:
        return 0.0


def _counts(found: Sequence[str | None]) -> dict[str, int]:
    """Return the counters of the reasons that there were."""
    numbers = {reason: number_or(text, 0) for reason, text in zip(_REASONS, found, strict=True)}
    return {reason: count for reason, count in numbers.items() if count}
