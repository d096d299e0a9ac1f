"""A thread that handles together what has come while it was busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Batches(Generic[T]):
    """Hands what is put here to `handle`, in order and up to `most` at once; `handle` must not raise."""

    def __init__(self, name: str, handle: Callable[[list[T]], None], most: int) -> None:
        """`name`: of the thread, which is started when it is needed."""
        self._name, self._handle, self._most = name, handle, most
        self._there = threading.Condition(threading.Lock())
        self._items: deque[T] = deque()
        self._started = self._closed = False

    def put(self, item: T) -> None:
        """Have it handled soon; or now, where there is no memory for the thread, or it has ended."""
        with self._there:
            here = self._closed or not self._start()
            if not here:
                self._items.append(item)
                self._there.notify()
        if here:
            self._handle([item])

    def close(self) -> None:
        """End the thread, once it has nothing to handle any more."""
        with self._there:
            self._closed = True
            self._there.notify()

    def _start(self) -> bool:
        """Have a thread; False where there is no memory for one."""
        if not self._started:
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
        """Handle what is there; False when it is time to go."""
        if batch := self._next():
            self._handle(batch)
        return bool(batch)

    def _next(self) -> list[T]:
        with self._there:
            self._there.wait_for(lambda: self._items or self._closed)
            return [self._items.popleft() for _ in range(min(len(self._items), self._most))]
