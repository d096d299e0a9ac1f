"""Keys that somebody overwrote with another type: they are removed, and Redis is asked again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import redis
from redis.client import Pipeline

log = logging.getLogger(__name__)

#: The types that docs/queue.md gives the keys, without their namespace.
_TYPES = (
    ("string", r"next_job|vclock|window|tick|search|sharing|worker:.*|hold:.*|turn:.*|job:\d+:(done|where)"),
    ("list", r"ready|poison|active:.*|job:\d+:pending"),
    ("set", r"parked"),
    ("zset", r"jobs|fair|asleep|delayed|tails|workers|dead|ended|budgets|(place|parked|owed):.*"),
    ("hash", r"names|identities|progress|splitting|folders|fleet|bandwidth|shares|(budget|out):.*"),
    ("hash", r"job:\d+(:(tasks|held|seals|sealer|records|blind|hosts|failed|tries|reasons|home|why))?"),
)
#: Keys that are looked at in one round trip.
_BATCH = 1000


def type_of(name: str) -> str | None:
    """Return the type that a key of ours has; None if we have no such key."""
    flags = re.ASCII | re.DOTALL  # compiled when they are first needed, and kept by `re`
    return next((kind for kind, names in _TYPES if re.fullmatch(names, name, flags)), None)


class MendingPipeline(Pipeline):
    """Several commands at once, all of which only read."""

    mender: MendingRedis
    #: Whether it is a transaction.
    atomic: bool

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run them; once more if they came upon keys of another type, which are away then.

        A Redis that is full may refuse any transaction, also one that only reads: then it is none.
        """
        commands = list(self.command_stack)
        try:
            return super().execute(raise_on_error)
        except redis.exceptions.OutOfMemoryError:
            if not self.atomic:
                raise
            one_by_one = self.mender.pipeline(transaction=False)
            one_by_one.command_stack = commands
            return one_by_one.execute(raise_on_error)
        except redis.ResponseError as error:
            if not self.mender.mends(error):
                raise
        self.command_stack = commands
        return super().execute(raise_on_error)


class MendingRedis(redis.Redis):
    """A client that is not kept from its work by keys of the wrong type."""

    namespace = "{hfd}:"
    #: Set when the script is known: `(key, type)` -> whether the key was put aside.
    put_aside: Any = None

    def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 as the library has it
        """Run a command or script; once more if it came upon a key of another type, which is away then."""
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except redis.ResponseError as error:
            if not self.mends(error):
                raise
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> MendingPipeline:  # noqa: ANN401
        """Return a pipeline that mends too."""
        pipe = MendingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.mender, pipe.atomic = self, transaction
        return pipe

    def mends(self, error: redis.ResponseError) -> bool:
        """Put all keys of a wrong type aside, if that is what an error is about; return whether it is."""
        if "WRONGTYPE" not in str(error) or self.put_aside is None:
            return False
        wrong = [(key, kind) for key, kind in self._wrong() if self.put_aside(key, kind)]
        for key, kind in wrong:
            log.error("Redis: somebody overwrote %a, which should be a %s; it was removed", key, kind)
        return True

    def _wrong(self) -> Iterator[tuple[str, str]]:
        keys = super().scan_iter(match=f"{self.namespace}*", count=_BATCH)
        while batch := list(islice(keys, _BATCH)):
            ours = [(key, kind) for key in batch if (kind := type_of(key.removeprefix(self.namespace)))]
            pipe = super().pipeline(transaction=False)
            for key, _ in ours:
                pipe.type(key)
            found = zip(ours, pipe.execute(), strict=True)
            yield from (each for each, kind in found if kind not in (each[1], "none"))
