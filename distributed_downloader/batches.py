"""A thread that handles together what has come while it was busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

#: Seconds with nothing to do after which a thread ends; the next one is started when it is needed.
_REST = 60.0

T = TypeVar("T")


class Batches(Generic[T]):
    """Hands what is put here to `handle`, in order and up to `most` at once; `handle` must not raise."""

    def __init__(self, name: str, handle: Callable[[list[T]], None], most: int, linger: float = 0.0) -> None:
        """`name`: of the thread, which is started when it is needed.

        It lets the first of a batch wait `linger` seconds for others, unless `most` are there before.
        """
        self._name, self._handle, self._most, self._linger = name, handle, most, linger
        self._lock = threading.Lock()
        self._there = threading.Condition(self._lock)
        self._items: deque[T] = deque()
        self._started = self._closed = False

    def put(self, items: Sequence[T]) -> None:
        """Have them handled soon; or now, where there is no memory for the thread, or it has ended."""
        with self._lock:
            here = self._closed or not (self._started or self._start())
            if not here:
                before = len(self._items)
                self._items.extend(items)
                # For no more than these does the thread wake up: each time costs as much as a small file.
                if not before or before < self._most <= len(self._items):
                    self._there.notify()
        if here:
            self._handle(list(items))

    def close(self) -> None:
        """End the thread, once it has nothing to handle any more."""
        with self._lock:
            self._closed = True
            self._there.notify()

    def _start(self) -> bool:
        """Start the thread; False where there is no memory for one."""
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except (RuntimeError, MemoryError):
            return False
        self._started = True
        return True

    def _run(self) -> None:
        going = True
        while going:
            with suppress(Exception):  # no memory to tell of no memory: what waits here has nobody else
                going = self._turn()

    def _turn(self) -> bool:
        """Handle what comes; False when nothing does, and it is time to go."""
        if batch := self._next():
            self._handle(batch)
        return bool(batch)

    def _next(self) -> list[T]:
        with self._lock:
            self._started = bool(self._there.wait_for(lambda: self._items or self._closed, _REST))
            if self._items and self._linger:
                self._there.wait_for(lambda: len(self._items) >= self._most or self._closed, self._linger)
            return [self._items.popleft() for _ in range(min(len(self._items), self._most))]
