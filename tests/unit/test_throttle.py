"""The bandwidth limit, against a clock of our own."""

from __future__ import annotations

import threading
from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import StoppedError
from distributed_downloader.throttle import BURST, MAX_READ, MIN_READ, Throttle


class Clock(Cancel):
    """Time that passes only while somebody waits; also the signal that they wait on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float | None) -> bool:
        self.now += seconds or 0
        return self.is_set()


def took(rate: int, *counts: int) -> float:
    """Return the seconds that it takes to take these."""
    clock = Clock()
    throttle = Throttle(rate, clock)
    for count in counts:
        throttle.take(count, clock)
    return clock.now - 1000.0


def test_no_limit_never_waits() -> None:
    assert took(0, *[1 << 30] * 10) == 0


@pytest.mark.parametrize("reads", [1, 10, 1000])
def test_the_rate_is_kept(reads: int) -> None:
    assert took(1000, *[10_000 // reads] * reads) == pytest.approx(10)


def test_unused_time_is_not_saved_up() -> None:
    clock = Clock()
    throttle = Throttle(1_000_000, clock)
    clock.now += 3600
    throttle.take(10_000_000, clock)
    assert clock.now - 4600.0 == pytest.approx(10 - BURST)


@pytest.mark.parametrize("rate", [10_000, 20_000, 50_000, MIN_READ * 10, 200_000])
@pytest.mark.parametrize("part", [0.6, 0.8, 0.95])
def test_a_line_that_is_slower_than_the_limit_is_not_slowed(rate: int, part: float) -> None:
    """Also where the smallest read takes longer than the time that may be made good."""
    clock = Clock()
    throttle = Throttle(rate, clock)
    for _ in range(100):
        clock.now += throttle.read_size / (rate * part)  # the line's
        throttle.take(throttle.read_size, clock)
    assert clock.now - 1000.0 == pytest.approx(100 * throttle.read_size / (rate * part))


def test_a_short_pause_is_made_good() -> None:
    clock = Clock()
    throttle = Throttle(1000, clock)
    for _ in range(100):
        clock.now += 0.05  # the network's part
        throttle.take(100, clock)
    assert clock.now - 1000.0 == pytest.approx(10)


@pytest.mark.parametrize("slots", [1, 4, 8])
def test_when_a_line_gets_faster_than_the_limit_little_is_too_much(slots: int) -> None:
    """That is what may be made good, and what the slots have read by the time they have to wait."""
    rate, got, clock = 10_000_000, 0, Clock()
    throttle = Throttle(rate, clock)
    pieces = [(1000.0, 0)] * slots  # when each is there, and its bytes
    while clock.now < 1020:
        clock.now, size = heappop(pieces)
        got += size if clock.now >= 1010 else 0
        begun = clock.now + throttle._wait(throttle._book(size))
        line = rate * (0.8 if begun < 1010 else 100) / slots
        heappush(pieces, (begun + throttle.read_size / line, throttle.read_size))
    assert got / rate == pytest.approx(10, abs=0.3)


@given(rate=st.integers(1, 10**9), counts=st.lists(st.integers(0, 10**7), min_size=1, max_size=30))
def test_never_faster_than_the_rate(rate: int, counts: list[int]) -> None:
    assert took(rate, *counts) >= (sum(counts) - max(BURST * rate, MIN_READ)) / rate * (1 - 1e-9) - 1e-6


def test_the_slots_share_it() -> None:
    """Each booking is behind all others, whoever made it."""
    clock = Clock()
    throttle = Throttle(1000, clock)
    waits = [throttle._wait(throttle._book(1000)) for _ in range(4)]
    assert waits == pytest.approx([1, 2, 3, 4])


def test_bookings_of_many_threads_add_up() -> None:
    clock = Clock()
    throttle = Throttle(1000, clock)
    waits = list[float]()
    threads = [
        threading.Thread(target=lambda: waits.extend(throttle._wait(throttle._book(10)) for _ in range(100)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(waits) == pytest.approx(8)
    assert len(set(waits)) == 800


def test_who_waits_sees_a_new_rate() -> None:
    """What passed until then passed at the rate of that time."""
    clock = Clock()
    throttle = Throttle(10, clock)
    place = throttle._book(1000)
    assert throttle._wait(place) == pytest.approx(100)
    clock.now += 50
    throttle.keep_to(1000)
    assert throttle._wait(place) == pytest.approx(0.5)
    clock.now += 0.5
    throttle.keep_to(1)
    assert throttle._wait(place) == 0
    place = throttle._book(7)
    assert throttle._wait(place) == pytest.approx(7)
    throttle.keep_to(700)
    assert throttle._wait(place) == pytest.approx(0.01)
    throttle.keep_to(1)  # which costs those who wait nothing
    assert throttle._wait(place) == pytest.approx(0.01)


def test_a_stop_ends_the_wait() -> None:
    cancel = Cancel()
    cancel.set("shutdown")
    with pytest.raises(StoppedError, match="shutdown"):
        Throttle(1).take(1 << 30, cancel)


def test_without_a_limit_a_stop_is_not_its_business() -> None:
    cancel = Cancel()
    cancel.set()
    Throttle(0).take(1, cancel)


@pytest.mark.parametrize(
    ("rate", "size"),
    [(0, MAX_READ), (1, MIN_READ), (1_000_000, 20_000), (10**9, MAX_READ), (MIN_READ * 50, MIN_READ)],
)
def test_reads_are_small_where_the_limit_is(rate: int, size: int) -> None:
    assert Throttle(rate).read_size == size
