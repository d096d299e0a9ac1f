"""The slots of a worker: each runs one task at a time and reports how it ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError, StoppedError, TransferError
from distributed_downloader.hold import Hold
from distributed_downloader.models import DownloadTask, Transfer
from distributed_downloader.outage import Outage
from distributed_downloader.queue_terms import Limits
from distributed_downloader.reports import Report, Reports
from distributed_downloader.running import Runner, Running
from distributed_downloader.unexpected import as_transfer_error, dry, tell

log = logging.getLogger(__name__)

#: Seconds between two attempts to report a result while Redis is away.
_REPORT_AGAIN = 1.0


class Slots:
    """A fixed number of tasks at once, each in a thread of its own, and seals beside them.

    `wait_free`, `give_back` and `start` are the fetcher's; the rest is anybody's. A seal that this
    worker has prepared takes no slot: it has nothing to fetch.
    """

    def __init__(
        self,
        count: int,
        runner: Runner,
        reports: Reports,
        *,
        outage: Outage,
        limits: Limits,
        pause_between: Callable[[], float],
    ) -> None:
        self.count = count
        self._runner, self._reports, self._outage = runner, reports, outage
        self._limits, self._pause_between = limits, pause_between
        self._changed = threading.Condition()
        self._taken = 0
        self._running: dict[str, Running] = {}
        #: Bytes a second that a part has brought here lately; 0 = none has.
        self.part_rate = 0.0

    def wait_free(self, seconds: float) -> bool:
        """Take a free slot, waiting so long; the caller must `start` in it or `give_back`."""
        with self._changed:
            free = self._changed.wait_for(lambda: self._taken < self.count, seconds)
            self._taken += free
            return free

    def give_back(self) -> None:
        """Free a slot that was taken and not used."""
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    def start(self, worker_id: str, task: DownloadTask, cancel: Cancel, asked_at: float) -> None:
        """Run `task`, which was asked for at `asked_at` (hold.now), in the slot that was taken."""
        self._launch(worker_id, task, cancel, asked_at, self.give_back)

    def start_beside(self, worker_id: str, task: DownloadTask, cancel: Cancel, asked_at: float) -> None:
        """Run `task` beside the slots."""
        self._launch(worker_id, task, cancel, asked_at, lambda: None)

    def tokens(self) -> set[str]:
        """Return the tokens that run here now."""
        with self._changed:
            return set(self._running)

    def cancel(self, token: str, reason: str) -> None:
        """Stop one task, if it runs here."""
        with self._changed:
            running = self._running.get(token)
        if running:
            running.cancel.set(reason)

    def transfers(self) -> tuple[Transfer, ...]:
        """Describe what runs now."""
        with self._changed:
            running = list(self._running.values())
        return tuple(each.snapshot() for each in running)

    def parts(self) -> dict[str, tuple[int, float]]:
        """Return how far each part is that runs here: token -> bytes, bytes a second (0 = it has stalled)."""
        with self._changed:
            running = dict(self._running)
        return {
            token: (each.bytes_done, each.pace) for token, each in running.items() if each.task.about.part
        }

    def renew(self, asked_at: float, asked: Mapping[str, tuple[int, float]], ours: Mapping[str, int]) -> None:
        """Take note of what Redis said at `asked_at` of the `asked` parts: the lengths of `ours`."""
        for token in asked:
            with self._changed:
                running = self._running.get(token)
            if running and token in ours:
                running.hold.renew(asked_at, ours[token])
            elif running:
                running.cancel.set("the part is not this worker's any more")

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing runs, so long at most; True if nothing does."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._taken and not self._running, seconds)

    def beaten(self, asked_at: float) -> None:
        """Take note of a lease that was extended at `asked_at` (hold.now): what is no part holds as long."""
        with self._changed:
            running = list(self._running.values())
        for each in running:
            if not each.task.about.part:
                each.hold.renew(asked_at)

    def _hold(self, task: DownloadTask, asked_at: float) -> Hold:
        limits = self._limits
        return Hold(limits.trust if task.about.part else limits.lease - 1, asked_at)

    def _launch(
        self,
        worker_id: str,
        task: DownloadTask,
        cancel: Cancel,
        asked_at: float,
        free: Callable[[], None],
    ) -> None:
        token, running = str(task.token), Running(task, cancel, self._hold(task, asked_at))
        with self._changed:
            begun = token in self._running
            self._running.setdefault(token, running)
        if begun:
            free()
            return
        # A daemon, so that a thread that hangs in a name server's silence cannot hold up our exit.
        work = partial(self._run, worker_id, token, running)
        try:
            slot = threading.Thread(target=self._slot, args=(work, token, running, free), name="slot")
            slot.daemon = True
            slot.start()
        except (RuntimeError, MemoryError) as error:  # no memory for another thread
            refusal = self._reports.failure(worker_id, token, running, as_transfer_error(error))
            self._slot(lambda: refusal, token, running, free)

    def _slot(
        self, work: Callable[[], Report], token: str, running: Running, free: Callable[[], None]
    ) -> None:
        try:
            self._deliver(work(), running.cancel)
        except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
            tell(log, f"{running.task.name}: could not be reported; the heartbeat will give it back", error)
        finally:
            with self._changed:
                self._running.pop(token, None)
                self._changed.notify_all()
            free()

    def _deliver(self, report: Report, cancel: Cancel) -> None:
        """Repeat a report until Redis took it, for a result must not be lost; or until we are stopped."""
        while True:
            try:
                report()
                return self._outage.over()
            except RedisUnavailableError as error:
                self._outage.note(error)
                if cancel.wait(_REPORT_AGAIN):
                    return None

    def _run(self, worker_id: str, token: str, running: Running) -> Report:
        """Run the task and return the call that reports how it ended."""
        task = running.task
        try:
            if task.hold:
                log.info("the hub asks for a pause of %.0f s", task.hold)
                running.cancel.wait(task.hold + self._pause_between())
                running.cancel.check()
            outcome = self._runner.run(task, running.cancel, running.progress, running.hold)
        except TransferError as error:
            return self._reports.failure(worker_id, token, running, dry(error) or error)
        except RedisUnavailableError as error:  # the fleet was to be asked
            self._outage.note(error)
            return self._reports.failure(worker_id, token, running, StoppedError("Redis is away"))
        except Exception as error:
            log.debug("%s: the trace of this error:", task.name, exc_info=True)
            return self._reports.failure(worker_id, token, running, as_transfer_error(error))
        if task.about.part:
            self.part_rate = running.average or self.part_rate
        return self._reports.success(worker_id, token, running, outcome)
