"""Events around the NAS: what is owed to it is taken, kept from others, and brought there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from distributed_downloader.models import Token
from distributed_downloader.outcome import ON_NAS
from distributed_downloader.queue_terms import Owed
from tests.queue.invariants import Snapshot, Task
from tests.queue.tails import Tails

FOLDERS = {"aa11": "/data dir", "bb22": "/mnt/é"}
#: What lua/owed.lua waits before it looks at a job again that is not downloaded yet.
LATER = 60_000


@dataclass
class Deliveries(Tails):
    """The world as far as the NAS is concerned."""

    def some_debt(self) -> str:
        """Return what a finished file owes."""
        return self.choose.of(["", "", ON_NAS, *(f"{folder} {path}" for folder, path in FOLDERS.items())])

    def note_debt(self, at: Task, owes: str) -> None:
        """Enter it into the model."""
        if owes == ON_NAS:
            self.delivered[at] = self.jobs[at[0]].tasks[at[1]].file.size
        elif owes:
            folder, _, path = owes.partition(" ")
            self.folders[folder] = path
            self.owed.setdefault(folder, {})[at] = self.now

    def take_owed(self) -> None:
        """Somebody who sees a folder asks what it owes."""
        self.take_from(self.choose.of([*FOLDERS]), self.choose.of([1, 2, 10]))

    def take_from(self, folder: str, limit: int) -> list[Owed]:
        """Take what is due, judge it, and look that nobody else gets it."""
        ended_only, busy = self.choose.of([False, True]), self.choose.of([5, 60])
        owed = self.owed.get(folder, {})
        due = sorted((when, f"{at[0]}.{at[1]}", at) for at, when in owed.items() if when <= self.now)
        expected = []
        for _, _, (id_, task) in due[:limit]:
            if (job := self.jobs.get(id_)) is None:
                del owed[id_, task]
            elif ended_only and self.state(id_) in ("running", "paused"):
                owed[id_, task] = self.now + LATER
            else:
                owed[id_, task] = self.now + busy * 1000
                expected.append(Owed(id_, task, job.tasks[task], job.spec))
        if not owed:
            self.folders.pop(folder, None)
        taken = self.deliveries.take_owed(folder, limit, busy, ended_only=ended_only)
        assert taken == expected
        again = self.deliveries.take_owed(folder, 0, busy, ended_only=ended_only)
        assert again == []
        return taken

    def keep_owed(self) -> None:
        """A copy takes longer, or has to wait; it may be over in truth."""
        folder, seconds = self.choose.of([*FOLDERS]), self.choose.of([0, 30, 300])
        files = [*self.owed.get(folder, {}), (999, 0)]
        at = self.choose.of(files)
        if at in self.owed.get(folder, {}):
            self.owed[folder][at] = self.now + seconds * 1000
        self.deliveries.keep_owed(folder, [at, (999, 0)], seconds)

    def deliver(self) -> None:
        """A file has got to the NAS, whoever brought it, and maybe once more."""
        folder = self.choose.of([*FOLDERS])
        files = [*self.owed.get(folder, {}), *self.delivered]
        if files:
            self.bring(folder, self.choose.of(files))

    def bring(self, folder: str, at: Task) -> None:
        """Report a delivery: counted once, of a job that is still there."""
        was_owed = self.owed.get(folder, {}).pop(at, None) is not None
        if not was_owed:
            with self.unchanged("I5: not owed"):
                assert not self.deliveries.delivered(folder, *at)
            return
        assert self.deliveries.delivered(folder, *at) == (at[0] in self.jobs)
        if at[0] in self.jobs:
            self.delivered[at] = self.jobs[at[0]].tasks[at[1]].file.size
        with self.unchanged("I11: delivered twice"):
            assert not self.deliveries.delivered(folder, *at)

    def check_deliveries(self, snapshot: Snapshot) -> None:
        """The debts and the counters are those of the model."""
        for folder in FOLDERS:
            entries = {Token.parse(f"{name}.0")[:2]: at for name, at in snapshot.value(f"owed:{folder}", [])}
            assert entries == self.owed.get(folder, {}), f"owed by {folder}"
        assert snapshot.value("folders", {}) == self.folders
        owed = Counter(at[0] for folder in self.owed.values() for at in folder)
        delivered = Counter(job for job, _ in self.delivered)
        for job, about in snapshot.jobs.items():
            size = sum(bytes_ for at, bytes_ in self.delivered.items() if at[0] == job)
            counted = tuple(int(about[name]) for name in ("owed", "delivered", "bytes_delivered"))
            assert counted == (owed[job], delivered[job], size), f"I2: deliveries of job {job}"
