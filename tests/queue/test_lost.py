"""A Redis that lost its data: what workers and masters remember of before must not count for what is now."""

from __future__ import annotations

import pytest
import redis as redis_py

from distributed_downloader.errors import UnknownJobError
from distributed_downloader.models import RepoFile
from distributed_downloader.outcome import Range
from distributed_downloader.redis_client import RedisClient, Settled
from distributed_downloader.redis_deliveries import RedisDeliveries
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_view import RedisView
from tests.queue.base import complete, spec_of
from tests.queue.saved import restore, save
from tests.queue.steps import NS, a_job, a_split_job, a_worker, about, clock, files, take, take_all

FOLDER = "aa11"


def test_a_task_of_a_lost_job_does_not_count_for_another_repo(client: RedisClient) -> None:
    a_worker(client)
    a_job(client, 4)
    old = [str(task.token) for task in take_all(client)]
    client.commands.flushall()
    job = a_job(client, 4, spec=spec_of(2))
    new = [client.claim("w1", 1) for _ in old]  # a claim that waits does not know that its worker is lost
    assert [complete(client, "w1", token, 1, "h1") for token in old] == [Settled.STALE] * 4
    assert not set(new) & set(old)
    assert about(client, job)["done"] == "0"


def test_a_part_of_before_does_not_count_for_another_file(client: RedisClient, redis: redis_py.Redis) -> None:
    a_worker(client)
    job = a_job(client, 0, seal=False)
    assert client.submit(job, 0, [RepoFile(path=name, size=100) for name in "ab"], "digest")
    first, second = take_all(client)
    parts = RedisParts(client)
    saved = save(redis)
    parts.split("w1", str(first.token), "ab12", [Range(0, 60), Range(60, 40)])
    old = take_all(client)
    restore(redis, saved)
    parts.split("w1", str(second.token), "ab12", [Range(0, 60), Range(60, 40)])
    new = take_all(client)
    assert [task.token[:2] for task in old] == [task.token[:2] for task in new]
    for task in old:
        assert complete(client, "w1", str(task.token), 60, "h1") is Settled.STALE
    assert about(client, job)["parts_done"] == "0"


def test_a_part_that_grew_again_goes_back(client: RedisClient, redis: redis_py.Redis) -> None:
    """Its tail was taken, and Redis lost that; its worker never fetches the tail."""
    for worker in ("w1", "w2"):
        a_worker(client, worker)
    job, tasks = a_split_job(client, parts=1)
    token = str(tasks[0].token)
    parts = RedisParts(client)
    assert parts.progress("w1", {token: (0, 1000.0)}) == {token: 100_000_000}
    saved = save(redis)
    assert parts.steal("w2", 1000.0).token
    left = parts.progress("w1", {token: (0, 1000.0)})[token]
    restore(redis, saved)
    assert complete(client, "w1", token, 100_000_000, "h1", length=left) is Settled.STALE
    assert about(client, job)["parts_done"] == "0"
    again = take(client)
    assert again.token[:2] == tasks[0].token[:2]
    assert again.token.epoch > tasks[0].token.epoch
    assert complete(client, "w1", str(again.token), 0, "h1", length=100_000_000) is Settled.DONE


def test_a_delivery_of_before_does_not_count_for_another_file(client: RedisClient) -> None:
    deliveries = RedisDeliveries(client)

    def owing(n: int) -> int:
        a_worker(client)
        job = a_job(client, 1, spec=spec_of(n))
        complete(client, "w1", str(take(client).token), 0, "h1", owes=f"{FOLDER} /data")
        return job

    owing(1)
    old, *_ = deliveries.take_owed(FOLDER, 1, 60, ended_only=False)
    client.commands.flushall()
    job = owing(2)
    assert not deliveries.delivered(FOLDER, old.token)
    assert about(client, job)["delivered"] == "0"
    deliveries.keep_owed(FOLDER, [old.token], 60)
    new, *_ = deliveries.take_owed(FOLDER, 1, 60, ended_only=False)
    assert deliveries.delivered(FOLDER, new.token)


def test_a_listing_does_not_go_on_in_another_job(client: RedisClient, redis: redis_py.Redis) -> None:
    master = RedisClient.over(redis)
    mine, _ = master.create_job(spec_of(1), 1)
    client.commands.flushall()
    job = a_job(client, 0, seal=False, spec=spec_of(2))
    assert job == mine
    assert not master.submit(job, 0, files(2), "digest")
    assert not master.seal(job, 0)
    assert about(client, job)["total"] == about(client, job)["sealed"] == "0"
    for question in (master.listed, RedisView(master).job):
        with pytest.raises(UnknownJobError, match=r"lost its data.*run the same command again"):
            question(job)
    assert client.listed(job) == (0, "", False)


def test_a_listing_whose_end_was_lost_is_not_complete(client: RedisClient, redis: redis_py.Redis) -> None:
    job = a_job(client, 2, seal=False)
    saved = save(redis)
    assert client.submit(job, 2, files(2, 2), "digest")
    restore(redis, saved)
    assert not client.seal(job, 4)
    assert about(client, job)["sealed"] == "0"


def test_what_a_lost_worker_claimed_last_is_not_lost(client: RedisClient) -> None:
    a_worker(client)
    client.commands.flushall()
    clock(client, 1_000_000)
    job = a_job(client, 1)
    assert client.claim("w1", 1)  # and dies
    client.tick()
    clock(client, 1_000_000 + 5000)
    client.tick()
    a_worker(client, "w2")
    assert take(client, "w2").token.job == job


def test_litter_does_not_stop_the_search_for_lost_workers(client: RedisClient) -> None:
    client.commands.set(f"{NS}search", "junk")
    client.tick()
    assert not client.commands.exists(f"{NS}search")
