"""Limits of bandwidth, of one worker and of a fleet: the bytes that came in, over the time that they took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import report, workloads
from benchmarks.polite.rig import REPO, CountingHub, Fleet
from benchmarks.waiting import BenchmarkError, until
from distributed_downloader.models import JobState, JobStatus

_HEADS = ("way", "of the limit", "least", "most")
#: What may be missing, or be too much.
TOLERANCE = 0.05
#: Seconds between two looks, and looks of which each mean is made.
_LOOK, _MEAN = 0.5, 6
_PATIENCE = 5.0
#: Where files are split, into parts of that size.
_PART = "2MiB"
#: Of all bytes, how many are there when a worker joins, and when one leaves.
_JOINS, _LEAVES = 1 / 3, 2 / 3


@dataclass(frozen=True)
class Way:
    """Who fetches, and how."""

    name: str
    option: str
    workers: int
    split: str = "never"
    #: Whether one worker joins late, and one leaves early.
    change: bool = False


WAYS = (
    Way("one worker, whole files", "--max-bandwidth", 1),
    Way("four workers, whole files", "--fleet-bandwidth", 4),
    Way("four workers, parts", "--fleet-bandwidth", 4, _PART),
    Way("one joins, one leaves, whole files", "--fleet-bandwidth", 4, change=True),
    Way("one joins, one leaves, parts", "--fleet-bandwidth", 4, _PART, change=True),
)


@dataclass
class Kept:
    """What came of one way: parts of the limit."""

    way: Way
    #: From the first byte to the end of the job.
    whole: float = 0
    #: Means of a few seconds, between the first tenth of the time and the last.
    means: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        """Return its line of the table."""
        least, most = (f"{pick(self.means):.3f}" if self.means else report.NOTHING for pick in (min, max))
        return [self.way.name, f"{self.whole:.3f}", least, most]


def section(rate: int, every: Sequence[Kept]) -> str:
    """Return what is to be reached, and all ways, as Markdown."""
    about = (
        f"Bytes from the first to the end of the job, and the least and the most in {_LOOK * _MEAN:g} s, as "
        f"parts of a limit of {rate / workloads.MB:g} MB/s."
    )
    return "\n\n".join([about, report.table(_HEADS, [kept.row() for kept in every])])


def limits(every: Sequence[Kept]) -> list[report.Limit]:
    """Return what is to be reached."""
    found = [kept.whole for kept in every]
    return [
        report.Limit("a limit of bandwidth, at most", 1 + TOLERANCE, max(found, default=None)),
        report.Limit(
            "a limit of bandwidth, at least", 1 - TOLERANCE, min(found, default=None), at_least=True
        ),
    ]


def measure(folder: Path, source: Path, way: Way, rate: int, slots: int) -> Kept:
    """Fetch a repo in one way; raises BenchmarkError, and InterruptedBenchmarkError."""
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    kept, output = Kept(way), folder / "output"
    with (
        closing(CountingHub(source)) as hub,
        closing(Fleet(folder, hub, way.workers, slots, way.option, str(rate))) as fleet,
    ):
        job = fleet.begin(output, way.workers - way.change, way.split)
        looker = _Looker(fleet, way.change, size)
        done = until(lambda: looker.look(job), "the end of the job", _PATIENCE * size / rate + 60, _LOOK)
        if done.state is not JobState.DONE or done.ended_at is None:
            raise BenchmarkError(f"the job ended as {done.state.value}")
        kept.whole = size / (done.ended_at - hub.first_bytes) / rate
        kept.means = [mean / rate for mean in looker.means()]
    workloads.check_equal(source, output / REPO)
    return kept


class _Looker:
    """Looks how many bytes the workers have written; lets one join, and one leave, if that is wanted."""

    def __init__(self, fleet: Fleet, change: bool, size: int) -> None:
        self._fleet, self._size = fleet, size
        self._changes = [(_JOINS, fleet.join, -1), (_LEAVES, fleet.leave, 0)] if change else []
        #: Worker's process -> bytes; those of one that has left stay.
        self._written: dict[int, int] = {}
        self._marks: list[tuple[float, int]] = []

    def look(self, job: int) -> JobStatus | None:
        """Look once; return the job if it has ended."""
        for pid in self._fleet.pids:
            self._written[pid] = psutil.Process(pid).io_counters().write_chars
        written = sum(self._written.values())
        self._marks.append((time.monotonic(), written))
        if self._changes and written > self._changes[0][0] * self._size:
            _, change, number = self._changes.pop(0)
            change(self._fleet.machines[number])
        return self._fleet.ended(job)

    def means(self) -> list[float]:
        """Return bytes a second."""
        tenth = len(self._marks) // 10
        marks = self._marks[tenth : len(self._marks) - tenth]
        pairs = zip(marks, marks[_MEAN:], strict=False)
        return [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs]
