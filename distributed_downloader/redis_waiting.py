"""What `status` reads of next tries: which files and parts wait for one, until when, and why."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from pydantic import ValidationError

from distributed_downloader.errors import RefusedError
from distributed_downloader.models import Descriptor, Failure, Model, Token
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import Answer, translated

#: Tokens that one look goes through in each place where tasks wait, and such places.
_LOOKED_AT, _HOSTS = 500, 20


class NextTry(Model):
    """One task that waits for its next try."""

    path: str
    #: What went wrong with the last one, or "".
    error: str = ""
    #: Where that was, or "".
    host: str = ""
    tries: int = 0
    #: Seconds until the next try; of a parked task, until others than `host` may have it.
    seconds: float
    #: Whether `host` alone may have it until then.
    parked: bool = False
    #: Bytes of it that lie there.
    kept: int = 0


class _Wait(NamedTuple):
    token: Token
    seconds: float
    #: The host that it is parked for, or "".
    host: str


class RedisWaiting:
    """Reads the next few tasks that wait; costs the same for ten and ten million."""

    def __init__(self, client: RedisClient) -> None:
        self._client, self._redis = client, client.commands

    def soon(self, jobs: Collection[int], limit: int) -> list[tuple[int, NextTry]]:
        """Return of each job the next tries, `limit` at most, with its id; raises RedisUnavailableError.

        Where very many wait, those of a job may be hidden behind those of others.
        """
        chosen: dict[int, list[_Wait]] = {job: [] for job in sorted(jobs)}
        for wait in self._waits():
            mine = chosen.get(wait.token.job)
            if mine is not None and len(mine) < limit:
                mine.append(wait)
        waits = [*chain.from_iterable(chosen.values())]
        return [(wait.token.job, shown) for wait, shown in zip(waits, self._explained(waits), strict=True)]

    def _waits(self) -> Iterator[_Wait]:
        """Yield what is delayed, then what is parked, the next ones first."""
        key = self._client.key
        with translated(self._client.address), self._redis.pipeline(transaction=True) as pipe:
            pipe.zrange(key("delayed"), 0, _LOOKED_AT - 1, withscores=True)
            pipe.smembers(key("parked"))
            pipe.time()
            delayed, hosts, (seconds, microseconds) = pipe.execute()
            shown = sorted(hosts)[:_HOSTS]
            for host in shown:
                pipe.zrange(key(f"parked:{host}"), 0, _LOOKED_AT - 1, withscores=True)
            parked = pipe.execute()
        now = seconds + microseconds / 1e6
        for host, rows in (("", delayed), *zip(shown, parked, strict=True)):
            for text, at in rows:
                if math.isfinite(at) and (token := _token(text)):
                    yield _Wait(token, at / 1000 - now, host)

    def _explained(self, waits: Sequence[_Wait]) -> Iterator[NextTry]:
        with translated(self._client.address), self._redis.pipeline(transaction=False) as pipe:
            for wait in waits:
                pipe.hget(self._client.key(f"job:{wait.token.job}:why"), str(wait.token.task))
                pipe.hget(self._client.key(f"job:{wait.token.job}:tasks"), str(wait.token.task))
            answers: Answer = pipe.execute()
        for wait, why, line in zip(waits, answers[::2], answers[1::2], strict=True):
            yield _next_try(wait, read_reason(why), line)


def read_reason(text: str | None) -> Failure | None:
    """Return why the last try of a task went wrong; None if nobody knows, or it cannot be read."""
    try:
        return Failure.model_validate_json(text or "")
    except ValidationError:
        return None


def _next_try(wait: _Wait, why: Failure | None, line: str | None) -> NextTry:
    waits = {"seconds": max(0.0, wait.seconds), "parked": bool(wait.host)}
    if why is None:
        return NextTry(path=_path(line), host=wait.host, **waits)
    host = wait.host or why.host
    kept = why.kept if host == why.host else 0
    return NextTry(path=why.path, error=why.error, host=host, tries=why.tries, kept=kept, **waits)


def _path(line: str | None) -> str:
    try:
        return Descriptor.from_line(line or "").file.path
    except ValueError:
        return "?"


def _token(text: str) -> Token | None:
    try:
        return Token.parse(text)
    except RefusedError:
        return None
