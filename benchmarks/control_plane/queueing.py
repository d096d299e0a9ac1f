"""Row: `hf-downloader master` queues a repo of many files that a hub lists; hub and Redis are beside it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import psutil

from benchmarks.control_plane.listing import REPO
from benchmarks.control_plane.setting import Line, Redis, Setting, judged
from benchmarks.costs import Cost, Measured
from benchmarks.waiting import Child, environment, until

_PER_SECOND, _FIRST_SECONDS, _MEMORY_MIB = 20_000, 2.0, 150
_START_SECONDS, _LONGEST = 60.0, 3600.0


def measure(setting: Setting) -> Iterator[Line]:
    """Yield what the whole of it took, when it could begin, and what it took of memory."""
    hub = setting.start("listing", str(setting.tasks))
    try:
        endpoint = until(lambda: _told(hub), "the hub", _START_SECONDS)
        with setting.redis() as redis:
            before, redis_before = _cpu_of(hub), redis.cpu
            first, cost = _queue(setting, redis, endpoint)
            beside = f"hub {_cpu_of(hub) - before:.1f} s, Redis {redis.cpu - redis_before:.1f} s beside it"
            queued = redis.queue.listed(1)
    finally:
        hub.end()
    if (queued[0], queued[2]) != (setting.tasks, True):
        raise AssertionError(f"{queued[0]} of {setting.tasks} files were queued")
    yield from _lines(setting, first, cost, beside)


def _told(hub: Child) -> str:
    hub.check()
    return hub.output.strip()


def _cpu_of(child: Child) -> float:
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)


def _queue(setting: Setting, redis: Redis, endpoint: str) -> tuple[float, Cost]:
    """Return the seconds until a worker could claim a task, and what the master took."""
    ini = setting.folder / "master.ini"
    ini.write_text(
        f"[redis]\nurl = {redis.config.url.get_secret_value()}\n[huggingface]\nendpoint = {endpoint}\n"
    )
    words = [sys.executable, "-m", "distributed_downloader", "--config", str(ini), "master", REPO]
    ready = redis.queue.key("ready")
    home = environment(HOME=str(setting.folder), HF_HOME=str(setting.folder / "hf-home"))
    began = time.monotonic()
    master = Measured(words, folder=setting.folder, name="master", environ=home)
    try:
        until(lambda: bool(redis.queue.commands.llen(ready)), "the first task", _START_SECONDS)
        first = time.monotonic() - began
        return first, master.cost(_LONGEST)
    finally:
        master.end()


def _lines(setting: Setting, first: float, cost: Cost, beside: str) -> Iterator[Line]:
    title = f"queue a repo of {setting.tasks:,} files"
    rate = setting.tasks / cost.cpu
    yield judged(
        f"{title}: files a second of the master's processor time",
        f"{rate:,.0f}/s ({cost.cpu:.1f} s of processor time; {setting.tasks / cost.wall:,.0f}/s on the clock "
        f"in {cost.wall:.1f} s; {beside})",
        f">= {_PER_SECOND:,}/s",
        within=rate >= _PER_SECOND,
    )
    within = first <= _FIRST_SECONDS
    yield judged(
        f"{title}: first task can be claimed",
        f"after {first:.2f} s",
        f"<= {_FIRST_SECONDS:.0f} s",
        within=within,
    )
    memory = cost.rss / 2**20
    yield judged(
        f"{title}: master's memory at most",
        f"{memory:.0f} MiB",
        f"<= {_MEMORY_MIB} MiB",
        within=memory <= _MEMORY_MIB,
    )
