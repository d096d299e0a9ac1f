"""The product's own commands as bytes, so that one process can speak for hundreds of workers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import redis

from benchmarks.waiting import BenchmarkError
from distributed_downloader.redis_client import RedisClient

Reply: TypeAlias = Any
T = TypeVar("T")


class UnfinishedError(Exception):
    """The rest of a reply has not come yet."""


def read(data: bytes, at: int) -> tuple[Reply, int]:
    """Return the reply that begins at a byte, and where it ends; raises UnfinishedError, BenchmarkError."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise UnfinishedError
    kind, text, at = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b"-":
        raise BenchmarkError(f"Redis says {text.decode('utf-8', 'replace')}")
    if kind == b"$":
        return _bulk(data, at, int(text))
    if kind == b"*":
        return _array(data, at, int(text))
    return int(text) if kind == b":" else text, at


def _bulk(data: bytes, at: int, length: int) -> tuple[Reply, int]:
    if length < 0:
        return None, at
    if len(data) < at + length + 2:
        raise UnfinishedError
    return data[at : at + length], at + length + 2


def _array(data: bytes, at: int, length: int) -> tuple[Reply, int]:
    if length < 0:
        return None, at
    items = []
    for _ in range(length):
        item, at = read(data, at)
        items.append(item)
    return items, at


class _SaidError(Exception):
    """What would have been sent."""

    def __init__(self, words: Sequence[Any]) -> None:
        self.words = words


class _Listener(redis.Redis):
    """Takes the place of a connection: tells what would be sent first, or gives the reply that it has."""

    reply: Reply = None

    def execute_command(self, *words: Any, **_: Any) -> Reply:  # noqa: ANN401 as in redis-py
        if self.reply is None:
            raise _SaidError(words)
        return self.reply

    def pipeline(self, *_: Any, **__: Any) -> _Listener:  # type: ignore[override] # noqa: ANN401
        return self


class Phrases:
    """The commands that the queue's methods send, with gaps for what differs each time."""

    #: Stands for what differs.
    GAP = "\0gap\0"

    def __init__(self) -> None:
        self._listener = _Listener()
        self._queue = RedisClient.over(self._listener)

    def of(self, call: Callable[[RedisClient], object]) -> bytes:
        """Return what the call sends; its gaps are for `%`, each with a length and bytes."""
        try:
            call(self._queue)
        except _SaidError as said:
            return _packed(said.words, self.GAP.encode())
        raise AssertionError("the call sends nothing")

    def meaning(self, call: Callable[[RedisClient], T], reply: Reply) -> T:
        """Return what the call makes of a reply."""
        self._listener.reply = reply
        try:
            return call(self._queue)
        finally:
            self._listener.reply = None


def _packed(words: Sequence[Any], gap: bytes) -> bytes:
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    parts = [b"$%d\r\n%b\r\n" if word == gap else _escaped(word) for word in encoded]
    return b"*%d\r\n" % len(words) + b"".join(parts)


def _escaped(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word.replace(b"%", b"%%"))
