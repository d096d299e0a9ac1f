"""The tasks of split files: a part goes to its place among others, and the seal puts them together."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    LocalError,
    PlaceError,
    PlaceUnseenError,
    RangeError,
    RoomError,
    SpoolError,
    StoppedError,
)
from distributed_downloader.folders import Folders
from distributed_downloader.hold import Hold
from distributed_downloader.models import DownloadTask, Part
from distributed_downloader.outcome import Finished
from distributed_downloader.storage.room import Room
from distributed_downloader.storage.sink import PartSink
from distributed_downloader.storage.split import SplitFile
from distributed_downloader.storage.spool import Spool, SpooledSink
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.engine import Context, Progress
from distributed_downloader.transfer.engines import Engines
from distributed_downloader.transfer.seal import Reading, Readings, Seal

log = logging.getLogger(__name__)


class SplitFiles:
    """Runs parts and seals for all slots of a worker; with `spool`, the bytes of parts go there first."""

    def __init__(
        self, folders: Folders, engines: Engines, room: Room, throttle: Throttle, spool: Spool | None = None
    ) -> None:
        self._folders, self._engines = folders, engines
        self._room, self._throttle = room, throttle
        self._spool = spool
        self._readings = Readings()

    def part(self, task: DownloadTask, cancel: Cancel, progress: Progress, hold: Hold) -> Finished:
        """Fetch one part; raises TransferError.

        Where no engine gets a range, the part counts as done without its bytes: the seal notices, and
        fetches the file as a whole.
        """
        part = task.about.part
        assert part is not None
        if not self._engines.gets_ranges:
            raise PlaceUnseenError(
                f"{task.name}: the engine `hub` gets no parts of files; workers with another [huggingface] "
                "engine do"
            )
        try:
            with self.at_nas(task):
                self._fetch(task, part, cancel, progress, hold)
            return Finished()
        except RangeError as error:
            if not task.tries:
                raise  # once may be an accident
            log.warning("%s; the file will be fetched as a whole", error)
            return Finished(written=False)

    def reading(self, task: DownloadTask) -> Reading:
        """Return the reader of the file that a part belongs to; its seal here goes on from what it read."""
        return self._readings.begin(task, Reading(self._file(task, Cancel()), task.file))

    def forget(self, task: DownloadTask) -> None:
        """Drop what was read ahead of the file that a part belongs to."""
        if reading := self._readings.take(task):
            reading.close()

    def seal(self, task: DownloadTask, cancel: Cancel, progress: Progress, hold: Hold) -> bool:
        """Publish a file whose parts are all done; False if it has to be fetched as a whole instead.

        Raises TransferError.
        """
        split = self._file(task, cancel)
        reading = self._readings.take(task) or Reading(split, task.file)

        def fetch(part: Part) -> None:
            self._fetch(task, part, cancel, lambda _: None, hold)

        return Seal(task, split, fetch=fetch, cancel=cancel, progress=progress).run(reading)

    def discard(self, task: DownloadTask, cancel: Cancel) -> None:
        """Remove what is there of a split file."""
        self._file(task, cancel).discard()

    @contextmanager
    def at_nas(self, task: DownloadTask) -> Iterator[None]:
        """Let a trouble of the NAS with a file that is put together there cost no tries.

        Raises PlaceUnseenError instead: the task goes back until the NAS is well.
        """
        root = self._folders.shared(task.spec, task.about)
        try:
            yield
        except LocalError as error:
            about_nas = not isinstance(error, SpoolError) and root is self._folders.nas
            about_file = isinstance(error, PlaceError) and not isinstance(error, RoomError)
            if not about_nas or about_file or isinstance(error, PlaceUnseenError):
                raise
            raise PlaceUnseenError(f"{error}; its parts are put together on the NAS") from error

    def _fetch(self, task: DownloadTask, part: Part, cancel: Cancel, progress: Progress, hold: Hold) -> None:
        enough = cancel.child()
        with self._sink(task, part, cancel) as sink:

            def shorten(length: int) -> None:
                sink.shorten(part.start + length)
                if sink.start + sink.size >= sink.end:
                    enough.set("its tail was taken over")

            sink.guard = lambda: hold.guard(cancel)
            hold.on_shorten(shorten)
            try:
                self._engines.fill(Context(task, sink, enough, self._throttle, progress))
            except StoppedError:
                cancel.check()  # else a connection that had stalled was not needed any more
            sink.finish()

    def _sink(
        self, task: DownloadTask, part: Part, cancel: Cancel
    ) -> AbstractContextManager[PartSink | SpooledSink]:
        opened = self._file(task, cancel).part(part)
        return self._spool.sink(opened, cancel) if self._spool else opened

    def _file(self, task: DownloadTask, cancel: Cancel) -> SplitFile:
        return self._folders.split_file(task, cancel, self._room)
