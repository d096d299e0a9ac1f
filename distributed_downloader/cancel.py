"""A stop signal that also breaks a blocked read."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager

from distributed_downloader.errors import StoppedError


class Cancel:
    """Set once, for good; safe to use from any thread."""

    def __init__(self) -> None:
        #: Why it was set, or "".
        self.reason = ""
        self._set = False
        # Re-entrant, because a callback may ask us something.
        self._lock = threading.RLock()
        self._callbacks: list[Callable[[], None]] = []
        # Each task has a signal, few of them ever need these.
        self._event: threading.Event | None = None
        self._children: weakref.WeakSet[Cancel] | None = None

    def set(self, reason: str = "stopped") -> None:
        """Stop everything that looks at this signal, and run the callbacks; the first reason stays."""
        with self._lock:
            if self._set:
                return
            self.reason = reason
            self._set = True
            if self._event:
                self._event.set()
            children = list(self._children or ())
            for callback in self._callbacks:
                callback()
        for child in children:
            child.set(reason)

    def is_set(self) -> bool:
        """Return whether it is time to stop."""
        return self._set

    def wait(self, seconds: float | None) -> bool:
        """Sleep, but not beyond the signal; return whether it is set."""
        with self._lock:
            if self._set or seconds == 0:
                return self._set
            event = self._event = self._event or threading.Event()
        return event.wait(seconds)

    def check(self) -> None:
        """Raise StoppedError if it is time to stop."""
        if self._set:
            raise StoppedError(self.reason)

    def closing(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `callback` when the signal is set inside the block, and never after the block.

        It runs in the thread that sets the signal, so it must be quick and must not raise.
        If the signal is already set, it is called at once.
        """
        return _Closing(self._lock, self._callbacks, callback, self.is_set)

    def child(self) -> Cancel:
        """Return a signal that is set together with this one, and can also be set alone."""
        child = Cancel()
        with self._lock:
            if self._children is None:
                self._children = weakref.WeakSet()
            self._children.add(child)
        if self._set:
            child.set(self.reason)
        return child


class _Closing:
    """See `Cancel.closing`; no generator, for each request goes through it."""

    __slots__ = ("_callback", "_callbacks", "_is_set", "_lock")

    def __init__(
        self,
        lock: threading.RLock,
        callbacks: list[Callable[[], None]],
        callback: Callable[[], None],
        is_set: Callable[[], bool],
    ) -> None:
        self._lock, self._callbacks, self._callback, self._is_set = lock, callbacks, callback, is_set

    def __enter__(self) -> None:
        with self._lock:
            self._callbacks.append(self._callback)
            if self._is_set():
                self._callback()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._callbacks.remove(self._callback)
