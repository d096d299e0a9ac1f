"""What a fault is: a name, and what strikes a round's world and is healed again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from benchmarks.chaos.world import World

#: Ends a fault.
Heal: TypeAlias = Callable[[], object]


class NotNowError(Exception):
    """The fault has nothing to strike at the moment."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault; `strike` returns how it is healed, and raises NotNowError."""

    group: str
    name: str
    strike: Callable[[World, random.Random], Heal]
    #: Whether it takes mounts, which are root's.
    mounts: bool = False
    #: The kind of Redis that it is for; "" for any.
    redis: str = ""
    #: Whether it waits until no other fault of its group lasts.
    alone: bool = False
    #: How many times as long as others it lasts.
    lasts: float = 1.0


def nothing() -> None:
    """Heal a fault that is over when it has struck."""
