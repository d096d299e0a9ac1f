"""Row: how many empty tasks one worker process gets through, with its own code from claim to report."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.control_plane.filling import fill
from benchmarks.control_plane.setting import Line, Redis, Setting, judged
from distributed_downloader.config.sections import AppSection
from distributed_downloader.models import JobState
from distributed_downloader.redis_view import RedisView

_PER_SECOND = 5_000
_LONGEST = 600.0


@dataclass(frozen=True)
class _Round:
    rate: float
    #: Microseconds of processor time for a task.
    ours: float
    theirs: float


def measure(setting: Setting) -> Iterator[Line]:
    """Yield the tasks a second."""
    with setting.redis() as redis:
        rounds = [_round(setting, redis, number) for number in range(setting.rounds)]
    rates = [each.rate for each in rounds]
    ours, theirs = (statistics.median(getattr(each, name) for each in rounds) for name in ("ours", "theirs"))
    yield judged(
        f"one worker process, {_slots()} slots, {setting.worker_tasks:,} empty tasks",
        f"median {statistics.median(rates):,.0f}/s, {min(rates):,.0f} to {max(rates):,.0f}/s; "
        f"{ours:.0f} us of the worker and {theirs:.0f} us of Redis a task",
        f">= {_PER_SECOND:,}/s",
        within=statistics.median(rates) >= _PER_SECOND,
    )


def _slots() -> int:
    return AppSection().concurrency


def _round(setting: Setting, redis: Redis, number: int) -> _Round:
    job = fill(redis.queue, number, setting.worker_tasks)
    cpu = redis.cpu
    about = json.dumps({"port": redis.server.port, "slots": _slots()})
    child = setting.start("single", about, name=f"single-{number}")
    try:
        told = json.loads(child.result(_LONGEST))
    finally:
        child.end()
    if RedisView(redis.queue).job(job).state is not JobState.DONE or told["tasks"] != setting.worker_tasks:
        raise AssertionError(f"{told['tasks']} of {setting.worker_tasks} tasks were run")
    tasks = setting.worker_tasks
    return _Round(tasks / told["wall"], told["cpu"] / tasks * 1e6, (redis.cpu - cpu) / tasks * 1e6)
