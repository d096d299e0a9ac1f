"""Row: a thousand workers take a million tasks, as fast as Redis and this machine let them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator

from benchmarks.control_plane.filling import SIZE, fill_evenly
from benchmarks.control_plane.setting import Line, Redis, Setting, judged
from benchmarks.waiting import BenchmarkError, Child, until
from distributed_downloader.config.sections import AppSection
from distributed_downloader.models import JobState, Transfer, WorkerStatus
from distributed_downloader.redis_client import RedisClient, Settled
from distributed_downloader.redis_view import RedisView
from tests.queue import invariants

_PER_SECOND, _LIMIT_MS = 10_000, 5
_START_SECONDS, _LONGEST = 120.0, 3600.0
#: Of each worker.
SLOTS = AppSection().concurrency
#: Processes that speak for the workers: one core is Redis'.
_DRIVERS = max(1, min(4, (os.cpu_count() or 2) - 1))


def status_of(number: int) -> WorkerStatus:
    """Return what a busy worker says of itself."""
    path = f"data/shard-{number:05}/file-{number:014}.parquet"
    transfer = Transfer(job=1, task=number, path=path, size=SIZE, bytes_done=SIZE // 2, bytes_per_second=1e6)
    return WorkerStatus(
        id=f"host-{number}:{number}",
        host=f"host-{number}",
        pid=number,
        version="0",
        slots=SLOTS,
        started_at=time.time(),
        transfers=(transfer,),
    )


def enter_fleet(queue: RedisClient, count: int) -> None:
    """Let so many workers join."""
    for number in range(count):
        queue.register(status_of(number))


def measure(setting: Setting) -> Iterator[Line]:
    """Yield how many tasks were finished a second, how long Redis took for each, and whether all is right."""
    with setting.redis() as redis:
        jobs = fill_evenly(redis.queue, setting.jobs, setting.tasks, paused=True)
        drivers = _start(setting, redis)
        try:
            seconds, cpu = _run(redis, jobs, drivers)
            told = [json.loads(_told(driver)) for driver in drivers]
        finally:
            for driver in drivers:
                driver.end()
        yield _rate(setting, seconds, cpu, sum(each["cpu"] for each in told))
        yield from _latencies(setting, redis, sum((Counter(each["calls"]) for each in told), Counter()))
        answers: Counter[str] = sum((Counter(each["answers"]) for each in told), Counter())
        yield _truth(setting, redis, jobs, answers)


def _start(setting: Setting, redis: Redis) -> list[Child]:
    """Start the drivers; returns when all workers wait for a task."""
    drivers: list[Child] = []
    share = -(-setting.workers // _DRIVERS)
    for first in range(0, setting.workers, share):
        count = min(share, setting.workers - first)
        about = {"port": redis.server.port, "first": first, "count": count, "workers": setting.workers}
        drivers.append(setting.start("driver", json.dumps(about), name=f"driver-{first}"))

    def all_wait() -> bool:
        for driver in drivers:
            driver.check()
        return int(redis.info("clients")["blocked_clients"]) == setting.workers

    until(all_wait, "the workers", _START_SECONDS)
    return drivers


def _run(redis: Redis, jobs: list[int], drivers: list[Child]) -> tuple[float, float]:
    """Return the seconds from the first task to the last, and those of Redis' processor time."""
    redis.watch(_LIMIT_MS)
    cpu, began = redis.cpu, time.time()
    for job in jobs:
        redis.queue.control("resume", job)

    def all_ended() -> bool:
        for driver in drivers:
            driver.check()
        return redis.queue.commands.zcard(redis.queue.key("ended")) == len(jobs)

    until(all_ended, "the end of all jobs", _LONGEST)
    cpu = redis.cpu - cpu
    view = RedisView(redis.queue)
    return max(view.job(job).ended_at or 0 for job in jobs) - began, cpu


def _told(driver: Child) -> str:
    driver.ask()
    return driver.result(_START_SECONDS)


def _rate(setting: Setting, seconds: float, redis_cpu: float, drivers_cpu: float) -> Line:
    rate = setting.tasks / seconds
    return judged(
        f"{setting.workers:,} workers, {setting.tasks:,} tasks, {setting.jobs} jobs: finished tasks",
        f"{rate:,.0f}/s in {seconds:.1f} s; {redis_cpu / setting.tasks * 1e6:.0f} us of Redis each "
        f"({redis_cpu / seconds:.0%} of a core); what plays the workers takes {drivers_cpu / seconds:.0%}",
        f">= {_PER_SECOND:,}/s",
        within=rate >= _PER_SECOND,
    )


def _latencies(setting: Setting, redis: Redis, calls: Counter[str]) -> Iterator[Line]:
    slow = redis.slow()
    said = f"over {_LIMIT_MS} ms: {len(slow)}" + (f" ({', '.join(slow[:3])})" if slow else "")
    commands = redis.commands()
    title = "the same: a script in Redis (every EVALSHA: transitions, heartbeats, housekeeping)"
    if percentiles := redis.percentiles("evalsha"):
        shown = ", ".join(f"{name} {value / 1000:.3f} ms" for name, value in percentiles.items())
        within = percentiles["p99"] <= _LIMIT_MS * 1000
        yield judged(title, f"{shown}; {said}", f"p99 <= {_LIMIT_MS} ms", within=within)
    else:
        yield Line(title, f"mean {commands['evalsha'][1] / 1000:.3f} ms (no percentiles here); {said}")
    shown = ", ".join(f"{name} {commands[name][0]:,}" for name in ("brpoplpush", "evalsha"))
    handfuls = ", ".join(f"{name} {count:,}" for name, count in sorted(calls.items()))
    inner = sum(count for count, _ in commands.values()) / setting.tasks
    yield Line("the same: commands", f"{shown} ({handfuls}); {inner:.1f} a task in Redis, scripts' included")


def _truth(setting: Setting, redis: Redis, jobs: list[int], answers: Counter[str]) -> Line:
    """Raise BenchmarkError if a task was lost, or done twice."""
    view, commands = RedisView(redis.queue), redis.queue.commands
    for job in map(view.job, jobs):
        bits = commands.bitcount(redis.queue.key(f"job:{job.id}:done"))
        counted = (job.state, job.done, bits, job.bytes_done)
        if counted != (JobState.DONE, job.total, job.total, job.bytes_total):
            raise BenchmarkError(f"job {job.id} has {job.total} tasks, and ended as {counted}")
    if answers != {Settled.DONE.name: setting.tasks}:
        raise BenchmarkError(f"the reports of {setting.tasks} tasks were answered with {dict(answers)}")
    invariants.check(invariants.take(commands, redis.queue.namespace))
    said = "none: each report counted once, counters and bitmaps exact, all invariants hold"
    return judged("the same: tasks lost or done twice", said, "none", within=True)
