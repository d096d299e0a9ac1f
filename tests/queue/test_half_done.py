"""A report that meets a key of a wrong type: it is made again, so nothing of it may have been done before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as redis_py

from distributed_downloader.models import Failure, JobState, RepoFile
from distributed_downloader.outcome import Range
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_view import RedisView
from distributed_downloader.redis_waiting import RedisWaiting
from tests.e2e.fleet import until
from tests.queue.base import complete, spec_of, status_of
from tests.queue.steps import a_job, a_worker

SIZE = 10
SHARED = ("ready", "fair", "delayed", "tails", "progress", "splitting", "folders", "owed:ab12")
REPORTS: dict[str, Callable[[RedisClient, str], object]] = {
    "complete": lambda client, token: complete(client, "w", token, SIZE, "h1"),
    "complete and owe": lambda client, token: complete(client, "w", token, SIZE, "h1", owes="ab12 /data"),
    "fail": lambda client, token: client.fail(
        "w", token, Failure(path="f", error="e", host="h1", tries=1, at=0), 0.0
    ),
    "release": lambda client, token: client.release("w", [token]),
    "blind": lambda client, token: RedisParts(client).blind("w", token, "not mounted"),
}


def begun(client: RedisClient) -> tuple[int, str]:
    """Return a job of one file, and its token in the hands of worker w."""
    client.register(status_of("w", 0))
    job, _ = client.create_job(spec_of(1), 1)
    assert client.submit(job, 0, [RepoFile(path="f", size=SIZE)], "d")
    client.seal(job, 1)
    client.tick()
    token = client.claim("w", 1)
    assert token
    assert client.begin("w", token)
    return job, token


@pytest.mark.parametrize("key", SHARED)
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_that_met_a_wrong_type_counts_once(
    client: RedisClient, redis: redis_py.Redis, report: str, key: str
) -> None:
    job, token = begun(client)
    redis.delete(client.key(key))
    redis.set(client.key(key), "somebody's")
    REPORTS[report](client, token)
    client.register(status_of("v", 0))
    for _ in range(3):  # whatever went back comes round, and ends
        redis.delete(client.key("tick"))
        client.tick()
        # Not asked where nothing is: a server looks ten times a second whether such a wait is over.
        if redis.exists(client.key("ready")) and (again := client.claim("v", 0.05)):
            assert client.begin("v", again)
            complete(client, "v", again, SIZE, "h1")
    found = RedisView(client).job(job)
    assert (found.done, found.pending + found.active + found.delayed, found.failed) == (1, 0, 0)
    owes = report == "complete and owe"
    assert (found.state, found.owed) == ((JobState.DELIVERING, 1) if owes else (JobState.DONE, 0))


@pytest.mark.parametrize("back", [500, 2_000, 100_000])
def test_a_clock_that_goes_back_cuts_no_part_before_it_begins(client: RedisClient, back: int) -> None:
    client.scripts.now = 1_000_000_000
    for worker in "ab":
        client.register(status_of(worker, 0))
    job, _ = client.create_job(spec_of(1), 1)
    part, size = 64 << 20, 400_000_000
    assert client.submit(job, 0, [RepoFile(path="big", size=size, sha256="a" * 64)], "d")
    client.seal(job, 1)
    token, parts = client.claim("a", 1), RedisParts(client)
    assert token
    assert client.begin("a", token)
    ranges = [Range(0, part), Range(part, part)]
    parts.split("a", token, "ab12", ranges, written=[Range(2 * part, size - 2 * part)], file="x")
    held = [token for _ in ranges if (token := client.claim("a", 1)) and client.begin("a", token)]
    parts.progress("a", dict.fromkeys(held, (1_000_000, 50_000_000)))
    client.scripts.now -= back
    tail = parts.steal("b", 100_000_000)
    assert tail.token
    assert client.begin("b", tail.token), "the tail can be read"
    lengths = parts.progress("a", dict.fromkeys(held, (1_500_000, 50_000_000)))
    assert len(lengths) == 2
    assert all(1_500_000 < length <= part for length in lengths.values())


def test_a_next_try_without_a_time_does_not_break_the_looking(
    client: RedisClient, redis: redis_py.Redis
) -> None:
    job, token = begun(client)
    redis.zadd(client.key("delayed"), {f"{job}.0.99": "inf", token: 1e300})
    assert all(shown.seconds >= 0 for _, shown in RedisWaiting(client).soon([job], 5))
    assert [*RedisView(client).files(job)]


@pytest.mark.parametrize("key", ["", ":pending"])
@pytest.mark.parametrize("slots", [1, 16])
def test_another_jobs_broken_key_does_not_keep_a_job_from_ending(
    client: RedisClient, redis: redis_py.Redis, key: str, slots: int
) -> None:
    """The feed serves both in one go, and writes down at its end what it has moved."""
    a_worker(client, "w", slots=slots)
    job, other = (a_job(client, 60, spec=spec_of(number)) for number in (1, 2))
    broken = f"{client.key('job:')}{other}{key}"
    redis.delete(broken)
    redis.set(broken, "x")

    def done() -> bool:
        client.tick()
        for token in iter(lambda: client.claim("w", 0.02), None):
            if client.begin("w", token):
                complete(client, "w", token, 1, "h1")
        return RedisView(client).job(job).state is JobState.DONE

    until(done, "the end of the job whose keys are right")
    assert redis.hget(client.key(f"job:{job}"), "out") == "0"
