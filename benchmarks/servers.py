"""Which Redis a benchmark runs on: the one that most machines have, or the one that is asked for."""

from __future__ import annotations

import re

import redis

from benchmarks.waiting import BenchmarkError
from tests.servers import NO_SERVER, Binary, binaries

_USUAL = re.compile(r"redis-7\.")


def chosen(wanted: str = "") -> Binary:
    """Return the server with `wanted` in its name, else a Redis 7, else any; raises BenchmarkError."""
    servers = binaries()
    found = [each for each in servers if (wanted in each.name if wanted else _USUAL.match(each.name))]
    if not servers:
        raise BenchmarkError(NO_SERVER)
    if wanted and not found:
        raise BenchmarkError(f"--server {wanted}: there are only {', '.join(each.name for each in servers)}")
    return (found or servers)[0]


def cpu_of(client: redis.Redis) -> float:
    """Return the seconds of processor time that a server has taken so far."""
    about = client.info("cpu")
    return float(about["used_cpu_sys"]) + float(about["used_cpu_user"])
