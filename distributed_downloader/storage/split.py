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
from distributed_downloader.display import units
from distributed_downloader.errors import (
    LocalError,
    PlaceError,
    PlaceUnseenError,
    RefusedError,
    RoomError,
    TransferError,
)
from distributed_downloader.models import JobSpec, Part, RepoFile
from distributed_downloader.outcome import Range, Record
from distributed_downloader.storage.disk import disk, open_folder, refuse_other, sync_folder
from distributed_downloader.storage.place import STATE, open_within
from distributed_downloader.storage.records import read_records, remove_records, touching
from distributed_downloader.storage.room import Room, preallocate
from distributed_downloader.storage.sink import PartSink, Reader, gone, has_name, require_name
from distributed_downloader.storage.target import Target

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Not for reading too: NFS would read the rest of a page that is written in pieces, which others write.
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STATE = [STATE.encode()]
_PARTIAL = b"partial"
#: What a disk says that has no room for this one file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Who owns what we make, by disk. Without a lock, for who asks at the same time hears the same.
_OWNERS: dict[int, int] = {}


class SplitFile:
    """One unpublished file in a place, preallocated, and beside it a folder with its journal.

    Any machine may use any method at any time. The file keeps its inode until it is published or
    discarded: whoever has it open writes what others read. All methods raise LocalError if the disk
    refuses, PlaceUnseenError if the place is not there (it is never made here) or another user's,
    PlaceError if the file has a second name, and RefusedError if something else has one of our names.
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
        alone: bool = False,
    ) -> None:
        """`parts` are the components of the final name, where that is not the one in an output folder.

        With `alone`, it is a file of its own, beside that of a fleet which may use the same folder: each
        proves what it wrote itself. The caller sees to it that it is (`RepoFolder.alone`).
        """
        self._root, self._file, self._cancel = root, file, cancel
        self._room = room or Room(0)
        self._target = Target(root, spec, file, parts)
        stem = f"{self._target.digest}.alone" if alone else self._target.digest
        self._name = f"{stem}.split"
        self._journal_name = f"{stem}.records".encode()
        #: Where it lies, for messages.
        self.path = root / STATE / "partial" / self._name

    def prepare(self) -> None:
        """Make the file and reserve its room unless that is done; no byte that was written changes.

        The journal of a file that is gone, or of another size, is removed. Raises RoomError if there is
        no room, PlaceError if the disk cannot hold so large a file, and RefusedError if the file could not
        be published.
        """
        with self._disk(), self._folder() as folder:
            self._target.check()
            missing = self._file.size - _allocated(folder, self._name)
            with self._room.take(self._root, missing), self._opened(folder, _WRITE | os.O_CREAT) as fd:
                if os.fstat(fd).st_size != self._file.size:
                    # In this order, so that no record vouches for a byte that nobody wrote. And in place,
                    # for another machine may have it open.
                    self._forget()
                    os.ftruncate(fd, self._file.size)
                    sync_folder(folder)
                self._preallocate(fd, folder)

    def records(self) -> list[Record]:
        """Return the journal by start; nothing if the file is gone or has another size."""
        with self._disk(), self._folder() as folder:
            return self._read_journal() if self._is_there(folder) else []

    def exists(self) -> bool:
        """Return whether the file is there, in its full size."""
        with self._disk(), self._folder() as folder:
            return self._is_there(folder)

    def forget(self, ranges: Iterable[Range]) -> None:
        """Remove the records that touch these ranges, so that `part` takes them up from their beginning."""
        with self._disk():
            self._forget(touching(ranges))

    @contextmanager
    def part(self, part: Part) -> Iterator[PartSink]:
        """Yield where the part's bytes go, behind those that the journal vouches for.

        However the block ends, what was written is recorded.
        """
        with ExitStack() as stack:
            with self._disk():  # and not around what the caller does with it
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
            with self._disk():
                folder = stack.enter_context(self._folder())
                fd = None
                with suppress(FileNotFoundError):
                    fd = stack.enter_context(self._opened(folder, _READ))
            yield Reader(fd, self.path)

    def publish(self, proven: Reader | None = None) -> None:
        """Give the file its final name, replacing what was there, and remove the journal.

        That its bytes are right is the caller's to check; `proven` is what it has read: another file that
        is seen to have the name by now is not published. Raises TransientError then, and if there is none.
        """
        with self._disk(), self._folder() as folder:
            try:
                with self._opened(folder, _WRITE) as fd:
                    if proven and not proven.is_same(Reader(fd, self.path)):
                        raise gone(self.path)
                    self._target.settle(fd)
                    require_name(fd, folder, self.path)  # for much may have happened meanwhile
                    self._move(folder)
            except FileNotFoundError:
                raise gone(self.path) from None
            with suppress(OSError):  # what stays of the journal is swept, and vouches for nothing
                self._remove_journal(folder)

    def discard(self) -> None:
        """Remove the file and its journal, if they are there."""
        with self._disk(), self._folder() as folder:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=folder)
            self._remove_journal(folder)

    def _move(self, folder: int) -> None:
        try:
            self._target.move(folder, self._name)
        except LocalError:
            os.stat(self._name, dir_fd=folder)  # raises FileNotFoundError if somebody was faster
            raise

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Translate what the disk says; what another user closed to us is open to others of the fleet."""
        with disk(self.path, whole=True):
            try:
                yield
            except PermissionError as error:
                owner = _owner(self.path)
                if owner == os.geteuid():
                    raise
                raise _foreign(self.path, owner) from error

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
    def _opened(self, folder: int, flags: int) -> Iterator[int]:
        refuse_other(folder, self._name.encode(), self.path, stat.S_IFREG)
        fd = os.open(self._name, flags, 0o600, dir_fd=folder)
        try:
            _require_file(os.fstat(fd), self.path)
            _require_ours(folder, fd, self.path)
            yield fd
        finally:
            with disk(self.path):
                os.close(fd)

    def _preallocate(self, fd: int, folder: int) -> None:
        if _room_of(os.fstat(fd)) >= self._file.size:
            return
        try:
            preallocate(fd, self._file.size, self._cancel)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._give_back(fd, folder)
            kind = PlaceError if error.errno == errno.EFBIG else RoomError
            raise kind(
                f"{self.path}: there is no room for {units.size(self._file.size)}; "
                "free some space, or use another --output-dir"
            ) from error

    def _give_back(self, fd: int, folder: int) -> None:
        """Remove a file in which nothing is written yet: what it reserved is room for others.

        Whoever has it open notices, which could not be said of a file that is truncated.
        """
        if not self._read_journal() and has_name(fd, folder, self._name):
            os.unlink(self._name, dir_fd=folder)
            self._remove_journal(folder)

    def _open_sink(self, part: Part, stack: ExitStack) -> PartSink:
        folder = stack.enter_context(self._folder())
        if not self._is_there(folder):
            self.prepare()
        fd = stack.enter_context(self._opened(folder, _WRITE))
        inner = [*_STATE, _PARTIAL]
        journal = stack.enter_context(open_within(self._root, inner, [self._journal_name], 0o700))
        _require_ours(folder, journal, self.path.with_suffix(".records"))
        records = read_records(journal, self._file.size, Range(part.start, part.length))
        sink = PartSink(fd, folder, journal, self.path, part=part, records=records)
        stack.callback(sink.close)
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


