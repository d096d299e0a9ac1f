"""How long the NAS is left alone, and what is said meanwhile."""

from __future__ import annotations

import logging

import pytest

from distributed_downloader.nas_trouble import Troubles


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def troubles(clock: Clock) -> Troubles:
    return Troubles(clock)


def test_all_is_well(troubles: Troubles) -> None:
    assert (troubles.text, troubles.with_nas, troubles.resting) == ("", "", False)


def test_the_nas_is_left_alone_for_longer_and_longer(troubles: Troubles, clock: Clock) -> None:
    rests = []
    for _ in range(8):
        troubles.nas_failed((1, 1), "full")
        began = clock.now
        while troubles.resting:
            clock.now += 1
        rests.append(clock.now - began)
    assert rests == [5, 10, 20, 40, 80, 160, 300, 300]
    assert troubles.text == troubles.with_nas == "full"


def test_several_failures_at_once_are_one(troubles: Troubles, clock: Clock) -> None:
    for _ in range(5):
        troubles.nas_failed((1, 1), "full")
    clock.now += 5
    assert not troubles.resting


def test_the_first_success_ends_the_trouble(troubles: Troubles, clock: Clock) -> None:
    for _ in range(5):
        troubles.nas_failed((1, 1), "full")
        clock.now += 300
    troubles.nas_works()
    assert troubles.text == ""
    troubles.nas_failed((1, 1), "full")
    clock.now += 5
    assert not troubles.resting


def test_a_nas_that_is_away_is_looked_for_all_the_time(troubles: Troubles) -> None:
    troubles.nas_is_away("not mounted")
    assert troubles.text == "not mounted"
    assert not troubles.resting
    troubles.nas_is_back()
    assert troubles.text == ""


def test_that_the_nas_is_mounted_does_not_make_it_less_full(troubles: Troubles) -> None:
    troubles.nas_failed((1, 1), "full")
    troubles.nas_is_back()
    assert troubles.text == "full"


def test_a_nas_that_failed_and_then_was_away_is_tried_at_once(troubles: Troubles) -> None:
    troubles.nas_failed((1, 1), "stale")
    troubles.nas_is_away("not mounted")
    troubles.nas_is_back()
    assert not troubles.resting
    assert troubles.text == ""


def test_begin_and_end_are_logged_once(
    troubles: Troubles, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        troubles.nas_failed((1, 1), "full")
        clock.now += 20
    troubles.nas_works()
    troubles.nas_works()
    assert caplog.messages == [
        "NAS: full; files stay where they are until it is well",
        "NAS: well again after 60 s",
    ]


def test_a_file_waits_for_longer_and_longer(troubles: Troubles) -> None:
    waits = [troubles.file_failed((1, 2), "f", "damaged") for _ in range(8)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert troubles.file_failed((1, 3), "g", "damaged") == 5
    assert troubles.with_nas == ""


def test_a_file_is_logged_once(troubles: Troubles, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    troubles.file_failed((1, 2), "f", "f: damaged")
    troubles.file_failed((1, 2), "f", "f: damaged")
    assert caplog.messages == ["not on the NAS yet: f: damaged"]


def test_what_is_wrong_with_files_is_told(troubles: Troubles) -> None:
    troubles.file_failed((1, 2), "f", "f is damaged")
    assert troubles.text == "f is damaged"
    troubles.file_failed((1, 3), "g", "g is gone")
    assert troubles.text == "2 files do not get to the NAS; the last: g is gone"
    troubles.nas_failed((1, 1), "full")
    assert troubles.text == "full"
    troubles.nas_works()
    troubles.file_works((1, 3))
    assert troubles.text == "f is damaged"
    troubles.file_works((1, 2))
    assert troubles.text == ""


def test_where_nothing_is_owed_nobody_is_troubled(troubles: Troubles) -> None:
    troubles.file_failed((1, 2), "f", "f is gone", damaged=True)
    troubles.nothing_is_owed()
    assert troubles.text == ""
    assert not troubles.is_damaged((1, 2))


def test_one_bad_file_is_named(troubles: Troubles) -> None:
    troubles.file_failed((1, 2), "a/f", "internal error: oops")
    assert troubles.text == "a/f: internal error: oops"


def test_what_the_nas_did_not_take_waits_for_longer_and_longer(troubles: Troubles) -> None:
    """A file that is too large for a quota must not be copied again and again between small ones."""
    waits = list[float]()
    for _ in range(8):
        waits.append(troubles.nas_failed((1, 2), "the quota is used up"))
        troubles.file_works((1, 3))
        troubles.nas_works()
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert troubles.text == ""
    assert troubles.nas_failed((1, 3), "the quota is used up") == 5


def test_a_file_that_fails_after_the_nas_did_is_told(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    troubles.nas_failed((1, 2), "full")
    troubles.nas_works()
    caplog.clear()
    assert troubles.file_failed((1, 2), "f", "f is gone") == 10
    assert troubles.text == "f is gone"
    assert caplog.messages == ["not on the NAS yet: f: f is gone"]


def test_a_damaged_file_waits_for_long(troubles: Troubles) -> None:
    assert not troubles.is_damaged((1, 2))
    assert troubles.file_failed((1, 2), "f", "f is damaged", damaged=True) == 300
    assert troubles.is_damaged((1, 2))
    assert troubles.file_failed((1, 2), "f", "f is damaged", damaged=True) == 300
    troubles.file_failed((1, 2), "f", "f is gone")
    assert not troubles.is_damaged((1, 2))
    troubles.file_failed((1, 2), "f", "f is damaged", damaged=True)
    troubles.file_works((1, 2))
    assert not troubles.is_damaged((1, 2))


def test_a_file_that_we_never_see_again_is_forgotten(troubles: Troubles, clock: Clock) -> None:
    troubles.file_failed((1, 2), "f", "f is damaged")
    clock.now += 300
    assert troubles.text
    clock.now += 100
    assert troubles.text == ""


def test_memory_is_bounded(troubles: Troubles) -> None:
    for task in range(3000):
        troubles.file_failed((1, task), "f", "bad")
    assert troubles.text.startswith("1,000 files")
