"""The bytes of one file before it is published: written once, by one process, and hashed on the way."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.models import RepoFile
from distributed_downloader.storage.disk import disk, remove_tree
from distributed_downloader.storage.root import Root
from distributed_downloader.storage.sink import gone, has_name, write_at
from distributed_downloader.storage.target import Target
from distributed_downloader.verify import READ_SIZE, Data, Hasher, HashThread, feed

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Somebody else put something there that we cannot or must not open.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO)


@cache
def host_tag() -> str:
    """Return this host's name as it is used in file names."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:64] or "host"


class Partial:
    """One unpublished file in `folder`, which the caller keeps open; use as a context manager.

    It is named `name` and goes on where an earlier process of this host was killed, unless
    somebody else is writing it or the disk has no locks: then it is a private file that is
    removed unless published. So two writers never share an inode, and nobody writes to a
    published one. All methods raise LocalError if the disk refuses.
    """

    def __init__(self, folder: int, where: Path, name: str, file: RepoFile, cancel: Cancel) -> None:
        """`where` is the path of `folder`, for messages."""
        self._folder, self._where, self._file, self._cancel = folder, where, file, cancel
        self._name = name
        with disk(self, whole=True):
            self._name, self._fd, info = self._open(name)
        #: Whether it is removed unless published.
        self.private = self._name != name
        #: The number of its disk (st_dev).
        self.device = info.st_dev
        self._found = info.st_size
        self._hasher, self._hash_thread = Hasher(file), HashThread()
        #: First byte of the file that belongs here.
        self.start = 0
        #: Bytes that are there.
        self.size = 0
        #: Bytes of it that an earlier process left.
        self.inherited = 0

    def __str__(self) -> str:
        return str(self._path)

    @property
    def _path(self) -> Path:
        return self._where / self._name

    def __enter__(self) -> Partial:
        try:
            self._take_over()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def end(self) -> int:
        """The byte behind the last one that belongs here."""
        return self._file.size

    @property
    def proves(self) -> bool:
        """Whether a hash is known, so that `check` proves the content."""
        return self._hasher.proves

    @property
    def unproven(self) -> bool:
        """Whether a dead process's word is all there is for some bytes, which is not enough."""
        return self.inherited > 0 and not self.proves

    @property
    def staging(self) -> Path:
        """A folder beside the partial that only its holder uses; see `make_staging`."""
        return self._where / f"{self._name}.staging"

    def make_staging(self) -> Path:
        """Make the staging folder, empty and closed to others."""
        self.remove_staging()
        with disk(self.staging):
            os.mkdir(self.staging.name, 0o700, dir_fd=self._folder)
        return self.staging

    def remove_staging(self) -> None:
        """Remove the staging folder with all that is in it, if it is there."""
        with disk(self.staging), suppress(FileNotFoundError):
            remove_tree(self._folder, self.staging.name)

    def write(self, data: Data) -> None:
        """Append `data`, which must not change before the next call here returns."""
        view = memoryview(data)
        with disk(self):
            write_at(self._fd, view, self.size)
        self._hash_thread.feed(self._hasher.update, view)
        self.size += len(view)

    def reset(self) -> None:
        """Forget all bytes."""
        with disk(self):
            os.ftruncate(self._fd, 0)
        self.size = self.inherited = 0
        self._hasher = Hasher(self._file)

    def expect(self, file: RepoFile) -> None:
        """Check against `file` from now on, because its hash became known late."""
        self._file = file
        self._hash_all()

    def adopt(self, path: Path) -> None:
        """Make the file at `path`, on the same disk and nobody else's, the content; it is moved."""
        with disk(path):
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            with _closed_on_error(fd):
                _lock(fd)
                os.rename(path, self._name, dst_dir_fd=self._folder)
        os.close(self._fd)
        self._fd = fd
        self.inherited = 0
        self._hash_all()

    def copy(self, path: Path) -> None:
        """Make a copy of the file at `path` the content."""
        self.reset()
        with disk(path), path.open("rb") as source:
            while data := source.read(READ_SIZE):
                self._cancel.check()
                self.write(data)

    def check(self) -> None:
        """Raise CorruptError unless the bytes are the whole file."""
        self._hash_thread.wait()
        self._hasher.check()

    def publish(self, target: Target, root: Root) -> None:
        """Put the file under its final name; raises RefusedError if a link or a folder is in the way.

        That name may not survive a power cut yet, but it never shows a file that is not complete. Raises
        TransientError if something else has the partial's name by now.
        """
        target.settle(self._fd)
        with disk(self):  # only now, for the disk may have taken minutes
            if not has_name(self._fd, self._folder, self._name):
                raise gone(self._path)
        with disk(target):
            try:
                target.put(self._folder, self._name, root.enter(target.parents))
            except FileNotFoundError:
                root.forget()  # somebody has just removed the folder that we had open
                target.put(self._folder, self._name, root.enter(target.parents))

    def close(self) -> None:
        """Let go of the file; remove it if it cannot be resumed, or there is nothing to resume."""
        self._hash_thread.close()
        with disk(self):
            try:
                # What was published does not have this name any more, and is nobody's to remove.
                if (self.private or not self.size) and self._if_ours(self._name, self._fd):
                    with suppress(FileNotFoundError):
                        os.unlink(self._name, dir_fd=self._folder)
            finally:
                os.close(self._fd)

    def _open(self, name: str) -> tuple[str, int, os.stat_result]:
        """Open and lock `name`, or a private file if that cannot be had; return what it is, too."""
        for _ in range(3):
            try:
                fd = os.open(name, _FLAGS, 0o600, dir_fd=self._folder)
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise
                break
            if not _lock(fd):
                os.close(fd)
                break
            try:
                ours = self._if_ours(name, fd)
            except BaseException:
                os.close(fd)
                raise
            if ours:
                return name, fd, ours
            os.close(fd)  # it was published or removed between open and lock
        private = f"{name}.{secrets.token_hex(6)}"
        fd = os.open(private, _FLAGS | os.O_EXCL, 0o600, dir_fd=self._folder)
        _lock(fd)
        with _closed_on_error(fd):
            return private, fd, os.fstat(fd)

    def _if_ours(self, name: str, fd: int) -> os.stat_result | None:
        """Return what an open file is; None if it has not that name and no other."""
        try:
            named = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        opened = os.fstat(fd)
        ours = stat.S_ISREG(opened.st_mode) and opened.st_nlink == 1 and os.path.samestat(named, opened)
        return opened if ours else None

    def _take_over(self) -> None:
        """Hash what an earlier process left, unless it is too much to be a beginning."""
        if self._found > self._file.size:
            self.reset()
        elif self._found:
            self._hash_all()
            self.inherited = self.size

    def _hash_all(self) -> None:
        self._hasher = Hasher(self._file)
        with disk(self):
            # First, so that a stop while hashing does not look like an empty partial.
            self.size = os.fstat(self._fd).st_size
            feed(self._fd, self._hasher, self._cancel)


@contextmanager
def _closed_on_error(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise


def _lock(fd: int) -> bool:
    """Take the lock; False if somebody else has it, or the disk has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(folder: int, name: str) -> bool:
    """Return whether somebody is writing a partial; on a disk without locks nobody can tell."""
    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        return is_taken(fd)
    finally:
        os.close(fd)


def is_taken(fd: int) -> bool:
    """Take the lock; return whether somebody else has it. On a disk without locks nobody can tell."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
