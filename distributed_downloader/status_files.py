"""Leaves in each output folder, as `_status.json`, how far its jobs are: for those who have no Redis."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError, TransferError
from distributed_downloader.folders import Folders
from distributed_downloader.hold import Hold
from distributed_downloader.models import DownloadTask, JobSpec
from distributed_downloader.outcome import Outcome
from distributed_downloader.running import Runner
from distributed_downloader.storage.disk import disk, replace_file
from distributed_downloader.storage.root import Root

log = logging.getLogger(__name__)

NAME = "_status.json"
#: Seconds between two versions of a folder's file, whoever writes them.
_INTERVAL = 5.0
#: Seconds that the last version gets when the worker ends.
_LAST = 1.0


class Board(Protocol):
    """What is known of the jobs, and whose turn it is to write it down."""

    def turn(self, folder: str, seconds: float) -> bool:
        """Return whether nobody has had the turn for a folder for so long; then it is ours."""

    def text(self, mine: Callable[[JobSpec], bool]) -> bytes:
        """Return what to write of those jobs that are `mine`; raises RedisUnavailableError."""


class StatusFiles:
    """A runner that also keeps the files of the folders that its tasks fill; what checks leaves none.

    A disk that hangs or refuses holds up nobody: the file stays as it was.
    """

    def __init__(self, runner: Runner, folders: Folders, board: Board) -> None:
        self._runner, self._folders, self._board = runner, folders, board
        self._lock = threading.Lock()
        self._busy: Counter[tuple[Path, str]] = Counter()
        #: What was filled since its file was written last.
        self._stale: set[tuple[Path, str]] = set()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def run(self, task: DownloadTask, cancel: Cancel, progress: Callable[[int], None], hold: Hold) -> Outcome:
        """Do as the runner does."""
        if task.spec.check:
            return self._runner.run(task, cancel, progress, hold)
        with self._filling(task.spec):
            return self._runner.run(task, cancel, progress, hold)

    def close(self) -> None:
        """Write down how it ended, and let go of connections."""
        self._closing.set()
        if self._thread:
            self._thread.join(_LAST)
        self._runner.close()

    @contextmanager
    def _filling(self, spec: JobSpec) -> Iterator[None]:
        where = self._folders.root(spec), spec.place
        with self._lock:
            self._busy[where] += 1
            self._stale.add(where)
            if not self._thread:
                self._thread = threading.Thread(target=self._keep, name="status", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._busy[where] -= 1
                self._stale.add(where)  # for what it came to

    def _keep(self) -> None:
        while not self._closing.wait(_INTERVAL):
            self._write_all()
        self._write_all(last=True)

    def _write_all(self, *, last: bool = False) -> None:
        with self._lock:
            stale = list(self._stale)
        for where in stale:
            if last or self._board_turn(where):
                with self._lock:
                    if not self._busy[where]:  # else it goes on
                        self._stale.discard(where)
                self._write(*where)

    def _board_turn(self, where: tuple[Path, str]) -> bool:
        try:
            return self._board.turn(where[1] or str(where[0]), _INTERVAL)
        except RedisUnavailableError:
            return False  # others tell of it

    def _write(self, folder: Path, place: str) -> None:
        try:
            text = self._board.text(lambda spec: self._folders.root(spec) == folder and not spec.check)
            with disk(folder / NAME), Root(folder, place) as root:
                replace_file(root.enter((), create=False), NAME.encode(), [text], sync=False)
        except (TransferError, RedisUnavailableError) as error:
            log.debug("%s stays as it was: %s", folder / NAME, error)
