"""How long a thread has waited for others: for the hub, for a disk, for its turn."""

from __future__ import annotations

import threading
import time


class _Waited(threading.local):
    seconds = 0.0


_waited = _Waited()


class waiting:  # noqa: N801 - reads as the language: `with waiting():`
    """Count the seconds of the block as waiting, but for those in which the thread computes."""

    __slots__ = ("_began",)

    def __enter__(self) -> None:
        self._began = time.monotonic() - time.thread_time()

    def __exit__(self, *_: object) -> None:
        _waited.seconds += time.monotonic() - time.thread_time() - self._began


def waited() -> float:
    """Return the seconds that this thread has waited so far."""
    return _waited.seconds
