"""What a worker's task came to, other than an error."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: Instead of a folder: the file is on the NAS already.
ON_NAS = "nas"


class Range(NamedTuple):
    """Bytes of a file, from `start` on."""

    start: int
    length: int

    def __str__(self) -> str:
        return f"{self.start}+{self.length}"

    @classmethod
    def parse(cls, text: str) -> Range:
        """Parse a range; raises ValueError for anything else."""
        match = re.fullmatch(r"(\d{1,15})\+(\d{1,15})", text, re.ASCII)
        if not match:
            raise ValueError(f"{text!a} is no range of bytes")
        return cls(int(match[1]), int(match[2]))

    @property
    def end(self) -> int:
        """The byte behind the last one."""
        return self.start + self.length


class Record(NamedTuple):
    """Bytes of a split file that were written, and the sha256 that they had when they came."""

    start: int
    length: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.start}+{self.length}.{self.sha256}"

    @property
    def end(self) -> int:
        """The byte behind the last one."""
        return self.start + self.length


class Published(NamedTuple):
    """The folder in which a file has got its name, below the output folder `root` with the id `place`."""

    root: Path
    place: str
    parents: tuple[bytes, ...]

    def __str__(self) -> str:
        return str(self.root.joinpath(*map(os.fsdecode, self.parents)))


@dataclass(frozen=True)
class Finished:
    """The bytes are where they belong."""

    #: Of a part: whether its bytes were written; else its seal has to see to them.
    written: bool = True
    #: `<id> <path>` of the folder from which the file still has to get to the NAS; ON_NAS if it is there.
    owes: str = ""
    #: Where the file's name is not safe from a power cut yet, which it has to be before it is reported.
    published: Published | None = None


@dataclass(frozen=True)
class Divided:
    """The file is to be fetched in parts, in the folder of this id."""

    place: str
    #: What is still missing; in this order.
    parts: tuple[Range, ...]
    #: What was written before.
    written: tuple[Range, ...] = ()
    #: Names file and folder, for two jobs must not put one file together at the same time.
    file: str = ""


Outcome = Finished | Divided
