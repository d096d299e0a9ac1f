"""The budgets of hubs, and the fleet's bandwidth, as they lie in Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as redis_py

from distributed_downloader.bandwidth import Demand, Share
from distributed_downloader.bucket import HANDFUL
from distributed_downloader.checks import origin
from distributed_downloader.quota import HubBudget, Told
from distributed_downloader.redis_bandwidth import RedisBandwidth
from distributed_downloader.redis_budgets import RedisBudgets
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from tests.queue.steps import NS, a_job, a_worker

START = 1_000_000_000_000
HUB, ACCOUNT = "http://hub:80", "a" * 16
#: What is left of a window of 100 when a fiftieth is spared.
FULL = 98


def heard(left: int, seconds: float = 300, window: int = 300, quota: int = 100) -> Told:
    return Told("resolvers", left, quota, seconds, window)


class Clerk:
    """One account of one hub, on a clock of the test's own."""

    def __init__(self, client: RedisClient) -> None:
        self.client, self.desk, self.out = client, RedisBudgets(client), 0
        self.at(0)

    def at(self, seconds: float) -> None:
        self.client.scripts.now = START + round(seconds * 1000)

    def spend(self, told: Told, out: int | None = None, wanted: int = HANDFUL) -> int:
        """Take a handful beside `out`, which is what was taken in this window unless the test says more."""
        self.out = self.out if out is None else out
        grant = self.desk.spend(ACCOUNT, HUB, told, self.out, wanted)
        self.out += grant.requests
        return grant.requests

    def answered(self) -> None:
        """All that was taken has been answered."""
        self.out = 0

    def spend_all(self, told: Told) -> int:
        """Take handfuls until there are no more; return how many requests they had."""
        total = 0
        while count := self.spend(told):
            total += count
        return total


@pytest.fixture
def clerk(client: RedisClient) -> Clerk:
    return Clerk(client)


def test_all_but_the_spare_ones_are_handed_out_once(clerk: Clerk) -> None:
    assert clerk.spend_all(heard(100)) == FULL


def test_handfuls_get_smaller_and_end_with_single_ones(clerk: Clerk) -> None:
    counts = []
    while count := clerk.spend(heard(100)):
        counts.append(count)
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == FULL // 4
    assert counts[-1] == 1


def test_more_workers_have_smaller_handfuls(clerk: Clerk, client: RedisClient) -> None:
    for number in range(5):
        a_worker(client, f"w{number}")
    assert clerk.spend(heard(100)) == FULL // 20


def test_nobody_gets_more_than_it_wants(clerk: Clerk) -> None:
    assert clerk.spend(heard(100_000, quota=100_000)) == HANDFUL
    assert clerk.spend(heard(100_000, quota=100_000), wanted=0) == 0


def test_what_others_of_the_account_use_is_gone_for_us(clerk: Clerk) -> None:
    assert clerk.spend(heard(100), wanted=1) == 1
    assert clerk.spend_all(heard(12)) == 9
    assert clerk.spend(heard(100)) == 0


def test_what_was_not_used_is_handed_out_again(clerk: Clerk) -> None:
    clerk.spend_all(heard(100))
    assert clerk.spend(heard(9), out=0, wanted=0) == 0
    assert clerk.spend_all(heard(100)) == 7


def test_what_others_have_out_is_not_handed_out(clerk: Clerk, client: RedisClient) -> None:
    other = Clerk(client)
    taken = other.spend_all(heard(100))
    assert taken == FULL
    grant = clerk.desk.spend(ACCOUNT, HUB, heard(90), 0, 1)
    assert grant.requests == 0
    assert 0 < grant.rest < 1  # for some of it may come back
    assert other.spend(heard(50), out=40, wanted=0) == 0
    assert clerk.spend_all(heard(50)) == 8


def test_the_one_request_of_a_quota_of_one_is_handed_out_in_each_window(clerk: Clerk) -> None:
    one = heard(1, seconds=2, window=1, quota=1)
    assert clerk.spend(one) == 1
    clerk.answered()
    assert clerk.spend(heard(0, seconds=2, window=1, quota=1)) == 0
    clerk.at(2.1)
    assert clerk.spend(heard(0, seconds=-0.1, window=1, quota=1)) == 1


def test_where_nothing_is_left_there_is_nothing_until_the_window_ends(clerk: Clerk) -> None:
    clerk.spend(heard(2))
    assert clerk.desk.spend(ACCOUNT, HUB, heard(2), 0, 1).rest == 300


def test_what_is_on_its_way_counts_in_the_window_in_which_it_arrives(clerk: Clerk) -> None:
    clerk.spend_all(heard(100, seconds=20))
    assert clerk.spend(heard(100, seconds=300), out=60, wanted=0) == 0
    assert clerk.spend_all(heard(100, seconds=300)) == FULL - 60


