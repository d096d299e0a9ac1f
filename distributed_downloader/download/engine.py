"""What every engine looks like from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from distributed_downloader.cancel import Cancel
from distributed_downloader.models import DownloadTask
from distributed_downloader.storage.partial import Partial
from distributed_downloader.throttle import Throttle


class Progress(Protocol):
    """Is told how many bytes of the file are on disk; goes back to 0 when a transfer starts over."""

    def __call__(self, bytes_done: int, /) -> None:
        """Take note."""


@dataclass(frozen=True)
class Context:
    """One transfer: what to fetch, where to put it, and who may stop or slow it."""

    task: DownloadTask
    partial: Partial
    cancel: Cancel
    throttle: Throttle
    progress: Progress

    def write(self, data: bytes) -> None:
        """Take the next bytes from the network; waits where the throttle says so."""
        self.partial.write(data)
        self.progress(self.partial.size)
        self.throttle.take(len(data), self.cancel)


class Engine(Protocol):
    """One way to get a file's bytes."""

    name: str

    def fetch(self, context: Context) -> None:
        """Fill the partial with all bytes of the file, going on where it ends.

        Whether they are the right ones is the caller's to check. Raises TransferError; what is in
        the partial then is a beginning that any engine may go on from.
        """

    def close(self) -> None:
        """Close the connections."""
