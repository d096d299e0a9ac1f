"""Row: a large job is paused, resumed, cancelled and forgotten, in a fleet whose window is full."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

from benchmarks.control_plane.crowd import enter_fleet
from benchmarks.control_plane.filling import fill
from benchmarks.control_plane.setting import Line, Redis, Setting, judged

_LIMIT_MS, _SLOW_MS = 100, 20


def measure(setting: Setting) -> Iterator[Line]:
    """Yield a line for each thing that a person may ask, and one for what Redis found slow."""
    times: dict[str, list[float]] = defaultdict(list)
    with setting.redis() as redis:
        enter_fleet(redis.queue, setting.workers)
        slow = []
        for number in range(setting.rounds):
            job = fill(redis.queue, number, setting.job_tasks)
            redis.watch(_SLOW_MS)
            for name, milliseconds in _round(redis, job):
                times[name].append(milliseconds)
            slow += redis.slow()
    for name, each in times.items():
        figures = f"median {statistics.median(each):.1f}, {min(each):.1f} to {max(each):.1f} ms"
        title = f"a job of {setting.job_tasks:,} tasks is {name}"
        yield judged(title, figures, f"<= {_LIMIT_MS} ms", within=max(each) <= _LIMIT_MS)
    said = f"{len(slow)} commands" + (f": {', '.join(slow[:5])}" if slow else "")
    yield judged(f"meanwhile in Redis, over {_SLOW_MS} ms", said, "none", within=not slow)


def _round(redis: Redis, job: int) -> Iterator[tuple[str, float]]:
    control = redis.queue.control
    yield "paused", _milliseconds(lambda: control("pause", job))
    yield "resumed", _milliseconds(lambda: control("resume", job))
    yield "cancelled", _milliseconds(lambda: control("cancel", job))
    yield "forgotten", _milliseconds(lambda: redis.queue.forget(job))


def _milliseconds(ask: Callable[[], bool]) -> float:
    began = time.perf_counter()
    if not ask():
        raise AssertionError("the job is not as it was asked to be")
    return (time.perf_counter() - began) * 1000