def test_who_died_holds_nothing_back_in_the_next_window(clerk: Clerk, client: RedisClient) -> None:
    Clerk(client).spend_all(heard(100))
    clerk.at(300.001)
    assert clerk.spend_all(heard(100, seconds=-0.001)) == FULL


def test_a_new_window_begins_when_the_old_one_is_over(clerk: Clerk) -> None:
    clerk.spend_all(heard(100))
    clerk.at(299)
    clerk.answered()
    assert clerk.spend(heard(2, seconds=1)) == 0
    clerk.at(300.001)
    assert clerk.spend_all(heard(2, seconds=-0.001)) == FULL


def test_what_was_heard_of_the_old_window_does_not_count_in_the_new_one(clerk: Clerk) -> None:
    clerk.spend_all(heard(100))
    clerk.answered()
    clerk.at(301)
    assert clerk.spend(heard(2, seconds=-1)) > 0
    clerk.at(301.1)
    late = heard(2, seconds=-0.2)  # rounded up: the same old window
    assert clerk.spend(late) > 0
    clerk.at(330)
    assert clerk.spend(heard(60, seconds=271)) > 0  # the new one has told of itself
    assert clerk.spend(heard(2, seconds=-30)) > 0


def test_a_window_that_begins_earlier_than_thought_is_heard_of(clerk: Clerk) -> None:
    clerk.spend_all(heard(100, seconds=20))
    clerk.answered()
    assert clerk.spend(heard(100, seconds=300)) > 0


def test_the_earliest_end_that_is_surely_over_counts(clerk: Clerk) -> None:
    """The hub tells whole seconds; each answer is late by another fraction of one."""
    assert clerk.spend_all(heard(100, seconds=300.9)) == FULL
    clerk.answered()
    assert clerk.spend(heard(2, seconds=300.2)) == 0
    clerk.at(300.3)
    assert clerk.spend(heard(2, seconds=0.6)) > 0


@pytest.mark.parametrize("litter", ["nan", "inf", "-1e308", "x", "1e15", "-5"])
@pytest.mark.parametrize("field", ["left", "ends", "turned", "out"])
def test_litter_hands_out_no_more_than_a_window_has(clerk: Clerk, field: str, litter: str) -> None:
    clerk.spend(heard(100))
    clerk.client.commands.hset(f"{NS}budget:{ACCOUNT}:resolvers", field, litter)
    assert clerk.spend_all(heard(100)) <= FULL


def test_what_is_over_goes_away(clerk: Clerk, redis: redis_py.Redis) -> None:
    clerk.spend(heard(100))
    assert 0 < redis.pttl(f"{NS}budget:{ACCOUNT}:resolvers") <= 600_000
    clerk.at(1000)
    RedisBudgets(clerk.client).spend("b" * 16, HUB, heard(100), 0, 1)
    assert redis.zrange(f"{NS}budgets", 0, -1) == [f"{'b' * 16}:resolvers"]


def test_a_hub_that_names_ever_new_buckets_does_not_fill_redis(clerk: Clerk, redis: redis_py.Redis) -> None:
    others = [f"{'b' * 16}:b{number}" for number in range(20_000)]
    redis.zadd(f"{NS}budgets", {name: START + 3_000_000 + number for number, name in enumerate(others)})
    redis.hset(f"{NS}budget:{others[-1]}", "left", 7)
    redis.hset(f"{NS}out:{others[-1]}", "w", 7)
    for _ in range(3):
        assert clerk.spend(heard(100)) > 0
    assert redis.zcard(f"{NS}budgets") == 20_000
    assert redis.zscore(f"{NS}budgets", f"{ACCOUNT}:resolvers")
    assert not redis.exists(f"{NS}budget:{others[-1]}", f"{NS}out:{others[-1]}")


# -- who looks on ---------------------------------------------------------------------------------


def test_what_is_scarce_is_shown_for_the_hubs_of_the_jobs(client: RedisClient) -> None:
    view, budgets = RedisView(client), RedisBudgets(client)
    job = a_job(client, 1)
    (shown,) = view.jobs()
    hub = shown.spec.endpoint

    budgets.spend("a" * 16, origin(hub), heard(50), 0, 0)
    budgets.spend("b" * 16, "http://other:80", heard(2), 0, 0)
    assert view.budgets(view.jobs()) == []
    budgets.spend("a" * 16, origin(hub), heard(14), 0, 0)
    (found,) = view.budgets(view.jobs())
    assert found == HubBudget(hub, "resolvers", 12, 100, found.seconds)
    assert 0 < found.seconds <= 300
    assert client.control("cancel", job)
    assert view.budgets(view.jobs()) == []


