"""The process in which hf_transfer fetches one file: the library holds the interpreter until it is done.

The order (JSON) comes over standard input, so that no secret is in a command line or in the environment that
a process is born with. Each piece that is on disk is one byte on standard output; what went wrong is the last
line on standard error. It ends with its parent, however that ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

import hf_transfer

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Do what the order says; ends with code 1 and a line on standard error if that fails."""
    sys.tracebacklimit = 0
    order = json.load(sys.stdin)
    _end_with(order["parent"])
    for name, most in order["limits"].items():
        _limit(getattr(resource, name), most)
    os.environ.update(order["environ"])
    hf_transfer.download(**order["download"], callback=lambda _bytes: os.write(1, b"."))


def _end_with(parent: int) -> None:
    """Let the kernel end this process when its parent dies: no thread of it would get to notice."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died already
        sys.exit("the worker is gone")


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
