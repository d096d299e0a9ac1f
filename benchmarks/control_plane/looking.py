"""Row: what one look of `status` costs with few tasks and with many, beside a large fleet.

It is taken in this process, as `status --watch` takes them: no start-up is in it.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from rich.console import Console

from benchmarks.control_plane.crowd import enter_fleet
from benchmarks.control_plane.filling import fill_evenly
from benchmarks.control_plane.setting import Line, Redis, Setting, judged
from benchmarks.waiting import BenchmarkError
from distributed_downloader.cli.lookout import Lookout
from distributed_downloader.display import picture
from distributed_downloader.display.canvas import Canvas, emit
from distributed_downloader.redis_view import RedisView

_LIMIT_MS = 50
#: How much more one look may cost where there are many tasks, for times are never equal.
_EQUAL = 1.3


def measure(setting: Setting) -> Iterator[Line]:
    """Yield a line for each number of tasks, and one that compares them; looks are interleaved."""
    amounts = (setting.few_tasks, setting.tasks)
    costs: list[list[_Cost]] = [[], []]
    with ExitStack() as stack:
        servers = [stack.enter_context(setting.redis()) for _ in amounts]
        for redis, tasks in zip(servers, amounts, strict=True):
            fill_evenly(redis.queue, setting.jobs, tasks)
        for redis in servers:  # now, for nobody extends their leases
            enter_fleet(redis.queue, setting.workers)
        for _ in range(setting.rounds):
            for redis, found in zip(servers, costs, strict=True):
                found.append(_look(redis, setting.workers))
    for tasks, found in zip(amounts, costs, strict=True):
        yield _line(setting, tasks, found)
    few, many = (statistics.median(cost.work for cost in found) for found in costs)
    title = f"such a look at {setting.tasks:,} tasks, over that at {setting.few_tasks:,}"
    yield judged(title, f"{many / few:.2f} x the work", "O(1)", within=many / few <= _EQUAL)


class _Cost:
    """One look: ms on the clock, and ms of work of `status` and of Redis."""

    def __init__(self, wall: float, ours: float, theirs: float) -> None:
        self.wall, self.ours, self.theirs = wall * 1000, ours * 1000, theirs * 1000
        self.work = self.ours + self.theirs


def _look(redis: Redis, workers: int) -> _Cost:
    console = Console(file=io.StringIO(), width=120)
    theirs, ours, wall = redis.cpu, time.process_time(), time.perf_counter()
    snapshot = Lookout(RedisView(redis.queue)).look()
    emit(console, picture.status(snapshot, Canvas.of(console)))
    cost = _Cost(time.perf_counter() - wall, time.process_time() - ours, redis.cpu - theirs)
    if len(snapshot.workers) != workers:
        raise BenchmarkError(f"{len(snapshot.workers)} of {workers} workers were seen, so it shows nothing")
    return cost


def _line(setting: Setting, tasks: int, found: list[_Cost]) -> Line:
    ours, theirs, wall = (
        statistics.median(getattr(cost, name) for cost in found) for name in ("ours", "theirs", "wall")
    )
    work = [cost.work for cost in found]
    return judged(
        f"`status` (one look of a process that runs: no start-up), {tasks:,} tasks, {setting.jobs} jobs, "
        f"{setting.workers:,} workers",
        f"{statistics.median(work):.1f} ms of work ({min(work):.1f} to {max(work):.1f}): {ours:.1f} ours, "
        f"{theirs:.1f} of Redis; {wall:.1f} ms on the clock",
        f"<= {_LIMIT_MS} ms",
        within=statistics.median(work) <= _LIMIT_MS,
    )
