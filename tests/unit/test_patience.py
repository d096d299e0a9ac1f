"""Work that may hang for ever, and who waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import StoppedError
from distributed_downloader.patience import Inquiry, unless_silent


def test_what_ends_in_time_gives_its_result() -> None:
    assert unless_silent(lambda _cancel, _alive: 7, Cancel(), 60) == 7


def test_what_goes_wrong_is_raised_here() -> None:
    def fails(_cancel: Cancel, _alive: object) -> None:
        raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError, match="oops"):
        unless_silent(fails, Cancel(), 60)


def test_what_is_silent_is_given_up_and_told_to_stop() -> None:
    told = threading.Event()

    def hangs(cancel: Cancel, _alive: object) -> bool:
        cancel.wait(None)
        told.set()
        return True

    assert unless_silent(hangs, Cancel(), 0.01) is None
    assert told.wait(60)


def test_a_sign_of_life_is_worth_waiting_for() -> None:
    ended = threading.Event()

    def slow(_cancel: Cancel, alive: object) -> str:
        assert callable(alive)
        for _ in range(20):
            alive(0)
            ended.wait(0.05)
        return "ended"

    assert unless_silent(slow, Cancel(), 0.9) == "ended"


def test_whoever_is_told_to_stop_does_not_wait() -> None:
    cancel, hang = Cancel(), threading.Event()

    def hangs(_cancel: Cancel, _alive: object) -> None:
        cancel.set("the worker stops")
        hang.wait(60)

    with pytest.raises(StoppedError, match="the worker stops"):
        unless_silent(hangs, cancel, 60)
    hang.set()


# -- one question to many -------------------------------------------------------------------------


class Asked:
    """Who answers with his name in capitals, and with "h" hangs until he is let `go`."""

    def __init__(self) -> None:
        self.calls = list[str]()
        self.go = threading.Event()

    def __call__(self, key: str) -> str:
        self.calls.append(key)
        if key.startswith("h"):
            assert self.go.wait(60)
        return key.upper()


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_who_answer_are_heard() -> None:
    asked = Asked()
    inquiry = Inquiry(asked)
    assert inquiry.ask("abc", 60) == {"a": "A", "b": "B", "c": "C"}
    assert inquiry.ask("a", 60) == {"a": "A"}
    assert asked.calls.count("a") == 2
    assert inquiry.ask("", 60) == {}
    assert inquiry.silent(0) == {}


def test_all_who_hang_together_cost_a_moment_once() -> None:
    asked = Asked()
    inquiry, names = Inquiry(asked), ["a", *(f"h{number}" for number in range(20))]
    assert inquiry.ask(names, 0.2) == {"a": "A"}
    began = time.monotonic()
    for _ in range(3):
        assert inquiry.ask(names, 60) == {"a": "A"}
    assert time.monotonic() - began < 30
    assert sorted(asked.calls) == sorted(["a"] * 3 + names)
    asked.go.set()


def test_who_is_silent_is_known_while_anybody_wants_to_know() -> None:
    asked = Asked()
    inquiry = Inquiry(asked)
    inquiry.ask(["a", "h"], 0.05)
    assert inquiry.silent(0).keys() == {"h"}
    assert inquiry.silent(3600) == {}
    inquiry.ask("a", 60)
    assert inquiry.silent(0) == {}
    inquiry.ask("h", 60)
    assert inquiry.silent(0)["h"] >= 0.05
    asked.go.set()
    until(lambda: not inquiry.silent(0))


def test_a_late_answer_counts_once() -> None:
    asked = Asked()
    inquiry = Inquiry(asked)
    assert inquiry.ask("h", 0.01) == {}
    asked.go.set()
    until(lambda: not inquiry.silent(0))
    assert inquiry.ask("h", 0) == {"h": "H"}
    assert asked.calls == ["h"]
    assert inquiry.ask("h", 60) == {"h": "H"}
    assert asked.calls == ["h", "h"]


def test_a_late_answer_that_nobody_wants_is_forgotten() -> None:
    asked = Asked()
    inquiry = Inquiry(asked)
    inquiry.ask("h", 0.01)
    asked.go.set()
    until(lambda: not inquiry.silent(0))
    inquiry.ask("a", 60)
    inquiry.ask("h", 60)
    assert asked.calls == ["h", "a", "h"]


def test_whoever_fails_has_no_answer_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, told = list[int](), list[threading.ExceptHookArgs]()
    monkeypatch.setattr(threading, "excepthook", told.append)

    def divide(key: int) -> float:
        calls.append(key)
        return 1 / key

    inquiry = Inquiry(divide)
    for _ in range(2):
        assert inquiry.ask([0, 1], 60) == {1: 1.0}
    assert calls.count(0) == 2
    until(lambda: len(told) == 2)
