"""Work on a few things at once in threads that may hang: in order for each thing, and nobody has to wait."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from distributed_downloader.cancel import Cancel

log = logging.getLogger(__name__)

#: Seconds to wait for the last step once all is stopped; less than a worker has to stop.
_GRACE = 1.0

#: What a thread does at one go.
Step = Callable[[], object]


class Pool:
    """A fixed number of threads that do what lies in lanes, one step of each in turn."""

    def __init__(self, threads: int, name: str) -> None:
        self._lanes: queue.SimpleQueue[Lane | None] = queue.SimpleQueue()
        # Daemons, so that a disk that never answers cannot hold up our exit.
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def add(self, lane: Lane) -> None:
        """Have one step of a lane done; returns at once."""
        self._lanes.put(lane)

    def close(self) -> None:
        """End the threads once they have done what was added before; returns at once."""
        for _ in self._threads:
            self._lanes.put(None)

    def _run(self) -> None:
        while (lane := self._lanes.get()) is not None:
            lane.run()


class Lane:
    """Steps that are done one after the other, until one fails; never two at the same time.

    One thread adds, waits and closes; it never waits for long once `cancel` is set, which `wake` tells.
    """

    def __init__(self, pool: Pool, cancel: Cancel) -> None:
        self._pool, self._cancel = pool, cancel
        self._news = threading.Condition()
        self._steps: deque[Step] = deque()
        #: Whether the pool has us, and whether one of its threads does a step right now.
        self._queued = self._running = False
        self._closing = False
        self._error: BaseException | None = None

    def add(self, step: Step) -> None:
        """Do a step after all others, unless one of them fails; returns at once."""
        with self._news:
            if not self._error:
                self._add(step)

    def wait(self, most: int) -> None:
        """Wait until at most so many steps are left; raises the error of one, and StoppedError."""
        with self._news:
            while not self._error and self._left > most and not self._cancel.is_set():
                self._news.wait()
            error, done = self._error, self._left <= most
        if error:
            raise error
        if not done:
            self._cancel.check()

    def check(self) -> None:
        """Raise StoppedError if there is no use in going on with a step."""
        self._cancel.check()

    def close(self, step: Step) -> BaseException | None:
        """Do this step as the last, instead of those that were not begun; return what went wrong.

        Waits for it, but not for long once `cancel` is set; the step is done later then.
        """
        with self._news:
            self._error, self._closing = None, True
            self._steps.clear()
            self._add(step)
            deadline = None
            while self._left:
                if deadline is None and self._cancel.is_set():
                    deadline = time.monotonic() + _GRACE
                patience = None if deadline is None else deadline - time.monotonic()
                if patience is not None and patience <= 0:
                    log.warning("stopped while a disk does not answer; what it was told may come late")
                    break
                self._news.wait(patience)
            return self._error

    def wake(self) -> None:
        """Let who waits look at the stop signal."""
        with self._news:
            self._news.notify_all()

    def run(self) -> None:
        """Do one step; for a thread of the pool. Never raises."""
        with self._news:
            step = self._steps.popleft()
            self._queued, self._running = False, True
        error: BaseException | None = None
        try:
            step()
        except BaseException as raised:  # noqa: BLE001 - raised again by `wait`, in the thread that added it
            error = raised
        with self._news:
            self._running = False
            self._error = self._error or error
            if error and not self._closing:
                self._steps.clear()
            self._queue()
            self._news.notify_all()

    @property
    def _left(self) -> int:
        return len(self._steps) + self._running

    def _add(self, step: Step) -> None:
        self._steps.append(step)
        self._queue()

    def _queue(self) -> None:
        if self._steps and not self._queued and not self._running:
            self._queued = True
            self._pool.add(self)
