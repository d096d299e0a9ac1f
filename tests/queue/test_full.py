"""A Redis that is full: people still see all there is, and may end what fills it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from distributed_downloader.errors import RedisFullError
from distributed_downloader.models import JobState, TaskStatus
from distributed_downloader.redis_client import Done, Limits, RedisClient, Settled
from distributed_downloader.redis_view import RedisView
from tests.queue.base import complete
from tests.queue.steps import a_job, a_worker, failure, take
from tests.servers import Server


@pytest.fixture
def client(server: Server, redis: redis_py.Redis) -> Iterator[RedisClient]:
    made = RedisClient(server.config, limits=Limits(tick=0))
    yield made
    made.close()


@pytest.fixture
def job(client: RedisClient, redis: redis_py.Redis) -> Iterator[int]:
    """Return a job with a file in each state, in a Redis that has become full since."""
    job = a_job(client, 5)
    a_worker(client)
    done, delayed, failed, _ = (str(take(client).token) for _ in range(4))
    complete(client, "w1", done, 0, "h1")
    client.fail("w1", delayed, failure(), 60)
    client.fail("w1", failed, failure(), None)
    redis.config_set("maxmemory", 1)
    yield job
    redis.config_set("maxmemory", 0)


def test_a_full_redis_is_told_apart(client: RedisClient, job: int) -> None:
    with pytest.raises(RedisFullError, match="is full: raise its maxmemory"):
        a_worker(client, "w2")


def test_all_can_be_looked_at(client: RedisClient, job: int) -> None:
    view = RedisView(client)
    (shown,) = view.jobs()
    assert (shown.pending, shown.active, shown.delayed, shown.failed, shown.done) == (1, 1, 1, 1, 1)
    assert view.find("org/repo1") == view.find(str(job)) == [view.job(job)] == [shown]
    assert [worker.id for worker in view.workers()] == ["w1"]
    assert len(view.failures(job)) == 1
    ((number, _),) = view.next_tries({job}, 3)
    assert number == job
    queue = view.queue()
    assert (queue.ready, queue.delayed, queue.workers, queue.jobs) == (1, 1, 1, {"running": 1})
    assert [file.status for file in view.files(job)] == [
        TaskStatus.DONE,
        TaskStatus.DELAYED,
        TaskStatus.FAILED,
        TaskStatus.ACTIVE,
        TaskStatus.PENDING,
    ]
    assert len([*view.files(job, failed_only=True)]) == 1
    assert client.listed(job)[0] == 5


def test_it_is_said_that_it_is_full(client: RedisClient, redis: redis_py.Redis, job: int) -> None:
    view = RedisView(client)
    assert view.queue().full
    redis.config_set("maxmemory", 0)
    assert not view.queue().full


def test_what_is_done_is_counted_all_the_same(client: RedisClient, job: int) -> None:
    """What comes first takes a token out of a list, and a script that has written may go on."""
    view = RedisView(client)
    held: Any = client.commands.lrange(client.key("active:w1"), 0, -1)
    (token,) = held
    done = [Done(f"{job}.4.1", 4), Done(token, 3), Done(token, 3)]
    answers = client.complete_all("w1", "h1", done)
    assert answers == [Settled.STALE, Settled.DONE, Settled.ALREADY_DONE]
    assert (view.job(job).done, view.job(job).active) == (2, 0)


def test_nobody_loses_a_lease_to_that(client: RedisClient, job: int) -> None:
    def ends() -> float:
        return float(str(client.commands.zscore(client.key("workers"), "w1")))

    client.scripts.now = now = int(ends()) - 1
    assert client.beat("w1", "h1")
    assert ends() == now + client.limits.lease * 1000


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_a_job_can_be_stopped(client: RedisClient, job: int, verb: str) -> None:
    assert client.control(verb, job)  # type: ignore[arg-type]
    shown = RedisView(client).job(job)
    assert shown.state is {"pause": JobState.PAUSED, "cancel": JobState.CANCELLED}[verb]
    assert (shown.pending, shown.active, shown.delayed) == (1, 1, 1)


def test_a_job_can_be_forgotten(client: RedisClient, redis: redis_py.Redis, job: int) -> None:
    assert client.forget(job)
    assert RedisView(client).jobs() == []
    assert not [key for key in redis.scan_iter() if f"job:{job}" in key]
