"""Copies the bytes of one file to the NAS: hashed on the way, or by the kernel alone; and reads them back."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.display import units
from distributed_downloader.errors import CorruptError, LocalError, PlaceError, RoomError
from distributed_downloader.models import RepoFile
from distributed_downloader.storage.disk import disk_error, open_folder, refuse_other
from distributed_downloader.storage.place import STATE
from distributed_downloader.storage.target import Target
from distributed_downloader.verify import READ_SIZE, Hasher

#: Where copies lie until they are complete, below the NAS's root.
PARTIAL = [STATE.encode(), b"partial"]
#: Never through a link, and never waiting for the other end of a pipe.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Seconds after which a copy that nobody went on with is removed.
KEEP_COPY = 7 * 24 * 3600.0
_NAME = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{12}\.copy")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: Bytes that the kernel copies at once; between two of them we may stop.
_KERNEL_SIZE = 16 << 20
#: Bytes after which the NAS must have what was written: else the end of a large file would be one long
#: silence, and a full NAS would show only there.
_SYNC_EVERY = 64 << 20
#: Part of a NAS that has to be free; with less, a file that does not fit is not what is wrong.
_FULL = 0.01

#: Translates the errors of a disk.
Where = Callable[[], AbstractContextManager[None]]

_ADVICE = {
    errno.ENOSPC: "free some space on the NAS",
    errno.EDQUOT: "the quota there is used up; free some space on the NAS",
    errno.EROFS: "it is mounted read-only",
    errno.EACCES: "the worker's user needs write permission there",
    errno.EPERM: "the worker's user needs write permission there",
    errno.ESTALE: "the mount is gone; mount it again",
    errno.EXDEV: "a repo's folder must not be a mount point of its own",
    errno.EFBIG: "the NAS cannot hold a file of that size",
}


@contextmanager
def at_nas(where: object, *, whole: bool = False) -> Iterator[None]:
    """Translate what the NAS says; `whole` as for `disk_error`."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        # A mount in the way of one repo says nothing about the others.
        kind = PlaceError if error.errno == errno.EXDEV else type(disk_error(error, where, whole=whole))
        raise kind(f"{where}: {why}; {_ADVICE.get(error.errno or 0, 'see to the NAS')}") from error


