"""All of a Redis at one moment, to which it can be brought back, as if it had lost its last steps."""

from __future__ import annotations

from typing import Any

import redis

Saved = list[tuple[bytes, int, bytes]]


def save(client: redis.Redis) -> Saved:
    """Return all keys, each with the Unix time in ms at which it goes (0 = never)."""
    with _raw(client) as raw:
        keys: Any = raw.keys("*")
        seconds, microseconds = raw.time()
        now = int(seconds) * 1000 + int(microseconds) // 1000
        pipe = raw.pipeline(transaction=True)
        for key in keys:
            pipe.pttl(key)
            pipe.dump(key)
        answers = pipe.execute()
    rows = zip(keys, answers[::2], answers[1::2], strict=True)
    return [(key, now + ttl if ttl > 0 else 0, value) for key, ttl, value in rows if value is not None]


def restore(client: redis.Redis, saved: Saved) -> None:
    """Bring a Redis back to what it was."""
    with _raw(client) as raw, raw.pipeline(transaction=True) as pipe:
        pipe.flushall()
        for key, at, value in saved:
            pipe.restore(key, at, value, absttl=bool(at))
        pipe.execute()


def _raw(client: redis.Redis) -> redis.Redis:
    """Return a client that does not decode what it gets."""
    path = client.connection_pool.connection_kwargs["path"]
    return redis.Redis(unix_socket_path=path)
