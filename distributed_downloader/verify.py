"""Proves a file's content: size, and sha256 or git's blob hash, computed while the bytes pass."""

from __future__ import annotations

import hashlib
import os

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import CorruptError
from distributed_downloader.models import RepoFile

#: Bytes read at once where a file is hashed from disk.
READ_SIZE = 1 << 20


class Hasher:
    """The running hash of one file, of the kind that the hub named for it."""

    def __init__(self, file: RepoFile) -> None:
        self._file = file
        self._size = 0
        if file.sha256:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        self._expected = file.sha256 or file.git_sha1

    @property
    def proves(self) -> bool:
        """Whether the hub named a hash, so that `check` proves the content and not only its size."""
        return self._expected is not None

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        self._size += len(data)
        if self._expected:
            self._hash.update(data)

    def check(self) -> None:
        """Raise CorruptError unless the bytes so far are the whole file and nothing else."""
        path, size = self._file.path, self._file.size
        if self._size != size:
            raise CorruptError(f"{path}: {self._size} bytes came, the hub lists {size}")
        if self._expected and self._hash.hexdigest() != self._expected:
            found = self._hash.hexdigest()[:12]
            raise CorruptError(
                f"{path}: its {self._hash.name} is {found}…, the hub lists {self._expected[:12]}…"
            )


def feed(fd: int, hasher: Hasher, cancel: Cancel) -> None:
    """Hash an open file from its beginning to its end; raises StoppedError, OSError."""
    offset = 0
    while data := os.pread(fd, READ_SIZE, offset):
        cancel.check()
        hasher.update(data)
        offset += len(data)
