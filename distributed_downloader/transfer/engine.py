"""What every engine looks like from outside."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from distributed_downloader.cancel import Cancel
from distributed_downloader.models import DownloadTask, RepoFile
from distributed_downloader.throttle import Throttle
from distributed_downloader.verify import Data


class Progress(Protocol):
    """Is told how many bytes of the file or part are on disk; goes back to 0 when one starts over."""

    def __call__(self, bytes_done: int, /) -> None:
        """Take note."""


class Sink(Protocol):
    """Where an engine puts the bytes of a file, or of a part of one, in order."""

    @property
    def start(self) -> int:
        """The first byte of the file that belongs here."""

    @property
    def end(self) -> int:
        """The byte behind the last; others may bring it nearer at any moment."""

    @property
    def size(self) -> int:
        """Bytes that are there: the next one is byte `start + size` of the file."""

    @property
    def inherited(self) -> int:
        """Bytes of it that an earlier process left."""

    @property
    def proves(self) -> bool:
        """Whether somebody will prove the content, so that what is wrong is found later."""

    @property
    def unproven(self) -> bool:
        """Whether a dead process's word is all there is for some bytes, which is not enough."""

    def write(self, data: Data) -> None:
        """Append `data`, which must not change before the next call here returns; raises LocalError."""

    def reset(self) -> None:
        """Forget all bytes; no engine does that to a part."""

    def expect(self, file: RepoFile) -> None:
        """Learn the hash, because the hub told it late."""


class Context(NamedTuple):
    """One transfer: what to fetch, where to put it, and who may stop or slow it."""

    task: DownloadTask
    sink: Sink
    cancel: Cancel
    throttle: Throttle
    progress: Progress

    @property
    def is_part(self) -> bool:
        """Whether others fetch the rest of the file: nothing but what is asked for may be written."""
        return bool(self.task.about.place)  # a seal, too, fetches parts, to mend a file

    @property
    def position(self) -> int:
        """Which byte of the file comes next."""
        return self.sink.start + self.sink.size

    @property
    def left(self) -> int:
        """Bytes that are still missing, as of now; they may become fewer at any moment."""
        sink = self.sink
        return max(0, sink.end - sink.start - sink.size)

    def write(self, data: Data) -> None:
        """Take the next bytes from the network, as the sink does; waits where the throttle says so."""
        self.sink.write(data)
        self.progress(self.sink.size)
        self.throttle.take(len(data), self.cancel)


class Engine(Protocol):
    """One way to get a file's bytes."""

    name: str

    def fetch(self, context: Context) -> None:
        """Fill the sink up to its end, going on where it stands.

        Whether the bytes are the right ones is the caller's to check. Raises TransferError; what is in
        the sink then is a beginning that any engine may go on from.
        """

    def close(self) -> None:
        """Close the connections."""
