"""The order in which the ways that are compared take their turns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def shuffled(ways: Sequence[T], number: int) -> list[T]:
    """Return them in an order of that round's own, the same in every run.

    What one leaves behind, memory that the system still clears away, its neighbour pays; so nobody has the
    same neighbours in each round.
    """
    return random.Random(number).sample(ways, len(ways))
