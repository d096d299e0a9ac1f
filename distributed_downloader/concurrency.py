"""How many slots do small files at once: one where it is busy, all where each waits.

Threads that all compute take the interpreter's lock from each other at every call of the system: with a hub
next door, four slots get fewer files in a second than one does, and take half as much processor time again.
Where a slot waits for most of its time, for a hub further away or a slow disk, the others use that time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

#: Seconds at work after which a slot tells how busy it was.
_LAP = 0.05
#: Seconds without a small file that begins or ends, after which any slot may do one.
SILENT = 0.05
#: Part of its time that one slot alone is busy at the least, or all do more.
_ENOUGH = 0.55
#: Seconds until it is tried again whether one slot alone does as well; doubled each time that it does not.
_SOON, _RARELY = 0.25, 4.0
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class Lap(NamedTuple):
    """How a slot has spent some seconds at work."""

    seconds: float
    busy: float


class Meter:
    """Measures laps of the thread that has made it."""

    def __init__(self, read: Callable[[], float] | None = None) -> None:
        self._read = read or busy
        self.restart()

    def restart(self) -> None:
        """Forget the lap that has begun."""
        self._seconds, self._busy = 0.0, self._read()

    def lap(self, seconds: float) -> Lap | None:
        """Take note of so many more seconds at work; return a lap, if it is long enough."""
        self._seconds += seconds
        if self._seconds < _LAP:
            return None
        seconds, before = self._seconds, self._busy
        self.restart()
        return Lap(seconds, self._busy - before)


def busy() -> float:
    """Return the seconds for which this thread has computed, or has waited for a processor.

    The latter is told by Linux alone: the second figure of Documentation/scheduler/sched-stats.rst.
    """
    try:
        waited = int(_SCHEDSTAT.read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        waited = 0
    return time.thread_time() + waited / 1e9


class Concurrency:
    """Decides for the slots of one worker, whose lock the caller holds.

    Threads that take turns wait for each other, which looks like any other wait: so whether one is enough is
    measured where one is alone.
    """

    def __init__(self, slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots, self._clock = slots, clock
        #: Small files that are done at once, and that may be; and whether those that are too many still run.
        self._running, self.limit, self._closing = 0, 1, False
        self._moved = clock()
        #: When it is tried again whether one slot alone does as well, and how long after that.
        self._again, self._pause = 0.0, _SOON
        #: Grows whenever slots work in another way: what was measured before says nothing then.
        self.age = 0

    def admits(self) -> bool:
        """Return whether one more may begin; where nothing moves, all may from now on."""
        if self._running and self._clock() - self._moved > SILENT:
            self._open()
        return self._running < self.limit

    def begin(self) -> None:
        """Take note that a slot begins one."""
        self._moved = self._clock()
        if self._closing and not self._running:
            self._closing, self.age = False, self.age + 1
        self._running += 1

    def end(self, lap: Lap | None) -> None:
        """Take note that a slot is done with one, and of the lap that this has ended."""
        if not self._closing:  # else nobody begins, which must not last
            self._moved = self._clock()
            if lap:
                self._judge(lap)
        self._running -= 1

    def _judge(self, lap: Lap) -> None:
        """Change between one slot and all, where a lap of one says that the other is better."""
        if self.limit > 1:
            if self._moved >= self._again and lap.busy * self._running > lap.seconds:
                self.limit, self._closing = 1, True
        elif lap.busy < _ENOUGH * lap.seconds:
            self._open()
        else:
            self._pause = _SOON

    def _open(self) -> None:
        """Let all slots begin, until it is time to try again."""
        if self.limit < self._slots:
            self._again, self._pause = self._clock() + self._pause, min(2 * self._pause, _RARELY)
            self.limit, self._closing, self.age = self._slots, False, self.age + 1
