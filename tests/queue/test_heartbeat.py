"""What a worker with little to do tells Redis, and what it hears all the same."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import redis as redis_py

from distributed_downloader import claims
from distributed_downloader.claims import Claims
from distributed_downloader.heartbeat import Heartbeat
from distributed_downloader.models import Transfer, WorkerStatus
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.slots import Room
from tests.queue.base import status_of
from tests.queue.steps import NS, a_job, a_split_job, a_worker

WORDS = f"{NS}worker:w1"


class Player:
    """A worker of which the test says what it holds."""

    id = "w1"
    part_rate = 0.0

    def __init__(self) -> None:
        self.status = status_of("w1", 1, "h1")
        self.held: set[str] = set()
        self.lives = 1

    def describe(self) -> WorkerStatus:
        return self.status

    def turn(self, thread: str) -> None: ...

    def holds(self) -> set[str]:
        return self.held

    tokens = holds

    def parts(self) -> Mapping[str, tuple[int, float]]:
        return {}

    def renew(
        self, asked_at: float, asked: Mapping[str, tuple[int, float]], ours: Mapping[str, int]
    ) -> None: ...

    def expects(self, token: str) -> bool:
        return token == ""

    def beaten(self, asked_at: float) -> None: ...

    def drop(self, token: str, reason: str) -> None: ...

    def declared_dead(self) -> None:
        self.lives += 1
        self.status = status_of("w1", self.lives, "h1")


@pytest.fixture
def player() -> Player:
    return Player()


@pytest.fixture
def heart(client: RedisClient, player: Player) -> Heartbeat:
    """Return the heart of a worker that has entered the fleet; the test makes it beat."""
    heart = Heartbeat(client, player)
    heart.register()
    return heart


def age(heart: Heartbeat, seconds: float) -> float:
    """Let the last beat have been so long ago; return its time."""
    heart.last_beat = time.monotonic() - seconds
    return heart.last_beat


def blocked(redis: redis_py.Redis) -> int:
    about: Any = redis.info("clients")
    return int(about["blocked_clients"])


def a_claim(client: RedisClient, redis: redis_py.Redis, got: list[str | None]) -> threading.Thread:
    """Claim in another thread; returns when that waits."""
    thread = threading.Thread(target=lambda: got.append(client.claim("w1", 600)))
    thread.start()
    while blocked(redis) == 0:
        pass
    return thread


def test_what_is_the_same_is_not_said_again(heart: Heartbeat, player: Player, redis: redis_py.Redis) -> None:
    redis.delete(WORDS)
    heart._pulse()
    assert not redis.exists(WORDS)
    player.status = player.status.model_copy(update={"trouble": "/data is full"})
    heart._pulse()
    assert "/data is full" in str(redis.get(WORDS))


def test_what_moves_is_said_at_every_pulse(heart: Heartbeat, player: Player, redis: redis_py.Redis) -> None:
    moving = Transfer(job=1, task=0, path="f", size=9, bytes_done=1, bytes_per_second=1)
    player.status = player.status.model_copy(update={"transfers": (moving,)})
    for _ in range(2):
        redis.delete(WORDS)
        heart._pulse()
        assert redis.exists(WORDS)


def test_what_was_said_long_ago_is_said_again(heart: Heartbeat, redis: redis_py.Redis) -> None:
    redis.delete(WORDS)
    heart._reported_at -= 301
    heart._pulse()
    assert redis.exists(WORDS)


def test_what_was_said_lasts_as_long_as_the_worker_beats(heart: Heartbeat, redis: redis_py.Redis) -> None:
    redis.pexpire(WORDS, 5_000)
    age(heart, 20)
    heart._pulse()
    assert int(str(redis.pttl(WORDS))) > 30_000


@pytest.mark.parametrize(
    ("held", "strangers", "seconds", "beats"),
    [
        (set(), set(), 11, False),
        (set(), set(), 14, True),
        ({"1.0.1"}, set(), 9, False),
        ({"1.0.1"}, set(), 10, True),
        (set(), {"1.0.1"}, 10, True),
    ],
)
def test_who_has_nothing_in_hand_beats_less_often(
    heart: Heartbeat, player: Player, *, held: set[str], strangers: set[str], seconds: float, beats: bool
) -> None:
    player.held, heart._strangers = held, strangers
    before = age(heart, seconds)
    assert heart.fresh, "it may claim all the time"
    heart._pulse()
    assert (heart.last_beat > before) == beats


def ends(redis: redis_py.Redis) -> float:
    """Return in how many seconds the worker is dead."""
    end, (seconds, micros) = redis.zscore(f"{NS}workers", "w1"), redis.time()
    return float(end) / 1000 - seconds - micros / 1e6  # type: ignore[arg-type]


def idle_among(heart: Heartbeat, workers: int) -> None:
    """Let the worker, which has nothing in hand, beat as one of so many."""
    heart._workers = workers
    age(heart, 1000)
    heart._pulse()


@pytest.mark.parametrize(
    ("workers", "longer"), [(1, 0), (140, 0), (200, 6), (500, 36), (740, 60), (1000, 60), (10_000, 60)]
)
def test_the_more_workers_idle_the_less_often_each_beats(
    heart: Heartbeat, redis: redis_py.Redis, workers: int, longer: float
) -> None:
    idle_among(heart, workers)
    assert heart._longer == longer
    assert 25 + longer < ends(redis) <= 30 + longer
    heart._workers = workers
    before = age(heart, 13 + longer)
    heart._pulse()
    assert heart.last_beat == before
    before = age(heart, 14 + longer)
    assert heart.fresh, "it may claim all the time"
    heart._pulse()
    assert heart.last_beat > before


def test_who_hears_that_the_fleet_has_shrunk_beats_as_often_as_in_a_small_one(
    heart: Heartbeat, redis: redis_py.Redis
) -> None:
    idle_among(heart, 1000)
    assert (heart._longer, heart._workers) == (60, 1)
    before = age(heart, 13)
    heart._pulse()
    assert heart.last_beat == before
    age(heart, 14)
    assert heart.fresh
    heart._pulse()
    assert (heart._longer, ends(redis) <= 30) == (0, True)


def test_what_an_idle_worker_says_lasts_until_its_next_beat(heart: Heartbeat, redis: redis_py.Redis) -> None:
    idle_among(heart, 1000)
    assert heart._calm + heart._longer + 1 < int(str(redis.pttl(WORDS))) / 1000


def test_who_gets_something_in_hand_has_the_usual_lease_at_the_next_pulse(
    heart: Heartbeat, player: Player, redis: redis_py.Redis
) -> None:
    idle_among(heart, 1000)
    assert ends(redis) > 80
    player.held, heart._workers = {"1.0.1"}, 1000
    heart._pulse()
    assert 25 < ends(redis) <= 30
    before = age(heart, 9)
    heart._pulse()
    assert heart.last_beat == before, "and beats as often as ever"


def test_a_claim_on_its_way_gets_as_long_to_arrive_as_ever(heart: Heartbeat, redis: redis_py.Redis) -> None:
    redis.lpush(f"{NS}active:w1", "1.0.1")
    idle_among(heart, 1000)
    assert heart._strangers == {"1.0.1"}
    heart._workers = 1000
    age(heart, 9)
    heart._pulse()
    assert redis.llen(f"{NS}active:w1") == 1
    age(heart, 10)
    heart._pulse()
    assert redis.llen(f"{NS}active:w1") == 0, "it was lost, and is given back"
    assert 25 < ends(redis) <= 30


def test_a_worker_that_enters_again_has_the_usual_lease(
    heart: Heartbeat, player: Player, redis: redis_py.Redis
) -> None:
    idle_among(heart, 1000)
    player.status = player.status.model_copy(update={"folder": "a" * 32})
    heart._pulse()
    assert (heart._longer, ends(redis) <= 30) == (0, True)


def test_a_beat_under_a_long_lease_finds_out_that_it_was_declared_dead(
    heart: Heartbeat, player: Player, redis: redis_py.Redis
) -> None:
    idle_among(heart, 1000)
    redis.zrem(f"{NS}workers", "w1")
    heart.doubt()
    assert heart.fresh, "it has just beaten"
    age(heart, 2)
    heart.doubt()
    assert not heart.fresh
    heart._pulse()
    assert (player.lives, heart._longer) == (2, 0)


@pytest.mark.parametrize("doubts", [Heartbeat.away, Heartbeat.doubt])
def test_who_doubts_its_lease_is_not_fresh_on_a_machine_that_has_just_started(
    heart: Heartbeat, monkeypatch: pytest.MonkeyPatch, doubts: Callable[[Heartbeat], None]
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 10.0)
    heart.last_beat = 8.0
    doubts(heart)
    assert not heart.fresh
    assert heart._is_due


def test_who_kept_house_goes_on_with_it(
    client: RedisClient, heart: Heartbeat, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    tick = client.tick

    def noted() -> bool:
        kept.append(tick())
        return kept[-1]

    monkeypatch.setattr(client, "tick", noted)
    monkeypatch.setattr(random, "random", lambda: 0.5)
    heart._pulse()
    assert kept == [True], "there is nobody else"
    heart._workers = 1000
    for _ in range(2):
        redis.delete(f"{NS}tick")
        heart._pulse()
    assert kept == [True] * 3
    heart._pulse()
    assert kept == [True, True, True, False], "somebody else does it now"
    heart._pulse()
    assert len(kept) == 4


def test_who_hears_that_nobody_keeps_house_does_it(
    heart: Heartbeat, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet of which nearly all lost their power is still large for those who are left."""
    monkeypatch.setattr(random, "random", lambda: 0.5)
    idle_among(heart, 1000)
    heart._keeps_house = False
    redis.set(f"{NS}tick", 1, px=900)
    age(heart, 100)
    heart._pulse()
    assert not heart._keeps_house
    redis.delete(f"{NS}tick")
    age(heart, 100)
    heart._workers = 1000
    heart._pulse()
    assert redis.exists(f"{NS}tick")
    assert heart._keeps_house


