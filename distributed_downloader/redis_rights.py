"""Which of the rights that the product needs a Redis user lacks, found out without any right of its own.

Redis checks a user's rights when a command of a transaction is queued, not when it is executed. So each is
queued, and the connection closed, which drops the transaction: nothing is ever executed. (redis.io,
"Transactions": a command may fail to be queued, and then gets its error at once.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import redis

from distributed_downloader.redis_connection import Answer, connect_to_block, translated

if TYPE_CHECKING:
    from distributed_downloader.config import RedisConfig

#: Commands by the number of words that follow them at least; each word is a key that nobody has.
_COMMANDS: Mapping[int, str] = {
    0: "ping info time client|id",
    1: "select script|load client|unblock scan type del exists persist pttl unlink get incr mget "
    "hgetall hkeys hlen hvals llen rpop smembers zcard zpopmin",
    2: "pexpire getbit set hdel hexists hget hmget hscan lpush rpush rpoplpush sadd srem zrem zscan zscore",
    3: "getrange setbit setrange hincrby hset brpoplpush lrange lrem ltrim zadd zcount zrange "
    "zrangebyscore zrevrange evalsha",
}
#: Those that make the transaction itself.
_FRAME = ("multi", "exec")
#: What Redis says of a command that the user may not use, or that was renamed; of a key, in 6.0 and in 7.2.
_REFUSAL = re.compile("no permissions|unknown command", re.IGNORECASE)
_OF_KEY = re.compile("permissions to access (a key|one of the keys)", re.IGNORECASE)
#: Seconds for one answer.
_SECONDS = 3.0


def needed() -> dict[str, int]:
    """Return each command that the product uses, as an access list names it, with its number of words."""
    frame = dict.fromkeys(_FRAME, 0)
    return frame | {name: count for count, names in _COMMANDS.items() for name in names.split()}


def missing(config: RedisConfig, address: str, namespace: str) -> list[str] | None:
    """Return the rules that our user lacks (`+get`, `~{hfd}:*`); None if the server does not let us find out.

    Raises RedisUnavailableError.
    """
    with translated(address), closing(connect_to_block(config, _SECONDS)) as client:
        connection: Answer = client.connection
        lacks = [f"+{name}" for name in _FRAME if _is_refused(_ask(connection, [name]))]
        if "+multi" in lacks:
            return lacks
        # One that may not EXEC is still in the first transaction, and MULTI in another one is harmless.
        _ask(connection, ["multi"])
        first = _ask(connection, ["ping"])
        if first != "QUEUED" and not _is_refused(first):
            return None  # no transactions here, so it would execute what we ask about
        key = f"{namespace}doctor"
        names = {name: count for name, count in needed().items() if name not in _FRAME}
        answers = _ask_all(connection, (_words(name, count, key) for name, count in names.items()))
        return [*lacks, *_lacking(names, answers, f"~{namespace}*")]


def _words(name: str, count: int, key: str) -> list[str]:
    if name == "evalsha":
        return [name, "0" * 40, "1", key]
    return [*name.split("|"), *[key] * count]


def _lacking(names: Iterable[str], answers: Iterable[Any], keys: str) -> Iterator[str]:
    refused = [
        (name, str(answer)) for name, answer in zip(names, answers, strict=True) if _is_refused(answer)
    ]
    if any(_OF_KEY.search(why) for _, why in refused):
        yield keys
    yield from (f"+{name}" for name, why in refused if not _OF_KEY.search(why))


def _is_refused(answer: object) -> bool:
    return isinstance(answer, redis.ResponseError) and bool(_REFUSAL.search(str(answer)))


def _ask(connection: Answer, words: list[str]) -> Answer:
    return next(_ask_all(connection, [words]))


def _ask_all(connection: Answer, commands: Iterable[list[str]]) -> Iterator[Answer]:
    """Send commands in one go and yield what is answered to each, errors included."""
    sent = [connection.send_command(*words) for words in commands]
    for _ in sent:
        try:
            yield connection.read_response()
        except redis.ResponseError as error:
            yield error
