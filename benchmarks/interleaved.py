"""The order and the pace in which the ways that are compared take their turns."""

from __future__ import annotations

import random
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def add_rest(parser: ArgumentParser) -> None:
    """Declare the option of the command line whose value `turns` takes."""
    about = "wait before each run, where a virtual machine gets less of the processors the longer it is busy"
    parser.add_argument("--rest", type=float, default=0.0, metavar="SECONDS", help=f"{about} (default 0)")


def turns(ways: Sequence[T], number: int, rest: float) -> Iterator[T]:
    """Yield them in an order of that round's own, the same in every run, after so many seconds each.

    What one leaves behind, memory that the system still clears away, its neighbour pays; so nobody has the
    same neighbours in each round.
    """
    for way in random.Random(number).sample(ways, len(ways)):
        time.sleep(rest)
        yield way