def _require_file(info: os.stat_result, path: Path) -> None:
    """Raise unless it is a file that only we can reach: others could change what we publish."""
    if not stat.S_ISREG(info.st_mode):
        raise RefusedError(f"{path} is not ours; remove it")
    if not info.st_nlink:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if info.st_nlink > 1:
        raise PlaceError(f"{path} has a second name, such as a backup by hard links; remove that")


def _require_ours(folder: int, fd: int, path: Path) -> None:
    """Raise PlaceUnseenError for what another user made."""
    owner = os.fstat(fd).st_uid
    if owner == os.geteuid() or owner == _owner_here(folder):
        return
    _OWNERS.pop(os.fstat(folder).st_dev, None)  # for what is mounted anew may have an old number
    if owner != _owner_here(folder):
        raise _foreign(path, owner)


def _foreign(path: Path, owner: int) -> PlaceUnseenError:
    """Return the error for what another user made: workers that run as that one can go on with it."""
    return PlaceUnseenError(
        f"{path} belongs to uid {owner} and this worker runs as uid {os.geteuid()}; "
        "run all workers as one user, who may write there"
    )


def _owner(path: Path) -> int:
    """Return who made a file, or the innermost of its folders that can be seen."""
    for where in (path, *path.parents):
        with suppress(OSError):
            return where.lstat().st_uid
    return 0


def _owner_here(folder: int) -> int:
    """Return who owns what we make on a folder's disk: network disks may give it to somebody else.

    A disk is asked once, for that makes a file there.
    """
    device = os.fstat(folder).st_dev
    if device not in _OWNERS:
        _OWNERS[device] = _ask_owner(folder)
    return _OWNERS[device]


def _ask_owner(folder: int) -> int:
    name = f"owner.{secrets.token_hex(6)}"
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        return os.fstat(fd).st_uid
    finally:
        os.close(fd)
        os.unlink(name, dir_fd=folder)