def test_a_beat_that_hears_of_tails_ends_a_claim_that_waits(
    client: RedisClient, heart: Heartbeat, redis: redis_py.Redis
) -> None:
    other, got = RedisClient.over(redis), list[str | None]()
    _, (part,) = a_split_job(other, parts=1, worker=a_worker(other, "w2", host="h2"))
    waiting = a_claim(client, redis, got)
    age(heart, 20)
    heart._pulse()
    assert not heart.tails
    assert blocked(redis) == 1
    RedisParts(other).progress("w2", {str(part.token): (0, 1.0)})
    age(heart, 20)
    heart._pulse()
    waiting.join()
    assert (got, heart.tails) == ([None], True)


def test_a_beat_that_hears_of_a_retry_at_home_ends_a_claim_that_waits(
    client: RedisClient, heart: Heartbeat, redis: redis_py.Redis
) -> None:
    got: list[str | None] = []
    waiting = a_claim(client, redis, got)
    redis.zadd(f"{NS}parked:h1", {"1.0.1": 1})
    age(heart, 20)
    heart._pulse()
    waiting.join()
    assert (got, heart.parked) == ([None], 1)


def test_who_was_declared_dead_does_not_wait_under_the_old_name(
    client: RedisClient, heart: Heartbeat, player: Player, redis: redis_py.Redis
) -> None:
    got: list[str | None] = []
    waiting = a_claim(client, redis, got)
    redis.zrem(f"{NS}workers", "w1")
    age(heart, 20)
    heart._pulse()
    waiting.join()
    assert (got, player.lives) == ([None], 2)


