"""What a worker may still do with a part: others may take its tail, and all of it when it falls silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from distributed_downloader.cancel import Cancel

#: Seconds between two looks at whether Redis has heard of us again.
_LOOK = 0.1


def now() -> float:
    """Return seconds of a clock that also runs while the machine sleeps, where it has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Hold:
    """One part in a worker's hands; safe to use from any thread.

    Redis gives a part to another worker when its owner has reported no progress for `Limits.silence`
    seconds. So that two never write at once, the owner writes only for `trust` seconds, which is less,
    after the last report that Redis has answered.
    """

    def __init__(self, trust: float, asked_at: float) -> None:
        """`asked_at` is when the part was asked for, by `now`."""
        self._trust = trust
        self._lock = threading.Lock()
        self._good_until = asked_at + trust
        #: Bytes of the part as Redis told at the least; None if it has not.
        self.length: int | None = None
        self._shorten: Callable[[int], None] | None = None

    @classmethod
    def unlimited(cls) -> Hold:
        """Return the hold on something that nobody else writes."""
        return cls(float("inf"), 0.0)

    def renew(self, asked_at: float, length: int | None = None) -> None:
        """Take note of an answer: the task is still ours, and a part has `length` bytes now."""
        with self._lock:
            self._good_until = asked_at + self._trust
            if length is not None:  # one that grew is of a Redis that lost who took its tail
                self.length = length = min(length, self.length or length)
            shorten = self._shorten
        if shorten and length is not None:
            shorten(length)

    def on_shorten(self, shorten: Callable[[int], None]) -> None:
        """Call `shorten` with the length of the part, now if it is known, and whenever it is renewed."""
        with self._lock:
            self._shorten = shorten
            length = self.length
        if length is not None:
            shorten(length)

    def guard(self, cancel: Cancel) -> None:
        """Return as soon as writing is allowed; raises StoppedError."""
        cancel.check()
        while now() > self._good_until:
            cancel.wait(_LOOK)
            cancel.check()
