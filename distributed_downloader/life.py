"""The names of a worker in the fleet: one that was taken for dead comes back with another."""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass, field

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import UsageError

_WORKER_ID = re.compile(r"[\w.:@-]{1,128}", re.ASCII)


@dataclass(frozen=True)
class Life:
    """The time under one name."""

    id: str
    #: The first of its names.
    name: str
    cancel: Cancel = field(default_factory=Cancel)

    @classmethod
    def first(cls, name: str | None) -> Life:
        """Return the life of a new worker; None = any name. Raises UsageError for one that cannot be."""
        if name is not None and not _WORKER_ID.fullmatch(name):
            raise UsageError(f"worker id {name!r}: use letters, digits and . : @ _ - (128 at most)")
        name = name or _new_name()
        return cls(name, name)

    def next(self) -> Life:
        """Return the life after this one."""
        return Life(f"{self.name}.{secrets.token_hex(2)}", self.name)


def _new_name() -> str:
    """Return `host-pid-random`."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)[:90]
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
