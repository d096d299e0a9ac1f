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
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.models import RepoFile
from distributed_downloader.storage.disk import disk, remove_tree
from distributed_downloader.storage.sink import require_name
from distributed_downloader.storage.target import Target
from distributed_downloader.verify import READ_SIZE, Hasher, feed

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Somebody else put something there that we cannot or must not open.
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO)


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

    def __init__(self, folder: int, path: Path, file: RepoFile, cancel: Cancel) -> None:
        self._folder, self._path, self._file, self._cancel = folder, path, file, cancel
        with disk(path, whole=True):
            self._name, self._fd = self._open(path.name)
        #: Whether it is removed unless published.
        self.private = self._name != path.name
        self._hasher = Hasher(file)
        #: First byte of the file that belongs here.
        self.start = 0
        #: Bytes that are there.
        self.size = 0
        #: Bytes of it that an earlier process left.
        self.inherited = 0

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
        return self._path.with_name(f"{self._name}.staging")

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

    def write(self, data: bytes) -> None:
        """Append `data`."""
        view = memoryview(data)
        with disk(self._path):
            while view:
                count = os.pwrite(self._fd, view, self.size)
                self._hasher.update(view[:count])
                self.size += count
                view = view[count:]

    def reset(self) -> None:
        """Forget all bytes."""
        with disk(self._path):
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
        self._hasher.check()

    def publish(self, target: Target) -> None:
        """Put the file under its final name; raises RefusedError if a link or a folder is in the way.

        Raises TransientError if something else has the partial's name by now.
        """
        target.settle(self._fd)
        with disk(self._path):  # only now, for the disk may have taken minutes
            require_name(self._fd, self._folder, self._path.with_name(self._name))
        target.move(self._folder, self._name)

    def close(self) -> None:
        """Let go of the file; remove it if it cannot be resumed, or there is nothing to resume."""
        with disk(self._path):
            try:
                # What was published does not have this name any more, and is nobody's to remove.
                if (self.private or not self.size) and self._is_ours(self._name, self._fd):
                    with suppress(FileNotFoundError):
                        os.unlink(self._name, dir_fd=self._folder)
            finally:
                os.close(self._fd)

    def _open(self, name: str) -> tuple[str, int]:
        """Open and lock `name`, or a private file if that cannot be had."""
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
            with _closed_on_error(fd):
                ours = self._is_ours(name, fd)
            if ours:
                return name, fd
            os.close(fd)  # it was published or removed between open and lock
        private = f"{name}.{secrets.token_hex(6)}"
        fd = os.open(private, _FLAGS | os.O_EXCL, 0o600, dir_fd=self._folder)
        _lock(fd)
        return private, fd

    def _is_ours(self, name: str, fd: int) -> bool:
        try:
            named = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        opened = os.fstat(fd)
        return stat.S_ISREG(opened.st_mode) and opened.st_nlink == 1 and os.path.samestat(named, opened)

    def _take_over(self) -> None:
        """Hash what an earlier process left, unless it is too much to be a beginning."""
        with disk(self._path):
            found = os.fstat(self._fd).st_size
        if found > self._file.size:
            self.reset()
        elif found:
            self._hash_all()
            self.inherited = self.size

    def _hash_all(self) -> None:
        self._hasher = Hasher(self._file)
        with disk(self._path):
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
