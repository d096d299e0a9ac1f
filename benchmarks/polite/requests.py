"""The requests of many workers with one token, at a hub that allows so many in a window."""

from __future__ import annotations

import re
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from benchmarks.polite.rig import CountingHub, Fleet
from benchmarks.waiting import BenchmarkError, until
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.models import JobState
from tests.hub.synthetic import SyntheticSnapshot

_HEADS = ("window", "begun after", "served", "of those allowed", "refused")
_BUDGET = re.compile(r"^hub budget: .*$", re.MULTILINE)
#: Seconds that a job may take for each of its windows, and beyond.
_PATIENCE = 5, 120
#: What has to be used of a window in which there is enough to ask for, and of all that the hub allows.
TO_USE = 0.95


@dataclass(frozen=True)
class Asked:
    """How the fleet asks, and what it may."""

    workers: int
    slots: int
    files: int
    quota: int
    window: int


class Served(NamedTuple):
    """A window of the hub, which begins with the first request after the one before has ended."""

    begun: float
    served: int
    refused: int


@dataclass
class Answered:
    """What came of it."""

    asked: Asked
    seconds: float = 0
    windows: list[Served] = field(default_factory=list)
    #: What `status` said of the budget while it was short.
    said: str = ""

    def limits(self) -> list[report.Limit]:
        """Return what is to be reached: in all windows but the first, and the last, in which work ends."""
        full = [window.served / self.asked.quota for window in self.windows[1:-1]]
        refused = float(sum(window.refused for window in self.windows[1:]))
        return [
            report.Limit("requests refused after the first window", 0, refused),
            report.Limit("part of a window's requests used, at least", TO_USE, min(full, default=None), True),
            report.Limit("part used of what the hub allows in that time", TO_USE, self._in_time(), True),
        ]

    def _in_time(self) -> float | None:
        """Return what was served of what a fleet could have had that is never late for a window.

        From the beginning of the second window to that of the last one, so the time between windows counts.
        """
        if len(self.windows) < 3:
            return None
        seconds = self.windows[-1].begun - self.windows[1].begun
        served = sum(window.served for window in self.windows[1:-1])
        return served / (self.asked.quota * seconds / self.asked.window)

    def section(self) -> str:
        """Return it as Markdown."""
        asked = self.asked
        rows = [
            [
                str(number),
                f"{begun - self.windows[0].begun:.1f} s",
                str(served),
                f"{served / asked.quota:.3f}",
                str(refused),
            ]
            for number, (begun, served, refused) in enumerate(self.windows, 1)
        ]
        about = (
            f"{asked.workers} workers with one token, {asked.slots} slots each, {asked.files:,} files; "
            f"the hub allows {asked.quota} in {asked.window} s: {self.seconds:.1f} s."
        )
        return "\n\n".join(
            [about, report.table(_HEADS, rows), f"`status` said: `{self.said or report.NOTHING}`"]
        )


def measure(folder: Path, asked: Asked) -> Answered:
    """Let the fleet fetch it; raises BenchmarkError, and InterruptedBenchmarkError."""
    snapshot, answered = SyntheticSnapshot(asked.files), Answered(asked)
    limit = _PATIENCE[0] * asked.window * (asked.files / asked.quota) + _PATIENCE[1]
    with (
        closing(CountingHub(LocalRepo(snapshot), asked.quota, asked.window)) as hub,
        closing(Fleet(folder, hub, asked.workers, asked.slots)) as fleet,
    ):
        job = fleet.begin(folder / "output", asked.workers)
        until(
            lambda: fleet.view.budgets([fleet.view.job(job)]), "a budget that is nearly used up", limit, 0.1
        )
        if found := _BUDGET.search(fleet.status()):
            answered.said = found[0]
        done = until(lambda: fleet.ended(job), "the end of the job", limit, 0.25)
        if done.state is not JobState.DONE or done.ended_at is None:
            raise BenchmarkError(f"the job ended as {done.state.value}")
        answered.seconds = done.ended_at - done.created_at
        counts = hub.resolves.counts.items()
        answered.windows = [Served(end - asked.window, count[True], count[False]) for end, count in counts]
    _check(snapshot, next((folder / "output").glob("*/*")))
    return answered


def _check(snapshot: SyntheticSnapshot, got: Path) -> None:
    """Raise BenchmarkError unless all files are there as they should be."""
    for entry in snapshot:
        content = b""
        with suppress(FileNotFoundError):
            content = (got / entry.path).read_bytes()
        if content != snapshot.content(entry.path):
            raise BenchmarkError(f"{entry.path} is not as its source")
