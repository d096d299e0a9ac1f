"""Makes durable what is done, and tells the queue: what came while the last report was on its way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

from distributed_downloader.batches import Batches
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError, TransferError
from distributed_downloader.outage import Outage
from distributed_downloader.outcome import Finished, Published
from distributed_downloader.redis_client import Done, RedisClient, Settled
from distributed_downloader.running import Running
from distributed_downloader.storage.durable import make_durable
from distributed_downloader.unexpected import dry, tell

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Reports in one round trip, which bounds the time that Redis is busy with it.
_MOST = 64
#: Seconds that a published file waits for others, to be made durable and reported together with them.
_LINGER = 0.02
#: Seconds between two attempts while Redis is away.
_AGAIN = 1.0


class Completion(NamedTuple):
    """What a slot has to say of a task that is done."""

    #: The host that did it.
    host: str
    running: Running
    outcome: Finished
    #: Told what became of the report.
    settle: Callable[[Completion, Settled], None]
    #: Returns what is reported instead where the name of a file cannot be made durable.
    failed: Callable[[Running, TransferError], Callable[[], None]]

    def done(self) -> Done:
        """Return the report as it is now: a part may become shorter until it is sent."""
        running, outcome = self.running, self.outcome
        size, length = running.task.about.size, running.hold.length
        return Done(running.token, size, outcome.written, length, outcome.owes)


class _Entry(NamedTuple):
    completion: Completion
    #: Called when the report was taken, or given up.
    ended: Callable[[Running], None]

    @property
    def running(self) -> Running:
        return self.completion.running

    @property
    def published(self) -> Published | None:
        return self.completion.outcome.published

    def end(self) -> None:
        self.ended(self.completion.running)


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

    def put(self, completion: Completion, ended: Callable[[Running], None]) -> None:
        """Report this soon, and call `ended` then; a result must not be lost while Redis is away.

        It is given up when the task is cancelled and Redis does not answer.
        """
        published = completion.outcome.published
        reports = self._folder(published.root) if published else self._reports
        reports.put([_Entry(completion, ended)])

    def close(self) -> None:
        """End the threads, once they have nothing to do any more."""
        with self._lock:
            folders = list(self._folders.values())
        for each in (*folders, self._reports):
            each.close()

    def _folder(self, root: Path) -> Batches[_Entry]:
        with self._lock:
            if root not in self._folders:
                self._folders[root] = Batches("durable", self._settle, _MOST, _LINGER)
            return self._folders[root]

    def _settle(self, batch: list[_Entry]) -> None:
        """Make the names of a batch durable, and pass on what is done then."""
        try:
            if done := self._durable(batch):
                self._reports.put(done)
        except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
            for entry in batch:
                entry.end()
            tell(log, "what is done could not be made durable; the heartbeat will give it back", error)

    def _send(self, batch: list[_Entry]) -> None:
        """Report what is done, for one worker after the other: ours may have another name by now."""
        for _, entries in groupby(batch, attrgetter("completion.running.worker_id")):
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
                entry.end()

    def _durable(self, batch: list[_Entry]) -> list[_Entry]:
        """Make names durable, once in each folder; return what is done now, and report what failed."""
        errors = dict[Published | None, TransferError]()
        for where in {entry.published for entry in batch}:
            try:
                if where:
                    make_durable(where)
            except TransferError as error:
                errors[where] = dry(error) or error
        if not errors:
            return batch
        for entry in batch:
            if failure := errors.get(entry.published):
                words = "what failed could not be reported; the heartbeat will give it back"
                _end(entry, words, self._fail, failure)
        return [entry for entry in batch if entry.published not in errors]

    def _fail(self, completion: Completion, error: TransferError) -> None:
        running = completion.running
        deliver(completion.failed(running, error), running.cancel, self._outage)

    def _left(self, batch: list[_Entry]) -> list[_Entry]:
        """Report once; return what has to be reported again, for Redis did not answer."""
        try:
            worker, host = batch[0].running.worker_id, batch[0].completion.host
            answers = self._redis.complete_all(worker, host, [entry.completion.done() for entry in batch])
        except RedisUnavailableError as error:
            self._outage.note(error)
            batch[0].running.cancel.wait(_AGAIN)
            stopped = [entry for entry in batch if entry.running.cancel.is_set()]
            for entry in stopped:
                entry.end()
            return [entry for entry in batch if entry not in stopped]
        self._outage.over()
        for entry, settled in zip(batch, answers, strict=True):
            _end(entry, "what is done was reported, and no more", entry.completion.settle, settled)
        return []


def _end(entry: _Entry, words: str, last: Callable[[Completion, T], None], answer: T) -> None:
    """Do the last thing for an entry, and say with these `words` if that goes wrong."""
    try:
        last(entry.completion, answer)
    except Exception as error:  # noqa: BLE001 - one task's trouble is not the others'
        tell(log, words, error)
    entry.end()