@pytest.mark.parametrize("field", ["left", "ends", "quota", "endpoint"])
def test_what_cannot_be_read_is_not_shown(client: RedisClient, redis: redis_py.Redis, field: str) -> None:
    RedisBudgets(client).spend(ACCOUNT, HUB, heard(2), 0, 0)
    redis.hdel(f"{NS}budget:{ACCOUNT}:resolvers", field)
    assert all(budget.left == 0 for budget in RedisBudgets(client).all())


# -- the fleet's bandwidth ------------------------------------------------------------------------


@pytest.fixture
def seat(client: RedisClient) -> Callable[[], RedisBandwidth]:
    return lambda: RedisBandwidth(client)


def test_who_is_new_learns_all_demands_and_others_once_in_a_round(
    client: RedisClient, seat: Callable[[], RedisBandwidth]
) -> None:
    client.scripts.now = START
    a, b = seat(), seat()
    share, demands = a.tell(Demand(float("inf"), 100))
    assert share is None
    assert [demand.limit for demand in demands.values()] == [100]
    assert a.publish(dict.fromkeys(demands, Share(60.7, 75.9))) == (60, 75)
    assert a.tell(Demand(5, 100)) == ((60, 75), {})
    share, demands = b.tell(Demand(7, 90))
    assert share is None
    assert sorted(demands.values()) == [(5, 100), (7, 90)]
    client.commands.delete(f"{NS}sharing")
    assert len(a.tell(Demand(5, 100))[1]) == 2


def test_who_is_silent_has_no_share(client: RedisClient, seat: Callable[[], RedisBandwidth]) -> None:
    client.scripts.now = START
    a, b = seat(), seat()
    _, demands = a.tell(Demand(5, 100))
    a.publish(dict.fromkeys(demands, Share(50, 50)))
    client.scripts.now = START + 6000
    assert list(b.tell(Demand(7, 100))[1].values()) == [(7, 100)]
    assert a.tell(Demand(5, 100))[0] is None


def test_who_leaves_has_no_share_and_is_new_when_it_comes_back(
    client: RedisClient, seat: Callable[[], RedisBandwidth]
) -> None:
    client.scripts.now = START
    a, b = seat(), seat()
    a.tell(Demand(5, 100))
    _, demands = b.tell(Demand(7, 100))
    a.publish(dict.fromkeys(demands, Share(50, 50)))
    a.leave()
    assert b.tell(Demand(7, 100))[0] == (50, 50)
    share, demands = a.tell(Demand(5, 100))
    assert share is None
    assert sorted(demands.values()) == [(5, 100), (7, 100)]
    b.leave()
    a.leave()
    assert not client.commands.exists(f"{NS}bandwidth", f"{NS}shares")


def test_who_leaves_while_another_works_out_the_shares_has_none_when_it_comes_back(
    client: RedisClient, seat: Callable[[], RedisBandwidth]
) -> None:
    client.scripts.now = START
    a, b = seat(), seat()
    b.tell(Demand(7, 100))
    _, demands = a.tell(Demand(5, 100))
    b.leave()
    a.publish(dict.fromkeys(demands, Share(50, 50)))
    client.commands.delete(f"{NS}sharing")
    _, demands = a.tell(Demand(5, 100))
    a.publish(dict.fromkeys(demands, Share(100, 100)))
    assert client.commands.hlen(f"{NS}shares") == 1
    assert b.tell(Demand(7, 100))[0] is None


def test_shares_that_nobody_works_out_any_more_are_forgotten(
    client: RedisClient, seat: Callable[[], RedisBandwidth]
) -> None:
    a = seat()
    _, demands = a.tell(Demand(5, 100))
    a.publish(dict.fromkeys(demands, Share(50, 50)))
    assert 0 < client.commands.pttl(f"{NS}shares") <= 60_000


@pytest.mark.parametrize("litter", ["", "x", "1", "1 x", "1 2 3", "-1 2", "9" * 40, "1e9 1"])
def test_a_share_that_makes_no_sense_is_none(
    client: RedisClient, seat: Callable[[], RedisBandwidth], litter: str
) -> None:
    a = seat()
    _, demands = a.tell(Demand(5, 100))
    client.commands.hset(f"{NS}shares", next(iter(demands)), litter)
    assert a.tell(Demand(5, 100))[0] is None


@pytest.mark.parametrize("litter", ["", "x", "1 2", "1 0 9999999999999", "9" * 40, "1e9 1 9999999999999"])
def test_litter_on_the_board_is_left_out(
    client: RedisClient, seat: Callable[[], RedisBandwidth], litter: str
) -> None:
    client.commands.hset(f"{NS}bandwidth", "w", litter)
    assert list(seat().tell(Demand(7, 100))[1].values()) == [(7, 100)]
