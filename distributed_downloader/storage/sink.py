"""What one machine does with a split file: writes a part of it, or reads what all have written."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from distributed_downloader.errors import TransientError
from distributed_downloader.models import Part, RepoFile
from distributed_downloader.outcome import Record
from distributed_downloader.storage.disk import disk, sync_folder
from distributed_downloader.storage.records import RECORD_SIZE, add_record, reach
from distributed_downloader.verify import Data, HashThread

#: Bytes of a write at most: for larger ones, ext4 takes several times the processor time.
_WRITE = 1 << 19


def write_at(fd: int, data: memoryview, offset: int, guard: Callable[[], None] = lambda: None) -> None:
    """Write all of `data` to a file, from an offset on; calls `guard` before each write. Raises OSError."""
    while data:
        guard()
        count = os.pwrite(fd, data[:_WRITE], offset)
        offset += count
        data = data[count:]


class PartSink:
    """Takes the bytes of one part in order; each piece of at most 16 MiB is recorded once it is on disk.

    What a killed writer had not recorded yet is fetched again. `write` and `finish` raise LocalError if
    the disk refuses, and TransientError if the file was removed or published before they recorded a piece.
    """

    #: Bytes that an earlier process left and that nothing proves: none, for the seal proves them all.
    inherited = 0

    def __init__(
        self, fd: int, folder: int, journal: int, path: Path, *, part: Part, records: list[Record]
    ) -> None:
        self._fd, self._folder, self._journal, self._path = fd, folder, journal, path
        self._lock = threading.Lock()
        #: First byte of the file that belongs here.
        self.start = part.start
        self._end = part.end
        #: Where the piece begins that is not recorded yet.
        self._begun = min(part.end, reach(records, part.start))
        #: Bytes that are there, from `start` on; more than belong here if the end came nearer.
        self.size = self._begun - part.start
        self._hash, self._hash_thread = hashlib.sha256(), HashThread()
        self._records = {r for r in records if r.start < self._begun and r.end > part.start}
        #: Called before each write; raises, or waits, while it is not sure that the part is still ours.
        self.guard: Callable[[], None] = lambda: None

    @property
    def end(self) -> int:
        """The byte behind the last one that belongs here; it may come nearer at any time."""
        return self._end

    @property
    def proves(self) -> bool:
        """Whether the content is proven: it will be, by the seal."""
        return True

    @property
    def unproven(self) -> bool:
        """Whether a dead process's word is all there is for some bytes."""
        return False

    def shorten(self, end: int) -> None:
        """Let the part end at this byte of the file, unless it ends before; for use from any thread."""
        with self._lock:
            self._end = max(self.start, min(self._end, end))

    def write(self, data: Data) -> None:
        """Append `data`, which must not change before the next call here returns.

        What would lie behind the end is dropped.
        """
        view = memoryview(data)
        while view:
            border = (self._begun // RECORD_SIZE + 1) * RECORD_SIZE
            position = self.start + self.size
            room = min(border, self._end) - position
            if room <= 0:
                self._hash_thread.wait()
                break
            piece, view = view[:room], view[room:]
            with disk(self._path):
                write_at(self._fd, piece, position, self.guard)
            self._hash_thread.feed(self._hash.update, piece)
            self.size += len(piece)
            if position + len(piece) == border:
                self._record()

    def reset(self) -> None:
        """Go back to the beginning of the part; what is recorded stays in the journal."""
        self.size, self._begun = 0, self.start
        self._hash = hashlib.sha256()
        self._records = set()

    def expect(self, file: RepoFile) -> None:
        """Learn a hash that became known late: the seal's matter."""

    def finish(self) -> tuple[Record, ...]:
        """Record the rest; return what the journal says of this part, by start.

        The first and the last record may reach beyond the part.
        """
        self._record()
        with disk(self._path):
            sync_folder(self._journal)
        return tuple(sorted(self._records))

    def close(self) -> None:
        """Let go of what writing took; the caller opened the files."""
        self._hash_thread.close()

    def _record(self) -> None:
        position = self.start + self.size
        if self._begun == position:
            return
        self._hash_thread.wait()
        record = Record(self._begun, position - self._begun, self._hash.hexdigest())
        # Before the fsync: what one fsync could not save, the next one does not even report.
        self._begun, self._hash = position, hashlib.sha256()
        with disk(self._path):
            os.fsync(self._fd)
            # For a record is about the file that has the name.
            require_name(self._fd, self._folder, self._path)
            try:
                add_record(self._journal, record)
            except FileNotFoundError:
                raise gone(self._path) from None
        self._records.add(record)


class Reader:
    """Reads the split file that had the name when it was opened, or nothing if there was none.

    All methods raise LocalError if the disk refuses.
    """

    def __init__(self, fd: int | None, path: Path) -> None:
        self._fd, self._path = fd, path

    def is_same(self, other: Reader) -> bool:
        """Return whether both read the same file, not only one of the same name."""
        if self._fd is None or other._fd is None:
            return False
        with disk(self._path):
            mine, theirs = _info(self._fd), _info(other._fd)
        return mine is not None and theirs is not None and os.path.samestat(mine, theirs)

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes there; fewer only where the file ends."""
        found = bytearray()
        with disk(self._path):
            while self._fd is not None and len(found) < length:
                data = os.pread(self._fd, length - len(found), offset + len(found))
                if not data:
                    break
                found += data
        return bytes(found)


def require_name(fd: int, folder: int, path: Path) -> None:
    """Raise TransientError unless an open file is the one at `path`, which lies in `folder`, now.

    Over NFS, what another machine did may be seen some seconds late. Raises OSError too.
    """
    if not has_name(fd, folder, path.name):
        raise gone(path)


def has_name(fd: int, folder: int, name: str) -> bool:
    """Return whether an open file is the one that has a name now; raises OSError."""
    try:
        named = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    opened = _info(fd)
    return opened is not None and os.path.samestat(named, opened)


def _info(fd: int) -> os.stat_result | None:
    """Return what an open file is; None if another machine of a network disk removed it."""
    try:
        return os.fstat(fd)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return None


def gone(path: Path) -> TransientError:
    """Return the error for a split file that somebody removed."""
    return TransientError(f"{path} was removed while it was in use; the next try makes it anew")
