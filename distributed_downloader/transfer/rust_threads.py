"""How many threads the libraries written in Rust get: few, unless the user says how many."""

from __future__ import annotations

import os

_NAME = "TOKIO_WORKER_THREADS"
#: What the user says, read before we say anything to a library in this process.
_WISH = os.environ.get(_NAME, "")


def rust_threads(ours: int) -> dict[str, str]:
    """Return the variable that gives such a library `ours` threads, or as many as the user wants.

    It would start one for each CPU, and the stacks of all count as memory.
    """
    return {_NAME: _WISH or str(ours)}
