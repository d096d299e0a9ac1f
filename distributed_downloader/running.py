"""One task in a worker's hands: who runs it, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from distributed_downloader.cancel import Cancel
from distributed_downloader.hold import Hold
from distributed_downloader.models import DownloadTask, Transfer
from distributed_downloader.outcome import Outcome


class Runner(Protocol):
    """Does what a task is about; `download.downloader.Downloader` is the real one."""

    def run(self, task: DownloadTask, cancel: Cancel, progress: Callable[[int], None], hold: Hold) -> Outcome:
        """Return what became of the task; raises TransferError."""

    def close(self) -> None:
        """Let go of connections; nothing may be running."""


#: Seconds without a byte after which a part counts as stalled.
_STALLED = 5.0
#: Seconds below which no rate is measured.
_SHORTEST = 1.0


class Running:
    """One task in a worker's hands; its text is what people call it."""

    def __init__(self, worker_id: str, task: DownloadTask, cancel: Cancel, hold: Hold) -> None:
        self.worker_id, self.token, self.task = worker_id, str(task.token), task
        self.cancel, self.hold = cancel, hold
        #: Since when it is in our hands (time.monotonic).
        self.since = self._moved = time.monotonic()
        self.bytes_done = 0
        #: Whether a slot is at it, or has been; and whether it is a small file, see Limits.
        self.begun = self.small = False
        self._rate = 0.0
        #: When the first bytes were told of, and how many: those may have been there before.
        self._first: tuple[float, int] | None = None
        self._last = (self.since, 0)

    def __str__(self) -> str:  # of a part, it tells the bytes that are its own now
        return self.task.name_of(self.hold.length)

    def progress(self, bytes_done: int) -> None:
        """Take note of the bytes that are on disk."""
        self.bytes_done = bytes_done
        self._moved = time.monotonic()
        if self._first is None:
            self._first = self._last = (self._moved, bytes_done)

    @property
    def average(self) -> float:
        """Bytes a second since the first ones were told of; 0 if that says nothing."""
        began, there = self._first or (0.0, 0)
        seconds, count = time.monotonic() - began, self.bytes_done - there
        return count / seconds if count > 0 and seconds > 0 else 0.0

    @property
    def pace(self) -> float:
        """Bytes a second at the last snapshot, not below 1; 0 if the transfer has stalled."""
        return 0.0 if time.monotonic() - self._moved > _STALLED else max(1.0, self._rate or self.average)

    def snapshot(self) -> Transfer:
        """Describe the transfer, with its rate since the snapshot before."""
        now, done, about = time.monotonic(), self.bytes_done, self.task.about
        before, earlier = self._last
        self._last = (now, done)
        # The first bytes of a transfer come in a burst: less than a second says little about its rate.
        self._rate = max(0.0, (done - earlier) / max(now - before, _SHORTEST))
        return Transfer(
            job=self.task.token.job,
            task=self.task.token.task,
            path=about.file.path,
            size=about.part.length if about.part else about.file.size,
            start=about.part.start if about.part else None,
            sealing=about.is_seal,
            bytes_done=done,
            bytes_per_second=self._rate,
        )
