"""A node in a thread beside ends with the block, whenever that is interrupted."""

from __future__ import annotations

import threading

import pytest

from distributed_downloader.signals import Background


class Node:
    """Runs until it is stopped."""

    def __init__(self) -> None:
        self.stopped, self.ended = threading.Event(), threading.Event()

    def run(self) -> None:
        self.stopped.wait(60)
        self.ended.set()

    def stop(self) -> None:
        self.stopped.set()

    def drain(self) -> None:
        raise AssertionError("nobody asks for that")


def test_it_ends_with_the_block() -> None:
    node = Node()
    with Background(node) as background:
        background.check()
    assert node.ended.is_set()


def test_an_interrupt_while_it_starts_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    node, start = Node(), threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Background(node):
        raise AssertionError("the block has begun")
    assert node.ended.wait(60)
