"""Which faults strike in a round, when and for how long: all of it follows from the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

#: Seconds between two faults, and that one of them lasts, least and most.
_BETWEEN = (0.3, 1.5)
_LASTS = (0.5, 5.0)


@dataclass(frozen=True)
class Strike:
    """One fault: what happens, from when on, for how long; the seed says where exactly."""

    kind: str
    #: Seconds after the round's begin.
    at: float
    seconds: float
    seed: int


def schedule(kinds: Sequence[str], seed: int, number: int, seconds: float) -> list[Strike]:
    """Return the strikes of a round, in order; each kind comes once before any comes again."""
    chance = random.Random(f"{seed} {number}")
    strikes: list[Strike] = []
    deck: list[str] = []
    at = chance.uniform(*_BETWEEN)
    while at < seconds:
        if not deck:
            deck = chance.sample(kinds, len(kinds))
        strikes.append(Strike(deck.pop(), at, chance.uniform(*_LASTS), chance.getrandbits(32)))
        at += chance.uniform(*_BETWEEN)
    return strikes
