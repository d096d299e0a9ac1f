"""What comes close together is handled together, in order, and nothing waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from distributed_downloader.batches import Batches

PATIENCE = 60.0
#: Seconds of a linger that no test waits for: something else ends it.
LONG = 3600.0


class Desk:
    """Notes the batches; the first waits until the test lets it go, if it is to."""

    def __init__(self, *, hold: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.threads: list[str] = []
        self.entered, self.go = threading.Event(), threading.Event()
        if not hold:
            self.go.set()
        self._changed = threading.Condition()

    def handle(self, batch: list[str]) -> None:
        self.entered.set()
        assert self.go.wait(PATIENCE)
        with self._changed:
            self.batches.append(batch)
            self.threads.append(threading.current_thread().name)
            self._changed.notify_all()

    def wait_for(self, *batches: str) -> None:
        """Wait for these batches: the items of each as one text."""
        wanted = [list(batch) for batch in batches]
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= len(wanted), PATIENCE)
        assert self.batches == wanted


def held(most: int = 64, linger: float = 0.0) -> tuple[Desk, Batches[str]]:
    """Return what has one batch, `0`, in hand."""
    desk = Desk(hold=True)
    batches = Batches("held", desk.handle, most, linger)
    batches.put(["0"] * (most if linger else 1))
    assert desk.entered.wait(PATIENCE)
    return desk, batches


def waits(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Return two events for the next linger: it has begun, and it is to end as if its time were over."""
    begun, over = threading.Event(), threading.Event()
    real = threading.Condition.wait_for

    def wait_for(
        self: threading.Condition, predicate: Callable[[], bool], timeout: float | None = None
    ) -> bool:
        if timeout != LONG:
            return real(self, predicate, timeout)
        begun.set()
        self.release()
        assert over.wait(PATIENCE)
        self.acquire()
        return predicate()

    monkeypatch.setattr(threading.Condition, "wait_for", wait_for)
    return begun, over


# -- without a linger -----------------------------------------------------------------------------


def test_one_alone_waits_for_nobody() -> None:
    desk = Desk()
    Batches("at once", desk.handle, 64).put(["1"])
    desk.wait_for("1")
    assert desk.threads == ["at once"]


def test_what_comes_while_it_is_busy_goes_together_in_order_and_within_bounds() -> None:
    desk, batches = held(most=4)
    for item in "12345":
        batches.put([item])
    batches.put(list("6789"))
    desk.go.set()
    desk.wait_for("0", "1234", "5678", "9")


def test_nothing_is_handled_twice_nor_when_nothing_was_put() -> None:
    desk, batches = held()
    batches.put([])
    desk.go.set()
    batches.put(["1"])
    desk.wait_for("0", "1")


# -- with one -------------------------------------------------------------------------------------


def test_what_comes_within_the_linger_is_handled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = waits(monkeypatch)
    desk = Desk()
    batches = Batches("lingers", desk.handle, 64, LONG)
    batches.put(["1"])
    assert begun.wait(PATIENCE)
    batches.put(["2"])
    batches.put(["3", "4"])
    assert desk.batches == []
    over.set()
    desk.wait_for("1234")


def test_a_linger_ends_by_itself() -> None:
    desk = Desk()
    Batches("lingers", desk.handle, 64, 0.001).put(["1"])
    desk.wait_for("1")


def test_a_full_batch_ends_the_linger() -> None:
    desk = Desk()
    batches = Batches("lingers", desk.handle, 3, LONG)
    for item in "123":
        batches.put([item])
    desk.wait_for("123")


@pytest.mark.parametrize("puts", [["123"], ["12", "34"], ["1", "2345"]])
def test_a_batch_that_gets_more_than_full_at_one_go_does_so_too(puts: list[str]) -> None:
    desk = Desk()
    batches = Batches("lingers", desk.handle, 3, LONG)
    for items in puts:
        batches.put(list(items))
    desk.wait_for("123")
    batches.close()
    if rest := "".join(puts)[3:]:
        desk.wait_for("123", rest)


def test_what_fills_a_batch_while_one_is_handled_waits_for_nobody() -> None:
    desk, batches = held(most=2, linger=LONG)
    for item in "1234":
        batches.put([item])
    desk.go.set()
    desk.wait_for("00", "12", "34")


# -- its end --------------------------------------------------------------------------------------


def test_closing_ends_the_linger_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    real = threading.Condition.wait

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        if timeout is not None and timeout > PATIENCE:
            begun.set()
        return real(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", wait)
    desk = Desk()
    batches = Batches("lingers", desk.handle, 64, LONG)
    batches.put(["1"])
    assert begun.wait(PATIENCE)
    batches.close()
    desk.wait_for("1")


def test_closing_leaves_nothing_behind() -> None:
    desk, batches = held(most=2, linger=LONG)
    for item in "123":
        batches.put([item])
    batches.close()
    desk.go.set()
    desk.wait_for("00", "12", "3")


def test_after_the_end_it_is_done_by_whoever_puts() -> None:
    desk = Desk()
    batches = Batches("closed", desk.handle, 2, LONG)
    batches.close()
    batches.put(list("123"))
    assert desk.batches == [["1", "2", "3"]]
    assert desk.threads == [threading.current_thread().name]


def test_the_thread_ends() -> None:
    desk = Desk()
    batches = Batches("test_the_thread_ends", desk.handle, 2)
    batches.put(["1"])
    desk.wait_for("1")
    (thread,) = (each for each in threading.enumerate() if each.name == "test_the_thread_ends")
    batches.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_without_memory_for_a_thread_it_is_done_by_whoever_puts(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise error

    desk = Desk()
    batches = Batches("later", desk.handle, 64)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        batches.put(["1"])
    assert desk.threads == [threading.current_thread().name]
    batches.put(["2"])
    desk.wait_for("1", "2")
    assert desk.threads[1] == "later"


def test_an_error_of_the_handler_does_not_end_the_thread() -> None:
    desk = Desk()

    def handle(batch: list[str]) -> None:
        desk.handle(batch)
        if batch == ["1"]:
            raise MemoryError

    batches = Batches("goes on", handle, 64)
    batches.put(["1"])
    desk.wait_for("1")
    batches.put(["2"])
    desk.wait_for("1", "2")


# -- when nothing comes ---------------------------------------------------------------------------


def test_a_thread_with_nothing_to_do_ends_and_another_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed_downloader.batches._REST", 0.01)
    desk = Desk()
    batches = Batches("one of many", desk.handle, 64)
    for item in "12":
        batches.put([item])
        desk.wait_for(*"12"[: int(item)])
        for thread in threading.enumerate():
            if thread.name == "one of many":
                thread.join(PATIENCE)
                assert not thread.is_alive()
    assert desk.threads == ["one of many"] * 2
