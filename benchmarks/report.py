"""What a benchmark prints: Markdown tables, medians, and on what they were measured."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence

import huggingface_hub

from distributed_downloader import __version__
from distributed_downloader.embedded import find_server

#: What stands where nothing was measured.
NOTHING = "-"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are figures."""
    rule = ["---", *("---:" for _ in heads[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))


def median(values: Sequence[float], digits: int = 2) -> str:
    """Return the median as text, or `NOTHING`."""
    return f"{statistics.median(values):.{digits}f}" if values else NOTHING


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """Return the ratio of two medians as text, or `NOTHING`."""
    return f"{statistics.median(values) / statistics.median(others):.3f}" if values and others else NOTHING


def each(values: Sequence[float], digits: int = 2) -> str:
    """Return all values in the order in which they were measured."""
    return ", ".join(f"{value:.{digits}f}" for value in values) or NOTHING


def versions() -> str:
    """Return one line about this machine and the software on it."""
    said = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\bv=(\S+)", said)
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, hf-downloader {__version__}, "
        f"huggingface_hub {huggingface_hub.__version__}, "
        f"Redis {found[1] if found else '?'}"
    )
