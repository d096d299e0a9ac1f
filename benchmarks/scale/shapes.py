"""Repos as they are published, in numbers and sizes of files; and how much of one is enough for a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SHARD, _SMALL = 4_300_000_000, 100_000
#: Small files for each slot of the fleet that are enough to see what a million would show, and at least.
_FILES_PER_SLOT, _FEWEST = 5, 20_000


@dataclass(frozen=True)
class Files:
    """Files of one size, which are one job."""

    count: int
    size: int

    @property
    def small(self) -> bool:
        """Whether there may be fewer of them without another result."""
        return self.size == _SMALL

    def enough(self, slots: int) -> Files:
        """Return as many of them as show with so many slots what all would."""
        least = max(_FEWEST, _FILES_PER_SLOT * slots)
        return Files(min(self.count, least), self.size) if self.small else self


@dataclass(frozen=True)
class Shape:
    """What a fleet is asked for at once."""

    title: str
    jobs: tuple[Files, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(files.count * files.size for files in self.jobs)

    def enough(self, slots: int) -> Shape:
        """Return what is to be run with so many slots."""
        return Shape(self.title, tuple(files.enough(slots) for files in self.jobs))


def shapes(*, smoke: bool) -> Sequence[Shape]:
    """Return what is simulated."""
    if smoke:
        return (Shape("2 shards and 400 small files", (Files(2, _SHARD // 10), Files(400, _SMALL))),)
    return (
        Shape("a model of 700 GB in 163 shards", (Files(163, _SHARD),)),
        Shape("a dataset of 1,000,000 files of 100 kB", (Files(1_000_000, _SMALL),)),
        Shape("a fifth of each at once", (Files(33, _SHARD), Files(200_000, _SMALL))),
    )
