"""Holds all slots of a worker to one number of bytes a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import ClassVar

from distributed_downloader.cancel import Cancel

#: Largest read: each piece is handed from thread to thread, which fewer, larger ones make cheaper.
MAX_READ = 1 << 22
#: Smallest read under a limit; less would cost more CPU than it smooths.
MIN_READ = 1 << 13
#: Seconds of bandwidth that one read may use: so much too much may a slot have in hand when it has to wait.
TURN = 0.02
#: Seconds of unused bandwidth that may be made good later; at least those that the smallest read takes.
BURST = 0.1
#: Seconds for which nobody waits: less is what a float is off.
_MOMENT = 1e-7


class Throttle:
    """A token bucket; `bytes_per_second` 0 is no limit, and costs nothing."""

    #: Seconds after which who waits looks at the limit again.
    _LOOK: ClassVar[float] = math.inf

    def __init__(self, bytes_per_second: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        #: Bytes that were taken so far, under a limit.
        self._taken = 0
        #: Bytes that were within the limit until `_at`, or may be at once.
        self._passed, self._at = 0.0, clock()
        self._lock = threading.Lock()

    @property
    def limited(self) -> bool:
        """Whether there is a limit at the moment."""
        return self._rate > 0

    @property
    def read_size(self) -> int:
        """Bytes to read at once."""
        if not self._rate:
            return MAX_READ
        return max(MIN_READ, min(MAX_READ, int(self._rate * TURN)))

    def take(self, count: int, cancel: Cancel) -> None:
        """Wait until `count` more bytes are within the limit; raises StoppedError."""
        if not self._rate:
            return
        place = self._book(count)
        while (wait := self._wait(place)) and not cancel.wait(min(wait, self._LOOK)):
            pass
        cancel.check()

    def _book(self, count: int) -> int:
        """Give `count` bytes their place behind all earlier ones; return where they end."""
        with self._lock:
            self._settle()
            self._taken += count
            return self._taken

    def _wait(self, place: int) -> float:
        """Return the seconds until all bytes up to `place` are within the limit, as it is now."""
        with self._lock:
            self._settle()
            wait = (place - self._passed) / self._rate
        return wait if wait > _MOMENT else 0.0

    def keep_to(self, rate: int) -> None:
        """Keep to another limit, which is not 0, from now on.

        Nobody who waits already waits longer for it: those bytes came in at the rate of before.
        """
        with self._lock:
            self._settle()
            waiting = max(0.0, self._taken - self._passed)
            self._passed += waiting * max(0.0, 1 - rate / self._rate)
            self._rate = rate

    def _settle(self) -> None:
        """Let pass what was within the limit since the last time; the lock is held."""
        now = self._clock()
        passed = self._passed + (now - self._at) * self._rate
        self._passed, self._at = min(passed, self._taken + max(BURST * self._rate, MIN_READ)), now

    def close(self) -> None:
        """Let go of whatever the limit comes from."""
