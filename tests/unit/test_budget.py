"""Requests that take from a hub's budget, with and without a fleet to share it with."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from distributed_downloader.bucket import HANDFUL, Bucket, Grant
from distributed_downloader.budget import MOST_BUCKETS, Budgets
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError, StoppedError
from distributed_downloader.quota import Told, spare, told
from tests.e2e.fleet import until

URL, API = "http://hub/org/name/resolve/main/a", "http://hub/api/models/org/name"


def answer(left: int, seconds: int = 100, quota: int = 100, bucket: str = "resolvers") -> dict[str, str]:
    return {
        "RateLimit": f'"{bucket}";r={left};t={seconds}',
        "RateLimit-Policy": f'"fixed window";"{bucket}";q={quota};w=300',
    }


class Till:
    """A ledger without Redis: what it hands out is set by the test."""

    def __init__(self, *grants: Grant) -> None:
        self.grants = list(grants)
        self.calls: list[tuple[str, Told, int, int]] = []
        self.returned = threading.Event()
        self.asked = threading.Event()
        self.away = False

    def spend(self, account: str, endpoint: str, heard: Told, out: int, wanted: int) -> Grant:
        self.calls.append((endpoint, heard, out, wanted))
        self.asked.set()
        if self.away:
            raise RedisUnavailableError("away")
        if not wanted:
            self.returned.set()
        return self.grants.pop(0) if wanted and self.grants else Grant(0, 60, 60)


@pytest.fixture
def cancel() -> Iterator[Cancel]:
    """A signal that ends what a test left waiting."""
    signal = Cancel()
    yield signal
    signal.set()


def waits(budgets: Budgets, cancel: Cancel, url: str = URL) -> threading.Thread:
    """Return a thread that takes a request, and ends when it has it or is stopped."""

    def take() -> None:
        try:
            budgets.take(url, "", cancel)
        except StoppedError:
            return

    thread = threading.Thread(target=take)
    thread.start()
    return thread


def test_while_nothing_is_known_nothing_is_asked(cancel: Cancel) -> None:
    till = Till()
    budgets = Budgets(till)
    for _ in range(100):
        budgets.take(URL, "", cancel)
        budgets.learn(URL, "", {})
    assert till.calls == []
    assert budgets._asker is None


def test_a_handful_serves_many_requests(cancel: Cancel) -> None:
    till = Till(Grant(HANDFUL, 60))
    budgets = Budgets(till)
    budgets.learn(URL, "", answer(5000, quota=5000))
    for _ in range(HANDFUL // 2):
        budgets.take(URL, "", cancel)
    ((endpoint, heard, out, wanted),) = till.calls
    assert (endpoint, out, wanted) == ("http://hub:80", 0, HANDFUL)
    assert (heard.bucket, heard.left) == ("resolvers", 5000)
    budgets.close()


def test_each_kind_of_request_takes_from_the_bucket_that_the_hub_named_for_it(cancel: Cancel) -> None:
    till = Till(Grant(1, 60))
    budgets = Budgets(till)
    budgets.learn(API, "", answer(100, bucket="api"))
    budgets.take(URL, "", cancel)
    budgets.take(API, "hf_other", cancel)
    assert till.calls == []
    budgets.take(API, "", cancel)
    assert till.calls[0][1].bucket == "api"
    budgets.close()


def test_where_nothing_is_left_a_request_waits_until_it_is_stopped() -> None:
    till, cancel = Till(), Cancel()
    budgets = Budgets(till)
    budgets.learn(URL, "", answer(0))
    thread = waits(budgets, cancel)
    assert till.asked.wait(60)
    cancel.set("enough")
    thread.join(60)
    assert not thread.is_alive()
    with pytest.raises(StoppedError, match="enough"):
        budgets.take(URL, "", cancel)
    budgets.close()


def test_who_waits_goes_on_when_the_window_begins(cancel: Cancel) -> None:
    till = Till(Grant(0, 60, 0.1), Grant(1, 60))
    budgets = Budgets(till)
    budgets.learn(URL, "", answer(0))
    budgets.take(URL, "", cancel)
    assert len(till.calls) == 2
    budgets.close()


def test_a_handful_that_nobody_uses_goes_back(cancel: Cancel) -> None:
    till = Till(Grant(20, 60))
    budgets = Budgets(till)
    budgets.learn(URL, "", answer(100))
    budgets.take(URL, "", cancel)
    assert till.returned.wait(60)
    assert till.calls[-1][2:] == (1, 0)  # which is on its way
    budgets.close()


def test_while_redis_is_away_what_was_heard_counts(cancel: Cancel) -> None:
    till = Till()
    till.away = True
    budgets = Budgets(till)
    budgets.learn(URL, "", answer(7))
    for _ in range(5):  # and two are spared
        budgets.take(URL, "", cancel)
    assert len(till.calls) == 1
    thread = waits(budgets, cancel)
    cancel.set()
    thread.join(60)
    budgets.close()


def test_alone_the_budget_is_kept_without_a_thread(cancel: Cancel) -> None:
    budgets = Budgets()
    budgets.learn(URL, "", answer(5))
    for _ in range(3):
        budgets.take(URL, "", cancel)
    assert budgets._asker is None
    thread = waits(budgets, cancel)
    thread.join(0.05)
    assert thread.is_alive()


def test_what_is_not_heard_of_any_more_is_not_known(cancel: Cancel) -> None:
    now = 1000.0
    till = Till()
    budgets = Budgets(till, lambda: now)
    budgets.learn(URL, "", answer(0))
    now += 601
    budgets.take(URL, "", cancel)
    assert till.calls == []


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_without_a_thread_what_was_heard_counts(
    cancel: Cancel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    till, now = Till(Grant(1, 60), Grant(20, 60)), 1000.0
    budgets = Budgets(till, lambda: now)
    budgets.learn(URL, "", answer(100))

    def refuse(thread: threading.Thread) -> None:
        raise error

    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", refuse)
        taken = [budgets.take(URL, "", cancel) for _ in range(50)]
    assert budgets._asker
    assert not budgets._asker.is_alive()
    (known,) = budgets._buckets.values()
    for each in taken:
        assert each is known
        budgets.done(each)
    known.let_go()
    assert known.out(now) == 0
    assert till.calls == []
    now += 6
    assert budgets.take(URL, "", cancel)
    assert till.calls
    budgets.close()


def test_a_request_that_was_taken_goes_on_without_a_thread(
    cancel: Cancel, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = Budgets(Till())
    budgets.learn(URL, "", answer(100))
    (known,) = budgets._buckets.values()
    known.accept(Grant(3, 60), time.monotonic())

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(3):
        budgets.done(budgets.take(URL, "", cancel))
    assert known.out(time.monotonic()) == 0
    budgets.close()


def test_a_thread_whose_start_failed_late_is_the_one_that_asks(
    cancel: Cancel, monkeypatch: pytest.MonkeyPatch
) -> None:
    till, now, started = Till(*[Grant(HANDFUL, 60)] * 4), 1000.0, list[threading.Thread]()
    budgets, start = Budgets(till, lambda: now), threading.Thread.start
    budgets.learn(URL, "", answer(100))

    def begin_and_fail(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)
        raise RuntimeError("can't allocate lock")

    monkeypatch.setattr(threading.Thread, "start", begin_and_fail)
    budgets.done(budgets.take(URL, "", cancel))
    now += 6
    for _ in range(HANDFUL):  # more than were taken alone
        budgets.done(budgets.take(URL, "", cancel))
    assert till.asked.wait(60)
    assert len(started) == 1
    budgets.close()
    started[0].join(60)
    assert not started[0].is_alive()


def test_the_asker_ends_with_us(cancel: Cancel) -> None:
    budgets = Budgets(Till(Grant(HANDFUL, 60)))
    budgets.learn(URL, "", answer(100))
    budgets.take(URL, "", cancel)
    assert budgets._asker
    budgets.close()
    budgets._asker.join(60)
    assert not budgets._asker.is_alive()


def test_many_threads_never_have_more_than_was_handed_out(cancel: Cancel) -> None:
    till = Till(*[Grant(10, 60)] * 20)
    budgets = Budgets(till)
    budgets.learn(URL, "", answer(10_000, quota=10_000))
    got = []

    def take() -> None:
        for _ in range(25):
            budgets.take(URL, "", cancel)
            got.append(1)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 200
    assert sum(1 for call in till.calls if call[3]) >= 20
    budgets.close()


# -- a hub that names many buckets ----------------------------------------------------------------


def name_many(budgets: Budgets) -> None:
    for number in range(20 * MOST_BUCKETS):
        budgets.learn(f"{URL}?{number}", "", answer(100, bucket=f"b{number}"))


def test_a_hub_that_names_ever_new_buckets_does_not_fill_our_memory() -> None:
    budgets = Budgets()
    name_many(budgets)
    assert len(budgets._buckets) == MOST_BUCKETS
    for number in range(20 * MOST_BUCKETS):
        budgets.learn(URL, f"hf_{number}", answer(100))
    assert len(budgets._buckets) == MOST_BUCKETS
    assert len(budgets._named) <= MOST_BUCKETS


def test_a_bucket_with_a_request_on_its_way_is_kept(cancel: Cancel) -> None:
    budgets = Budgets()
    budgets.learn(API, "", answer(100, bucket="api"))
    taken = budgets.take(API, "", cancel)
    name_many(budgets)
    assert taken
    assert taken in budgets._buckets.values()
    budgets.done(taken)
    name_many(budgets)
    assert taken not in budgets._buckets.values()


def test_a_bucket_that_was_heard_of_again_is_kept() -> None:
    budgets = Budgets()
    for _ in range(3):
        budgets.learn(API, "", answer(100, bucket="api"))
        for number in range(MOST_BUCKETS - 1):
            budgets.learn(URL, "", answer(100, bucket=f"b{number}"))
    (known,) = (bucket for bucket in budgets._buckets.values() if bucket.heard(0).bucket == "api")
    assert known in budgets._named.values()


def test_a_bucket_that_is_waited_for_is_kept(cancel: Cancel) -> None:
    budgets = Budgets()
    budgets.learn(API, "", answer(0, bucket="api"))
    (known,) = budgets._buckets.values()
    thread = waits(budgets, cancel, API)
    until(lambda: known.rest(time.monotonic()) > 0)
    name_many(budgets)
    budgets.learn(API, "", answer(99, 300, bucket="api"))
    thread.join(60)
    assert not thread.is_alive()


# -- an answer of Redis that is late --------------------------------------------------------------


class Late(Till):
    """A ledger that answers the first question after the hub has told of a new window."""

    budgets: Budgets

    def spend(self, account: str, endpoint: str, heard: Told, out: int, wanted: int) -> Grant:
        if not self.calls:
            self.budgets.learn(URL, "", answer(100, 300))
        return super().spend(account, endpoint, heard, out, wanted)


@pytest.mark.parametrize("late", [Grant(0, 250, 250), Grant(HANDFUL, 60)])
def test_what_was_asked_before_a_new_window_was_heard_of_does_not_count_in_it(
    cancel: Cancel, late: Grant
) -> None:
    till = Late(late, Grant(1, 300), Grant(0, 300, 300))
    till.budgets = budgets = Budgets(till)
    budgets.learn(URL, "", answer(0))
    thread = waits(budgets, cancel)
    thread.join(60)
    assert not thread.is_alive()
    assert [(call[1].left, call[2]) for call in till.calls[:2]] == [(0, 0), (100, 0)]
    budgets.close()


# -- what a process itself knows ------------------------------------------------------------------


def bucket(left: int, seconds: int = 100) -> Bucket:
    heard = told(answer(left, seconds))
    assert heard
    return Bucket("a" * 16, "http://hub", heard, 0.0)


def hear(known: Bucket, left: int, seconds: int, now: float) -> None:
    heard = told(answer(left, seconds))
    assert heard
    known.hear(heard, now)


def test_the_lower_number_counts_within_a_window() -> None:
    known = bucket(50)
    hear(known, 60, 99, 1.0)
    hear(known, 12, 98, 2.0)
    hear(known, 40, 98, 2.0)
    known.accept(known.alone(3.0), 3.0)
    assert known.out(3.0) == 10
    assert known.alone(3.0).requests == 0


def test_a_new_window_is_full_whether_it_is_heard_of_or_not() -> None:
    known = bucket(2)
    hear(known, 99, 300, 50.0)
    assert known.alone(51.0).requests == HANDFUL
    known = bucket(2)
    for _ in range(2):
        known.accept(known.alone(101.5), 101.5)
    assert known.out(101.5) == 98
    assert known.alone(101.5).requests == 0
    hear(known, 30, 0, 102.0)  # of the window before
    assert known.heard(102.0).left == 2


def test_what_redis_is_told_is_the_lower_number_too() -> None:
    known = bucket(50)
    hear(known, 46, 99, 1.0)
    hear(known, 48, 99, 1.0)  # an older answer that was overtaken
    assert known.heard(1.0).left == 46
    hear(known, 99, 300, 99.5)
    assert known.heard(99.5).left == 99


def test_the_next_answer_corrects_a_window_that_we_began() -> None:
    known = bucket(50)
    known.accept(known.alone(150.0), 150.0)  # whoever else is there began it 50 s ago
    for _ in range(known.out(150.0)):
        assert known.take(150.0)
        known.land()
    known.accept(Grant(0, 300, 300), 150.0)
    assert hear_of(known, 12, 250, 150.0)
    assert not known.rest(150.0)
    grant = known.alone(150.0)
    assert (grant.requests, grant.seconds) == (10, 251)
    assert not hear_of(known, 11, 250, 150.0)
    assert known.alone(402.0).requests == HANDFUL


def test_a_hub_that_began_its_window_earlier_is_asked_no_more_than_it_allows() -> None:
    """Windows of 300 s, each begun at a multiple of that; we come back in the middle of one."""
    now, used, quota = 200.0, 0, 100
    budgets, cancel = Budgets(clock=lambda: now), Cancel()

    def request() -> None:
        nonlocal used
        taken = budgets.take(URL, "", cancel)
        used += 1
        budgets.learn(URL, "", answer(max(0, quota - used), int(300 - now % 300)))
        budgets.done(taken)

    request()
    now, used = 500.0, 0
    for _ in range(quota - spare(quota)):
        request()
    thread = waits(budgets, cancel)
    thread.join(0.05)
    assert thread.is_alive()
    cancel.set()
    thread.join(60)


def test_who_rests_is_woken_by_a_new_window(cancel: Cancel) -> None:
    budgets = Budgets()
    budgets.learn(URL, "", answer(0))
    thread = waits(budgets, cancel)
    until(lambda: next(iter(budgets._buckets.values())).rest(time.monotonic()) > 0)
    budgets.learn(URL, "", answer(99, 300))
    thread.join(60)
    assert not thread.is_alive()


def test_the_last_request_of_a_small_quota_is_used(cancel: Cancel) -> None:
    budgets = Budgets()
    budgets.learn(URL, "", answer(1, quota=1))
    assert budgets.take(URL, "", cancel)


@pytest.mark.parametrize("ledger", [False, True])
def test_a_wait_ends_when_nobody_knows_of_the_budget_any_more(cancel: Cancel, ledger: bool) -> None:
    now = 1000.0
    till = Till()
    budgets = Budgets(till if ledger else None, lambda: now)
    budgets.learn(URL, "", answer(0))
    (known,) = budgets._buckets.values()
    thread = waits(budgets, cancel)
    until(lambda: known.rest(now) > 0)
    till.away = True  # or Redis, asked once more, might still know of it
    now += 601
    budgets._wake()
    thread.join(60)
    assert not thread.is_alive()
    assert known.waiting == 0
    assert known.out(now) == 0
    budgets.close()


def test_a_fleet_that_still_counts_is_waited_for() -> None:
    known = bucket(0)
    known.answered = 500.0  # by Redis
    assert not known.known(601.0)
    assert not known.forgotten(601.0)
    assert known.forgotten(1101.0)


def hear_of(known: Bucket, left: int, seconds: int, now: float) -> bool:
    heard = told(answer(left, seconds))
    assert heard
    return known.hear(heard, now)


def test_an_idle_process_wants_nothing() -> None:
    known = bucket(100)
    assert not known.wants(0.0)
    known.waiting = 1
    assert known.wants(0.0)
    known.accept(Grant(0, 50, 50), 0.0)
    assert not known.wants(1.0)
    assert known.rest(1.0) > 0


def test_a_request_is_on_its_way_until_it_is_done(cancel: Cancel) -> None:
    till = Till(Grant(1, 60), Grant(5, 60))
    budgets = Budgets(till)
    budgets.learn(URL, "", answer(100))
    taken = budgets.take(URL, "", cancel)
    assert taken
    assert taken.out(0.0) == 1
    budgets.done(taken)
    assert budgets.take(URL, "", cancel) is taken
    assert till.calls[-1][2] == 0
    budgets.close()


def test_what_is_in_hand_is_void_in_a_new_window() -> None:
    known = bucket(50)
    known.accept(Grant(10, 100), 0.0)
    hear(known, 99, 300, 50.0)
    assert known.out(50.0) == 0
