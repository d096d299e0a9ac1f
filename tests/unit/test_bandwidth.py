"""The fleet's bandwidth: how it is shared, and that a fleet keeps to it, against a clock of our own."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.bandwidth import Demand, FleetThrottle, Share, _Mark, shares, wanted, with_room
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.throttle import Throttle

WANTS = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.one_of(st.floats(0, 1e12), st.just(math.inf)), min_size=1
)
LIMITS = st.integers(1, 10**12)


# -- who gets what --------------------------------------------------------------------------------


@given(LIMITS, WANTS)
def test_all_of_it_is_given_away_and_no_more(limit: int, wants: dict[str, float]) -> None:
    assert sum(shares(limit, wants).values()) == pytest.approx(limit)


@given(LIMITS, WANTS)
def test_who_gets_less_than_it_wants_gets_no_less_than_anybody(limit: int, wants: dict[str, float]) -> None:
    found = shares(limit, wants)
    most = max(found.values())
    for name, share in found.items():
        assert share >= wants[name] * (1 - 1e-9) or share == pytest.approx(most)


@given(LIMITS, WANTS)
def test_an_equal_share_is_anybodys(limit: int, wants: dict[str, float]) -> None:
    for name, share in shares(limit, wants).items():
        assert share >= min(wants[name], limit / len(wants)) * (1 - 1e-9)


def test_what_the_slow_leave_goes_to_the_others() -> None:
    assert shares(100, {"slow": 10, "a": math.inf, "b": math.inf}) == {"slow": 10, "a": 45, "b": 45}


def test_what_nobody_wants_is_there_for_all() -> None:
    assert shares(100, {"a": 10, "b": 30}) == {"a": 40, "b": 60}


def test_who_uses_what_it_may_could_use_more() -> None:
    begin = _Mark(0, 0, 0)
    assert wanted([begin, _Mark(2, 190, 200)], math.inf) == math.inf
    assert wanted([begin, _Mark(2, 190, 200)], 500) == 500
    assert wanted([begin, _Mark(2, 100, 200)], 500) == 50
    assert wanted([begin, _Mark(2, 100, 200), _Mark(2, 100, 200), _Mark(4, 260, 400)], 500) == 80


def test_who_waits_could_use_more() -> None:
    table = Table()
    member = Member(table, "a", 1_000_000, 1e9)
    member.throttle.keep_to(10)
    for second in range(10):
        member.run_to(1001.0 + second)
        member.throttle._wanted()
    assert member.throttle._wanted() == math.inf


def test_who_has_just_begun_may_want_anything() -> None:
    assert wanted([_Mark(5, 0, 0), _Mark(5, 0, 0)], math.inf) == math.inf


@given(LIMITS, WANTS)
def test_nobody_grows_above_who_gets_most(limit: int, wants: dict[str, float]) -> None:
    """Else a fleet whose lines get faster would stay above its limit: nobody would be held."""
    found = shares(limit, wants)
    for name, share in with_room(found, wants).items():
        assert share.sure == found[name]
        assert share.sure <= share.room <= max(found.values())


def test_who_wants_less_may_grow_but_no_further_than_the_others_are() -> None:
    wants = {"slow": 8, "nearly": 36, "a": math.inf, "b": math.inf}
    found = with_room(shares(120, wants), wants)
    assert found["slow"].room == pytest.approx(8 * 1.25 + 120 / 100 / 4)
    assert found["nearly"] == (36, 38)
    assert found["a"] == found["b"] == (38, 38)


# -- a fleet on a clock of our own ----------------------------------------------------------------


class Table:
    """A board without Redis: each worker in turn works out the shares."""

    def __init__(self) -> None:
        self.demands: dict[str, Demand] = {}
        self.shares: Mapping[str, Share] = {}
        self.away = False

    def seat(self, name: str) -> Seat:
        return Seat(self, name)


class Seat:
    def __init__(self, table: Table, name: str) -> None:
        self.table, self.name = table, name

    def tell(self, own: Demand) -> tuple[Share | None, Mapping[str, Demand]]:
        if self.table.away:
            raise RedisUnavailableError("away")
        first = self.name not in self.table.demands or self.name == min(self.table.demands)
        self.table.demands[self.name] = own
        return self.table.shares.get(self.name), self.table.demands if first else {}

    def publish(self, shares: Mapping[str, Share]) -> Share:
        self.table.shares = shares
        return shares[self.name]

    def leave(self) -> None:
        self.table.demands.pop(self.name, None)
        self.table.shares = {name: share for name, share in self.table.shares.items() if name != self.name}


class ByHand(FleetThrottle):
    """Has no thread: the test makes the rounds."""

    def _stir(self) -> None:
        pass


class Member:
    """A worker whose line brings `line` bytes a second at most; it takes them in steps of time."""

    def __init__(self, table: Table, name: str, limit: int, line: float, own: int = 0) -> None:
        self.now, self.free_at, self.line, self.got = 1000.0, 1000.0, line, 0.0
        #: Bytes that come in until `free_at`; else those up to `place` wait until then.
        self.coming, self.place = 0, 0
        self.throttle = ByHand(table.seat(name), limit, own, lambda: self.now)

    def run_to(self, until: float) -> None:
        """Read piece by piece, each at the line's pace and then the throttle's."""
        while self.free_at < until:
            self.now = self.free_at
            if self.coming:
                self.place, self.got = self.throttle._book(self.coming), self.got + self.coming
                self.coming, self.free_at = 0, self.now + self.throttle._wait(self.place)
            else:
                self.coming = self.throttle.read_size
                self.free_at = self.now + self.coming / self.line
        self.now = until

    def round(self) -> None:
        """See what we get from now on; who waits looks again."""
        self.throttle.round()
        if not self.coming:
            self.free_at = self.now + self.throttle._wait(self.place)


def fleet_of(limit: int, *lines: float, own: int = 0, seconds: int = 30) -> list[float]:
    """Return the bytes a second that each got, after the first ten seconds."""
    table = Table()
    members = [Member(table, f"w{i}", limit, line, own) for i, line in enumerate(lines)]
    before = [0.0] * len(members)
    for second in range(10 + seconds):
        for member in members:
            member.run_to(1001.0 + second)
            member.round()
        if second == 9:
            before = [member.got for member in members]
    return [(member.got - early) / seconds for member, early in zip(members, before, strict=True)]


@pytest.mark.parametrize(
    "lines",
    [
        [1e9],
        [1e9] * 7,
        [2e6, 1e9, 1e9],
        [1e6, 1e6, 2e6, 1e9],
        [5e5] * 8 + [1e9] * 3,
    ],
    ids=lambda lines: f"{len(lines)} of {min(lines):.0e}",
)
def test_a_fleet_keeps_to_its_limit_within_5_percent(lines: list[float]) -> None:
    limit = 20_000_000
    got = fleet_of(limit, *lines)
    assert sum(got) == pytest.approx(limit, rel=0.05)


def test_who_cannot_use_its_share_loses_nothing() -> None:
    slow, *fast = fleet_of(20_000_000, 2e6, 1e9, 1e9)
    assert slow == pytest.approx(2e6, rel=0.1)
    assert fast == pytest.approx([9e6, 9e6], rel=0.1)


def test_a_fleet_that_needs_less_is_not_held() -> None:
    assert fleet_of(20_000_000, 3e6, 4e6) == pytest.approx([3e6, 4e6], rel=0.1)


def test_a_workers_own_limit_counts_too() -> None:
    assert fleet_of(20_000_000, 1e9, 1e9, own=3_000_000) == pytest.approx([3e6, 3e6], rel=0.05)


def rounds_of(members: list[Member], begin: float, seconds: float) -> float:
    """Let all work on for so long; return the most bytes a second that came in three seconds."""
    marks = [sum(member.got for member in members)]
    for half in range(round(seconds * 2)):
        for member in members:
            member.run_to(begin + (half + 1) / 2)
        for member in members:
            with suppress(RedisUnavailableError):
                member.round()
        marks.append(sum(member.got for member in members))
    return max(after - before for before, after in zip(marks, marks[6:], strict=False)) / 3


#: Bytes a second of the fleet, and of what is there the parts that each line brings at first, and later.
FASTER = pytest.mark.parametrize(
    ("limit", "early", "late"),
    [
        (20_000_000, [0.2] * 4, [0.28] * 4),
        (20_000_000, [0.08] * 10, [0.12] * 10),
        (5_000_000, [0.016] * 50, [0.03] * 50),
        (5_000_000, [0.008] * 100, [0.0195] * 100),
        (100_000_000, [0.008] * 100, [0.0115] * 100),
        (20_000_000, [0.4, 0.2, 0.1, 0.1], [2.0] * 4),
    ],
    ids=lambda value: f"{len(value)} of {value[0]}" if isinstance(value, list) else str(value),
)


def faster(limit: int, early: list[float], late: list[float], away: bool) -> list[float]:
    """Let lines that bring less than the limit bring more; return parts of the limit: at once, and later."""
    table = Table()
    members = [Member(table, f"w{i:03}", limit, part * limit) for i, part in enumerate(early)]
    rounds_of(members, 1000, 30)
    table.away = away
    for member, part in zip(members, late, strict=True):
        member.line = part * limit
    return [rounds_of(members, begin, 30) / limit for begin in (1030, 1060)]


@FASTER
def test_a_fleet_keeps_to_its_limit_when_its_lines_get_faster(
    limit: int, early: list[float], late: list[float]
) -> None:
    at_once, later = faster(limit, early, late, away=False)
    assert at_once <= 1.1  # until all know of it
    assert later == pytest.approx(1, rel=0.05)


@FASTER
def test_a_fleet_keeps_to_its_limit_when_its_lines_get_faster_while_redis_is_away(
    limit: int, early: list[float], late: list[float]
) -> None:
    assert max(faster(limit, early, late, away=True)) <= 1.05


@pytest.mark.parametrize("count", [2, 4, 20])
def test_a_fleet_that_begins_at_once_does_not_begin_with_more(count: int) -> None:
    limit, table = 20_000_000, Table()
    members = [Member(table, f"w{i}", limit, 1e9) for i in range(count)]
    for member in members:
        member.run_to(1000.001)
        member.round()
    for second in range(10):
        for member in members:
            member.run_to(1001.0 + second)
        for member in members:
            member.round()
    assert sum(member.got for member in members) <= 10 * limit * 1.05


def test_who_comes_later_waits_until_others_know() -> None:
    table = Table()
    first, second = (Member(table, name, 20_000_000, 1e9) for name in "ab")
    first.run_to(1003.0)
    first.round()
    assert first.throttle._rate == 20_000_000
    second.run_to(1003.0)
    second.round()
    assert second.throttle._rate == 200_000
    first.round()
    second.round()
    assert (first.throttle._rate, second.throttle._rate) == (10_000_000, 10_000_000)


def test_who_uses_less_may_grow_but_not_above_the_limit() -> None:
    table = Table()
    member = Member(table, "a", 20_000_000, 3e6)
    for second in range(10):
        member.run_to(1001.0 + second)
        member.round()
    assert member.throttle._rate == 20_000_000


def test_who_leaves_makes_room_for_the_others_and_begins_anew() -> None:
    table = Table()
    first, second = (Member(table, name, 20_000_000, 1e9) for name in "ab")
    for at in (1001.0, 1002.0, 1003.0):
        for member in (first, second):
            member.run_to(at)
            member.round()
    assert (first.throttle._rate, second.throttle._rate) == (10_000_000, 10_000_000)
    second.throttle.leave()
    first.round()
    assert (first.throttle._rate, second.throttle._rate) == (20_000_000, 200_000)


def test_the_smallest_limit_counts_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    table = Table()
    small, big = Member(table, "a", 1_000_000, 1e9), Member(table, "b", 5_000_000, 1e9)
    for second in range(30):
        for member in (small, big):
            member.run_to(1001.0 + second)
            member.round()
    table.demands["z"] = Demand(0, 5_000_000)
    assert small.got + big.got <= 31_000_000 * 1.05
    table.demands = {"b": table.demands["b"], "z": Demand(1, 1_000_000)}
    big.throttle.round()
    big.throttle.round()
    assert caplog.text.count("the smallest counts") == 1


def test_while_redis_is_away_the_last_share_stays() -> None:
    table = Table()
    member = Member(table, "a", 1_000_000, 1e9)
    member.run_to(1002.0)
    member.throttle.round()
    rate = member.throttle._rate
    table.away = True
    with pytest.raises(RedisUnavailableError):
        member.throttle.round()
    assert member.throttle._rate == rate == 1_000_000


def test_while_redis_is_away_nobody_has_room_to_grow() -> None:
    board = Counter(share=300, room=400)
    throttle = FleetThrottle(board, 1000)
    throttle.round()
    assert throttle._rate == 400
    board.away = True
    with pytest.raises(RedisUnavailableError):
        throttle.round()
    assert throttle._rate == 300


def test_who_left_begins_anew_even_if_redis_is_away_by_then() -> None:
    board = Counter(share=300)
    throttle = FleetThrottle(board, 1000)
    throttle.round()
    throttle.leave()
    board.away = True
    with pytest.raises(RedisUnavailableError):
        throttle.round()
    assert throttle._rate == 10


def test_no_share_is_more_than_the_limit_whoever_wrote_it() -> None:
    throttle = FleetThrottle(Counter(share=1 << 50), 1000)
    throttle.round()
    assert throttle._rate == 1000


def test_the_thread_asks_while_bytes_come_in_and_ends() -> None:
    table = Table()
    throttle = FleetThrottle(table.seat("a"), 1 << 30)
    throttle.take(1, Cancel())
    thread = throttle._thread
    assert thread
    throttle.close()
    thread.join(60)
    assert not thread.is_alive()


def test_who_gets_no_bytes_any_more_leaves_and_comes_back() -> None:
    board = Counter(1 << 30)
    throttle = FleetThrottle(board, 1 << 30)
    for _ in range(2):
        throttle.take(1, Cancel())
        assert board.asked.acquire(timeout=60)
        assert board.left.acquire(timeout=60)
    throttle.close()


@pytest.mark.parametrize("rests", [False, True])
def test_who_ends_leaves_and_has_no_thread_any_more(monkeypatch: pytest.MonkeyPatch, rests: bool) -> None:
    board = Counter(1 << 30)
    throttle = FleetThrottle(board, 1 << 30)
    if rests:  # for the next bytes, or for the next round
        monkeypatch.setattr(throttle._closed, "wait", lambda _: False)
    throttle.take(1, Cancel())
    thread = throttle._thread
    assert thread
    assert board.asked.acquire(timeout=60)
    throttle.close()
    assert board.left.acquire(timeout=60)
    thread.join(60)
    assert not thread.is_alive()


class Counter:
    """A board that tells of one share, and counts how often it is asked."""

    def __init__(self, share: int = 1, room: int = 0) -> None:
        self.share, self.room, self.away = share, room, False
        self.asked, self.left = threading.Semaphore(0), threading.Semaphore(0)

    def tell(self, own: Demand) -> tuple[Share | None, Mapping[str, Demand]]:
        self.asked.release()
        if self.away:
            raise RedisUnavailableError("away")
        return Share(self.share, self.room or self.share), {}

    def publish(self, shares: Mapping[str, Share]) -> Share:
        return Share(self.share, self.room or self.share)

    def leave(self) -> None:
        self.left.release()


def test_who_waits_for_a_low_share_goes_on_when_it_grows() -> None:
    board, cancel = Counter(1), Cancel()
    throttle = FleetThrottle(board, 1 << 40, 1 << 40)
    throttle.round()  # a share of one byte a second
    thread = threading.Thread(target=lambda: throttle.take(1 << 20, cancel))
    thread.start()
    for _ in range(3):  # it goes on asking while somebody waits
        assert board.asked.acquire(timeout=60)
    board.share = 1 << 40
    thread.join(60)
    alive = thread.is_alive()
    cancel.set()
    throttle.close()
    assert not alive


def test_many_slots_have_one_thread() -> None:
    started = list[threading.Thread]()
    for _ in range(50):
        throttle = FleetThrottle(Counter(1 << 30), 1 << 30)
        barrier = threading.Barrier(8)
        slots = [
            threading.Thread(target=lambda t=throttle, b=barrier: (b.wait(), t.take(1, Cancel())))
            for _ in range(8)
        ]
        for slot in slots:
            slot.start()
        for slot in slots:
            slot.join()
        mine = [each for each in threading.enumerate() if each.name == "bandwidth" and each not in started]
        started += mine
        throttle.close()
        assert len(mine) == 1
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_without_a_thread_the_share_stays_and_is_asked_for_later(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    board = Counter(1 << 30)
    throttle = FleetThrottle(board, 1 << 30)
    rate = throttle._rate

    def refuse(thread: threading.Thread) -> None:
        raise error

    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", refuse)
        throttle.take(1, Cancel())
    assert throttle._rate == rate
    throttle.take(1, Cancel())
    assert board.asked.acquire(timeout=60)
    throttle.close()


def test_who_ended_starts_no_thread_any_more() -> None:
    throttle = FleetThrottle(Counter(1 << 30), 1 << 30)
    throttle.close()
    throttle.take(1, Cancel())
    assert throttle._thread is None


# -- one worker -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 8])
@pytest.mark.parametrize("rate", [50_000, 1_000_000, 100_000_000])
def test_one_worker_keeps_to_its_limit_within_5_percent(rate: int, slots: int) -> None:
    now = 1000.0
    throttle = Throttle(rate, lambda: now)
    free, got = [now] * slots, 0
    while (now := min(free)) < 1010:
        got += throttle.read_size
        free[free.index(now)] = now + throttle._wait(throttle._book(throttle.read_size))
    assert got == pytest.approx(10 * rate, rel=0.05 + slots * throttle.read_size / (10 * rate))
