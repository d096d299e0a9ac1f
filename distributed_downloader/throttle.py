"""Holds all slots of a worker to one number of bytes a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from distributed_downloader.cancel import Cancel

#: Largest read; more does not make it faster (docs/performance.md).
MAX_READ = 1 << 20
#: Smallest read under a limit; less would cost more CPU than it smooths.
MIN_READ = 1 << 13
#: Seconds of bandwidth that one read may use, so that the slots take short turns.
TURN = 0.1
#: Seconds of unused bandwidth that may be made good later.
BURST = 0.1


class Throttle:
    """A token bucket; `bytes_per_second` 0 is no limit, and costs nothing."""

    def __init__(self, bytes_per_second: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        #: The time until which bandwidth is given away.
        self._booked = clock()

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
        cancel.wait(self._book(count))
        cancel.check()

    def _book(self, count: int) -> float:
        """Give `count` bytes their place behind all earlier ones; return the seconds until then."""
        with self._lock:
            now = self._clock()
            self._booked = max(self._booked, now - BURST) + count / self._rate
            return max(0.0, self._booked - now)
