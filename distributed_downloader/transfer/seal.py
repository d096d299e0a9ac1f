"""Puts a split file together: proves it as a whole, mends what is damaged, and gives it its final name."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import CorruptError, RangeError
from distributed_downloader.models import DownloadTask, Part, RepoFile
from distributed_downloader.outcome import Range, Record
from distributed_downloader.storage.records import gaps, reach
from distributed_downloader.storage.sink import Reader
from distributed_downloader.storage.split import SplitFile
from distributed_downloader.verify import READ_SIZE, Hasher

log = logging.getLogger(__name__)

#: Seconds of reading ahead at one go, so that several files get their turn.
_AHEAD = 1.0


class Reading:
    """The beginning of a split file, hashed as it comes in; must be closed."""

    def __init__(self, split: SplitFile, file: RepoFile) -> None:
        self._split, self._file = split, file
        self._hasher = Hasher(file)
        self._written: list[Range] = []
        # Kept open, so that no other file can take the number of the one that was read.
        self._kept = ExitStack()
        self._inode: Reader | None = None
        #: Bytes that are read.
        self.position = 0

    def add(self, written: Iterable[Range]) -> None:
        """Take note of bytes that are written and will not change."""
        self._written = sorted([*self._written, *written])

    def advance(self, cancel: Cancel) -> None:
        """Read on as far as the file is contiguous, but not for long; raises LocalError, StoppedError."""
        end = reach(self._written, self.position)
        self._written = [part for part in self._written if part.end > self.position]
        deadline = time.monotonic() + _AHEAD
        self._read(end, cancel, lambda _: None, lambda: time.monotonic() > deadline)

    def finish(self, cancel: Cancel, progress: Callable[[int], None]) -> None:
        """Read the rest, and raise CorruptError unless the file is the right one."""
        self._read(self._file.size, cancel, progress, lambda: False)
        self._hasher.check()

    def publish(self) -> None:
        """Give the file that was read its final name; raises TransientError if it is not there any more."""
        self._split.publish(self._inode)

    def close(self) -> None:
        """Let go of the file."""
        self._kept.close()

    def _read(
        self, end: int, cancel: Cancel, progress: Callable[[int], None], enough: Callable[[], bool]
    ) -> None:
        # Opened anew each time, because over NFS only that shows what others have written.
        with self._split.reader() as reader:
            if self._inode is None or not reader.is_same(self._inode):
                self._begin()
            while self.position < end and not enough():
                cancel.check()
                data = reader.read(self.position, min(READ_SIZE, end - self.position))
                if not data:
                    return
                self._hasher.update(data)
                self.position += len(data)
                progress(self.position)

    def _begin(self) -> None:
        """Begin with the file that has the name now; the one before may have been another."""
        self._kept.close()
        self._inode = self._kept.enter_context(self._split.reader())
        self._hasher, self.position = Hasher(self._file), 0


class Readings:
    """What was read ahead for seals that are yet to come; for all threads of a worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: dict[tuple[int, int, str, str], Reading] = {}

    def begin(self, task: DownloadTask, reading: Reading) -> Reading:
        """Keep a reading of the file of a part until its seal takes it, or it is forgotten."""
        with self._lock:
            return self._readings.setdefault(_seal_of(task), reading)

    def take(self, task: DownloadTask) -> Reading | None:
        """Return what was read ahead for the file of a part or seal, which is the caller's from now on."""
        with self._lock:
            return self._readings.pop(_seal_of(task), None)


def _seal_of(task: DownloadTask) -> tuple[int, int, str, str]:
    """Name a seal. Not by numbers alone: a Redis that lost its data may give them to another file."""
    seal = task.about.part.seal if task.about.part else task.token.task
    return task.token.job, seal, task.spec.commit, task.file.path


class Seal:
    """One split file whose parts are all done; `fetch` gets a range of it again."""

    def __init__(
        self,
        task: DownloadTask,
        split: SplitFile,
        *,
        fetch: Callable[[Part], None],
        cancel: Cancel,
        progress: Callable[[int], None],
    ) -> None:
        self._task, self._split, self._file = task, split, task.file
        self._fetch = fetch
        self._cancel, self._progress = cancel, progress

    def run(self, reading: Reading) -> bool:
        """Publish the file once it is proven; False if it cannot be mended. Raises TransferError."""
        return self._publish(reading, "looking for the damaged parts") or self._mend()

    def _publish(self, reading: Reading, otherwise: str) -> bool:
        """Publish the file if it is right; else say what follows, and return False."""
        with closing(reading):
            try:
                self._prove(reading)
            except CorruptError as error:
                log.warning("damaged %s; %s", error, otherwise)
                return False
            reading.publish()
            return True

    def _prove(self, reading: Reading) -> None:
        reading.finish(self._cancel, self._progress)
        # Without a hash from the hub, only this shows that all is as it came.
        if not self._file.sha256 and not self._file.git_sha1 and (damage := self._damage()):
            raise CorruptError(f"{self._file.path}: {len(damage)} ranges are not as they came")

    def _mend(self) -> bool:
        """Fetch again what differs from what once came, and publish; False if that is not it."""
        path = self._file.path
        damage = self._damage()
        try:
            for damaged in damage:
                self._mend_range(damaged)
        except RangeError as error:
            log.warning("%s; fetching the whole file", error)
            return False
        if damage and self._publish(Reading(self._split, self._file), "even with these parts fetched again"):
            return True
        log.warning("damaged %s: no single part is to blame; fetching the whole file again", path)
        return False

    def _mend_range(self, damaged: Range) -> None:
        first, last = damaged.start / 2**20, damaged.end / 2**20
        log.warning("damaged %s: its MiB %.1f to %.1f; fetching them again", self._file.path, first, last)
        self._split.forget([damaged])
        self._fetch(Part(start=damaged.start, length=damaged.length, seal=self._task.token.task))

    def _damage(self) -> list[Range]:
        """Return what was never written, or is not on disk as it came."""
        records = self._split.records()
        damage = self._missing()
        with self._split.reader() as reader:
            for record in records:
                if self._hash(reader.read, record) != record.sha256:
                    damage.append(Range(record.start, record.length))
        return sorted(damage)

    def _missing(self) -> list[Range]:
        return list(gaps(self._split.records(), self._file.size))

    def _hash(self, read: Callable[[int, int], bytes], record: Record) -> str:
        digest = hashlib.sha256()
        position = record.start
        while position < record.end:
            self._cancel.check()
            data = read(position, min(READ_SIZE, record.end - position))
            if not data:
                break
            digest.update(data)
            position += len(data)
        return digest.hexdigest()
