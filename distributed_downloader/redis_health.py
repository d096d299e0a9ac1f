"""How well a Redis suits us: its version, what it does with what it is given, its memory, speed and clock."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import redis

from distributed_downloader.display import units
from distributed_downloader.errors import ConfigError
from distributed_downloader.findings import Finding, Subject, Verdict
from distributed_downloader.redis_connection import Answer, translated

if TYPE_CHECKING:
    from distributed_downloader.config import RedisConfig
    from distributed_downloader.models import WorkerStatus
    from distributed_downloader.redis_client import RedisClient

REDIS = Subject("redis")
_OLDEST_SERVER = (6, 0)
#: Calls whose median is the latency, and seconds from which on it is worth a word.
_CALLS, _SLOW = 5, 0.1
#: Parts of the memory, and of the connections, from which on they are nearly used up.
_NEARLY_FULL = 0.9
#: Seconds that a clock may differ, and those from which on it can be told.
_CLOCK, _PRECISION = 60.0, 0.1

#: What INFO tells.
About: TypeAlias = "dict[str, Any]"


def check_server(client: redis.Redis, address: str) -> list[str]:
    """Return warnings about a server; raises RedisUnavailableError, ConfigError if it is too old."""
    with translated(address):
        client.ping()
        about: Answer = client.info()
    version = _version(about, address)
    if version.verdict is Verdict.BROKEN:
        raise ConfigError(version.advice)
    return [
        finding.advice
        for finding in (_eviction(about, address), _persistence(about, address))
        if finding.advice
    ]


class RedisHealth:
    """Examines the Redis of the settings."""

    def __init__(self, config: RedisConfig) -> None:
        self._config = config
        #: The living workers; None as long as nobody could ask.
        self.workers: list[WorkerStatus] | None = None

    def findings(self) -> Iterator[Finding]:
        """Yield what is found; raises RedisUnavailableError, and ConfigError for what [redis] cannot mean."""
        from distributed_downloader.redis_client import RedisClient  # noqa: PLC0415 - which needs this module

        client = RedisClient(self._config)
        try:
            yield from self._examine(client)
        finally:
            client.close()

    def _examine(self, client: RedisClient) -> Iterator[Finding]:
        address = client.address
        with (
            translated(address),
            suppress(redis.exceptions.NoPermissionError),
        ):  # told of with the other rights
            client.commands.ping()
        yield from REDIS.attempt("server", _server(client.commands, address))
        yield from REDIS.attempt("latency", _speed_and_clock(client.commands, address))
        yield from REDIS.attempt("rights", _rights(self._config, client))
        yield from REDIS.attempt("workers", self._fleet(client))

    def _fleet(self, client: RedisClient) -> Iterator[Finding]:
        from distributed_downloader.redis_view import RedisView  # noqa: PLC0415 - takes a while

        self.workers = RedisView(client).workers()
        yield REDIS.good("workers", units.count(len(self.workers), "living worker"))


def _server(client: redis.Redis, address: str) -> Iterator[Finding]:
    """Yield what a server says of itself."""
    with translated(address):
        about: Answer = client.info()
    yield _version(about, address)
    yield _role(about, address)
    yield _memory(about, address)
    yield _eviction(about, address)
    yield _persistence(about, address)
    yield _connections(about, address)


def _version(about: About, address: str) -> Finding:
    version = str(about.get("redis_version", ""))
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST_SERVER:
        return REDIS.broken(
            "server", version, f"Redis at {address} is version {version}; this needs 6.0 or newer"
        )
    name = f"Valkey {about['valkey_version']}" if "valkey_version" in about else f"Redis {version}"
    return REDIS.good("server", f"{name} at {address}")


def _role(about: About, address: str) -> Finding:
    if about.get("role") != "slave":
        return REDIS.good("role", "primary")
    advice = (
        f"Redis at {address} is a read-only replica, if only for the moment: [redis] must name the primary"
    )
    return REDIS.broken("role", "replica", advice)


def _memory(about: About, address: str) -> Finding:
    most = int(about.get("maxmemory", 0))
    used = int(about.get("used_memory", 0))
    counted = used - int(about.get("mem_not_counted_for_evict", 0))
    value = f"{units.sizes(used, most)} used" if most else f"{units.size(used)} used, no limit"
    if most and counted > most:
        return REDIS.broken("memory", value, f"Redis at {address} is full: raise its maxmemory")
    if most and counted > most * _NEARLY_FULL:
        return REDIS.warning("memory", value, f"Redis at {address} is nearly full: raise its maxmemory")
    return REDIS.good("memory", value)


def _eviction(about: About, address: str) -> Finding:
    policy = about.get("maxmemory_policy")
    if policy == "noeviction":
        return REDIS.good("eviction", policy)
    return REDIS.warning(
        "eviction",
        str(policy),
        f"Redis at {address} throws the queue away when its memory is full (maxmemory-policy is "
        f"{policy}): set it to noeviction",
    )


def _persistence(about: About, address: str) -> Finding:
    if "err" in (about.get("aof_last_write_status"), about.get("rdb_last_bgsave_status")):
        advice = f"Redis at {address} cannot write to its own disk; its log says why"
        return REDIS.warning("persistence", "fails", advice)
    if about.get("aof_enabled"):
        return REDIS.good("persistence", "appendonly")
    advice = f"Redis at {address} forgets the last minutes when it is restarted: set appendonly to yes"
    return REDIS.warning("persistence", "no appendonly", advice)


def _connections(about: About, address: str) -> Finding:
    used, most = int(about.get("connected_clients", 0)), int(about.get("maxclients", 0))
    if most and used > most * _NEARLY_FULL:
        advice = f"Redis at {address} soon takes no more connections: raise its maxclients"
        return REDIS.warning("connections", f"{used:,} of {most:,}", advice)
    return REDIS.good("connections", f"{used:,} of {most:,}" if most else f"{used:,}")


def _speed_and_clock(client: redis.Redis, address: str) -> Iterator[Finding]:
    """Yield how long a call takes, and how far our clock is from the server's."""
    took, ahead = list[float](), list[float]()
    for _ in range(_CALLS):
        asked_at, started = time.time(), time.perf_counter()
        with translated(address):
            answer: Answer = client.time()
        took.append(time.perf_counter() - started)
        ahead.append(asked_at + took[-1] / 2 - (answer[0] + answer[1] / 1e6))
    yield _latency(_middle(took), address)
    yield _clock(_middle(ahead))


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _latency(seconds: float, address: str) -> Finding:
    value = f"{1000 * seconds:.1f} ms"
    if seconds < _SLOW:
        return REDIS.good("latency", value)
    return REDIS.warning(
        "latency",
        value,
        f"Redis at {address} takes long to answer, and each small file takes a call or two: is it "
        "overloaded, or far away?",
    )


def _clock(ahead: float) -> Finding:
    """Judge our clock: the queue goes by the server's alone."""
    value = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} that of Redis"
    if abs(ahead) < _CLOCK:
        return REDIS.good("clock", value if abs(ahead) >= _PRECISION else "as that of Redis")
    return REDIS.warning(
        "clock",
        value,
        "the clocks of this machine and of Redis differ: leases and retries go by that of Redis alone, but "
        "times in logs are off, and certificates and signed addresses may seem to have expired; set the "
        "clock (NTP)",
    )


def _rights(config: RedisConfig, client: RedisClient) -> Iterator[Finding]:
    from distributed_downloader.redis_rights import missing, needed  # noqa: PLC0415 - for the doctor alone

    lacks = missing(config, client.address, client.namespace)
    if lacks is None:
        yield REDIS.unknown("rights", "this server does not let us find out")
    elif not lacks:
        yield REDIS.good("rights", f"all {len(needed())} commands that are needed")
    else:
        more = " and maybe more" if "+multi" in lacks else ""
        advice = (
            f"Redis at {client.address} forbids this user {' '.join(lacks)}{more}; "
            "docs/operations.md has the ACL rule that is needed"
        )
        yield REDIS.broken("rights", f"{len(lacks)} missing", advice)
