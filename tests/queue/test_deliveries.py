"""What is owed to the NAS: taken, kept, brought and counted, once, whoever does it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as redis_py

from distributed_downloader.outcome import ON_NAS
from distributed_downloader.queue_terms import Owed
from distributed_downloader.redis_client import Limits, RedisClient
from distributed_downloader.redis_deliveries import RedisDeliveries
from tests.queue.base import spec_of
from tests.queue.invariants import check
from tests.queue.invariants import take as snapshot
from tests.queue.steps import NS, a_job, a_worker, about, clock, dump, failure, keys, owed_token, take
from tests.servers import Server

START = 1_000_000_000
OWES = "ab12 /data of all"


@pytest.fixture
def client(server: Server, redis: redis_py.Redis) -> Iterator[RedisClient]:
    """The product's client, with a clock that the test moves; everything is checked in the end."""
    made = RedisClient(server.config, limits=Limits(tick=0))
    clock(made, START)
    yield made
    check(snapshot(redis, NS))
    made.close()


@pytest.fixture
def deliveries(client: RedisClient) -> RedisDeliveries:
    a_worker(client)
    return RedisDeliveries(client)


def finished(client: RedisClient, n: int = 3, owes: str = OWES, *, all_of: bool = True) -> int:
    """Download a job's files, all but one if not all; each owes the same."""
    job = a_job(client, n)
    for _ in range(n - (not all_of)):
        task = take(client)
        client.complete("w1", str(task.token), task.about.size, "h1", owes=owes)
    return job


def take_owed(deliveries: RedisDeliveries, limit: int = 10, *, ended_only: bool = False) -> list[int]:
    """Take for a minute; return the tasks."""
    return [owed.token.task for owed in deliveries.take_owed("ab12", limit, 60, ended_only=ended_only)]


def test_an_ended_job_keeps_its_list_until_nothing_is_owed(
    client: RedisClient, deliveries: RedisDeliveries, redis: redis_py.Redis
) -> None:
    """A NAS may be away for longer than such a list is kept."""
    job = finished(client, all_of=False)
    client.fail("w1", str(take(client).token), failure(), None)
    assert about(client, job)["state"] == "failed"
    assert {redis.pttl(f"{NS}job:{job}{part}") for part in ("", ":tasks")} == {-1}
    for task in take_owed(deliveries):
        assert deliveries.delivered("ab12", owed_token(client, "ab12", job, task))
    assert 0 < redis.pttl(f"{NS}job:{job}:tasks") <= 7 * 24 * 3600 * 1000


def test_a_job_is_done_when_its_last_file_is_on_the_nas(
    client: RedisClient, deliveries: RedisDeliveries
) -> None:
    job = finished(client)
    found = about(client, job)
    assert (found["state"], found["owed"], "ended_at" in found) == ("delivering", "3", False)
    assert deliveries.folders() == {"ab12": "/data of all"}
    for task in (2, 0, 1):
        assert about(client, job)["state"] == "delivering"
        assert deliveries.delivered("ab12", owed_token(client, "ab12", job, task))
    found = about(client, job)
    assert (found["state"], found["owed"], found["delivered"], found["bytes_delivered"]) == (
        "done",
        "0",
        "3",
        "3",
    )
    assert "ended_at" in found
    assert take_owed(deliveries) == []
    assert deliveries.folders() == {}


def test_what_is_there_already_owes_nothing(client: RedisClient, deliveries: RedisDeliveries) -> None:
    found = about(client, finished(client, owes=ON_NAS))
    assert (found["state"], found["owed"], found["delivered"], found["bytes_delivered"]) == (
        "done",
        "0",
        "3",
        "3",
    )
    assert deliveries.folders() == {}


def test_a_file_is_one_worker_s_for_a_while(client: RedisClient, deliveries: RedisDeliveries) -> None:
    job = finished(client)
    (first,) = deliveries.take_owed("ab12", 1, 60, ended_only=False)
    assert isinstance(first, Owed)
    assert (*first.token[:2], first.about.file.path, first.spec) == (job, 0, "f0", spec_of(1))
    assert take_owed(deliveries) == [1, 2]
    assert take_owed(deliveries) == []
    assert deliveries.take_owed("cd34", 10, 60, ended_only=False) == []
    deliveries.keep_owed("ab12", [owed_token(client, "ab12", job, 1)], 90)
    deliveries.keep_owed("ab12", [], 90)
    clock(client, START + 60_000)
    assert take_owed(deliveries) == [0, 2]
    clock(client, START + 90_000)
    assert take_owed(deliveries) == [1]


