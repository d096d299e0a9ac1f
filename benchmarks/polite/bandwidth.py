"""Limits of bandwidth, of one worker and of a fleet: the bytes that came in, over the time that they took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import report, workloads
from benchmarks.here import Loopback
from benchmarks.machines import LocalProxies, Network
from benchmarks.polite.rig import REPO, CountingHub, Fleet
from benchmarks.waiting import BenchmarkError, until
from distributed_downloader.models import JobState, JobStatus

_HEADS = ("way", "of the limit", "least", "most")
#: What may be missing, or be too much.
TOLERANCE = 0.05
#: Seconds between two looks, and the seconds of which each mean is made: a sixth of all, if that is less.
_LOOK, _MEAN = 0.5, 5.0
_PATIENCE = 5.0
#: Where files are split, into parts of that size.
_PART = "2MiB"
#: Of all bytes, how many are there when a worker joins, and when one leaves.
_JOINS, _LEAVES = 1 / 3, 2 / 3
#: Where lines get faster: what all of them bring at first, and then, as parts of the limit; of all bytes, how
#: many are there by then.
_EARLY, _THEN, _FASTER = 0.8, 1.1, 1 / 3


@dataclass(frozen=True)
class Way:
    """Who fetches, and how."""

    name: str
    option: str
    workers: int
    split: str = "never"
    #: Whether one worker joins late, and one leaves early.
    change: bool = False
    #: Whether their lines bring less than the limit at first, and then more.
    faster: bool = False

    def line(self, rate: int, part: float) -> int:
        """Return what each line brings if all of them bring that part of the limit."""
        return round(rate * part / self.workers)


WAYS = (
    Way("one worker, whole files", "--max-bandwidth", 1),
    Way("four workers, whole files", "--fleet-bandwidth", 4),
    Way("four workers, parts", "--fleet-bandwidth", 4, _PART),
    Way("one joins, one leaves, whole files", "--fleet-bandwidth", 4, change=True),
    Way("one joins, one leaves, parts", "--fleet-bandwidth", 4, _PART, change=True),
    Way("lines that get faster, parts", "--fleet-bandwidth", 4, _PART, faster=True),
)


@dataclass
class Kept:
    """What came of one way: parts of the limit."""

    way: Way
    #: From the first byte, or from when lines get faster, to the end of the job.
    whole: float = 0
    #: Means of a few seconds, from then on, but for the first tenth of the time and the last.
    means: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        """Return its line of the table."""
        least, most = (f"{pick(self.means):.3f}" if self.means else report.NOTHING for pick in (min, max))
        return [self.way.name, f"{self.whole:.3f}", least, most]


def looks(seconds: float) -> int:
    """Return of how many looks each mean is made, where a way takes so long at its limit."""
    return max(1, int(min(_MEAN, seconds / 6) / _LOOK))


def section(rate: int, seconds: float, every: Sequence[Kept]) -> str:
    """Return what is to be reached, and all ways, as Markdown."""
    about = (
        "Bytes from the first to the end of the job, and the least and the most in "
        f"{_LOOK * looks(seconds):g} s, as parts of a limit of {rate / workloads.MB:g} MB/s. Lines that get "
        f"faster bring {_EARLY} of it in all, then {_THEN}: what counts is from then on."
    )
    return "\n\n".join([about, report.table(_HEADS, [kept.row() for kept in every])])


def limits(every: Sequence[Kept]) -> list[report.Limit]:
    """Return what is to be reached."""
    found = [kept.whole for kept in every]
    means = [mean for kept in every for mean in kept.means]
    return [
        report.Limit("a limit of bandwidth, at most", 1 + TOLERANCE, max(found, default=None)),
        report.Limit(
            "a limit of bandwidth, at least", 1 - TOLERANCE, min(found, default=None), at_least=True
        ),
        report.Limit("the same for a few seconds, at most", 1 + TOLERANCE, max(means, default=None)),
    ]


def measure(folder: Path, source: Path, way: Way, rate: int, slots: int) -> Kept:
    """Fetch a repo in one way; raises BenchmarkError, and InterruptedBenchmarkError."""
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    kept, output = Kept(way), folder / "output"
    with (
        closing(CountingHub(source)) as hub,
        closing(_network(way, rate)) as lines,
        closing(Fleet(folder, hub, way.workers, slots, way.option, str(rate), network=lines)) as fleet,
    ):
        job = fleet.begin(output, way.workers - way.change, way.split)
        looker = _Looker(fleet, size, _changes(way, rate, fleet))
        done = until(lambda: looker.look(job), "the end of the job", _PATIENCE * size / rate + 60, _LOOK)
        if done.state is not JobState.DONE or done.ended_at is None:
            raise BenchmarkError(f"the job ended as {done.state.value}")
        since, before = looker.anew or (hub.first_bytes, 0)
        kept.whole = (size - before) / (done.ended_at - since) / rate
        kept.means = [mean / rate for mean in looker.means(looks(size / rate))]
    workloads.check_equal(source, output / REPO)
    return kept


class _Change(NamedTuple):
    """What happens when that part of all bytes is there."""

    part: float
    make: Callable[[], None]
    #: Whether what was before it does not count.
    anew: bool = False


def _changes(way: Way, rate: int, fleet: Fleet) -> list[_Change]:
    first, last = fleet.machines[0], fleet.machines[-1]
    if way.faster:
        return [_Change(_FASTER, lambda: fleet.shape(way.line(rate, _THEN)), anew=True)]
    if way.change:
        return [_Change(_JOINS, lambda: fleet.join(last)), _Change(_LEAVES, lambda: fleet.leave(first))]
    return []


def _network(way: Way, rate: int) -> Network:
    return LocalProxies(way.workers, way.line(rate, _EARLY)) if way.faster else Loopback(way.workers)


class _Mark(NamedTuple):
    """A moment, in Unix time, and the bytes that were written by then."""

    at: float
    written: int


class _Looker:
    """Looks how many bytes the workers have written, and makes the changes."""

    def __init__(self, fleet: Fleet, size: int, changes: list[_Change]) -> None:
        self._fleet, self._size, self._changes = fleet, size, changes
        #: From which moment on it counts, if that is not the beginning.
        self.anew: _Mark | None = None
        #: Worker's process -> bytes; those of one that has left stay.
        self._written: dict[int, int] = {}
        self._marks: list[_Mark] = []

    def look(self, job: int) -> JobStatus | None:
        """Look once; return the job if it has ended."""
        for pid in self._fleet.pids:
            self._written[pid] = psutil.Process(pid).io_counters().write_chars
        written = sum(self._written.values())
        self._marks.append(_Mark(time.time(), written))
        if self._changes and written > self._changes[0].part * self._size:
            self._make(self._changes.pop(0))
        return self._fleet.ended(job)

    def _make(self, change: _Change) -> None:
        change.make()
        if change.anew:
            self.anew = self._marks[-1]

    def means(self, looks: int) -> list[float]:
        """Return bytes a second."""
        tenth = len(self._marks) // 10
        first = self._marks.index(self.anew) if self.anew else tenth
        marks = self._marks[first : len(self._marks) - tenth]
        pairs = zip(marks, marks[looks:], strict=False)
        return [(after.written - before.written) / (after.at - before.at) for before, after in pairs]
