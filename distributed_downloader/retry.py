"""What follows from an error: pure decisions, taken in one place."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass

from distributed_downloader.errors import (
    HubAwayError,
    LocalError,
    NoAnswerError,
    NotAllowedError,
    PermanentError,
    PlaceError,
    PlaceUnseenError,
    RateLimitError,
    ServerError,
    StoppedError,
    TransferError,
)


class Action(enum.Enum):
    """What the worker does with a task that did not succeed."""

    #: Give it back without a penalty: the task is not at fault.
    RELEASE = "release"
    #: Give it back, and claim nothing for a while: this machine is at fault.
    REST = "rest"
    #: Give it back, and say that this machine sees no folder or hub of the job, or may not do it.
    BLIND = "blind"
    #: Count a failure; the task is tried again after `delay` while it has tries left.
    RETRY = "retry"
    #: Fail for good.
    BURY = "bury"


class Counted(enum.Enum):
    """Which of a file's failures are counted together."""

    FAILURE = ""
    #: The hub asks for pauses, or machines have no place for the file.
    NOT_NOW = "~"
    #: A host gives no answer, or has a problem of its own.
    AWAY = "?"


@dataclass(frozen=True)
class Decision:
    """The action, and the seconds to wait before the next try."""

    action: Action
    delay: float = 0
    #: Seconds for which the whole fleet leaves the hub alone.
    hold: float = 0
    #: Not 0: the failure says little about the file, and is counted apart, up to so many, as ...
    excused_tries: int = 0
    counted: Counted = Counted.FAILURE


_PLAIN: dict[type[TransferError], Action] = {
    StoppedError: Action.RELEASE,
    PlaceUnseenError: Action.BLIND,
    HubAwayError: Action.BLIND,
    NotAllowedError: Action.BLIND,
    PermanentError: Action.BURY,
}


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off with full jitter; immutable."""

    #: Tries that a file has while the hub asks for pauses, which says nothing about the file.
    limited_tries: int = 10
    #: Tries that a file has while a host gives no answer or has a problem of its own, and the longest pause
    #: in seconds between two: half an hour in all.
    away_tries: int = 60
    away_cap: float = 60.0
    #: So often a file waits for the machine that has the bytes of it, when that cannot reach the hub.
    kept_tries: int = 10
    #: Tries that a file has while the machines it comes to have no place for it.
    place_tries: int = 10
    #: Whether there are other machines, which may see a folder or a hub that this one does not.
    others: bool = True
    #: Seconds, least and most, before the next of them: somebody may make room meanwhile.
    place_delay: tuple[float, float] = (10.0, 60.0)
    #: Seconds; the delay after n failures is drawn from 0 to base * 2^n.
    base: float = 2.0
    cap: float = 300.0
    draw: Callable[[float, float], float] = random.uniform

    def decide(self, error: TransferError, tries: int, away: int = 0, *, kept: int = 0) -> Decision:
        """Return what follows from `error` for a task with `tries` earlier failures.

        `away` of others were because of a host that is away; `kept` bytes of it lie on this machine alone.
        """
        if isinstance(error, (NoAnswerError, ServerError)) or self._keeps(error, away, kept):
            delay = self.delay(tries + away, self.away_cap)
            return Decision(Action.RETRY, delay, 0, self.away_tries, Counted.AWAY)
        for kind, action in _PLAIN.items():
            if isinstance(error, kind):
                return Decision(action if self.others or action is not Action.BLIND else Action.REST)
        if isinstance(error, PlaceError):
            delay = self.draw(*self.place_delay)
            return Decision(Action.RETRY, delay, 0, self.place_tries, Counted.NOT_NOW)
        if isinstance(error, LocalError):
            return Decision(Action.REST)
        if isinstance(error, RateLimitError):
            delay = error.retry_after + self.delay(0)
            return Decision(Action.RETRY, delay, error.retry_after, self.limited_tries, Counted.NOT_NOW)
        return Decision(Action.RETRY, self.delay(tries))

    def _keeps(self, error: TransferError, away: int, kept: int) -> bool:
        """Return whether a file waits for this machine's bytes of it rather than begin anew elsewhere."""
        return isinstance(error, HubAwayError) and self.others and kept > 0 and away < self.kept_tries

    def delay(self, tries: int, cap: float | None = None) -> float:
        """Return seconds to wait after the failure that follows `tries` earlier ones."""
        return self.draw(0, min(self.cap if cap is None else cap, self.base * 2.0 ** min(tries, 60)))


#: Bytes that are worth a second of waiting for the host that holds them.
_BYTES_PER_PARKED_SECOND = 10_000_000
_LONGEST_PARK = 300.0


def park_seconds(bytes_kept: int) -> float:
    """Return for how long a retry waits for the host on which `bytes_kept` bytes lie already."""
    return min(_LONGEST_PARK, bytes_kept / _BYTES_PER_PARKED_SECOND)
