"""Holds all workers of a fleet together to one number of bytes a second; each gets what it can use of it."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple, Protocol

from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.throttle import Throttle

log = logging.getLogger(__name__)

#: Seconds between two rounds while bytes come in, and how much later none has come in a round.
PULSE, _LATE = 0.5, 0.25
#: The part of the whole that a worker begins with, until it has a share that the others know of.
_FIRST = 1 / 100
#: Seconds in which a worker that ends says that it does.
_PARTING = 0.5
#: Who uses so much of what it may could use more.
_THIRSTY = 0.9
#: Rounds over which that is measured: pieces of bytes make single ones uneven.
_ROUNDS = 3
#: Who uses less may grow until the next round: by that factor, and all together by that part of the whole.
_GROWTH, _LEAST = 1.25, 1 / 100


class Demand(NamedTuple):
    """What a worker could use, and what it takes for the fleet's limit; bytes a second."""

    wanted: float
    limit: int


class Share(NamedTuple):
    """What a worker gets of the fleet's limit, bytes a second: `sure` are its own, all of them are the limit.

    Up to `room` it may use until the next round, in which that counts.
    """

    sure: float
    room: float


class Board(Protocol):
    """Where the workers of a fleet tell each other what they could use; RedisBandwidth is the real one."""

    def tell(self, own: Demand) -> tuple[Share | None, Mapping[str, Demand]]:
        """Say what we could use; return our share if there is one, and all demands if it is our turn.

        Raises RedisUnavailableError.
        """

    def publish(self, shares: Mapping[str, Share]) -> Share | None:
        """Say who gets what, and nobody else gets anything; returns our own share.

        Raises RedisUnavailableError.
        """

    def leave(self) -> None:
        """Say that we use nothing any more, and have no share. Raises RedisUnavailableError."""


def shares(limit: float, wanted: Mapping[str, float]) -> dict[str, float]:
    """Share `limit` so that those who want less than an equal share leave the rest to the others.

    What nobody wants is there for all in equal parts, so that each can grow.
    """
    left, found = float(limit), dict[str, float]()
    for place, (name, want) in enumerate(sorted(wanted.items(), key=lambda item: item[1])):
        found[name] = min(want, left / (len(wanted) - place))
        left -= found[name]
    return {name: share + left / len(wanted) for name, share in found.items()}


def with_room(found: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, Share]:
    """Add the room to shares. Nobody grows above who gets most, so that whoever wants more is held."""
    most, least = max(found.values()), _LEAST * sum(found.values()) / len(found)
    return {
        name: Share(share, max(share, min(wanted[name] * _GROWTH + least, most)))
        for name, share in found.items()
    }


class _Mark(NamedTuple):
    """A moment, and the bytes that were taken and allowed until then."""

    at: float
    taken: float
    allowed: float


def wanted(marks: Sequence[_Mark], most: float) -> float:
    """Return what a worker could use, from what it took between marks; `most` is its own limit.

    The best round counts: in others it may have waited for what it had begun to read when it had more.
    """
    first, last = marks[0], marks[-1]
    if last.taken - first.taken >= _THIRSTY * (last.allowed - first.allowed):
        return most
    return max((b.taken - a.taken) / (b.at - a.at) for a, b in pairwise(marks) if b.at > a.at)


class FleetThrottle(Throttle):
    """A worker's share of the fleet's bandwidth; while Redis is away, the last one stays, and does not grow.

    A thread of its own asks for it while bytes come in or wait; when none do, it gives it up, and sleeps.
    """

    _LOOK: ClassVar[float] = PULSE

    def __init__(
        self, board: Board, limit: int, own_limit: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._limit = own_limit or math.inf, limit
        self._sure = self._first = self._whole(limit * _FIRST)
        super().__init__(self._first, clock)
        self._board = board
        self._moves, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._marks: deque[_Mark] = deque([_Mark(clock(), 0, 0)], _ROUNDS + 1)
        self._told_of = limit

    def close(self) -> None:
        """End the thread, and give the share up."""
        self._closed.set()
        self._moves.set()
        if thread := self._thread:
            thread.join(_PARTING)

    def _wait(self, place: int) -> float:
        self._stir()
        return super()._wait(place)

    def _stir(self) -> None:
        """Have the share asked for."""
        if self._closed.is_set():
            return
        try:
            with self._lock:
                self._start()
        except (RuntimeError, MemoryError) as error:  # the machine has no thread left, for the time being
            log.debug("the fleet's bandwidth is not shared: %s", error)
        else:
            self._moves.set()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="bandwidth", daemon=True)
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while not self._closed.is_set() and self._moving(None):
            self._say(self.round)
            while not self._closed.wait(PULSE) and self._moving(_LATE):
                self._say(self.round)
            self._say(self.leave)

    def _moving(self, seconds: float | None) -> bool:
        """Wait until bytes come in or wait, for so long at most; False if they do not, or we end."""
        moves = self._moves.wait(seconds)
        self._moves.clear()
        return moves and not self._closed.is_set()

    @staticmethod
    def _say(what: Callable[[], None]) -> None:
        try:
            what()
        except RedisUnavailableError as error:
            log.debug("the fleet's bandwidth is not shared: %s", error)

    def round(self) -> None:
        """Say what we could use, and keep to what we get; raises RedisUnavailableError."""
        try:
            share = self._share(Demand(self._wanted(), self._limit))
        except RedisUnavailableError:
            self.keep_to(self._sure)  # what we grow by would count in no round
            raise
        if share:
            self._sure = self._whole(share.sure)
            self.keep_to(self._whole(share.room))

    def _share(self, own: Demand) -> Share | None:
        share, demands = self._board.tell(own)
        if not demands:
            return share
        limit = min(demand.limit for demand in demands.values())
        self._warn(limit)
        wants = {name: each.wanted for name, each in demands.items()}
        found = self._board.publish(with_room(shares(limit, wants), wants))
        # If we are new, others still have what is to be ours, until the next round.
        return found if share or len(demands) == 1 else None

    def leave(self) -> None:
        """Give our share up, and begin anew with the next byte; raises RedisUnavailableError."""
        self._board.leave()
        self._sure = self._first
        self.keep_to(self._first)

    def _wanted(self) -> float:
        last, now = self._marks[-1], self._clock()
        if now - last.at > 2 * PULSE:
            self._marks.clear()  # nothing has come for a while, which says nothing about what comes now
        self._marks.append(_Mark(now, self._taken, last.allowed + self._rate * (now - last.at)))
        if super()._wait(self._taken) > PULSE:
            return self._most  # nothing was taken because all wait for what they took before
        return wanted(self._marks, self._most)

    def _whole(self, share: float) -> int:
        return max(1, int(min(share, self._most, self._limit)))

    def _warn(self, limit: int) -> None:
        if limit < self._limit and limit != self._told_of:
            log.warning(
                "[limits] fleet_bandwidth is %d bytes a second here and %d elsewhere: the smallest counts; "
                "give all workers the same",
                self._limit,
                limit,
            )
        self._told_of = limit
