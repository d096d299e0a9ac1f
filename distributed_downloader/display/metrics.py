"""What Prometheus gets: models in, metric families out; docs/operations.md lists them.

Names and units follow https://prometheus.io/docs/practices/naming/. What may become less (bytes of a file
that was damaged, tasks that are queued again) is a gauge. Labels are bounded: no paths, no hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from distributed_downloader.display import units
from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import JobState, TaskStatus

if TYPE_CHECKING:
    from distributed_downloader.redis_metrics import FleetMetrics

PREFIX = "hf_downloader_"
_JOB = ("job", "repo")


class _Number(NamedTuple):
    """One number of each job; None where it has none."""

    name: str
    meaning: str
    of: Callable[[JobProgress], float | None]


_NUMBERS = (
    _Number("job_files", "Files, as far as they are listed.", lambda each: each.job.files),
    _Number("job_files_done", "Files that are complete and verified.", lambda each: each.job.files_done),
    _Number(
        "job_size_bytes", "Bytes of all files, as far as they are listed.", lambda each: each.job.bytes_total
    ),
    _Number("job_done_bytes", "Bytes of finished files and parts.", lambda each: each.job.bytes_done),
    _Number(
        "job_present_bytes",
        "The same, and of those in flight as far as they are.",
        lambda each: each.bytes_now,
    ),
    _Number(
        "job_rate_bytes_per_second",
        "Speed of the download, or the delivery, as `status` shows it.",
        lambda each: each.rate,
    ),
    _Number(
        "job_nas_owed_files", "Files that are complete and not on the NAS yet.", lambda each: each.job.owed
    ),
    _Number("job_nas_files", "Files that are on the NAS.", lambda each: each.job.delivered),
    _Number("job_nas_bytes", "Bytes that are on the NAS.", lambda each: each.job.bytes_delivered),
    _Number("job_listed", "Whether the listing is complete.", lambda each: each.job.listed),
    _Number(
        "job_blocked", "Whether no living worker can go on with it.", lambda each: bool(each.job.blocked)
    ),
    _Number("job_created_timestamp_seconds", "When it was made.", lambda each: each.job.created_at),
    _Number("job_ended_timestamp_seconds", "When it ended.", lambda each: each.job.ended_at),
)


def redis_up(up: bool) -> Metric:
    """Return whether Redis answers: all that there is to say when it does not."""
    return _gauge("redis_up", "Whether Redis answers.", up)


def families(look: FleetMetrics, jobs: Sequence[JobProgress]) -> Iterator[Metric]:
    """Yield all families of one look; `jobs` are its jobs, measured."""
    yield from _of_fleet(look)
    yield from _of_jobs(jobs)
    names = {each.job.id: _labels(each) for each in jobs}
    age = _family("job_queue_age_seconds", "How long the task that is next in line has waited.", _JOB)
    for job, seconds in look.ages.items():
        if job in names:
            age.add_metric(names[job], seconds)
    yield age
    tries = CounterMetricFamily(
        f"{PREFIX}job_failed_tries", "Tries that went wrong, by kind of error.", labels=(*_JOB, "reason")
    )
    for job, counts in look.failed_tries.items():
        for reason, count in counts.items():
            tries.add_metric([*names[job], reason], count)
    yield tries


def _of_fleet(look: FleetMetrics) -> Iterator[Metric]:
    queue, workers = look.queue, look.workers
    troubled = sum(bool(worker.trouble) for worker in workers)
    transfers = sum(len(worker.transfers) for worker in workers)
    speed = sum(each.bytes_per_second for worker in workers for each in worker.transfers)
    states = {state.value: queue.jobs.get(state.value, 0) for state in JobState}
    places = {"ready": queue.ready, "delayed": queue.delayed, "parked": queue.parked}
    yield _gauge("redis_full", "Whether Redis takes nothing new, for its memory is full.", queue.full)
    yield _each(
        "workers",
        "Living workers: well, or at rest because of a trouble.",
        "state",
        {
            "well": len(workers) - troubled,
            "troubled": troubled,
        },
    )
    yield _gauge("slots", "Slots of all workers.", queue.slots)
    yield _gauge("transfers", "Transfers that run.", transfers)
    yield _gauge("transfers_bytes_per_second", "Speed of all transfers, as their workers report it.", speed)
    yield _each("jobs", "Jobs that Redis knows, also those that ended long ago.", "state", states)
    yield _each("queue_tasks", "Tasks that all jobs share a place for.", "place", places)
    yield _gauge("queue_age_seconds", "Longest wait of a task that is next in line.", look.age)
    yield _each("hub_pause_seconds", "Rest of the pause that a hub asked for.", "hub", queue.pauses)


def _of_jobs(jobs: Sequence[JobProgress]) -> Iterator[Metric]:
    for number in _NUMBERS:
        family = _family(number.name, number.meaning, _JOB)
        for each in jobs:
            if (value := number.of(each)) is not None:
                family.add_metric(_labels(each), value)
        yield family
    state = _family("job_state", "1 for the state that the job is in, 0 for the others.", (*_JOB, "state"))
    tasks = _family("job_tasks", "Whole files, parts of files, and seals.", (*_JOB, "state"))
    for each in jobs:
        for known in JobState:
            state.add_metric([*_labels(each), known.value], each.job.state is known)
        for place in TaskStatus:
            tasks.add_metric([*_labels(each), place.value], getattr(each.job, place.value))
    yield from (state, tasks)


def _labels(each: JobProgress) -> list[str]:
    return [str(each.job.id), units.repo(each.job.spec)]


def _family(name: str, meaning: str, labels: Iterable[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}{name}", meaning, labels=list(labels))


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", meaning, value=value)


def _each(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = _family(name, meaning, [label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family
