"""`python -m benchmarks.member CLOCK MACHINE LEASE worker …`: a worker on a machine of its own.

CLOCK seconds are added to its clock. MACHINE is a folder: while there is a file `broken` in it, one disk
operation in three fails (EIO); while there is a file `nameless`, no name of a host can be resolved.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.e2e import short_lease

#: Files that switch faults on.
BROKEN, NAMELESS = "broken", "nameless"
_BROKEN = 1 / 3
#: What reads and writes files in the product; each takes the file's descriptor first.
_OPERATIONS = ("copy_file_range", "fsync", "pread", "pwrite", "read", "sendfile", "write")


def shift_clock(seconds: float) -> None:
    """Let this process see another time of day; time that passes, and the kernel's files, are not moved."""
    real = time.time
    time.time = lambda: real() + seconds


def break_disks(switch: str) -> None:
    """Let operations on files fail while the switch is there."""
    for name in _OPERATIONS:
        setattr(os, name, _breaking(getattr(os, name), switch))


def lose_names(switch: str) -> None:
    """Let no host be found while the switch is there, not even one that is an address already."""
    real = socket.getaddrinfo

    def lost(*args: Any, **given: Any) -> Any:  # noqa: ANN401 passed on
        if os.access(switch, os.F_OK):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(*args, **given)

    socket.getaddrinfo = lost


def _breaking(operation: Callable[..., Any], switch: str) -> Callable[..., Any]:
    def broken(fd: int, *args: Any) -> Any:  # noqa: ANN401 passed on
        if random.random() < _BROKEN and os.access(switch, os.F_OK) and stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return operation(fd, *args)

    return broken


def main() -> int:
    """Break what is to be broken, then be a worker."""
    _, clock, machine, *words = sys.argv
    shift_clock(float(clock))
    break_disks(f"{machine}/{BROKEN}")
    lose_names(f"{machine}/{NAMELESS}")
    sys.argv[1:] = words
    return short_lease.main()


if __name__ == "__main__":
    sys.exit(main())
