"""A file that several machines write at once, and the journal of what is there already."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import PlaceError, PlaceUnseenError, RefusedError, TransferError
from distributed_downloader.models import JobSpec, Part, RepoFile
from distributed_downloader.outcome import Range, Record
from distributed_downloader.storage.disk import disk, open_folder, refuse_other, sync_folder
from distributed_downloader.storage.place import STATE, open_within
from distributed_downloader.storage.records import cut, gaps, read_records, remove_records, touching
from distributed_downloader.storage.room import Room, preallocate
from distributed_downloader.storage.sink import PartSink, Reader, gone
from distributed_downloader.storage.target import Target

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STATE = [STATE.encode()]
_PARTIAL = b"partial"
#: What a disk says that has no room for this one file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SplitFile:
    """One unpublished file in a place, preallocated, and beside it a folder with its journal.

    Any machine may use any method at any time. The file keeps its inode until it is published or
    discarded: whoever has it open writes what others read. All methods raise LocalError if the disk
    refuses, PlaceUnseenError if the place is not there (it is never made here), and RefusedError if
    something that is not ours has one of our names.
    """

    def __init__(
        self,
        root: Path,
        spec: JobSpec,
        file: RepoFile,
        cancel: Cancel,
        room: Room | None = None,
        *,
        parts: Sequence[bytes] | None = None,
    ) -> None:
        """`parts` are the components of the final name, where that is not the one in an output folder."""
        self._root, self._file, self._cancel = root, file, cancel
        self._room = room or Room(0)
        self._target = Target(root, spec, file, parts)
        self._name = f"{self._target.digest}.split"
        self._journal_name = f"{self._target.digest}.records".encode()
        #: Where it lies, for messages.
        self.path = root / STATE / "partial" / self._name

    def prepare(self) -> None:
        """Make the file and reserve its room unless that is done; no byte that was written changes.

        The journal of a file that is gone, or of another size, is removed. Raises PlaceError if there is
        no room, and RefusedError if the file could not be published.
        """
        with disk(self.path, whole=True), self._folder() as folder:
            self._target.check()
            missing = self._file.size - _allocated(folder, self._name)
            with self._room.take(self._root, missing), self._opened(folder, create=True) as fd:
                if os.fstat(fd).st_size != self._file.size:
                    # In this order, so that no record vouches for a byte that nobody wrote. And in place,
                    # for another machine may have it open.
                    self._forget()
                    os.ftruncate(fd, self._file.size)
                    sync_folder(folder)
                self._preallocate(fd)

    def records(self) -> list[Record]:
        """Return the journal by start; nothing if the file is gone or has another size."""
        with disk(self.path, whole=True), self._folder() as folder:
            return self._read_journal() if self._is_there(folder) else []

    def exists(self) -> bool:
        """Return whether the file is there, in its full size."""
        with disk(self.path, whole=True), self._folder() as folder:
            return self._is_there(folder)

    def missing(self, size: int) -> list[Range]:
        """Return what no record covers, by start, cut at multiples of `size` bytes."""
        return list(cut(gaps(self.records(), self._file.size), size))

    def forget(self, ranges: Iterable[Range]) -> None:
        """Remove the records that touch these ranges, so that `part` takes them up from their beginning."""
        with disk(self.path, whole=True):
            self._forget(touching(ranges))

    @contextmanager
    def part(self, part: Part) -> Iterator[PartSink]:
        """Yield where the part's bytes go, behind those that the journal vouches for.

        However the block ends, what was written is recorded.
        """
        with ExitStack() as stack:
            with disk(self.path, whole=True):  # and not around what the caller does with it
                sink = self._open_sink(part, stack)
            try:
                yield sink
            except BaseException:
                with suppress(TransferError):  # the first error says more
                    sink.finish()
                raise
            sink.finish()

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Yield a reader of what all machines have written up to now.

        A file that is gone reads as an empty one: to whoever compares, its bytes are damaged.
        """
        with ExitStack() as stack:
            with disk(self.path, whole=True):
                folder = stack.enter_context(self._folder())
                fd = None
                with suppress(FileNotFoundError):
                    fd = stack.enter_context(self._opened(folder))
            yield Reader(fd, self.path)

    def publish(self, proven: Reader | None = None) -> None:
        """Give the file its final name, replacing what was there, and remove the journal.

        That its bytes are right is the caller's to check; `proven` is what it has read: another file that
        has got the name meanwhile is not published. Raises TransientError if the file is gone.
        """
        with disk(self.path, whole=True), self._folder() as folder:
            try:
                with self._opened(folder) as fd:
                    if proven and not proven.is_same(Reader(fd, self.path)):
                        raise gone(self.path)
                    self._target.publish(fd, folder, self._name)
            except FileNotFoundError:
                raise gone(self.path) from None
            with suppress(OSError):  # what stays of the journal is swept, and vouches for nothing
                self._remove_journal(folder)

    def discard(self) -> None:
        """Remove the file and its journal, if they are there."""
        with disk(self.path, whole=True), self._folder() as folder:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=folder)
            self._remove_journal(folder)

    @contextmanager
    def _folder(self) -> Iterator[int]:
        """Open the folder of partial data; raises PlaceUnseenError rather than make a place."""
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(open_within(self._root, _STATE, [_PARTIAL]))
            except FileNotFoundError:
                raise PlaceUnseenError(f"{self._root} is not there any more; is it still mounted?") from None
            yield folder

    @contextmanager
    def _journal(self) -> Iterator[int]:
        """Open the folder of the journal; raises FileNotFoundError if there is none."""
        with open_folder(self._root, [*_STATE, _PARTIAL, self._journal_name], create=False) as journal:
            yield journal

    def _read_journal(self) -> list[Record]:
        with suppress(FileNotFoundError), self._journal() as journal:
            return read_records(journal, self._file.size)
        return []

    def _forget(self, doomed: Callable[[Record], bool] | None = None) -> None:
        with suppress(FileNotFoundError), self._journal() as journal:
            remove_records(journal, doomed)
            sync_folder(journal)

    def _remove_journal(self, folder: int) -> None:
        with suppress(FileNotFoundError):
            for _ in range(3):  # somebody may add a record at the same time
                self._forget()
                try:
                    os.rmdir(self._journal_name, dir_fd=folder)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                else:
                    break
        sync_folder(folder)

    def _is_there(self, folder: int) -> bool:
        try:
            info = os.stat(self._name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(info.st_mode) and info.st_nlink == 1 and info.st_size == self._file.size

    @contextmanager
    def _opened(self, folder: int, *, create: bool = False) -> Iterator[int]:
        refuse_other(folder, self._name.encode(), self.path, stat.S_IFREG)
        flags = _FLAGS | os.O_CREAT if create else _FLAGS
        fd = os.open(self._name, flags, 0o600, dir_fd=folder)
        try:
            _refuse_foreign(folder, fd, self.path)
            yield fd
        finally:
            with disk(self.path):
                os.close(fd)

    def _preallocate(self, fd: int) -> None:
        if _room_of(os.fstat(fd)) >= self._file.size:
            return
        try:
            preallocate(fd, self._file.size, self._cancel)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise PlaceError(
                f"{self.path}: there is no room for {self._file.size:,} bytes; "
                "free some space, or use another --output-dir"
            ) from error

    def _open_sink(self, part: Part, stack: ExitStack) -> PartSink:
        folder = stack.enter_context(self._folder())
        if not self._is_there(folder):
            self.prepare()
        fd = stack.enter_context(self._opened(folder))
        journal = stack.enter_context(open_within(self._root, [*_STATE, _PARTIAL], [self._journal_name]))
        records = read_records(journal, self._file.size)
        sink = PartSink(fd, folder, journal, self.path, part=part, records=records)
        if _room_of(os.fstat(fd)) < self._file.size:  # the disk cannot reserve
            stack.enter_context(self._room.take(self._root, lambda: sink.end - sink.start - sink.size))
        return sink


def _room_of(info: os.stat_result) -> int:
    return info.st_blocks * 512


def _allocated(folder: int, name: str) -> int:
    try:
        return _room_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return 0


def _refuse_foreign(folder: int, fd: int, path: Path) -> None:
    """Raise RefusedError for a file that others made or can reach: they could change what we publish."""
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode) and not info.st_nlink:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    ours = info.st_uid == os.geteuid() or info.st_uid == _owner_here(folder)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1 or not ours:
        raise RefusedError(f"{path} is not ours, or has a second name; remove it")


def _owner_here(folder: int) -> int:
    """Return who owns what we make in a folder: network disks may give it to somebody else."""
    name = f"owner.{secrets.token_hex(6)}"
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        return os.fstat(fd).st_uid
    finally:
        os.close(fd)
        os.unlink(name, dir_fd=folder)
