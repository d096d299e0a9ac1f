"""Makes durable what is done, and tells the queue: what came while the last report was on its way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from distributed_downloader.batches import Batches
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError, TransferError
from distributed_downloader.outage import Outage
from distributed_downloader.outcome import Published
from distributed_downloader.redis_client import Done, RedisClient, Settled
from distributed_downloader.storage.durable import make_durable
from distributed_downloader.unexpected import dry, tell

log = logging.getLogger(__name__)

#: Reports in one round trip, which bounds the time that Redis is busy with it.
_MOST = 64
#: Seconds between two attempts while Redis is away.
_AGAIN = 1.0


class Completion(NamedTuple):
    """What a slot has to say of a task that is done."""

    #: The worker and the host that did it.
    worker: str
    host: str
    #: The report, as it is at the moment of sending: a part may have become shorter.
    done: Callable[[], Done]
    #: Told what became of it.
    settle: Callable[[Settled], None]
    #: What has to be made durable before, and what is reported instead where that fails.
    published: Published | None = None
    failed: Callable[[TransferError], Callable[[], None]] | None = None


class _Entry(NamedTuple):
    completion: Completion
    cancel: Cancel
    #: Called when the report was taken, or given up.
    ended: Callable[[], None]


def deliver(report: Callable[[], object], cancel: Cancel, outage: Outage) -> None:
    """Repeat a report until Redis took it, for a result must not be lost; or until we are stopped."""
    while True:
        try:
            report()
            return outage.over()
        except RedisUnavailableError as error:
            outage.note(error)
            if cancel.wait(_AGAIN):
                return None


class Completions:
    """Reports for all slots of a worker, as long as it takes, or until they are stopped."""

    def __init__(self, redis: RedisClient, outage: Outage) -> None:
        self._redis, self._outage = redis, outage
        self._reports = Batches("completions", self._send, _MOST)
        self._lock = threading.Lock()
        #: Output folder -> who makes names durable there: one that hangs holds up nobody else's.
        self._folders: dict[Path, Batches[_Entry]] = {}

    def put(self, completion: Completion, cancel: Cancel, ended: Callable[[], None]) -> None:
        """Report this soon, and call `ended` then; a result must not be lost while Redis is away.

        It is given up when `cancel` is set and Redis does not answer.
        """
        entry = _Entry(completion, cancel, ended)
        if completion.published:
            self._folder(completion.published.root).put(entry)
        else:
            self._reports.put(entry)

    def close(self) -> None:
        """End the threads, once they have nothing to do any more."""
        with self._lock:
            folders = list(self._folders.values())
        for each in (*folders, self._reports):
            each.close()

    def _folder(self, root: Path) -> Batches[_Entry]:
        with self._lock:
            if root not in self._folders:
                self._folders[root] = Batches("durable", self._settle, _MOST)
            return self._folders[root]

    def _settle(self, batch: list[_Entry]) -> None:
        """Make the names of a batch durable, and pass on what is done then."""
        try:
            for entry in self._durable(batch):
                self._reports.put(entry)
        except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
            for entry in batch:
                entry.ended()
            tell(log, "what is done could not be made durable; the heartbeat will give it back", error)

    def _send(self, batch: list[_Entry]) -> None:
        """Report what is done, for one worker after the other: ours may have another name by now."""
        for _, entries in groupby(batch, lambda entry: entry.completion.worker):
            with suppress(Exception):  # no memory to tell of no memory: the next have nobody else
                self._send_one_workers(list(entries))

    def _send_one_workers(self, batch: list[_Entry]) -> None:
        try:
            while batch:
                batch = self._left(batch)
        except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
            tell(log, "what is done could not be reported; the heartbeat will give it back", error)
        finally:
            for entry in batch:
                entry.ended()

    def _durable(self, batch: list[_Entry]) -> list[_Entry]:
        """Make names durable, once in each folder; return what is done now, and report what failed."""
        errors = dict[Published | None, TransferError]()
        for where in {entry.completion.published for entry in batch}:
            try:
                if where:
                    make_durable(where)
            except TransferError as error:
                errors[where] = dry(error) or error
        for entry in batch:
            if failure := errors.get(entry.completion.published):
                self._fail(entry, failure)
        return [entry for entry in batch if entry.completion.published not in errors]

    def _fail(self, entry: _Entry, error: TransferError) -> None:
        failed = entry.completion.failed
        assert failed is not None  # it comes with what is published
        words = "what failed could not be reported; the heartbeat will give it back"
        _end(entry, lambda: deliver(failed(error), entry.cancel, self._outage), words)

    def _left(self, batch: list[_Entry]) -> list[_Entry]:
        """Report once; return what has to be reported again, for Redis did not answer."""
        try:
            worker, host, *_ = batch[0].completion
            answers = self._redis.complete_all(worker, host, [entry.completion.done() for entry in batch])
        except RedisUnavailableError as error:
            self._outage.note(error)
            batch[0].cancel.wait(_AGAIN)
            stopped = [entry for entry in batch if entry.cancel.is_set()]
            for entry in stopped:
                entry.ended()
            return [entry for entry in batch if entry not in stopped]
        self._outage.over()
        for entry, settled in zip(batch, answers, strict=True):
            settle = partial(entry.completion.settle, settled)
            _end(entry, settle, "what is done was reported, and no more")
        return []


def _end(entry: _Entry, last: Callable[[], None], words: str) -> None:
    """Do the last thing for an entry, and say with these `words` if that goes wrong."""
    try:
        last()
    except Exception as error:  # noqa: BLE001 - one task's trouble is not the others'
        tell(log, words, error)
    entry.ended()
