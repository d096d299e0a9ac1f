"""How many slots do small files at once: one where they compute, all where they wait.

Threads that all compute take the interpreter's lock from each other at every call of the system: with a hub
next door, four slots get fewer files in a second than one does, and take half as much processor time again.
Where each waits longer than it computes, for a hub further away or a slow disk, the others use that time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from distributed_downloader.waits import waited

#: Seconds at work after which a slot tells how it spent them.
_LAP = 0.05
#: Seconds without a small file that begins or ends, after which any slot may do one.
SILENT = 0.05
#: Seconds waited for each that was computed, above which one slot alone is too few.
_WORTH_IT = 0.5
#: Computing threads, on the average, from which on one slot alone may do as well.
_BUSY = 0.5
#: Seconds until it is tried again whether one slot alone does as well; doubled each time that it does not.
_SOON, _RARELY = 0.25, 4.0


class Lap(NamedTuple):
    """How a slot has spent some seconds at work; when it neither waits nor computes, it is another's turn."""

    seconds: float
    computed: float
    waited: float


class Meter:
    """Measures laps of the thread that has made it."""

    def __init__(
        self, computed: Callable[[], float] = time.thread_time, waited: Callable[[], float] = waited
    ) -> None:
        self._read = computed, waited
        self.restart()

    def restart(self) -> None:
        """Forget the lap that has begun."""
        self._seconds, self._before = 0.0, [read() for read in self._read]

    def lap(self, seconds: float) -> Lap | None:
        """Take note of so many more seconds at work; return a lap, if it is long enough."""
        self._seconds += seconds
        if self._seconds < _LAP:
            return None
        seconds, before = self._seconds, self._before
        self.restart()
        return Lap(seconds, *(now - then for now, then in zip(self._before, before, strict=True)))


class Concurrency:
    """Decides for the slots of one worker, whose lock the caller holds.

    What threads wait for while they take turns is partly each other: so how long a file waits is measured
    where one slot is alone.
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
        """Return whether one more may begin."""
        if self._running and self._clock() - self._moved > SILENT:
            self._open()
        return self.room > 0

    @property
    def room(self) -> int:
        """How many more may begin."""
        return max(0, self.limit - self._running)

    def begin(self) -> None:
        """Take note that a slot begins one."""
        self._moved = self._clock()
        if self._closing and not self._running:
            self._closing, self.age = False, self.age + 1
        self._running += 1

    def end(self, lap: Lap | None) -> None:
        """Take note that a slot is done with one, and of the lap that this has ended."""
        self._moved = self._clock()
        if lap and not self._closing:
            self._judge(lap)
        self._running -= 1

    def _judge(self, lap: Lap) -> None:
        """Change between one slot and all, where a lap of one says that the other is better."""
        if self.limit > 1:
            if self._moved >= self._again and lap.computed * self._running > _BUSY * lap.seconds:
                self.limit, self._closing = 1, True
        elif lap.waited > _WORTH_IT * lap.computed:
            self._open()
        else:
            self._pause = _SOON

    def _open(self) -> None:
        """Let all slots begin, until it is time to try again."""
        if self.limit < self._slots:
            self._again, self._pause = self._clock() + self._pause, min(2 * self._pause, _RARELY)
            self.limit, self._closing, self.age = self._slots, False, self.age + 1
