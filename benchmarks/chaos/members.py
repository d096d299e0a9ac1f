"""The workers of a round: each is started again when it ends, as a service manager would do it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.member import BROKEN, NAMELESS
from benchmarks.waiting import Child

#: Seconds until a worker that ended is started again.
_PAUSE = 0.5
#: What a worker says when it has entered the fleet.
_STARTED = " slots, Redis at "
#: Seconds in which a worker that was asked to leave has to be gone; it promises 5, on an idle machine.
LEAVE_SECONDS = 15.0


@dataclass
class Tally:
    """What the workers of a round did by themselves."""

    #: Workers that did not leave when they were asked to.
    hung: int = 0
    #: Workers that ended and were not asked to.
    crashed: int = 0


class Member:
    """One machine's worker."""

    def __init__(
        self, number: int, folder: Path, words: Sequence[str], environ: Mapping[str, str], tally: Tally
    ) -> None:
        self._number, self._folder, self._words, self._environ = number, folder, words, environ
        self._tally = tally
        self._lives = 0
        self._child: Child | None = None
        self._asked = 0.0
        self._killed = False
        self._thaw_at = self._start_at = 0.0
        #: Seconds by which the clock is off, from the next start on.
        self.clock = 0
        self._machine = folder / f"machine-{number}"
        self._machine.mkdir(parents=True)
        #: While these files are there, the machine's disks fail, and it finds no host.
        self.broken, self.nameless = self._machine / BROKEN, self._machine / NAMELESS
        self.logs: list[Path] = []

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child
        return self._child.pid

    @property
    def settled(self) -> bool:
        """Whether it has started, and says so."""
        return self.running and _STARTED in self.logs[-1].read_text()

    @property
    def frozen(self) -> bool:
        """Whether it is stopped."""
        return self._thaw_at > 0

    def start(self) -> None:
        """Start the worker."""
        self._lives += 1
        name = f"worker-{self._number}-{self._lives}"
        program = [sys.executable, "-m", "benchmarks.member", str(self.clock), str(self._machine)]
        words = [*program, *self._words]
        self._child = Child(words, folder=self._folder, name=name, environ=self._environ)
        self.logs.append(self._folder / f"{name}.err")
        self._asked, self._killed = 0.0, False

    def kill(self) -> None:
        """End the worker as a power cut would."""
        if self.running and self._child:
            self._killed = True
            self._child.kill()
        self._thaw_at = 0.0

    def terminate(self) -> None:
        """Ask the worker to leave."""
        self.thaw()
        if self.running and not self._asked:
            self._asked = time.monotonic()
            os.kill(self.pid, signal.SIGTERM)

    def freeze(self, seconds: float) -> None:
        """Stop the worker for a while."""
        os.kill(self.pid, signal.SIGSTOP)
        self._thaw_at = time.monotonic() + seconds

    def thaw(self) -> None:
        """Let a stopped worker go on."""
        if self.frozen and self.running:
            os.kill(self.pid, signal.SIGCONT)
        self._thaw_at = 0.0

    def tend(self, *, restart: bool) -> None:
        """Do what its time has come for."""
        now = time.monotonic()
        if self.running:
            if self.frozen and now > self._thaw_at:
                self.thaw()
            if self._asked and now > self._asked + LEAVE_SECONDS:
                self._tally.hung += 1
                self.kill()
        elif self._child:
            self._tally.crashed += not (self._asked or self._killed)
            self._child, self._start_at = None, now + _PAUSE
        elif restart and now > self._start_at:
            self.start()


class Members:
    """All workers of a round."""

    def __init__(self, members: Sequence[Member], tally: Tally) -> None:
        self.all, self.tally = members, tally
        self._held = 0

    def hold(self) -> None:
        """Start no worker until `release`."""
        self._held += 1

    def release(self) -> None:
        """Start workers again."""
        self._held -= 1

    def tend(self) -> None:
        """Start, wake and end workers whose time has come."""
        for member in self.all:
            member.tend(restart=not self._held)

    def close(self) -> None:
        """Ask all workers to leave, and see that they do."""
        self.hold()
        for member in self.all:
            member.terminate()
        while any(member.running for member in self.all):
            self.tend()
            time.sleep(0.05)
