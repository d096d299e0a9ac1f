"""What a run has come to, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import report
from benchmarks.chaos.judge import Verdict
from benchmarks.chaos.kinds import Kind


@dataclass
class Ledger:
    """The sums over all rounds."""

    seed: int
    workers: int
    #: Files and bytes of one round, each of them delivered to the NAS as well.
    files: int
    size: int
    #: Seconds of each round, where all workers share a folder, and where each has its own.
    calm: list[float] = field(default_factory=list)
    stormy: list[float] = field(default_factory=list)
    stormy_own: list[float] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    verdict: Verdict = field(default_factory=Verdict)
    answers_spoiled: int = 0
    asked_again: int = 0
    #: Workers that ended without having been asked to.
    ended: int = 0

    def add(self, verdict: Verdict) -> None:
        """Add what was found in a round."""
        mine = self.verdict
        mine.lost |= verdict.lost
        mine.wrong |= verdict.wrong
        mine.counters |= verdict.counters
        mine.hung += verdict.hung
        mine.traces |= verdict.traces
        mine.excused |= verdict.excused

    @property
    def rounds(self) -> int:
        """How many rounds had faults."""
        return len(self.stormy) + len(self.stormy_own)

    def text(self, kinds: Sequence[Kind]) -> str:
        """Return the report."""
        rounds, seconds = self.rounds, sum(self.stormy) + sum(self.stormy_own)
        about = (
            f"Seed {self.seed}, {self.workers} workers, {rounds} rounds in {seconds:.0f} s; in each "
            f"{self.files} files, {self.size / 1e6:.0f} MB, in 3 jobs, downloaded and delivered to a NAS: "
            f"{rounds * self.files} files, {rounds * self.size / 1e9:.2f} GB."
        )
        rows = [[kind.name, kind.group, str(self.struck[kind.name])] for kind in kinds]
        faults = report.table(("fault", "of", "injected"), [*rows, ["all", "", str(self.struck.total())]])
        return "\n\n".join([about, f"{report.versions()}.", faults, self._zeros(), self._times()])

    def _zeros(self) -> str:
        found = self.verdict
        rows = [
            ("files lost", len(found.lost)),
            ("files wrong under their final name", len(found.wrong)),
            ("counters that disagree with reality", len(found.counters)),
            ("processes and jobs that hang", len(found.hung)),
            ("logs with a stack trace", len(found.traces)),
        ]
        return report.table(("must be zero", "found"), [[name, str(count)] for name, count in rows])

    def _times(self) -> str:
        rows = [
            ("a round without faults, one shared folder, s (median)", report.median(self.calm)),
            ("a round with faults, one shared folder, s (median)", report.median(self.stormy)),
            ("its ratio to the round without", report.ratio(self.stormy, self.calm)),
            ("a round with faults, a folder for each worker, s (median)", report.median(self.stormy_own)),
            ("faults in a round (mean)", f"{self.struck.total() / max(self.rounds, 1):.1f}"),
            ("wrong answers of the hub that came of its faults", str(self.answers_spoiled)),
            ("complete files that somebody damaged, found so", str(len(self.verdict.excused))),
            ("commands given again, as the documents say", str(self.asked_again)),
            ("workers that ended by themselves, and were started again", str(self.ended)),
        ]
        return report.table(("time and help", "figure"), rows)
