"""One machine of a simulated fleet: a link that its transfers share evenly, a worker's slots, its fetcher.

What the worker asks of the queue, and when, is what `Claims`, `Slots`, `Completions`, `Heartbeat` and
`Sealer` do; the bytes are those of a fluid that flows at the link's rate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from distributed_downloader import claims, completions, heartbeat, slots, worker
from distributed_downloader.models import DownloadTask, WorkerStatus
from distributed_downloader.redis_client import Done, Limits, Settled
from distributed_downloader.slots import Room

if TYPE_CHECKING:
    from benchmarks.scale.world import World

#: Seconds of a round trip to Redis and to the origin, and that a seal takes which was read ahead.
ROUND_TRIP, LATENCY, SEALING = 0.001, 0.05, 0.05
#: Bytes below which a transfer is complete: times are not exact.
_NONE_LEFT = 0.5


@dataclass
class Transfer:
    """A file or part that is fetched."""

    task: DownloadTask
    began: float
    #: Bytes that it ends with; of a part, as the queue told last.
    length: int
    told: int | None = None
    done: float = 0.0

    @property
    def left(self) -> float:
        """Bytes that are still to come."""
        return self.length - self.done


class Report(NamedTuple):
    """A task that is done, and how its worker says so."""

    task: DownloadTask
    done: Done


@dataclass(eq=False)
class Machine:
    """A machine with one worker."""

    world: World
    name: str
    slots: int
    #: Bytes a second of its link.
    rate: float
    moving: dict[str, Transfer] = field(default_factory=dict)
    #: Slots in use, those that wait for their first byte included.
    taken: int = 0
    #: Small files that were claimed ahead, and whether more of them may be next.
    waiting: deque[DownloadTask] = field(default_factory=deque)
    ahead: bool = False
    #: How many small files may wait, as in `Slots`.
    most_waiting: int = 1
    #: What is done and not reported yet.
    reports: deque[Report] = field(default_factory=deque)
    #: Bytes a second that the last part came with.
    part_rate: float = 0.0
    #: As in `Claims`.
    parts_about: bool = False
    dry: bool = False
    in_vain: int = 0
    #: Grows whenever the transfers change, so that what was planned before is void.
    _plan: int = 0
    _since: float = 0.0
    #: The claim that waits, as a number; 0 = none.
    waits: int = 0
    _fetching: bool = False
    _reporting: bool = False
    _pulsing: bool = False

    def status(self) -> WorkerStatus:
        """Return what the worker says of itself."""
        return WorkerStatus(id=self.name, host=self.name, pid=1, version="0", slots=self.slots, started_at=0)

    # -- the fetcher ------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Claim tasks, unless there is no room for them or that is under way."""
        if not self._fetching and any(self._room()):
            self._fetching = True
            self.world.after(ROUND_TRIP, self._claim)

    def _room(self) -> Room:
        runs_low = len(self.waiting) * 2 < self.most_waiting
        free = max(self.slots - self.taken - len(self.waiting), 0)
        return Room(free, self.most_waiting if self.ahead and runs_low else 0)

    def _claim(self) -> None:
        room = self._room()
        if self.ahead and (tasks := self.world.more(self, sum(room))):
            self._take(tasks)
            return
        self.ahead = False
        if room.free:
            self._claim_one()
        else:
            self._fetching = False

    def _claim_one(self) -> None:
        token = self._tail() if self.parts_about and self.dry else None
        token = token or self.world.pop(self)
        if token:
            self.got(token)
        else:
            self.waits = self.world.wait(self)
            ticket = self.waits
            self.world.after(self._patience(), lambda: self._give_up(ticket))

    def _patience(self) -> float:
        if self.parts_about and self.in_vain < claims._CLAIMS_AT_THE_END:
            return claims._SECONDS_AT_THE_END
        if self.parts_about:
            return claims._SECONDS_WHEN_ALERT
        idle = self.in_vain >= claims._CLAIMS_UNTIL_IDLE
        return Limits().lease / 2 if idle else claims._SECONDS  # then a heartbeat ends the wait

    def _give_up(self, ticket: int) -> None:
        """The claim was in vain: take from others, or claim again."""
        if ticket != self.waits:
            return
        self.waits = 0
        if token := self._tail():
            self.got(token)
            return
        self.in_vain += 1
        self._claim_one()

    def _tail(self) -> str | None:
        token, self.parts_about = self.world.steal(self)
        return token

    def got(self, token: str) -> None:
        """Begin what was claimed, and claim the next."""
        self.waits, self.in_vain = 0, 0
        task = self.world.begin(self, token)
        if task and not self.world.divide(self, task):
            self.parts_about = self.parts_about or task.about.part is not None
            self.ahead = not task.about.place and task.about.size <= self.world.queue.limits.small
            self.world.after(ROUND_TRIP, partial(self._take, [task]))
        else:
            self._take([])

    def _take(self, tasks: Iterable[DownloadTask]) -> None:
        """Begin with tasks as soon as a slot is free, and claim the next."""
        for task in tasks:
            self.waiting.append(task)
            self.world.after(worker._LATE, partial(self._give_back, task))
        self._fetching = False
        self._begin_waiting()
        self.fetch()

    def _begin_waiting(self) -> None:
        while self.waiting and self.taken < self.slots:
            self.taken += 1
            self.world.after(LATENCY, partial(self._start, self.waiting.popleft()))
        if self.taken < self.slots:
            self.most_waiting = min(2 * self.most_waiting, slots._MOST_AHEAD)

    def _give_back(self, task: DownloadTask) -> None:
        """Let others have a task that still waits for a slot."""
        if task in self.waiting:
            self.waiting.remove(task)
            self.most_waiting = max(1, self.most_waiting // 2)
            self.ahead = False
            self.world.release(self, task)

    # -- the link ---------------------------------------------------------------------------------

    def _start(self, task: DownloadTask) -> None:
        if task.about.is_seal:
            self.world.after(SEALING, lambda: self._end(task, 0, None))
            return
        self._flow()
        self.moving[str(task.token)] = Transfer(task, self.world.now, task.about.size)
        self._replan()
        if task.about.part and self.world.tail:
            self.pulse_soon()

    def _flow(self) -> None:
        """Let the bytes come that came since the last time."""
        if self.moving:
            each = (self.world.now - self._since) * self.rate / len(self.moving)
            for transfer in self.moving.values():
                transfer.done += each
        self._since = self.world.now

    def _replan(self) -> None:
        self._plan += 1
        if self.moving:
            plan = self._plan
            least = max(0.0, min(transfer.left for transfer in self.moving.values()))
            self.world.after(least * len(self.moving) / self.rate, lambda: self._arrive(plan))

    def _arrive(self, plan: int) -> None:
        if plan == self._plan:
            self._flow()
            self._finish()

    def _finish(self) -> None:
        """End the transfers that have all their bytes."""
        complete = [token for token, transfer in self.moving.items() if transfer.left < _NONE_LEFT]
        for token in complete:
            transfer = self.moving.pop(token)
            self.world.fetched += transfer.done
            if transfer.task.about.part:
                self.part_rate = transfer.done / max(self.world.now - transfer.began, 1e-3)
            self._end(transfer.task, transfer.task.about.size, transfer.told)
        self._replan()

    def _end(self, task: DownloadTask, size: int, told: int | None) -> None:
        """Report a task, together with all that are done while the last report is on its way."""
        self.reports.append(Report(task, Done(str(task.token), size, length=told)))
        self.taken -= 1
        self._begin_waiting()
        self._report_soon()
        self.fetch()

    def _report_soon(self) -> None:
        if self.reports and not self._reporting:
            self._reporting = True
            self.world.after(ROUND_TRIP, self._report)

    def _report(self) -> None:
        batch = [self.reports.popleft() for _ in range(min(len(self.reports), completions._MOST))]
        for report, settled in zip(batch, self.world.complete(self, batch), strict=True):
            if settled is Settled.SEALER:
                self.world.prepare(self, report.task)
        self._reporting = False
        self._report_soon()

    # -- parts ------------------------------------------------------------------------------------

    def parts(self) -> Mapping[str, tuple[int, float]]:
        """Return how far each part is: bytes, bytes a second."""
        self._flow()
        pace = self.rate / max(1, len(self.moving))
        return {
            token: (int(transfer.done), pace if transfer.done else 1)
            for token, transfer in self.moving.items()
            if transfer.task.about.part
        }

    def pulse_soon(self) -> None:
        """Report the progress of parts from now on, as long as somebody may want to know."""
        if not self._pulsing:
            self._pulsing = True
            self.world.after(heartbeat._TAIL_PULSE if self.dry else heartbeat._PARTS_PULSE, self.pulse)

    def pulse(self) -> None:
        """Report the progress of parts, and learn how long they are."""
        self._pulsing = False
        parts = self.parts()
        if not parts:
            return
        lengths = self.world.progress(self, parts)
        for token in parts:
            transfer = self.moving[token]
            transfer.told = transfer.length = min(transfer.length, lengths[token])
        self._finish()
        self.dry = self.world.is_dry()
        if self.world.tail:
            self.pulse_soon()

    def seal(self, task: DownloadTask) -> None:
        """Put a file together that this worker has prepared, beside the slots."""
        self.taken += 1
        self._start(task)