@contextmanager
def at_source(where: object) -> Iterator[None]:
    """Translate what the disk says from which we copy: it concerns this one file."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise PlaceError(f"{where}: {why}; it cannot be copied to the NAS") from error


def damaged(source: Path, why: str) -> CorruptError:
    """Return the error for a local file that is not what was downloaded."""
    return CorruptError(f"{source} is damaged, or another commit's, and is not copied to the NAS: {why}")


@contextmanager
def opened_source(root: Path, mine: Target) -> Iterator[int | None]:
    """Yield a descriptor of the local file; None if there is none."""
    with at_source(mine.path):
        try:
            with open_folder(root, mine.parents, create=False) as folder:
                refuse_other(folder, mine.name, mine.path, stat.S_IFREG)
                fd = os.open(mine.name, READ, dir_fd=folder)
        except FileNotFoundError:
            fd = None
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def look_alike(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two files have one size and time."""
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether this is one file, and nobody has written to it in between."""
    return os.path.samestat(one, other) and look_alike(one, other)


def remove_source(root: Path, mine: Target, expected: os.stat_result) -> bool:
    """Remove a local file if it is the expected one; return whether it was.

    It is moved aside first, where nobody can replace it between the look and the removal.
    """
    hidden = f"{mine.digest}.{secrets.token_hex(6)}.removed"
    with open_folder(root, PARTIAL) as aside, open_folder(root, mine.parents, create=False) as folder:
        os.rename(mine.name, hidden, src_dir_fd=folder, dst_dir_fd=aside)
        with ExitStack() as unless_removed:
            unless_removed.callback(_put_back, aside, hidden, folder, mine.name)
            if not is_same(os.stat(hidden, dir_fd=aside, follow_symlinks=False), expected):
                return False
            os.unlink(hidden, dir_fd=aside)
            unless_removed.pop_all()
    return True


def _put_back(aside: int, hidden: str, folder: int, name: bytes) -> None:
    try:
        os.link(hidden, name, src_dir_fd=aside, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        pass  # published meanwhile, and would have replaced this one
    except OSError:  # a disk without hard links
        os.rename(hidden, name, src_dir_fd=aside, dst_dir_fd=folder)
        return
    os.unlink(hidden, dir_fd=aside)


@dataclass(frozen=True)
class Copying:
    """One file on its way from `source` to `target`, which are for messages; descriptors do the work."""

    file: RepoFile
    source: Path
    target: Path
    cancel: Cancel
    #: Told the bytes copied so far whenever something moved, if only bytes that are read to be checked.
    progress: Callable[[int], None]

    def check_room(self, folder: int) -> None:
        """Before a NAS is filled for nothing, raise RoomError, or LocalError if hardly anything is free."""
        with at_nas(self.target):
            info = os.fstatvfs(folder)
        free = info.f_bavail * info.f_frsize
        if info.f_blocks and self.file.size > free:  # some NAS do not know their size
            kind = LocalError if info.f_bavail < info.f_blocks * _FULL else RoomError
            raise kind(
                f"{self.target}: {units.size(self.file.size)} are needed and {units.size(free)} are free; "
                "free some space on the NAS"
            )

    def prove(self, source: int) -> None:
        """Read the source alone; raises CorruptError if it is not the file."""
        self._check(self._digest(source, partial(at_source, self.source)))

    def with_hash(self, source: int, target: int) -> None:
        """Copy and prove the content; raises CorruptError if the source is not the file."""
        hasher, done = Hasher(self.file), 0
        while data := self._read(source):
            hasher.update(data)
            with at_nas(self.target):
                _write(target, data)
                done = self._moved(target, done, len(data))
            if done > self.file.size:
                break
        self._check(hasher)

    def by_kernel(self, source: int, target: int) -> None:
        """Let the kernel copy, so that the bytes are not written by us, and prove the source beside it.

        The NAS's own server may copy so. The source is hashed all the same where the hub names a hash: a
        later commit's file may have got its name and have its size. Raises CorruptError as `with_hash` does.
        """
        hasher, done = Hasher(self.file), 0
        for step in (_copy_range, _send, self._pass_on):
            while done < self.file.size and (count := step(source, target, self.file.size - done)):
                self._hash(hasher, source, done, count)
                with at_nas(self.target):
                    done = self._moved(target, done, count)
        if hasher.proves:
            self._check(hasher)

    def is_right(self, fd: int, *, local: bool = False) -> bool:
        """Return whether an open file of the NAS, or the local one, has the right hash.

        Without a hash only an empty file counts, for another commit's file may have the same size.
        """
        where = partial(at_source, self.source) if local else partial(at_nas, self.target)
        with where():
            size = os.fstat(fd).st_size
        if size != self.file.size:
            return False
        hasher = self._digest(fd, where)
        with suppress(CorruptError):
            hasher.check()
            return hasher.proves or size == 0
        return False

    def finish(self, target: int) -> None:
        """Make the copy safe from a power cut; raises PlaceError if it is not as long as the file."""
        with at_nas(self.target):
            os.fsync(target)
            size = os.fstat(target).st_size
        if size != self.file.size:
            raise PlaceError(f"{self.target}: {size} bytes arrived of {self.file.size}")

    def read_back(self, folder: int, name: str, written: int) -> None:
        """Check what the NAS gives back; raises PlaceError if it is not the file."""
        with at_nas(self.target):
            if sys.platform == "linux":
                with suppress(OSError):  # or we would read our own memory, but it is an advice only
                    os.posix_fadvise(written, 0, 0, os.POSIX_FADV_DONTNEED)
            fd = os.open(name, READ, dir_fd=folder)
        try:
            self._digest(fd, partial(at_nas, self.target)).check()
        except CorruptError as error:
            raise PlaceError(f"{self.target}: the copy that was read back is not the file: {error}") from None
        finally:
            os.close(fd)

    def _digest(self, fd: int, where: Where) -> Hasher:
        """Read an open file, to its end or beyond where that should be."""
        hasher, offset = Hasher(self.file), 0
        while offset <= self.file.size:
            self.cancel.check()
            with where():
                data = os.pread(fd, READ_SIZE, offset)
            if not data:
                break
            hasher.update(data)
            offset += len(data)
            self.progress(0)
        return hasher

    def _check(self, hasher: Hasher) -> None:
        try:
            hasher.check()
        except CorruptError as error:
            raise damaged(self.source, str(error)) from None

    def _hash(self, hasher: Hasher, source: int, start: int, count: int) -> None:
        """Hash bytes of the source that were copied just now, and so are in memory mostly."""
        for offset in range(start, start + count, READ_SIZE):
            self.cancel.check()
            if hasher.proves:
                with at_source(self.source):
                    hasher.update(os.pread(source, min(READ_SIZE, start + count - offset), offset))

    def _pass_on(self, source: int, target: int, _: int) -> int:
        """Copy what the kernel would not, and get the exact error if there is one."""
        data = self._read(source)
        with at_nas(self.target):
            _write(target, data)
        return len(data)

    def _read(self, source: int) -> bytes:
        self.cancel.check()
        with at_source(self.source):
            return os.read(source, READ_SIZE)

    def _moved(self, target: int, before: int, count: int) -> int:
        """Return the bytes copied so far."""
        done = before + count
        if done // _SYNC_EVERY > before // _SYNC_EVERY:
            os.fsync(target)
        self.progress(done)
        return done


@contextmanager
def temporary(folder: int, digest: str) -> Iterator[tuple[str, int]]:
    """Yield name and descriptor of a new file of ours, which is removed on an error.

    Its mode is what the umask and the folder's access list say; a chmod is more than some NAS understand.
    """
    name = f"{digest}.{secrets.token_hex(6)}.copy"
    fd = os.open(name, _NEW, 0o666, dir_fd=folder)
    try:
        yield name, fd
    except BaseException:
        with suppress(OSError):  # the NAS may be gone; the sweep comes later
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(fd)


def sweep_copies(root: Path, *, older_than: float = KEEP_COPY) -> int:
    """Remove what killed workers left of copies on the NAS, so many seconds ago; return how much.

    Raises LocalError.
    """
    deadline = time.time() - older_than
    with at_nas(root):
        try:
            with open_folder(root, PARTIAL, create=False) as folder, os.scandir(folder) as entries:
                ours = (entry for entry in entries if _NAME.fullmatch(entry.name))
                return sum(_discard(folder, entry, deadline) for entry in ours)
        except FileNotFoundError:
            return 0


def _discard(folder: int, entry: os.DirEntry[str], deadline: float) -> bool:
    # Another worker may be faster, or the file another user's.
    with suppress(FileNotFoundError, PermissionError):
        if entry.stat(follow_symlinks=False).st_mtime < deadline:
            os.unlink(entry.name, dir_fd=folder)
            return True
    return False


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy_range(source: int, target: int, count: int) -> int:
    """Copy from where both files stand; 0 if it cannot be done so, for whatever reason."""
    if sys.platform != "linux":
        return 0
    try:
        return os.copy_file_range(source, target, min(count, _KERNEL_SIZE))
    except OSError:
        return 0


def _send(source: int, target: int, count: int) -> int:
    """Copy like `_copy_range`, with an older call that also works between file systems."""
    if sys.platform != "linux":
        return 0
    try:
        return os.sendfile(target, source, None, min(count, _KERNEL_SIZE))
    except OSError:
        return 0
