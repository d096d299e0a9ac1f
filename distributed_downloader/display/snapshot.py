"""What one look at Redis found: all that the views draw, and where they cannot look, since when and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import Failure, WorkerStatus
from distributed_downloader.outage import Absence
from distributed_downloader.queue_terms import QueueStatus
from distributed_downloader.quota import HubBudget

if TYPE_CHECKING:
    from distributed_downloader.redis_waiting import NextTry


@dataclass(frozen=True)
class Silence:
    """A time without Redis that is not over."""

    #: Unix time of its begin.
    since: float
    #: What is wrong, and what to do: `Redis at <address> ...`.
    error: str
    address: str


@dataclass(frozen=True)
class Snapshot:
    """Everything that one look at Redis found."""

    jobs: Sequence[JobProgress] = ()
    #: Job id and failure.
    failures: Sequence[tuple[int, Failure]] = ()
    workers: Sequence[WorkerStatus] = ()
    #: Only in the view of everything.
    queue: QueueStatus | None = None
    #: Job id and what waits for its next try: the next few.
    waiting: Sequence[tuple[int, NextTry]] = ()
    #: Seconds that are left of the pauses that the hubs of these jobs asked for, by endpoint.
    pauses: Mapping[str, float] = field(default_factory=dict)
    #: What the hubs of these jobs still allow, where that is little.
    budgets: Sequence[HubBudget] = ()
    #: Whether Redis takes nothing new, for its memory is full.
    full: bool = False
    #: The last time without Redis, if that is not long ago.
    absence: Absence | None = None
    #: Why this is not the present.
    silence: Silence | None = None
    #: What whoever looks on may do now, or "".
    hint: str = ""

    def silent(self, silence: Silence) -> Snapshot:
        """Return what of it still holds when Redis does not answer any more: nothing that moves."""
        still = [replace(progress, rate=0, stale=True) for progress in self.jobs]
        workers = [_still(worker) for worker in self.workers]
        gone = replace(self, pauses={}, budgets=(), absence=None)
        return replace(gone, jobs=still, workers=workers, silence=silence)


def _still(worker: WorkerStatus) -> WorkerStatus:
    transfers = (each.model_copy(update={"bytes_per_second": 0.0}) for each in worker.transfers)
    return worker.model_copy(update={"transfers": tuple(transfers)})
