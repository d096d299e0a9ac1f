"""A stop signal that also breaks a blocked read."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed_downloader.errors import StoppedError


class Cancel:
    """Set once, for good; safe to use from any thread."""

    def __init__(self) -> None:
        #: Why it was set, or "".
        self.reason = ""
        self._event = threading.Event()
        # Re-entrant, because a callback may ask us something.
        self._lock = threading.RLock()
        self._callbacks: list[Callable[[], None]] = []
        self._children: weakref.WeakSet[Cancel] = weakref.WeakSet()

    def set(self, reason: str = "stopped") -> None:
        """Stop everything that looks at this signal, and run the callbacks; the first reason stays."""
        with self._lock:
            if self.is_set():
                return
            self.reason = reason
            self._event.set()
            children = list(self._children)
            for callback in self._callbacks:
                callback()
        for child in children:
            child.set(reason)

    def is_set(self) -> bool:
        """Return whether it is time to stop."""
        return self._event.is_set()

    def wait(self, seconds: float | None) -> bool:
        """Sleep, but not beyond the signal; return whether it is set."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise StoppedError if it is time to stop."""
        if self.is_set():
            raise StoppedError(self.reason)

    @contextmanager
    def closing(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` when the signal is set inside the block, and never after the block.

        It runs in the thread that sets the signal, so it must be quick and must not raise.
        If the signal is already set, it is called at once.
        """
        with self._lock:
            self._callbacks.append(callback)
            if self.is_set():
                callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

    def child(self) -> Cancel:
        """Return a signal that is set together with this one, and can also be set alone."""
        child = Cancel()
        with self._lock:
            self._children.add(child)
        if self.is_set():
            child.set(self.reason)
        return child
