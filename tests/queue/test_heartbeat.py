"""What a worker with little to do tells Redis, and what it hears all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
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
from tests.queue.steps import NS, a_split_job, a_worker

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
