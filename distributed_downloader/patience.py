"""Waits for work that may hang in a dead disk's silence, where no signal reaches it: but not for ever."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from distributed_downloader.cancel import Cancel

T = TypeVar("T")

#: Seconds between two looks at whether there was a sign of life, or we are to stop.
_LOOK = 0.2


def unless_silent(
    work: Callable[[Cancel, Callable[[object], None]], T], cancel: Cancel, seconds: float
) -> T | None:
    """Return what `work` does, in a thread of its own; None when it has been silent for so many seconds.

    It gets a signal to stop and a function to call as a sign of life. Whatever it raises is raised here.
    Work that was given up goes on until it looks at its signal; the thread does not hold up our exit.
    """
    inner, moved = cancel.child(), [time.monotonic()]
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def alive(_: object = None) -> None:
        moved[0] = time.monotonic()

    def run() -> None:
        try:
            done.put((work(inner, alive), None))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that asked
            done.put((None, error))

    threading.Thread(target=run, name="patience", daemon=True).start()
    while True:
        try:
            result, error = done.get(timeout=_LOOK)
        except queue.Empty:
            cancel.check()
            if time.monotonic() - moved[0] <= seconds:
                continue
            inner.set(f"no sign of life for {seconds:.0f} s")
            return None
        if error:
            raise error
        return result
