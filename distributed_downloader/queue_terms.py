"""The queue's numbers, and what its methods answer."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from distributed_downloader.models import JobState


@dataclass(frozen=True)
class Limits:
    """The queue's numbers; times in seconds."""

    #: A worker that is silent for so long is dead, and its tasks go to others.
    lease: float = 30.0
    #: Failures after which a task is given up.
    max_tries: int = 3
    #: Workers that may die with a task in hand before it is taken for the cause.
    max_losses: int = 10
    #: Tasks that one call moves at most, which bounds the time that Redis is busy with it.
    batch: int = 500
    #: Files that one `submit` takes.
    chunk: int = 1000
    #: Tokens that lie ready: one per slot of the fleet, within these bounds.
    window: tuple[int, int] = (8, 4096)
    #: Seconds between two housekeepings, whoever does them; 0 = whenever asked.
    tick: float = 1.0


@dataclass(frozen=True)
class Beat:
    """What Redis knows of a worker: its tokens with the state of their job (None = job gone)."""

    tokens: dict[str, JobState | None]
    #: Retries whose partial bytes lie on the worker's host.
    parked: int


class Settled(enum.Enum):
    """What became of a report that a task is done."""

    STALE = 0
    DONE = 1
    ALREADY_DONE = 2


class Verdict(enum.Enum):
    """What becomes of a task that failed."""

    STALE = 0
    RETRY = 1
    BURIED = 2
