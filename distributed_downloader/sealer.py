"""Prepares seals: reads split files while their last parts still come in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError, RefusedError, StoppedError, TransferError
from distributed_downloader.models import DownloadTask, JobState, Token
from distributed_downloader.outcome import Range
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.unexpected import tell

log = logging.getLogger(__name__)

#: Seconds between two looks at what has come in; and when hardly anything is missing.
_LOOK, _LOOK_SOON = 0.2, 0.04
#: The same where the job does not run, but may again.
_LOOK_RARELY = 5.0
_HARDLY_ANYTHING = 8
#: Seconds without news after which a file is looked at less often, and without a look after which the
#: sealer is taken to hang.
_LONG, _HANGS = 5.0, 60.0


class Prefix(Protocol):
    """The beginning of a split file, read and hashed as it comes in; transfer/seal.py has the real one."""

    def add(self, written: list[Range]) -> None:
        """Take note of bytes that are written and will not change."""

    def advance(self, cancel: Cancel) -> None:
        """Read on, a limited number of bytes; raises TransferError."""


class ReadAhead(Protocol):
    """Reads split files ahead of their seals; `download.split_files.SplitFiles` is the real one."""

    def reading(self, task: DownloadTask) -> Prefix:
        """Return the reader of the file that a part belongs to; its seal goes on from what it read."""

    def forget(self, task: DownloadTask) -> None:
        """Drop what was read ahead of the file that a part belongs to."""


@dataclass
class _File:
    """One split file that this worker is to put together."""

    worker: str
    task: DownloadTask
    prefix: Prefix | None = None
    reports: int = 0
    missing: int = 0
    runs: bool = True
    #: time.monotonic() of the last look, and of the last one that showed something new.
    looked: float = field(default_factory=time.monotonic)
    news: float = field(default_factory=time.monotonic)

    @property
    def soon(self) -> bool:
        """Whether the last part may come at any moment."""
        return self.runs and self.missing <= _HARDLY_ANYTHING and time.monotonic() - self.news < _LONG

    @property
    def due(self) -> bool:
        """Whether there is a reason to look now."""
        return self.runs or time.monotonic() - self.looked >= _LOOK_RARELY


class _Unread:
    """Instead of a file that cannot be read ahead: its seal reads all of it."""

    def add(self, written: list[Range]) -> None:
        """Take note of nothing."""

    def advance(self, cancel: Cancel) -> None:
        """Read nothing."""


class Sealer:
    """Follows split files until their seal is in this worker's hands, and starts it.

    `start` runs a seal; `life` is the name of the worker and the signal that ends it.
    """

    def __init__(
        self,
        redis: RedisClient,
        ahead: ReadAhead,
        *,
        start: Callable[[str, DownloadTask], None],
        life: Callable[[], tuple[str, Cancel]],
    ) -> None:
        self._redis, self._parts = redis, RedisParts(redis)
        self._ahead, self._start, self._life = ahead, start, life
        self._lock = threading.Lock()
        self._files: dict[tuple[int, int], _File] = {}
        self._thread: threading.Thread | None = None

    def prepare(self, worker_id: str, task: DownloadTask) -> None:
        """Follow the file of a part that was just completed."""
        part = task.about.part
        assert part is not None
        key = (task.token.job, part.seal)
        with self._lock:
            if key not in self._files:
                self._files[key] = _File(worker_id, task)
            if self._thread is None:
                thread = threading.Thread(target=self._follow, name="sealer", daemon=True)
                thread.start()  # which may fail: then the next one tries again
                self._thread = thread

    def expects(self, token: str) -> bool:
        """Return whether the sealer will begin with this token by itself."""
        try:
            job, task, _ = Token.parse(token)
        except RefusedError:
            return False
        with self._lock:
            file = self._files.get((job, task))
        return file is not None and time.monotonic() - file.looked < _HANGS

    def _follow(self) -> None:
        while files := self._left():
            for key, each in files:
                if not each.due and self._life()[0] == each.worker and not self._life()[1].is_set():
                    continue
                try:
                    done = self._look(each, key)
                except RedisUnavailableError:
                    done = False
                except TransferError as error:
                    log.debug("%s: not read ahead: %s", each.task.file.path, error)
                    done = False
                except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
                    tell(log, "sealer: the seal will be somebody else's", error)
                    self._ahead.forget(each.task)
                    done = True
                if done:
                    with self._lock:
                        del self._files[key]
            soon = any(each.soon for _, each in files)
            self._life()[1].wait(_LOOK_SOON if soon else _LOOK)

    def _left(self) -> list[tuple[tuple[int, int], _File]]:
        """Return what is to be followed; when there is nothing, the thread ends."""
        with self._lock:
            if not self._files:
                self._thread = None
            return list(self._files.items())

    def _begin(self, task: DownloadTask) -> Prefix:
        try:
            return self._ahead.reading(task)
        except TransferError as error:
            log.debug("%s: not read ahead: %s", task.file.path, error)
            return _Unread()

    def _look(self, file: _File, key: tuple[int, int]) -> bool:
        """Read on; return whether there is nothing more to do for this file."""
        name, cancel = self._life()
        if name != file.worker or cancel.is_set():
            self._ahead.forget(file.task)
            return True
        if file.prefix is None:
            file.prefix = self._begin(file.task)
        job, seal = key
        found = self._parts.of_file(name, job, seal, file.reports)
        if found is None:
            self._ahead.forget(file.task)
            return True
        file.looked = time.monotonic()
        if found.reports:
            file.news = file.looked
        file.runs = found.state is JobState.RUNNING
        file.reports += found.reports
        file.missing = found.missing
        file.prefix.add(found.written)
        if found.token:
            task = self._redis.begin(name, found.token)
            if task is None or task.file != file.task.file:  # its numbers are another's: Redis lost its data
                self._ahead.forget(file.task)
            if task:
                self._start(name, task)
            return True
        if not found.missing:
            self._ahead.forget(file.task)  # somebody else has it
            return True
        try:
            file.prefix.advance(cancel)
        except StoppedError:
            self._ahead.forget(file.task)
            return True
        return False
