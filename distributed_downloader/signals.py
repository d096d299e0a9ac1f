"""How a process that works for a long time answers to signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

#: Seconds after which a stop that hangs (a name server's silence, a dead disk) is ended the hard way;
#: the lease frees what could not be given back.
_PATIENCE = 4.5

Handler = Callable[[int, FrameType | None], object]


class Node(Protocol):
    """What runs in the background: a worker."""

    def run(self) -> None:
        """Work until stopped."""

    def stop(self) -> None:
        """Stop now."""

    def drain(self) -> None:
        """Finish what runs, then stop."""


@contextmanager
def handling(handlers: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Answer to these signals while the block runs (main thread only)."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Background:
    """A node that runs in a thread of its own, so that signals always find the main thread free.

    A context manager; its end stops the node, within 5 s.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fetcher", daemon=True)

    def _run(self) -> None:
        try:
            self._node.run()
        except BaseException as error:  # noqa: BLE001 - raised again by `join`, in the main thread
            self._error = error

    def __enter__(self) -> Background:
        try:
            self._thread.start()
        except BaseException:  # an interrupt, maybe, and the thread runs
            self._node.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._node.stop()
        self._thread.join(_PATIENCE)

    def join(self) -> None:
        """Wait until the node ends by itself; raises what it raised."""
        while self._thread.is_alive():
            self._thread.join(0.2)
        self.check()

    def check(self) -> None:
        """Raise what ended the node, if something did."""
        if self._error:
            raise self._error


def run_until_signal(node: Node) -> None:
    """Run a node; SIGINT and SIGTERM stop it, SIGUSR1 drains it, a second SIGINT or SIGTERM ends at once."""
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()
        # An alarm, not a thread: it fires even if every thread hangs.
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        node.stop()

    def drain(number: int, frame: FrameType | None) -> None:
        node.drain()

    background = Background(node)
    with handling({signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGUSR1: drain}), background:
        background.join()


def leave_at_once() -> None:
    """Let the signals that stop or drain a worker end one that holds nothing yet, with code 0."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda *_: os._exit(0))


def interrupt_on_terminate() -> None:
    """Let SIGTERM end a command as Ctrl+C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
