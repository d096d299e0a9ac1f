"""What is remembered of a time without Redis."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

from distributed_downloader.errors import RedisFullError, RedisUnavailableError
from distributed_downloader.outage import Absence, Outage

Told = Callable[[], list[str]]
DOWN = RedisUnavailableError("Redis at nowhere:1/0 cannot be reached")
BACK = "Redis at nowhere:1/0 is back"


@pytest.fixture
def outage() -> Outage:
    return Outage("nowhere:1/0")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Return a function for what was logged since its last call, without how long it took."""
    caplog.set_level(logging.INFO)

    def told() -> list[str]:
        lines = [line.partition(" after ")[0] for line in caplog.messages]
        caplog.clear()
        return lines

    return told


def about_now(seen: Absence | None) -> Absence:
    assert seen
    assert abs(time.time() - seen.back_at) < 3600
    assert 0 <= seen.seconds < 3600
    return seen


def test_nothing_is_remembered_while_redis_is_there(outage: Outage, told: Told) -> None:
    outage.over()
    assert (outage.last, told()) == (None, [])


def test_the_last_time_without_redis_is_remembered(outage: Outage, told: Told) -> None:
    outage.note(DOWN)
    assert (outage.last, told()) == (None, [f"{DOWN}; waiting for it"])
    outage.over()
    assert told() == [BACK]
    seen = about_now(outage.last)
    assert (seen.lost, seen.seconds > 0) == (False, True)
    outage.over()
    assert outage.last == seen


@pytest.mark.parametrize("noticed", [True, False])
def test_lost_data_are_remembered_whether_it_was_seen_to_be_away_or_not(
    outage: Outage, told: Told, noticed: bool
) -> None:
    if noticed:
        outage.note(DOWN)
    outage.lost()
    seen = about_now(outage.last)
    assert (seen.lost, seen.seconds > 0) == (True, noticed)
    assert told()[1:] == [BACK] * noticed
    outage.over()
    assert outage.last == seen


def test_a_redis_that_is_only_full_was_not_away(outage: Outage, told: Told) -> None:
    outage.note(RedisFullError("Redis at nowhere:1/0 is full"))
    assert told() == ["Redis at nowhere:1/0 is full; waiting for it"]
    outage.over()
    assert (outage.last, told()) == (None, [BACK])
    outage.note(RedisFullError("Redis at nowhere:1/0 is full"))
    outage.note(DOWN)
    outage.over()
    assert about_now(outage.last)
