"""The queue's numbers, and what its methods answer."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from distributed_downloader.models import Descriptor, JobSpec, JobState, Model, Token
from distributed_downloader.outcome import Range


@dataclass(frozen=True)
class Limits:
    """The queue's numbers; times in seconds."""

    #: A worker that is silent for so long is dead, and its tasks go to others.
    lease: float = 30.0
    #: Failures after which a task is given up.
    max_tries: int = 3
    #: Workers that may die with a task in hand before it is taken for the cause.
    max_losses: int = 10
    #: Times that a file is found damaged on its way to the NAS, after which it is left to a person.
    max_damages: int = 10
    #: Tasks that one call moves at most, which bounds the time that Redis is busy with it.
    batch: int = 500
    #: Files that one `submit` takes.
    chunk: int = 1000
    #: Tokens that lie ready: one per slot of the fleet, within these bounds.
    window: tuple[int, int] = (8, 4096)
    #: Seconds between two housekeepings, whoever does them; 0 = whenever asked.
    tick: float = 1.0
    #: Parts that a file may be split into, which bounds the time that Redis is busy with it.
    parts: int = 2048
    #: The longest pause that a worker keeps at one go, whoever asked for it.
    hold: float = 3600.0
    #: Most bytes of a file that a busy worker claims ahead: a quarter of a second on a slow line.
    small: int = 256 * 1024
    #: Least bytes of a tail that are worth a connection of their own.
    least_tail: int = 64 * 1024

    def is_small(self, about: Descriptor) -> bool:
        """Return whether it is a small file: those are claimed ahead, and done by one slot if it is busy."""
        return not (about.place or about.closing) and about.size <= self.small

    @property
    def longest_lease(self) -> float:
        """Seconds after which one is dead at most: who has nothing in hand, in a large fleet that idles."""
        return 3 * self.lease

    @property
    def silence(self) -> float:
        """Seconds after which an idle worker takes a part over from one that reports no progress."""
        return max(3.0, self.lease / 3)

    @property
    def trust(self) -> float:
        """Seconds after its last report for which a worker may write to a part: less than `silence`."""
        return self.silence - 1.0


@dataclass(frozen=True)
class Beat:
    """What Redis knows of a worker: its tokens with the state of their job (None = job gone)."""

    tokens: dict[str, JobState | None]
    #: Retries whose partial bytes lie on the worker's host.
    parked: int
    #: Workers that live.
    workers: int
    #: Whether parts are in workers' hands: who is idle may take a tail.
    tails: bool
    #: Seconds by which the lease is longer than `Limits.lease`.
    longer: float
    #: Whether somebody has kept house within the last `Limits.tick`.
    house: bool


class Done(NamedTuple):
    """A report that a task is done."""

    token: str
    size: int
    #: See outcome.Finished.
    written: bool = True
    #: Of a part, what `progress` last told of it; None if it has not.
    length: int | None = None
    #: See outcome.Finished.
    owes: str = ""

    def words(self) -> tuple[str | int, ...]:
        """Return it as lua/complete.lua wants it."""
        told = "" if self.length is None else self.length
        return (self.token, self.size, int(self.written), told, self.owes)


class Settled(enum.Enum):
    """What became of a report that a task is done."""

    STALE = 0
    DONE = 1
    ALREADY_DONE = 2
    #: Done, and the worker is to prepare the seal of the file.
    SEALER = 3


class Split(enum.IntEnum):
    """What became of a file that a worker wants to split."""

    STALE = 0
    DONE = 1
    #: Another job puts the same file together in the same folder; the task comes back later.
    WAITS = 2


class Blind(enum.IntEnum):
    """What became of a task that is none for a worker, which does not see its folder or reach its hub."""

    STALE = 0
    #: It waits for others, who may do better.
    FOR_OTHERS = 1
    #: No worker can do it, and the job sleeps for a while.
    ASLEEP = 2


class Tail(NamedTuple):
    """What an idle worker got from the parts of others: a token, and whether there are any parts."""

    token: str | None
    under_way: bool


class Member(NamedTuple):
    """A worker as the fleet knows it; the ids are "" where it sees no such folder."""

    worker: str
    slots: int
    folder: str
    nas: str


class FileParts(NamedTuple):
    """What is known of a split file: what is written so far, and who is to put it together."""

    state: JobState
    missing: int
    #: Token of the seal, if the worker that asks has it; else "".
    token: str
    #: Of the reports that were asked for.
    written: list[Range]
    reports: int


class Owed(NamedTuple):
    """A file that has to get to the NAS; its token is the one with which it was done."""

    token: Token
    about: Descriptor
    spec: JobSpec


class Redo(enum.Enum):
    """What became of a file that was damaged before it got to the NAS."""

    #: It is not owed any more.
    STALE = 0
    #: It is fetched again.
    AGAIN = 1
    #: It stays owed: a person has to look.
    STAYS = 2


class Verdict(enum.Enum):
    """What becomes of a task that failed."""

    STALE = 0
    RETRY = 1
    BURIED = 2


class QueueStatus(Model):
    """The whole queue in counters."""

    ready: int
    delayed: int
    parked: int
    workers: int
    slots: int
    #: Whether Redis takes nothing new, for its memory is full.
    full: bool = False
    #: Seconds that are left of the pauses that hubs asked for, by endpoint.
    pauses: Mapping[str, float] = Field(default_factory=dict)
    jobs: dict[str, int]
