"""Row: what a large fleet that has nothing to do costs Redis; these are real workers, in few processes.

It is watched from when it idles: the short claims with which a worker begins are over, and each worker has a
longer lease than usual, as Redis gives it to a large fleet that idles. Then it is watched for some beats
of each worker, for those who began together also beat together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from benchmarks.control_plane.setting import Line, Redis, Setting, judged
from benchmarks.waiting import Child, check_interrupted, until
from distributed_downloader import heartbeat
from distributed_downloader.redis_client import Limits
from distributed_downloader.redis_view import RedisView

#: Of a core.
_LIMIT = 0.01
#: Workers in one process.
_TOGETHER = 250
_START_SECONDS, _LOOK, _SLOW_MS = 300.0, 0.5, 5
#: Beats of each worker for which the fleet is watched, and seconds between two looks at whether it idles.
_ROUNDS, _LOOK_AT_ALL = 2, 2.0


def measure(setting: Setting) -> Iterator[Line]:
    """Yield the share of a core that Redis needs, and the commands that it gets."""
    with setting.redis() as redis:
        alone = _share(redis, min(3.0, setting.idle_seconds))
        children = _start(setting, redis)
        try:
            seconds = max(setting.idle_seconds, _ROUNDS * _settle(setting, redis))
            redis.watch(_SLOW_MS)
            share = _share(redis, seconds)
            commands = redis.commands()
        finally:
            for child in children:
                child.end()
    each = ", ".join(
        f"{name} {commands[name][0] / seconds:.1f}/s of {commands[name][1]:.0f} us"
        for name in ("brpoplpush", "evalsha")
        if name in commands
    )
    yield judged(
        f"idle fleet of {setting.workers:,} workers, over {seconds:.0f} s",
        f"{share:.2%} of a core of Redis ({alone:.2%} without any worker); {each}",
        f"<= {_LIMIT:.0%}",
        within=share <= _LIMIT,
    )


def _share(redis: Redis, seconds: float) -> float:
    """Watch for so long, and return the share of a core."""
    cpu, began = redis.cpu, time.monotonic()
    while time.monotonic() - began < seconds:
        check_interrupted()
        time.sleep(_LOOK)
    return (redis.cpu - cpu) / (time.monotonic() - began)


def _settle(setting: Setting, redis: Redis) -> float:
    """Wait until all idle, and return the seconds between two beats of one; 0 if the fleet is small."""
    lease = Limits().lease
    period = min(setting.workers / heartbeat._BEATS_AT_REST, Limits().longest_lease - lease / 2)
    if period <= lease / 2:
        return 0.0
    view, idle = RedisView(redis.queue), set[str]()

    def all_idle() -> bool:
        idle.update(worker.id for worker in view.workers() if worker.lease > lease)
        return len(idle) == setting.workers

    until(all_idle, "the workers to idle", _START_SECONDS, look=_LOOK_AT_ALL)
    return period


def _start(setting: Setting, redis: Redis) -> list[Child]:
    """Start all workers; returns when they wait for a task."""
    children = []
    for first in range(0, setting.workers, _TOGETHER):
        count = min(_TOGETHER, setting.workers - first)
        about = {"port": redis.server.port, "first": first, "count": count}
        children.append(setting.start("idlers", json.dumps(about), name=f"idlers-{first}"))

    def all_wait() -> bool:
        for child in children:
            child.check()
        return int(redis.info("clients")["blocked_clients"]) == setting.workers

    until(all_wait, "the workers", _START_SECONDS)
    return children
