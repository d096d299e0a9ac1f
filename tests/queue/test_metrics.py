"""What `metrics` reads of the queue, on every server."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis as redis_py

from distributed_downloader.errors import RateLimitError, StalledError, kind, kinds
from distributed_downloader.models import JobState
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_metrics import FleetMetrics, RedisMetrics
from distributed_downloader.redis_view import RedisView
from tests.queue.base import complete, spec_of
from tests.queue.steps import NS, a_job, a_worker, clock, failure, take

#: The time of the client's scripts, in ms, unless a test moves it.
START = 1_000_000_000_000


@pytest.fixture
def client(client: RedisClient) -> RedisClient:
    """The product's client, with a clock that the test moves, and a housekeeping whenever it asks."""
    client.limits = replace(client.limits, tick=0)
    clock(client, START)
    return client


def look(client: RedisClient) -> FleetMetrics:
    return RedisMetrics(client).look()


def test_an_empty_fleet_has_figures_too(client: RedisClient) -> None:
    found = look(client)
    assert (found.jobs, found.workers, found.failed_tries, found.ages, found.age) == ([], [], {}, {}, 0.0)


def test_tries_that_went_wrong_are_counted_by_their_reason(client: RedisClient) -> None:
    a_worker(client, slots=4)
    job, other = a_job(client, 3), a_job(client, 1, spec=spec_of(2))
    for error in (StalledError("slow"), StalledError("slow"), RateLimitError("wait", 1)):
        client.fail("w1", str(take(client).token), failure(), 60, kind=kind(error))
    assert look(client).failed_tries == {job: {"stalled": 2, "rate_limit": 1}, other: {}}


def test_a_stale_report_is_not_counted(client: RedisClient) -> None:
    a_worker(client)
    job = a_job(client, 2)
    token = str(take(client).token)
    for _ in range(2):
        client.fail("w1", token, failure(), None, kind="server")
    assert look(client).failed_tries == {job: {"server": 1}}


def test_a_try_that_was_lost_with_its_worker_is_counted(client: RedisClient) -> None:
    a_worker(client)
    job = a_job(client, 1)
    take(client)
    clock(client, START + 60_000)
    client.tick()
    assert look(client).failed_tries == {job: {"lost": 1}}


def test_who_writes_other_reasons_makes_no_labels(client: RedisClient, redis: redis_py.Redis) -> None:
    job = a_job(client, 1)
    redis.hset(f"{NS}job:{job}:reasons", mapping={"evil\n": "7", "server": "many", "stalled": "3"})
    assert look(client).failed_tries == {job: {"stalled": 3}}
    redis.delete(f"{NS}job:{job}:reasons")
    redis.set(f"{NS}job:{job}:reasons", "overwritten")
    assert look(client).failed_tries == {job: {}}


def test_reasons_go_with_their_job(client: RedisClient, redis: redis_py.Redis) -> None:
    a_worker(client)
    job = a_job(client, 1)
    client.fail("w1", str(take(client).token), failure(), None, kind="server")
    assert RedisView(client).job(job).state is JobState.FAILED
    assert redis.ttl(f"{NS}job:{job}:reasons") > 29 * 24 * 3600
    client.forget(job)
    assert not redis.exists(f"{NS}job:{job}:reasons")


def test_every_kind_of_error_has_a_word_of_its_own() -> None:
    assert {"stalled", "rate_limit", "no_answer", "corrupt", "room", "server"} < kinds()
    assert not {"lost", "other"} & kinds()


def test_the_age_is_that_of_the_task_that_is_next(client: RedisClient, redis: redis_py.Redis) -> None:
    first, second = a_job(client, 20), a_job(client, 20, spec=spec_of(2))
    now, _ = map(int, redis.time())
    waits = now - START / 1000
    found = look(client)
    assert {*found.ages} == {first, second}
    assert all(waits <= age <= waits + 60 for age in (found.age, *found.ages.values()))
    client.control("pause", first)
    client.control("pause", second)
    assert look(client).age == 0, "nobody waits for what is paused"


def test_nothing_waits_where_all_is_claimed(client: RedisClient) -> None:
    a_worker(client)
    a_job(client, 1)
    take(client)
    assert (look(client).ages, look(client).age) == ({}, 0)


@pytest.mark.parametrize("litter", ["litter", "1.2.nan", "9.9.99999999999999999999"])
def test_what_is_no_token_has_no_age(client: RedisClient, redis: redis_py.Redis, litter: str) -> None:
    redis.rpush(f"{NS}ready", litter)
    assert look(client).age == 0


def test_jobs_that_ended_long_ago_are_only_counted(client: RedisClient, redis: redis_py.Redis) -> None:
    a_worker(client)
    old, new = a_job(client, 1), a_job(client, 1, spec=spec_of(2))
    for _ in range(2):
        complete(client, "w1", str(take(client).token), 1, "h1")
    now, _ = map(int, redis.time())
    redis.hset(f"{NS}job:{new}", "ended_at", (now - 24 * 3600 + 60) * 1000)
    redis.hset(f"{NS}job:{old}", "ended_at", (now - 24 * 3600 - 60) * 1000)
    found = look(client)
    assert [job.id for job in found.jobs] == [new]
    assert found.queue.jobs == {"done": 2}
