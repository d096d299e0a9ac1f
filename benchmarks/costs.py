"""What a process costs: the time that passed, processor time, and memory."""

from __future__ import annotations

import os
import re
import select
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.waiting import BenchmarkError, Child, check_interrupted

#: Milliseconds between two looks at a process' memory.
_LOOK_MS = 20
#: Seconds that a call takes at least: less than that is told from nothing by no clock here.
_SHORTEST = 1e-3


@dataclass(frozen=True)
class Cost:
    """What one run took; `output` is what it printed."""

    #: Seconds from its start to its end.
    wall: float
    #: Seconds of processor time, user and system, of it and of the children that it waited for.
    cpu: float
    #: Bytes of memory that it had at most, without its children's.
    rss: int
    output: str

    def beyond(self, starts: Sequence[Cost]) -> Cost:
        """Return what it took beyond bare starts of the same program, by their medians."""
        wall, cpu = (statistics.median(getattr(each, name) for each in starts) for name in ("wall", "cpu"))
        return replace(self, wall=max(self.wall - wall, _SHORTEST), cpu=max(self.cpu - cpu, 0.0))


class Measured(Child):
    """A process whose costs are told when it has ended."""

    def __init__(
        self, words: Sequence[str], *, folder: Path, name: str, environ: Mapping[str, str], told: str = ""
    ) -> None:
        self._began = time.monotonic()
        super().__init__(words, folder=folder, name=name, environ=environ, told=told)

    def cost(self, seconds: float) -> Cost:
        """Wait for its end; raises BenchmarkError if it does not end well, or not within `seconds`."""
        rss = self._wait(seconds)
        wall = time.monotonic() - self._began
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode:
            raise self._error(f"failed with {self._process.returncode}")
        return Cost(wall, usage.ru_utime + usage.ru_stime, rss, self.output)

    def _wait(self, seconds: float) -> int:
        """Return at once when it ends, with the most memory that it was seen with.

        That is the kernel's own high-water mark, read in time: the one that `wait4` tells begins with ours.
        """
        rss, ended = 0, select.poll()
        pidfd = os.pidfd_open(self.pid)
        try:
            ended.register(pidfd, select.POLLIN)
            while not ended.poll(_LOOK_MS):
                check_interrupted()
                rss = max(rss, most_memory(self.pid))
                if time.monotonic() - self._began > seconds:
                    raise BenchmarkError(f"waited {seconds:.0f} s in vain: the end of {self.name}")
        finally:
            os.close(pidfd)
        return rss


def most_memory(pid: int) -> int:
    """Return the bytes that a process had at most so far; 0 if it is about to end."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def measure(
    words: Sequence[str],
    *,
    folder: Path,
    name: str,
    environ: Mapping[str, str],
    seconds: float,
    told: str = "",
) -> Cost:
    """Run a program to its end; raises BenchmarkError, and InterruptedBenchmarkError."""
    child = Measured(words, folder=folder, name=name, environ=environ, told=told)
    try:
        return child.cost(seconds)
    finally:
        child.end()
