"""The queue's histories once more on fakeredis: quick, and another implementation of Redis and Lua."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from distributed_downloader.redis_client import RedisClient, Settled
from distributed_downloader.redis_view import RedisView
from tests.queue.base import complete
from tests.queue.choices import Seeded
from tests.queue.machine import machine
from tests.queue.steps import a_job, a_worker, take
from tests.queue.world import LITTER, run

#: fakeredis takes text only where Redis takes bytes.
TEXT = tuple(word for word in LITTER if word.isascii())


@pytest.fixture
def fake() -> Iterator[redis.Redis]:
    client = fakeredis.FakeRedis(decode_responses=True, encoding_errors="surrogateescape")
    yield client
    client.close()


def test_no_history_breaks_an_invariant(fake: redis.Redis) -> None:
    short = settings(
        max_examples=4,
        stateful_step_count=20,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine(fake, TEXT), settings=short)


@pytest.mark.parametrize("seed", range(2))
def test_no_long_history_breaks_an_invariant(fake: redis.Redis, seed: int) -> None:
    run(fake, Seeded(seed), 60, litter=TEXT)


def test_a_job_from_listing_to_done(fake: redis.Redis) -> None:
    client = RedisClient.over(fake)
    job = a_job(client, 2)
    a_worker(client)
    for _ in range(2):
        task = take(client)
        assert complete(client, "w1", str(task.token), task.file.size, "h1") is Settled.DONE
    assert RedisView(client).job(job).done == 2
    client.unblock()
    client.leave("w1")
    client.close()