class Idle:
    """The claims of a worker to which nothing has come for long."""

    def __init__(self, client: RedisClient, heart: Heartbeat, player: Player, *, alert: bool) -> None:
        slots: Any = player
        self._claims = Claims(client, heart, Outage(client.address), slots, host="h1", alert=alert)
        self._claims._in_vain = claims._CLAIMS_UNTIL_IDLE

    def claim(self) -> list[Any]:
        return self._claims.next("w1", Room(1, 0))


def looks(redis: redis_py.Redis) -> int:
    """Return how often somebody has counted the tails."""
    about: Any = redis.info("commandstats")
    return int(about.get("cmdstat_zcard", {"calls": 0})["calls"])


def test_a_busy_worker_takes_small_files_whatever_waits_at_home(
    client: RedisClient, heart: Heartbeat, player: Player
) -> None:
    """Or its fetcher would find room, and nothing to do, over and over again."""
    a_job(client, 1)
    claims = Idle(client, heart, player, alert=False)._claims
    claims.ahead, heart.parked = True, 5
    tasks = claims.next("w1", Room(0, 4))
    assert [task.about.file.path for task in tasks] == ["f0"]
    assert claims.next("w1", Room(0, 4)) == []
    assert not claims.ahead, "it waits for a slot now"
    assert heart.parked == 5


@pytest.mark.parametrize(("alert", "tails", "asks"), [(False, False, 0), (False, True, 1), (True, False, 1)])
def test_an_idle_claim_looks_for_tails_only_when_a_beat_told_of_any(
    client: RedisClient,
    heart: Heartbeat,
    player: Player,
    redis: redis_py.Redis,
    monkeypatch: pytest.MonkeyPatch,
    *,
    alert: bool,
    tails: bool,
    asks: int,
) -> None:
    monkeypatch.setattr(claims, "_SECONDS_WHEN_IDLE", 0.25)
    idle, heart.tails = Idle(client, heart, player, alert=alert), tails
    before = looks(redis)
    assert idle.claim() == []
    assert looks(redis) - before == asks
