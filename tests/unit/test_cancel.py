"""The stop signal."""

from __future__ import annotations

import gc
import socket
import threading
import weakref

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import StoppedError

LONG = 60.0


def test_it_starts_unset() -> None:
    cancel = Cancel()
    cancel.check()
    assert not cancel.is_set()
    assert not cancel.wait(0)


def test_set_is_for_good() -> None:
    cancel = Cancel()
    cancel.set("shutdown")
    assert cancel.is_set()
    assert cancel.wait(LONG)
    with pytest.raises(StoppedError, match="shutdown"):
        cancel.check()


def test_the_first_reason_stays() -> None:
    cancel = Cancel()
    cancel.set("lost lease")
    cancel.set("shutdown")
    assert cancel.reason == "lost lease"


def test_wait_ends_when_it_is_set() -> None:
    cancel, waiting, woken = Cancel(), threading.Event(), list[bool]()

    def wait() -> None:
        waiting.set()
        woken.append(cancel.wait(LONG))

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(LONG)
    cancel.set()
    thread.join(LONG)
    assert woken == [True]


def test_wait_without_a_limit() -> None:
    cancel = Cancel()
    thread = threading.Thread(target=cancel.wait, args=(None,))
    thread.start()
    cancel.set()
    thread.join(LONG)
    assert not thread.is_alive()


def test_closing_calls_back_once() -> None:
    cancel, calls = Cancel(), list[str]()
    with cancel.closing(lambda: calls.append("hung up")):
        assert calls == []
        cancel.set()
        cancel.set()
    assert calls == ["hung up"]


def test_closing_calls_back_at_once_if_it_is_late() -> None:
    cancel, calls = Cancel(), list[str]()
    cancel.set()
    with cancel.closing(lambda: calls.append("hung up")):
        assert calls == ["hung up"]


def test_after_the_block_nobody_is_called() -> None:
    cancel, calls = Cancel(), list[str]()
    with cancel.closing(lambda: calls.append("hung up")):
        pass
    cancel.set()
    assert calls == []


def test_an_error_in_the_block_forgets_the_callback() -> None:
    cancel, calls = Cancel(), list[str]()
    with pytest.raises(KeyError), cancel.closing(lambda: calls.append("hung up")):
        raise KeyError
    cancel.set()
    assert calls == []


def test_all_callbacks_are_called() -> None:
    cancel, calls = Cancel(), list[int]()
    with cancel.closing(lambda: calls.append(1)), cancel.closing(lambda: calls.append(2)):
        cancel.set()
    assert calls == [1, 2]


def test_the_same_callback_twice() -> None:
    cancel, calls = Cancel(), list[int]()

    def call() -> None:
        calls.append(1)

    with cancel.closing(call):
        with cancel.closing(call):
            pass
        cancel.set()
    assert calls == [1]


def test_a_callback_may_ask_the_signal() -> None:
    cancel, seen = Cancel(), list[tuple[bool, str]]()
    with cancel.closing(lambda: seen.append((cancel.is_set(), cancel.reason))):
        cancel.set("why")
    assert seen == [(True, "why")]


def test_the_block_is_not_left_while_its_callback_runs() -> None:
    cancel, running, go_on, left = Cancel(), threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        running.set()
        go_on.wait(LONG)
        assert not left.is_set()

    def block() -> None:
        with cancel.closing(call):
            running.wait(LONG)
        left.set()

    threads = [threading.Thread(target=block), threading.Thread(target=cancel.set)]
    threads[0].start()
    threads[1].start()
    assert running.wait(LONG)
    assert not left.wait(0.05)
    go_on.set()
    for thread in threads:
        thread.join(LONG)
    assert left.is_set()


def test_a_blocked_read_is_broken() -> None:
    ours, theirs = socket.socketpair()
    cancel, got, reading = Cancel(), list[bytes](), threading.Event()

    def read() -> None:
        with cancel.closing(lambda: ours.shutdown(socket.SHUT_RDWR)):
            reading.set()
            got.append(ours.recv(10))

    with ours, theirs:
        thread = threading.Thread(target=read)
        thread.start()
        assert reading.wait(LONG)
        cancel.set()
        thread.join(LONG)
    assert got == [b""]


def test_a_child_is_set_with_its_parent() -> None:
    parent, calls = Cancel(), list[str]()
    child = parent.child()
    grandchild = child.child()
    with grandchild.closing(lambda: calls.append("hung up")):
        parent.set("shutdown")
    assert (child.is_set(), grandchild.is_set()) == (True, True)
    assert (child.reason, grandchild.reason, calls) == ("shutdown", "shutdown", ["hung up"])


def test_a_child_can_be_set_alone() -> None:
    parent = Cancel()
    first, second = parent.child(), parent.child()
    first.set("job cancelled")
    assert (parent.is_set(), second.is_set()) == (False, False)
    parent.set("shutdown")
    assert (first.reason, second.reason) == ("job cancelled", "shutdown")


def test_a_late_child_is_set_at_once() -> None:
    parent = Cancel()
    parent.set("shutdown")
    assert parent.child().reason == "shutdown"


def test_a_parent_does_not_keep_its_children() -> None:
    parent = Cancel()
    gone = weakref.ref(parent.child())
    gc.collect()
    assert gone() is None
    parent.set()


def test_many_threads_at_once() -> None:
    parent, calls, ready = Cancel(), list[int](), threading.Barrier(9)

    def work(number: int) -> None:
        child = parent.child()
        with child.closing(lambda: calls.append(number)):
            ready.wait(LONG)
            child.wait(LONG)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    ready.wait(LONG)
    parent.set()
    for thread in threads:
        thread.join(LONG)
    assert sorted(calls) == list(range(8))
