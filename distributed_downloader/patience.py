"""Waits for work that may hang in a dead disk's silence, where no signal reaches it: but not for ever."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from distributed_downloader.cancel import Cancel

K = TypeVar("K", bound=Hashable)
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


class Inquiry(Generic[K, T]):
    """One question put to many, who may hang: to each in a thread of its own, and never twice at a time.

    For one thread that asks; any may look at who is silent.
    """

    def __init__(self, question: Callable[[K], T]) -> None:
        self._question = question
        self._news = threading.Condition()
        #: Who has not answered yet, and since when.
        self._pending: dict[K, float] = {}
        self._answers: dict[K, T] = {}
        self._wanted: frozenset[K] = frozenset()

    def ask(self, keys: Iterable[K], seconds: float) -> dict[K, T]:
        """Return the answers that are there after so many seconds at most.

        Who still owes the last answer is neither asked nor waited for; if it came meanwhile, it counts now.
        """
        with self._news:
            self._wanted = frozenset(keys)
            late = {key: answer for key, answer in self._answers.items() if key in self._wanted}
            new = self._wanted - late.keys() - self._pending.keys()
            self._answers = late
            for key in new:  # none can answer before we wait, for that takes the lock
                threading.Thread(target=self._put, args=(key,), name="inquiry", daemon=True).start()
                self._pending[key] = time.monotonic()
            self._news.wait_for(lambda: new.isdisjoint(self._pending), seconds)
            answers, self._answers = self._answers, {}
            return {key: answer for key, answer in answers.items() if key in self._wanted}

    def silent(self, seconds: float) -> dict[K, float]:
        """Return who of those asked last has not answered for so many seconds: for how many."""
        now = time.monotonic()
        with self._news:
            waits = {key: now - since for key, since in self._pending.items() if key in self._wanted}
        return {key: wait for key, wait in waits.items() if wait > seconds}

    def _put(self, key: K) -> None:
        answers = dict[K, T]()
        try:
            answers[key] = self._question(key)
        finally:
            with self._news:
                del self._pending[key]
                self._answers |= answers
                self._news.notify_all()
