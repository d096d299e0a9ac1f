"""Work that may hang for ever, and who waits for it."""

from __future__ import annotations

import threading

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import StoppedError
from distributed_downloader.patience import unless_silent


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
