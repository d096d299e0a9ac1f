"""Events around the NAS: what is owed to it is taken, kept from others, and brought there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from distributed_downloader.models import Failure, Token
from distributed_downloader.outcome import ON_NAS
from distributed_downloader.queue_terms import Owed, Redo
from tests.queue.invariants import Snapshot
from tests.queue.tails import Tails

FOLDERS = {"aa11": "/data dir", "bb22": "/mnt/é"}
#: What lua/owed.lua waits before it looks at a job again that is not downloaded yet.
LATER = 60_000
NOBODYS = Token(999, 0, 0)


@dataclass
class Deliveries(Tails):
    """The world as far as the NAS is concerned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        #: Files that somebody ever had to bring; what Redis forgot of them too.
        self.taken: set[Token] = set()

    def some_debt(self) -> str:
        """Return what a finished file owes."""
        return self.choose.of(["", "", ON_NAS, *(f"{folder} {path}" for folder, path in FOLDERS.items())])

    def note_debt(self, file: Token, owes: str) -> None:
        """Enter it into the model."""
        if owes == ON_NAS:
            self.delivered[file[:2]] = self.jobs[file.job].tasks[file.task].file.size
        elif owes:
            folder, _, path = owes.partition(" ")
            self.folders[folder] = path
            self.owed.setdefault(folder, {})[file] = self.now

    def take_owed(self) -> None:
        """Somebody who sees a folder asks what it owes."""
        self.take_from(self.choose.of([*FOLDERS]), self.choose.of([1, 2, 10]))

    def take_from(self, folder: str, limit: int) -> list[Owed]:
        """Take what is due, judge it, and look that nobody else gets it."""
        ended_only, busy = self.choose.of([False, True]), self.choose.of([5, 60])
        owed = self.owed.get(folder, {})
        due = sorted((when, str(file), file) for file, when in owed.items() if when <= self.now)
        expected = []
        for _, _, file in due[:limit]:
            if (job := self.jobs.get(file.job)) is None:
                del owed[file]
            elif ended_only and self.state(file.job) in ("running", "paused"):
                owed[file] = self.now + LATER
            else:
                owed[file] = self.now + busy * 1000
                expected.append(Owed(file, job.tasks[file.task], job.spec))
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
        file = self.choose.of([*self.owed.get(folder, {}), NOBODYS])
        if file in self.owed.get(folder, {}):
            self.owed[folder][file] = self.now + seconds * 1000
        self.deliveries.keep_owed(folder, [file, NOBODYS], seconds)

    def deliver(self) -> None:
        """A file has got to the NAS, whoever brought it, and maybe once more."""
        folder = self.choose.of([*FOLDERS])
        self.taken |= {*self.owed.get(folder, {})}
        if self.taken:
            self.bring(folder, self.choose.of(sorted(self.taken)))

    def bring(self, folder: str, file: Token) -> None:
        """Report a delivery: counted once, of a job that is still there."""
        was_owed = self.owed.get(folder, {}).pop(file, None) is not None
        if not was_owed:
            with self.unchanged("I5: not owed"):
                assert not self.deliveries.delivered(folder, file)
            return
        assert self.deliveries.delivered(folder, file) == (file.job in self.jobs)
        if file.job in self.jobs:
            self.delivered[file[:2]] = self.jobs[file.job].tasks[file.task].file.size
        with self.unchanged("I11: delivered twice"):
            assert not self.deliveries.delivered(folder, file)

    def redo(self) -> None:
        """A file is found damaged before it got to the NAS, maybe by somebody who took it long ago."""
        folder = self.choose.of(sorted(self.owed) or [*FOLDERS])
        self.taken |= {*self.owed.get(folder, {})}
        files = self.taken if self.choose.number(0, 2) == 0 else {*self.owed.get(folder, {})}
        if files:
            self.find_damaged(folder, self.choose.of(sorted(files)))

    def find_damaged(self, folder: str, file: Token) -> None:
        """Report it: the file comes back once, unless nobody wants it or it was found too often."""
        at, job = file[:2], self.jobs.get(file.job)
        state, found = self.state(file.job), Failure(path="f", error="damaged", host="", tries=0, at=1)

        def report() -> Redo:
            return self.deliveries.redo(folder, file, found)

        if not job or file not in self.owed.get(folder, {}):
            with self.unchanged("I5: not owed"):
                assert report() is Redo.STALE
            return
        if state == "cancelled" or self.damages[at] + 1 >= self.queue.limits.max_damages:
            with self.unchanged("I6, I7: it stays owed"):
                assert report() is Redo.STAYS
            return
        assert report() is Redo.AGAIN
        self.damages[at] += 1
        self.tries[at] = self.losses[at] = 0  # which it is rid of since it was done
        del self.owed[folder][file], self.done[at]
        assert self.look().places[at] == [("delayed", self.after(file.epoch))]
        assert self.state(file.job) == ("paused" if state == "paused" else "running")
        with self.unchanged("I11: found damaged twice"):
            assert report() is Redo.STALE

    def check_deliveries(self, snapshot: Snapshot) -> None:
        """The debts and the counters are those of the model."""
        for folder in FOLDERS:
            entries = {Token.parse(name): at for name, at in snapshot.value(f"owed:{folder}", [])}
            assert entries == self.owed.get(folder, {}), f"owed by {folder}"
        assert snapshot.value("folders", {}) == self.folders
        owed = Counter(file.job for folder in self.owed.values() for file in folder)
        delivered = Counter(job for job, _ in self.delivered)
        for job, about in snapshot.jobs.items():
            size = sum(bytes_ for at, bytes_ in self.delivered.items() if at[0] == job)
            counted = tuple(int(about[name]) for name in ("owed", "delivered", "bytes_delivered"))
            assert counted == (owed[job], delivered[job], size), f"I2: deliveries of job {job}"
