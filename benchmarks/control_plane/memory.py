"""Row: what a queued task takes of Redis' memory, on each server that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.control_plane.filling import fill
from benchmarks.control_plane.setting import Line, Setting, judged

_LIMIT = 220


def measure(setting: Setting) -> Iterator[Line]:
    """Yield a line for each server."""
    for binary in setting.servers:
        with setting.redis(binary) as redis:
            before = redis.memory
            fill(redis.queue, 0, setting.tasks)
            each = (redis.memory - before) / setting.tasks
            yield judged(
                f"memory a task, {binary.name}, paths of 44, sha256",
                f"{each:.0f} bytes",
                f"<= {_LIMIT} bytes",
                within=each <= _LIMIT,
            )
