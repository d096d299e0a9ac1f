"""A fast local folder in which parts are fetched, while threads copy them to where they belong."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.display import units
from distributed_downloader.errors import LocalError, RoomError, SpoolError, StoppedError
from distributed_downloader.models import RepoFile
from distributed_downloader.outcome import Record
from distributed_downloader.storage.lane import Lane, Pool
from distributed_downloader.storage.records import RECORD_SIZE
from distributed_downloader.storage.room import Room
from distributed_downloader.storage.sink import PartSink
from distributed_downloader.verify import Data

#: Pieces of a part that the spool has at most: one comes in while the other one is copied.
_PIECES = 2
#: Bytes that are proven and copied at once.
_CHUNK = 1 << 20

_ADVICE = {
    errno.ENOENT: "make the folder, or set another one",
    errno.ENOSPC: "free some space there, or set another folder",
    errno.EDQUOT: "your quota there is used up; free some space, or set another folder",
    errno.EROFS: "the disk is mounted read-only",
    errno.EACCES: "the worker's user needs write permission there",
    errno.EPERM: "the worker's user needs write permission there",
    errno.EIO: "the disk fails; look at the kernel's log",
}


class Spool:
    """The spool of one worker, for all its slots, and the threads that empty it.

    What lies there has no name, so nothing stays when the process ends, however that happens.
    """

    def __init__(self, folder: Path, threads: int, room: Room | None = None) -> None:
        self._folder = folder
        self._room = room or Room(0)
        self._pool = Pool(threads, "spool")

    def close(self) -> None:
        """End the threads as soon as they have done what is asked of them; returns at once."""
        self._pool.close()

    @contextmanager
    def sink(self, opened: AbstractContextManager[PartSink], cancel: Cancel) -> Iterator[SpooledSink]:
        """Open a part and yield what takes its bytes instead; however the block ends, it is closed.

        That waits until everything is copied, unless `cancel` is set: then what is not copied yet is
        dropped, and a shared folder that does not answer delays us by seconds only: the part is then closed
        when it does. Raises SpoolError if the spool cannot be used, and what opening and closing raise.
        """
        lane = Lane(self._pool, cancel)
        with ExitStack() as stack:
            fd = self._new_file(stack)
            inner = stack.enter_context(opened)
            sink = SpooledSink(inner, lane, partial(_at_spool, self._folder), fd)
            self._take_room(stack, sink)
            everything = stack.pop_all()
        with cancel.closing(lane.wake):
            try:
                yield sink
                sink.finish()
            except BaseException:
                with suppress(Exception):  # the first error says more
                    sink.finish()
                # Not with the error itself, for another thread may handle it later than we do.
                dropped = StoppedError("the rest of the part was dropped")
                lane.close(partial(everything.__exit__, StoppedError, dropped, None))
                raise
            if error := lane.close(everything.close):
                raise error

    def _new_file(self, stack: ExitStack) -> int:
        with _at_spool(self._folder):
            file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - the stack closes it
            return stack.enter_context(file).fileno()

    def _take_room(self, stack: ExitStack, sink: SpooledSink) -> None:
        try:
            stack.enter_context(self._room.take(self._folder, sink.room_needed))
        except RoomError as error:
            raise SpoolError(
                f"[app] spool_dir: {self._folder} has no room for {units.size(sink.room_needed())} more, "
                f"beside what other transfers need and disk_reserve keeps; {_ADVICE[errno.ENOSPC]}"
            ) from error
        except LocalError as error:  # there was no way to tell
            raise SpoolError(f"[app] spool_dir: {error}") from error


class SpooledSink:
    """Takes the bytes of one part in order, as PartSink does, and hands them on in pieces.

    A piece is what will be one record. It is copied once it is complete, while the next one comes in.
    `write`, `reset` and `finish` raise what went wrong with an earlier copy, `write` and `finish` SpoolError
    too if the spool refuses.
    """

    def __init__(
        self,
        inner: PartSink,
        lane: Lane,
        at_spool: Callable[[], AbstractContextManager[None]],
        fd: int,
    ) -> None:
        self._inner, self._lane = inner, lane
        self._at_spool, self._fd = at_spool, fd
        #: First byte of the file that belongs here.
        self.start = inner.start
        #: Bytes that are in the spool or copied, from `start` on.
        self.size = inner.size
        self._needed = min(_PIECES * RECORD_SIZE, max(0, inner.end - inner.start - inner.size))
        #: How far each place of the spool was ever written.
        self._touched = [0] * _PIECES
        self._piece = _Piece(0)
        #: Of all bytes, once these are copied.
        self._records: tuple[Record, ...] | None = None

    @property
    def end(self) -> int:
        """The byte behind the last one that belongs here; it may come nearer at any time."""
        return self._inner.end

    @property
    def inherited(self) -> int:
        """Bytes that an earlier process left and that nothing proves."""
        return self._inner.inherited

    @property
    def proves(self) -> bool:
        """Whether the content is proven: it will be, by the seal."""
        return self._inner.proves

    @property
    def unproven(self) -> bool:
        """Whether a dead process's word is all there is for some bytes."""
        return self._inner.unproven

    @property
    def guard(self) -> Callable[[], None]:
        """Called before each write to the shared folder, in a thread of the pool."""
        return self._inner.guard

    @guard.setter
    def guard(self, guard: Callable[[], None]) -> None:
        self._inner.guard = guard

    def room_needed(self) -> int:
        """Return how many bytes more this part may take of the spool's disk."""
        return self._needed - sum(self._touched)

    def shorten(self, end: int) -> None:
        """Let the part end at this byte of the file, unless it ends before; for use from any thread."""
        self._inner.shorten(end)

    def expect(self, file: RepoFile) -> None:
        """Learn a hash that became known late."""
        self._inner.expect(file)

    def write(self, data: Data) -> None:
        """Append `data`; what would lie behind the end is dropped.

        Waits while the spool has a complete piece already; raises StoppedError.
        """
        view = memoryview(data)
        while view:
            self._lane.wait(_PIECES - 1)
            position = self.start + self.size
            border = (position // RECORD_SIZE + 1) * RECORD_SIZE
            room = min(border, self.end) - position
            if room <= 0:
                return
            if not self._piece.length:
                self._piece = _Piece(position // RECORD_SIZE % _PIECES)
            count = self._append(view[:room])
            view = view[count:]
            if position + count == border:
                self._hand_on()

    def reset(self) -> None:
        """Go back to the beginning of the part; what is recorded stays in the journal."""
        self._piece, self._records = _Piece(0), None
        self._lane.wait(0)
        self._inner.reset()
        self.size = 0

    def finish(self) -> tuple[Record, ...]:
        """Wait until all bytes are copied and recorded; return the records, as PartSink does.

        Raises StoppedError.
        """
        if self._records is None:
            self._hand_on()
            self._lane.add(self._finish)
            self._lane.wait(0)
        return self._records or ()

    def _append(self, data: memoryview) -> int:
        """Write to the spool; return how many bytes it took."""
        piece, self._records = self._piece, None
        with self._at_spool():
            count = os.pwrite(self._fd, data, piece.offset + piece.length)
        piece.add(data[:count])
        self._touched[piece.place] = max(self._touched[piece.place], piece.length)
        self.size += count
        return count

    def _hand_on(self) -> None:
        if self._piece.length:
            self._lane.add(partial(self._copy, self._piece))
        self._piece = _Piece(0)

    # -- in a thread of the pool ------------------------------------------------------------------

    def _copy(self, piece: _Piece) -> None:
        """Copy a piece to where it belongs, but nothing that is not as it came from the network."""
        for number, digest in enumerate(piece.hashes):
            self._lane.check()
            begin = number * _CHUNK
            with self._at_spool():
                data = os.pread(self._fd, min(_CHUNK, piece.length - begin), piece.offset + begin)
                if hashlib.sha256(data).digest() != digest.digest():
                    raise OSError(errno.EIO, "what is read back is not what was written")
            self._inner.write(data)

    def _finish(self) -> None:
        self._records = self._inner.finish()


class _Piece:
    """Bytes in one place of the spool, with the hashes that they had when they came."""

    def __init__(self, place: int) -> None:
        self.place = place
        #: Where it begins in the spool.
        self.offset = place * RECORD_SIZE
        self.length = 0
        #: Of each chunk.
        self.hashes = [hashlib.sha256()]

    def add(self, data: memoryview) -> None:
        """Take note of bytes that were appended."""
        while data:
            if self.length and self.length % _CHUNK == 0:
                self.hashes.append(hashlib.sha256())
            chunk = data[: _CHUNK - self.length % _CHUNK]
            self.hashes[-1].update(chunk)
            self.length += len(chunk)
            data = data[len(chunk) :]


@contextmanager
def _at_spool(folder: Path) -> Iterator[None]:
    """Translate what the spool's disk says: it is the machine's problem, not that of one file."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        advice = _ADVICE.get(error.errno or 0, "see to the disk, or set another folder")
        raise SpoolError(f"[app] spool_dir: {folder}: {why}; {advice}") from error
