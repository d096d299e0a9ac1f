"""How the benchmark `polite` judges a fleet by what a hub has counted."""

from __future__ import annotations

import pytest

from benchmarks.polite.requests import Answered, Asked, Served


def figures(*windows: Served) -> list[float | None]:
    """Return what was measured at a hub that allows 100 requests in 10 s."""
    answered = Answered(Asked(workers=2, slots=4, files=400, quota=100, window=10), windows=list(windows))
    return [limit.figure for limit in answered.limits()]


def test_a_fleet_that_is_never_late() -> None:
    windows = [Served(10.0 * number, 98, 0) for number in range(4)]
    assert figures(*windows, Served(40, 8, 0)) == [0, 0.98, pytest.approx(0.98)]


def test_a_fleet_that_sleeps_between_two_windows() -> None:
    windows = [Served(30.0 * number, 100, 0) for number in range(4)]
    assert figures(*windows) == [0, 1.0, pytest.approx(1 / 3)]


def test_a_window_that_was_not_used_up() -> None:
    assert figures(Served(0, 98, 0), Served(10, 98, 0), Served(20, 49, 0), Served(30, 1, 0)) == [
        0,
        0.49,
        pytest.approx(0.735),
    ]


def test_what_was_refused_before_the_window_was_known_is_no_fault() -> None:
    assert figures(Served(0, 100, 9), Served(10, 98, 2), Served(20, 3, 1))[0] == 3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_windows_show_nothing(count: int) -> None:
    assert figures(*[Served(10.0 * number, 98, 0) for number in range(count)]) == [0, None, None]
