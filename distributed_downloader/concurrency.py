"""How many slots do small files at once: no more than one interpreter has time for.

Threads that all compute take the interpreter's lock from each other at every call of the system: with a hub
next door, four slots get fewer files in a second than one does, and take half as much processor time again.
Threads that wait, for a hub far away or a slow disk, cost nothing, and may be many.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds of work after which a slot tells how much of them it was busy.
_LAP = 0.02
#: Seconds without a small file that begins or ends, after which any slot may do one.
SILENT = 0.05
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Concurrency:
    """Decides for the slots of one worker, whose lock the caller holds."""

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots, self._clock = slots, clock
        #: Small files that are done at once, and that may be.
        self._running, self.limit = 0, 1
        self._moved = math.inf

    def admits(self) -> bool:
        """Return whether one more may begin."""
        if self._clock() - self._moved > SILENT:
            self.limit = self._slots  # whatever they wait for, it is not the interpreter
        return self._running < self.limit

    def begin(self) -> None:
        """Take note that a slot begins one."""
        self._running += 1
        self._moved = self._clock()

    def end(self, share: float | None) -> None:
        """Take note that a slot is done with one; `share`: of its time that it was busy, if known."""
        self._running -= 1
        self._moved = self._clock()
        if share is not None:
            self.limit = self._slots if share * self._slots <= 1 else max(1, int(1 / share))


class Meter:
    """Measures how much of its time the thread is busy that has made it."""

    def __init__(self, read: Callable[[], float] | None = None) -> None:
        self._read = read or busy
        self._seconds, self._busy = 0.0, self._read()

    def lap(self, seconds: float) -> float | None:
        """Take note of so many more seconds at work; return the share, if it is time to tell one."""
        self._seconds += seconds
        if self._seconds < _LAP:
            return None
        before, self._busy = self._busy, self._read()
        share, self._seconds = (self._busy - before) / self._seconds, 0.0
        return share


def busy() -> float:
    """Return the seconds for which this thread has computed, or has waited for a processor.

    The latter is told by Linux alone: the second figure of Documentation/scheduler/sched-stats.rst.
    """
    try:
        waited = int(_SCHEDSTAT.read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        waited = 0
    return time.thread_time() + waited / 1e9