def test_what_was_brought_twice_counts_once(
    client: RedisClient, deliveries: RedisDeliveries, redis: redis_py.Redis
) -> None:
    job = finished(client)
    assert take_owed(deliveries) == [0, 1, 2]
    clock(client, START + 60_000)
    assert take_owed(deliveries) == [0, 1, 2], "the first was slow, and another took them"
    token = owed_token(client, "ab12", job, 1)
    assert deliveries.delivered("ab12", token)
    before = dump(redis)
    assert not deliveries.delivered("ab12", token)
    other = owed_token(client, "ab12", job, 0)
    assert not deliveries.delivered("cd34", other)
    assert not deliveries.delivered("ab12", other._replace(epoch=other.epoch - 1))
    deliveries.keep_owed("ab12", [token], 90)
    deliveries.keep_owed("cd34", [other], 90)
    assert dump(redis) == before, "what is brought does not come back"


def test_copies_may_wait_for_the_whole_job(client: RedisClient, deliveries: RedisDeliveries) -> None:
    job = finished(client, all_of=False)
    assert take_owed(deliveries, ended_only=True) == []
    task = take(client)
    client.complete("w1", str(task.token), task.about.size, "h1", owes=OWES)
    clock(client, START + 60_000)
    assert sorted(take_owed(deliveries, ended_only=True)) == [0, 1, 2]
    assert about(client, job)["state"] == "delivering"


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_files_of_a_job_that_ended_otherwise_are_brought_too(
    client: RedisClient, deliveries: RedisDeliveries, end: str
) -> None:
    job = finished(client, all_of=False)
    if end == "failed":
        client.fail("w1", str(take(client).token), failure(), None)
    else:
        client.control("cancel", job)
    assert take_owed(deliveries, ended_only=True) == [0, 1]
    tokens = [owed_token(client, "ab12", job, task) for task in (0, 1, 1)]
    assert [deliveries.delivered("ab12", token) for token in tokens] == [True, True, False]
    found = about(client, job)
    assert (found["state"], found["owed"], found["delivered"]) == (end, "0", "2")


def test_a_job_that_delivers_can_be_forgotten_and_nothing_else(
    client: RedisClient, deliveries: RedisDeliveries, redis: redis_py.Redis
) -> None:
    job = finished(client)
    before = dump(redis)
    for verb in ("pause", "resume", "cancel", "retry"):
        assert not client.control(verb, job)
    assert dump(redis) == before
    assert client.create_job(spec_of(1), 1) == (job, False)
    client.forget(job)
    assert not deliveries.delivered("ab12", owed_token(client, "ab12", job, 0))
    assert not [name for name in keys(redis) if name.startswith("job:")]
    assert take_owed(deliveries, 1) == []
    assert take_owed(deliveries) == []
    assert not redis.exists(f"{NS}owed:ab12", f"{NS}folders")


def test_a_retry_after_a_failure_ends_in_delivering(client: RedisClient, deliveries: RedisDeliveries) -> None:
    job = finished(client, all_of=False)
    client.fail("w1", str(take(client).token), failure(), None)
    deliveries.delivered("ab12", owed_token(client, "ab12", job, 0))
    client.control("retry", job)
    client.complete("w1", str(take(client).token), 2, "h1", owes="cd34 /other")
    found = about(client, job)
    assert (found["state"], found["owed"], found["delivered"]) == ("delivering", "2", "1")
    assert deliveries.folders() == {"ab12": "/data of all", "cd34": "/other"}
    assert deliveries.delivered("cd34", owed_token(client, "cd34", job, 2))
    assert deliveries.delivered("ab12", owed_token(client, "ab12", job, 1))
    assert about(client, job)["state"] == "done"


def test_a_job_whose_listing_goes_on_does_not_end_with_its_deliveries(
    client: RedisClient, deliveries: RedisDeliveries
) -> None:
    job = a_job(client, 1, seal=False)
    client.complete("w1", str(take(client).token), 0, "h1", owes=OWES)
    assert about(client, job)["state"] == "running"
    deliveries.delivered("ab12", owed_token(client, "ab12", job, 0))
    assert about(client, job)["state"] == "running"
    client.seal(job, 1)
    assert about(client, job)["state"] == "done"
