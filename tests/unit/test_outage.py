"""What is remembered of a time without Redis."""

from __future__ import annotations

import time

import pytest

from distributed_downloader.errors import RedisFullError, RedisUnavailableError
from distributed_downloader.outage import Absence, Outage

DOWN = RedisUnavailableError("Redis at nowhere:1/0 cannot be reached")


@pytest.fixture
def outage() -> Outage:
    return Outage("nowhere:1/0")


def about_now(seen: Absence | None) -> Absence:
    assert seen
    assert abs(time.time() - seen.back_at) < 3600
    assert 0 <= seen.seconds < 3600
    return seen


def test_nothing_is_remembered_while_redis_is_there(outage: Outage) -> None:
    outage.over()
    assert (outage.last, outage.noted) == (None, False)


def test_the_last_time_without_redis_is_remembered(outage: Outage) -> None:
    outage.note(DOWN)
    assert (outage.last, outage.noted) == (None, True)
    outage.over()
    seen = about_now(outage.last)
    assert (seen.lost, seen.seconds > 0) == (False, True)
    outage.over()
    assert outage.last == seen


@pytest.mark.parametrize("noticed", [True, False])
def test_lost_data_are_remembered_whether_it_was_seen_to_be_away_or_not(
    outage: Outage, noticed: bool
) -> None:
    if noticed:
        outage.note(DOWN)
    outage.lost()
    seen = about_now(outage.last)
    assert (seen.lost, seen.seconds > 0, outage.noted) == (True, noticed, False)
    outage.over()
    assert outage.last == seen


def test_a_redis_that_is_only_full_was_not_away(outage: Outage) -> None:
    outage.note(RedisFullError("Redis at nowhere:1/0 is full"))
    assert outage.noted
    outage.over()
    assert (outage.last, outage.noted) == (None, False)
    outage.note(RedisFullError("Redis at nowhere:1/0 is full"))
    outage.note(DOWN)
    outage.over()
    assert about_now(outage.last)
