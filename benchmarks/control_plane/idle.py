"""Row: what a large fleet that has nothing to do costs Redis; these are real workers, in few processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from benchmarks.control_plane.setting import Line, Redis, Setting, judged
from benchmarks.waiting import Child, check_interrupted, until

#: Of a core.
_LIMIT = 0.01
#: Workers in one process.
_TOGETHER = 250
_START_SECONDS, _LOOK, _SLOW_MS = 300.0, 0.5, 5


def measure(setting: Setting) -> Iterator[Line]:
    """Yield the share of a core that Redis needs, and the commands that it gets."""
    with setting.redis() as redis:
        alone = _share(redis, min(3.0, setting.idle_seconds))
        children = _start(setting, redis)
        try:
            redis.watch(_SLOW_MS)
            share = _share(redis, setting.idle_seconds)
            commands = redis.commands()
        finally:
            for child in children:
                child.end()
    each = ", ".join(
        f"{name} {commands[name][0] / setting.idle_seconds:.0f}/s"
        for name in ("brpoplpush", "evalsha")
        if name in commands
    )
    yield judged(
        f"idle fleet of {setting.workers:,} workers, over {setting.idle_seconds:.0f} s",
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
