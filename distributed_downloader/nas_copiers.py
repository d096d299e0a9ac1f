"""The threads of a worker that copy files to the NAS, which may hang as a dead NAS likes: nobody waits."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from distributed_downloader.cancel import Cancel
from distributed_downloader.completions import deliver
from distributed_downloader.config import NASConfig
from distributed_downloader.errors import (
    CorruptError,
    MissingError,
    PlaceError,
    PlaceUnseenError,
    RefusedError,
    StoppedError,
    TransferError,
    TransientError,
)
from distributed_downloader.models import Failure, Token
from distributed_downloader.nas_trouble import Troubles
from distributed_downloader.outage import Outage
from distributed_downloader.queue_terms import Owed, Redo
from distributed_downloader.storage.nas import Delivery, NasFolder
from distributed_downloader.storage.place import read_place, require_place
from distributed_downloader.unexpected import as_transfer_error, tell

log = logging.getLogger(__name__)

#: Seconds without a byte after which we say so, and after which others may have the file.
_SILENT, _GIVEN_UP = 60.0, 300.0


class Deliveries(Protocol):
    """What is owed to the NAS; all may raise RedisUnavailableError. `RedisDeliveries` is the real one."""

    def folders(self) -> Mapping[str, str]:
        """Return the folders that owe files: id -> path on some machine."""

    def take_owed(self, folder: str, limit: int, busy: float, *, ended_only: bool) -> Sequence[Owed]:
        """Take up to `limit` files; nobody else gets them for `busy` seconds."""

    def keep_owed(self, folder: str, files: Iterable[Token], seconds: float) -> None:
        """Keep files from everybody for so long."""

    def delivered(self, folder: str, file: Token) -> bool:
        """Count a file that is on the NAS; False if it was not owed (any more)."""

    def redo(self, folder: str, file: Token, found: Failure) -> Redo:
        """Let a file be fetched again that was damaged or removed before it got to the NAS."""


@dataclass
class Copy:
    """One file that this worker has taken."""

    owed: Owed
    #: Where it lies: the folder's id, and its path on this machine.
    folder: str
    root: Path
    began: float = field(default_factory=time.monotonic)
    #: time.monotonic() of the last sign of life; None while it waits for a thread.
    moved: float | None = None

    @property
    def key(self) -> Token:
        """What the queue calls it."""
        return self.owed.token

    def progress(self, _: int) -> None:
        """Take note of a sign of life."""
        self.moved = time.monotonic()


class Copiers:
    """A fixed number of threads, and the files that they have or will have next.

    `done` is called after each file, however that ended.
    """

    def __init__(
        self,
        settings: NASConfig,
        owed: Deliveries,
        troubles: Troubles,
        outage: Outage,
        done: Callable[[], None],
    ) -> None:
        self._settings, self._owed, self._troubles = settings, owed, troubles
        self._outage, self._done = outage, done
        self._nas = Path(settings.path)
        self._cancel = Cancel()
        self._todo: queue.SimpleQueue[Copy | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._held: dict[Token, Copy] = {}
        # Daemons, so that a NAS that never answers cannot hold up our exit.
        self._threads = [
            threading.Thread(target=self._run, name="nas-copy", daemon=True)
            for _ in range(settings.copy_threads)
        ]

    def start(self) -> None:
        """Begin to copy what `add` brings."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Hand back everything; returns at once."""
        self._cancel.set("the worker stops")
        for _ in self._threads:
            self._todo.put(None)

    def join(self, seconds: float) -> bool:
        """Wait so long at most until all is handed back after `stop`; return whether it is."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def add(self, copy: Copy) -> None:
        """Copy a file as soon as a thread is free."""
        with self._lock:
            if copy.key in self._held:
                return
            self._held[copy.key] = copy
        self._todo.put(copy)

    @property
    def held(self) -> list[Copy]:
        """The files that are being copied, or wait for a thread."""
        with self._lock:
            return list(self._held.values())

    def living(self) -> list[Copy]:
        """Return those that nobody else should have yet: they move, or wait for one that does."""
        return self._moved_within(_GIVEN_UP)

    @property
    def moving(self) -> bool:
        """Whether anything is being copied or waits for a thread, apart from what stands still."""
        return bool(self._moved_within(_SILENT))

    def _moved_within(self, seconds: float) -> list[Copy]:
        held, now = self.held, time.monotonic()
        latest = max((copy.moved for copy in held if copy.moved is not None), default=0.0)
        moved = ((copy, max(copy.began, latest) if copy.moved is None else copy.moved) for copy in held)
        return [copy for copy, when in moved if now - when < seconds]

    def standstill(self, hanging: Container[Path]) -> str:
        """Say which copy has not moved for too long, or ""; the NAS is not to blame for `hanging` folders."""
        now = time.monotonic()
        copies = [copy for copy in self.held if copy.root not in hanging]
        times = [(copy.moved, copy.owed.about.file.path) for copy in copies if copy.moved is not None]
        moved, path = min(times, default=(now, ""))
        return f"{path}: no byte got to the NAS for {now - moved:.0f} s" if now - moved > _SILENT else ""

    def _run(self) -> None:
        while (copy := self._todo.get()) is not None:
            try:
                self._tell(self._copy(copy))
            except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
                tell(log, f"NAS: {copy.owed.about.file.path} could not be reported; it is tried again", error)
            with self._lock:
                del self._held[copy.key]
            self._done()

    def _copy(self, copy: Copy) -> Callable[[], object]:
        """Copy one file and return the call that reports how that ended."""
        copy.moved = time.monotonic()
        file = copy.owed.about.file
        nas = NasFolder(self._nas, copy.owed.spec)
        try:
            self._cancel.check()
            log.debug("copying %s to %s", file.path, nas.path_of(file))
            delivery = nas.deliver(
                copy.root,
                file,
                self._cancel,
                verify=self._settings.verify,
                read_back=self._settings.read_back,
                suspect=self._troubles.is_damaged(copy.key),
                progress=copy.progress,
            )
        except TransferError as error:
            return self._failed(copy, error)
        except Exception as error:
            log.debug("%s: the trace of this error:", file.path, exc_info=True)
            return self._failed(copy, as_transfer_error(error))
        if delivery.copied:  # reading proves nothing of a NAS that is full
            self._troubles.nas_works()
        self._troubles.file_works(copy.key)
        return lambda: self._delivered(copy, nas, delivery)

    def _delivered(self, copy: Copy, nas: NasFolder, delivery: Delivery) -> None:
        """Count the file, and only then remove it here."""
        file = copy.owed.about.file
        self._owed.delivered(copy.folder, copy.key)
        log.info("nas     %s", file.path)
        if not self._settings.delete_after_copy:
            return
        try:
            nas.remove_source(copy.root, file, delivery, self._cancel, progress=copy.progress)
        except StoppedError:
            log.debug("%s stays here, for there was no time left to look at it", file.path)
        except TransferError as error:
            log.warning("%s stays here, though it is on the NAS: %s", file.path, error)

    def _failed(self, copy: Copy, error: TransferError) -> Callable[[], None]:
        if isinstance(error, (CorruptError, MissingError)):
            try:
                require_place(copy.root, copy.folder)
            except TransferError as unseen:  # then it is another folder, and the file may be well
                error = unseen
            else:
                return lambda: self._damaged(copy, error)
        if isinstance(error, StoppedError):
            seconds = 0.0
        elif self._is_about_the_file(error):
            seconds = self._troubles.file_failed(copy.key, copy.owed.about.file.path, str(error))
        else:
            # This worker leaves the NAS alone for a while; another one may be luckier with it.
            seconds = self._troubles.nas_failed(copy.key, str(error))
        return lambda: self._owed.keep_owed(copy.folder, [copy.key], seconds)

    def _damaged(self, copy: Copy, error: TransferError) -> None:
        """Let a file be fetched again that somebody has damaged or removed here, or say how to."""
        path, gone = copy.owed.about.file.path, isinstance(error, MissingError)
        reason = f"{'removed' if gone else 'damaged'} before it got to the NAS: fetched again"
        found = Failure(path=path, error=reason, host="", tries=0, at=time.time())
        answer = self._owed.redo(copy.folder, copy.key, found)
        if answer is Redo.STAYS:
            forget = f"`hf-downloader forget {copy.key.job}`"
            advice = f"{error}; {forget} and the same `master` command again fetch it anew"
            seconds = self._troubles.file_failed(copy.key, path, advice, damaged=not gone)
            return self._owed.keep_owed(copy.folder, [copy.key], seconds)
        self._troubles.file_works(copy.key)
        if answer is Redo.AGAIN:
            log.warning("again   %s: %s", path, reason)
        return None

    def _is_about_the_file(self, error: TransferError) -> bool:
        if isinstance(error, PlaceUnseenError):
            return bool(read_place(self._nas))  # then the file's job wants another NAS than this
        return isinstance(error, (PlaceError, RefusedError, CorruptError, TransientError))

    def _tell(self, report: Callable[[], object]) -> None:
        """Report; where we are stopped before Redis takes it, it is found out again."""
        deliver(report, self._cancel, self._outage)
