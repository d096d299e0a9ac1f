"""The slots of a worker: each runs one task at a time and reports how it ended."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from distributed_downloader.cancel import Cancel
from distributed_downloader.completions import Completion, Completions, deliver
from distributed_downloader.concurrency import SILENT, Concurrency, Lap, Meter
from distributed_downloader.errors import RedisUnavailableError, StoppedError, TransferError
from distributed_downloader.hold import Hold
from distributed_downloader.models import DownloadTask, Transfer
from distributed_downloader.outage import Outage
from distributed_downloader.queue_terms import Limits
from distributed_downloader.reports import Report, Reports
from distributed_downloader.running import Runner, Running
from distributed_downloader.unexpected import as_transfer_error, dry, tell

log = logging.getLogger(__name__)

#: Tasks that are done and not reported yet, above which no more are claimed.
_MOST_UNREPORTED = 128
#: Small tasks that are claimed ahead at once at most, when fewer than half as many wait for a slot here.
_MOST_AHEAD = 32


class Room(NamedTuple):
    """How many tasks may be claimed: for slots that are free, and small ones ahead of that."""

    free: int
    ahead: int


@dataclass
class _Seat:
    """What a slot is at."""

    busy: bool = False
    small: bool = False
    #: How it has spent its time, if it is time to tell; and when that was measured, see Concurrency.age.
    lap: Lap | None = None
    age: int = 0


class Slots:
    """A fixed number of tasks at once, each in a thread of its own, and seals beside them.

    `wait_room`, `start` and `overdue` are the fetcher's; the rest is anybody's. A seal that this
    worker has prepared takes no slot: it has nothing to fetch.
    """

    def __init__(
        self,
        count: int,
        runner: Runner,
        reports: Reports,
        completions: Completions,
        *,
        outage: Outage,
        limits: Limits,
        pause_between: Callable[[], float],
    ) -> None:
        self.count = count
        self._runner, self._reports, self._completions = runner, reports, completions
        self._outage, self._limits, self._pause_between = outage, limits, pause_between
        self._lock = threading.Lock()
        #: There is something to do for a slot; and something has changed for the others who wait.
        self._work, self._changed = threading.Condition(self._lock), threading.Condition(self._lock)
        self._threads = self._busy = 0
        self._small = Concurrency(count)
        self._closed = False
        #: Tasks in our hands, until the queue knows what became of them, and those that wait for a slot.
        self._running: dict[str, Running] = {}
        self._waiting: deque[Running] = deque()
        #: How many may wait: more after a slot found none, fewer when some waited for too long.
        self._most_waiting = 1
        #: Bytes a second that a part has brought here lately; 0 = none has.
        self.part_rate = 0.0

    def wait_room(self, seconds: float, *, ahead: bool) -> Room | None:
        """Wait so long for a free slot, or with `ahead` for room to claim small files before there is one."""
        with self._lock:
            self._changed.wait_for(lambda: any(self._room(ahead)), seconds)
            room = self._room(ahead)
            return room if any(room) else None

    def _room(self, ahead: bool) -> Room:
        if self._unreported > _MOST_UNREPORTED:
            return Room(0, 0)
        return Room(max(self._free, 0), self._most_waiting if ahead and self._runs_low else 0)

    @property
    def _unreported(self) -> int:
        return len(self._running) - self._busy - len(self._waiting)

    @property
    def _free(self) -> int:
        return self.count - self._busy - len(self._waiting)

    @property
    def _runs_low(self) -> bool:
        return len(self._waiting) * 2 < self._most_waiting

    def start(self, worker_id: str, tasks: Sequence[DownloadTask], cancel: Cancel, asked_at: float) -> None:
        """Run `tasks`, which were asked for at `asked_at` (hold.now), as soon as slots are free.

        `cancel` stops them all.
        """
        came = [self._running_of(worker_id, task, cancel, asked_at) for task in tasks]
        with self._lock:
            fresh = [each for each in came if each.token not in self._running]
            self._running.update({each.token: each for each in fresh})
            self._waiting.extend(fresh)
            wanted = min(self.count, self._busy + len(self._waiting))
            lacking = min(max(0, wanted - self._threads), len(fresh))
            self._threads += lacking
            self._work.notify()
        for each in fresh[:lacking]:
            self._add_thread(each)

    def _running_of(self, worker_id: str, task: DownloadTask, cancel: Cancel, asked_at: float) -> Running:
        limits = self._limits
        hold = Hold(limits.trust if task.about.part else limits.lease - 1, asked_at)
        running = Running(worker_id, task, cancel.child(), hold)
        running.small = limits.is_small(task.about)
        return running

    def _add_thread(self, running: Running) -> None:
        """Start the thread of another slot; without memory for it, give back what it was to do."""
        try:
            # A daemon, so that a thread that hangs in a name server's silence cannot hold up our exit.
            threading.Thread(target=self._serve, args=(_Seat(),), name="slot", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            with self._lock:
                self._threads -= 1
                if running not in self._waiting:
                    return  # another slot was quicker
                self._waiting.remove(running)
            self._slot(running, self._reports.failure(running, as_transfer_error(error)))

    def start_beside(self, worker_id: str, task: DownloadTask, cancel: Cancel, asked_at: float) -> None:
        """Run `task` beside the slots."""
        running = self._running_of(worker_id, task, cancel, asked_at)
        with self._lock:
            if running.token in self._running:
                return
            self._running[running.token] = running
        try:
            threading.Thread(target=self._slot, args=(running,), name="slot", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            self._slot(running, self._reports.failure(running, as_transfer_error(error)))

    def overdue(self, seconds: float) -> set[str]:
        """Let go of what has waited for a slot so long, for others may have one; return the tokens."""
        with self._lock:
            late = {each.token for each in self._waiting if time.monotonic() - each.since > seconds}
            self._waiting = deque(each for each in self._waiting if each.token not in late)
            for token in late:
                self._running.pop(token)
            if late:
                self._most_waiting = max(1, self._most_waiting // 2)
        return late

    def close(self) -> None:
        """End the threads of slots that are free, and of the others when they are."""
        with self._lock:
            self._closed = True
            self._work.notify_all()
        self._completions.close()

    def tokens(self) -> set[str]:
        """Return the tokens that run here now."""
        with self._lock:
            return set(self._running)

    def cancel(self, token: str, reason: str) -> None:
        """Stop one task, if it runs here."""
        with self._lock:
            running = self._running.get(token)
        if running:
            running.cancel.set(reason)

    def transfers(self) -> tuple[Transfer, ...]:
        """Describe what runs now."""
        with self._lock:
            running = [each for each in self._running.values() if each.begun]
        return tuple(each.snapshot() for each in running)

    def parts(self) -> dict[str, tuple[int, float]]:
        """Return how far each part is that runs here: token -> bytes, bytes a second (0 = it has stalled)."""
        with self._lock:
            running = dict(self._running)
        return {
            token: (each.bytes_done, each.pace) for token, each in running.items() if each.task.about.part
        }

    def renew(self, asked_at: float, asked: Mapping[str, tuple[int, float]], ours: Mapping[str, int]) -> None:
        """Take note of what Redis said at `asked_at` of the `asked` parts: the lengths of `ours`."""
        for token in asked:
            with self._lock:
                running = self._running.get(token)
            if running and token in ours:
                running.hold.renew(asked_at, ours[token])
            elif running:
                running.cancel.set("the part is not this worker's any more")

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing runs, so long at most; True if nothing does."""
        with self._lock:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def beaten(self, asked_at: float) -> None:
        """Take note of a lease that was extended at `asked_at` (hold.now): what is no part holds as long."""
        with self._lock:
            running = list(self._running.values())
        for each in running:
            if not each.task.about.part:
                each.hold.renew(asked_at)

    def _serve(self, seat: _Seat) -> None:
        """Be a slot: run one task after the other."""
        try:
            meter = Meter()
            while True:
                with self._lock:
                    freed = self._leave(seat)
                    if not (running := self._next(after_one=freed)):
                        return
                    age = self._take(seat, running)
                if age != seat.age:
                    meter.restart()
                began, seat.age = time.monotonic(), age
                self._slot(running)
                if seat.small:
                    seat.lap = meter.lap(time.monotonic() - began)
                else:
                    meter.restart()
        finally:  # whatever ended it, no memory to wait with among it: another thread may take its place
            with self._lock:
                self._threads -= 1
                self._leave(seat)
                self._work.notify()

    def _take(self, seat: _Seat, running: Running) -> int:
        """Have a slot be busy with a task, and another begin with the next; the lock is held.

        Return by what age this is measured, see Concurrency.
        """
        if running.small:
            self._small.begin()
        seat.busy, seat.small, seat.lap = True, running.small, None
        self._busy += 1
        if self._first():
            self._work.notify()
        return self._small.age

    def _leave(self, seat: _Seat) -> bool:
        """Have a slot be free; return whether it was busy. The lock is held."""
        was_busy, was_small = seat.busy, seat.small
        seat.busy = seat.small = False
        self._busy -= was_busy
        if was_small:
            self._small.end(seat.lap)
        return was_busy

    def _next(self, *, after_one: bool) -> Running | None:
        """Return the next task of a slot, None if there is no more; the lock is held."""
        if not self._waiting:
            self._most_waiting = min(2 * self._most_waiting, _MOST_AHEAD)
        if after_one and self._runs_low:
            self._changed.notify_all()
        while not ((first := self._first()) or self._closed):
            self._work.wait(SILENT if self._waiting else None)
        if first := first or next(iter(self._waiting), None):
            self._waiting.remove(first)
        return first

    def _first(self) -> Running | None:
        """Return what waits for longest of what a free slot may begin; the lock is held."""
        if self._small.admits():
            return next(iter(self._waiting), None)
        return next((each for each in self._waiting if not each.small), None)

    def _slot(self, running: Running, refusal: Report | None = None) -> None:
        """Run a task, unless it is refused, and report how it ended."""
        handed_on = False
        try:
            report = refusal or self._run(running)
            if isinstance(report, Completion):
                self._completions.put(report, self._ended)
                handed_on = True
            else:
                deliver(report, running.cancel, self._outage)
        except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
            tell(log, f"{running.task.name}: could not be reported; the heartbeat will give it back", error)
        finally:
            if not handed_on:
                self._ended(running)

    def _ended(self, running: Running) -> None:
        """Take note that the queue knows what became of a task, or will find out by itself."""
        with self._lock:
            self._running.pop(running.token, None)
            if not self._running or self._unreported == _MOST_UNREPORTED:
                self._changed.notify_all()

    def _run(self, running: Running) -> Report | Completion:
        """Run the task and return the call that reports how it ended."""
        task, cancel, running.begun = running.task, running.cancel, True
        try:
            cancel.check()  # it may have waited here
            if task.hold and not task.spec.check:
                log.info("the hub asks for a pause of %.0f s", task.hold)
                cancel.wait(task.hold + self._pause_between())
                cancel.check()
            outcome = self._runner.run(task, cancel, running.progress, running.hold)
        except TransferError as error:
            return self._reports.failure(running, dry(error) or error)
        except RedisUnavailableError as error:  # the fleet was to be asked
            self._outage.note(error)
            return self._reports.failure(running, StoppedError("Redis is away"))
        except Exception as error:
            log.debug("%s: the trace of this error:", task.name, exc_info=True)
            return self._reports.failure(running, as_transfer_error(error))
        if task.about.part:
            self.part_rate = running.average or self.part_rate
        return self._reports.success(running, outcome)
