"""Proves a file's content: size, and sha256 or git's blob hash, computed while the bytes pass."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import CorruptError
from distributed_downloader.models import RepoFile

#: Bytes read at once where a file is hashed from disk.
READ_SIZE = 1 << 20
#: Bytes that are worth the way to a thread and back.
_WORTH_IT = 1 << 18

Data = bytes | memoryview
_Pieces = queue.SimpleQueue[tuple[Callable[[Data], object], Data] | None]


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

    def update(self, data: Data) -> None:
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


class HashThread:
    """Feeds a hash while its owner, which is one thread, already gets the next bytes; must be closed.

    Small pieces, the first large one, and all where no thread can be started are taken without it. What goes
    wrong in the thread stays wrong: the hash lacks a piece, so every call raises it but `close`.
    """

    def __init__(self) -> None:
        self._pieces: _Pieces = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._had_one = False
        #: Held while a piece is in the thread.
        self._busy = threading.Lock()
        self._error: BaseException | None = None

    def feed(self, take: Callable[[Data], object], data: Data) -> None:
        """Have `take` take `data`, which must not change before the next call of a method here returns."""
        self.wait()
        if len(data) < _WORTH_IT or not self._is_running():
            take(data)
        else:
            self._busy.acquire()  # until the thread has taken it
            try:
                self._pieces.put((take, data))
            except MemoryError:
                self._busy.release()
                raise

    def wait(self) -> None:
        """Return when everything is taken; raises what went wrong with that."""
        with self._busy:
            if self._error:
                raise self._error

    def close(self) -> None:
        """End the thread, once everything is taken."""
        if self._thread:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None
        self._error = None  # whose trace leads to the buffers

    def _is_running(self) -> bool:
        """Start the thread if there is more than one piece for it; return whether it runs."""
        if not self._thread and self._had_one:
            pieces: _Pieces = queue.SimpleQueue()  # of this thread alone, whatever becomes of its start
            try:
                thread = threading.Thread(target=self._run, args=(pieces,), name="hash", daemon=True)
                thread.start()
                self._pieces, self._thread = pieces, thread
            except (RuntimeError, MemoryError):  # the machine has none left, for the time being
                pieces.put(None)  # for one that runs already
        self._had_one = True
        return self._thread is not None

    def _run(self, pieces: _Pieces) -> None:
        while piece := pieces.get():
            take, data = piece
            try:
                take(data)
            except BaseException as error:  # noqa: BLE001 - raised again by `wait`, in the owner's thread
                self._error = error
            del piece, data
            self._busy.release()


def feed(fd: int, hasher: Hasher, cancel: Cancel, progress: Callable[[int], object] = lambda _: None) -> None:
    """Hash an open file from beginning to end, telling how far it is; raises StoppedError, OSError."""
    offset = 0
    while data := os.pread(fd, READ_SIZE, offset):
        cancel.check()
        hasher.update(data)
        offset += len(data)
        progress(offset)
