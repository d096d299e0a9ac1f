"""Who decides what happens next: a seeded generator, or hypothesis."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices(Protocol):
    """A source of decisions."""

    def of(self, items: Sequence[T]) -> T:
        """Return one of the items."""

    def number(self, low: int, high: int) -> int:
        """Return a number between two, both included."""


class Seeded:
    """Decisions that a seed repeats."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def of(self, items: Sequence[T]) -> T:
        return self._random.choice(items)

    def number(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


class Drawn:
    """Decisions that hypothesis makes, and makes simpler when something is wrong."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def of(self, items: Sequence[T]) -> T:
        return self._data.draw(st.sampled_from(items))

    def number(self, low: int, high: int) -> int:
        return self._data.draw(st.integers(low, high))
