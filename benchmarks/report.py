"""What a benchmark prints: Markdown tables, medians, and on what they were measured."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import huggingface_hub
import psutil

from distributed_downloader import __version__
from distributed_downloader.embedded import find_server

#: What stands where nothing was measured.
NOTHING = "-"
#: Fields of the processors' times that another one contains already.
_CONTAINED = {"guest", "guest_nice"}


def say(line: str) -> None:
    """Tell people how far it is, on standard error: standard output is the report's."""
    print(line, file=sys.stderr, flush=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are figures."""
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))


def median(values: Sequence[float], digits: int = 2) -> str:
    """Return the median as text, or `NOTHING`."""
    return f"{statistics.median(values):.{digits}f}" if values else NOTHING


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """Return `quotient` as text, or `NOTHING`."""
    found = quotient(values, others)
    return NOTHING if found is None else f"{found:.3f}"


def spread(values: Sequence[float], digits: int = 2) -> list[str]:
    """Return three cells: median, least and most."""
    return [
        median(values, digits),
        *(f"{pick(values):.{digits}f}" if values else NOTHING for pick in (min, max)),
    ]


@dataclass(frozen=True)
class Limit:
    """What is to be reached, and what was measured: None where it was not."""

    what: str
    bound: float
    figure: float | None
    #: Whether more is better.
    at_least: bool = False
    unit: str = ""

    def row(self) -> list[str]:
        """Return its line of `limits`."""
        sign = ">=" if self.at_least else "<="
        to_reach = f"{sign} {self.bound:g}{self.unit}"
        if self.figure is None:
            return [self.what, to_reach, NOTHING, "not measured"]
        reached = self.figure >= self.bound if self.at_least else self.figure <= self.bound
        return [self.what, to_reach, f"{self.figure:.3f}{self.unit}", "reached" if reached else "not reached"]


def limits(every: Sequence[Limit]) -> str:
    """Return the table of what is to be reached."""
    return table(("limit", "to reach", "measured", "so it is"), [limit.row() for limit in every])


def middle(values: Sequence[float]) -> float | None:
    """Return the median, or None where nothing was measured."""
    return statistics.median(values) if values else None


def quotient(values: Sequence[float], others: Sequence[float]) -> float | None:
    """Return the median of the ratios of each round, or None where one was not measured.

    So noise that lasts longer than a round cancels out. What does not have as many rounds as the other has
    no neighbour there: then it is the ratio of both medians.
    """
    if not values or not others:
        return None
    if len(values) != len(others):
        return statistics.median(values) / statistics.median(others)
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def each(values: Sequence[float], digits: int = 2) -> str:
    """Return all values in the order in which they were measured."""
    return ", ".join(f"{value:.{digits}f}" for value in values) or NOTHING


def _spent() -> tuple[float, float]:
    """Return the seconds of all processors since the system's start, and those that other guests took."""
    times = psutil.cpu_times()._asdict()
    whole = sum(seconds for name, seconds in times.items() if name not in _CONTAINED)
    return whole, times.get("steal", 0.0)


_BEFORE = _spent()


def stolen() -> float:
    """Return which share of the processors' time other guests of the machine took during this run."""
    whole, taken = (now - before for now, before in zip(_spent(), _BEFORE, strict=True))
    return taken / whole if whole else 0.0


def versions() -> str:
    """Return one line about this machine, the software on it, and how much of it the run had."""
    said = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\bv=(\S+)", said)
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, hf-downloader {__version__}, "
        f"huggingface_hub {huggingface_hub.__version__}, "
        f"Redis {found[1] if found else '?'}; "
        f"other guests of the machine took {stolen():.1%} of the processors' time during the run"
    )
