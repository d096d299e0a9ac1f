"""What an ended job leaves behind, for how long, and how it comes back to life."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as redis_py

from distributed_downloader.models import JobState, RepoType
from distributed_downloader.redis_client import Limits, RedisClient, Settled
from distributed_downloader.redis_view import RedisView
from tests.queue.base import complete, spec_of
from tests.queue.steps import NS, a_job, a_worker, about, clock, failure, files, keys, take, take_all
from tests.servers import Server

START = 1_000_000_000
DAY = 24 * 3600 * 1000
SHORT = {"tasks", "done", "where", "hosts", "pending", "held", "home", "seals", "sealer", "records", "blind"}


@pytest.fixture
def client(server: Server, redis: redis_py.Redis) -> Iterator[RedisClient]:
    made = RedisClient(server.config, limits=Limits(tick=0))
    clock(made, START)
    yield made
    made.close()


def lives(redis_client: redis_py.Redis, job: int) -> dict[str, int]:
    """Return the days that each of a job's keys has left, 0 for ever."""
    found = {}
    for key in sorted(keys(redis_client)):
        if key == f"job:{job}" or key.startswith(f"job:{job}:"):
            ms = int(redis_client.pttl(NS + key))
            found[key.removeprefix(f"job:{job}").removeprefix(":")] = round(ms / DAY) if ms >= 0 else 0
    return found


def ended(client: RedisClient, state: JobState) -> int:
    """Bring a job to an end with one task done and, unless it is to be done, one that failed."""
    job = a_job(client, 3, seal=False)
    a_worker(client)
    complete(client, "w1", str(take(client).token), 0, "h1")
    if state is not JobState.DONE:
        client.fail("w1", str(take(client).token), failure(), None)
    if state is JobState.CANCELLED:
        client.control("cancel", job)
    for task in take_all(client):
        complete(client, "w1", str(task.token), 1, "h1")
    client.seal(job, 3)
    assert about(client, job)["state"] == state.value
    return job


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_an_ended_job_expires(client: RedisClient, redis: redis_py.Redis, state: JobState) -> None:
    job = ended(client, state)
    for part, days in lives(redis, job).items():
        assert days == (7 if part in SHORT else 30), part
    assert redis.zscore(f"{NS}ended", str(job)) == START + 30 * DAY


def test_a_running_job_does_not_expire(client: RedisClient, redis: redis_py.Redis) -> None:
    job = a_job(client, 3)
    a_worker(client)
    client.fail("w1", str(take(client).token), failure(), None)
    complete(client, "w1", str(take(client).token), 0, "h1")
    assert set(lives(redis, job).values()) == {0}
    assert not redis.exists(f"{NS}ended")


@pytest.mark.parametrize(("state", "verb"), [(JobState.FAILED, "retry"), (JobState.CANCELLED, "resume")])
def test_a_job_that_is_revived_does_not_expire(
    client: RedisClient, redis: redis_py.Redis, state: JobState, verb: str
) -> None:
    job = ended(client, state)
    assert client.control(verb, job)  # type: ignore[arg-type]
    assert set(lives(redis, job).values()) == {0}
    assert "ended_at" not in about(client, job)
    assert not redis.exists(f"{NS}ended")


@pytest.mark.parametrize("gone", ["nothing", "tasks", "all"])
def test_after_thirty_days_no_name_of_it_is_left(
    client: RedisClient, redis: redis_py.Redis, gone: str
) -> None:
    """Whether Redis has dropped the keys by then or not."""
    job = ended(client, JobState.FAILED)
    client.leave("w1")
    if gone != "nothing":
        parts = SHORT if gone == "tasks" else lives(redis, job)
        redis.delete(*(f"{NS}job:{job}:{part}".removesuffix(":") for part in parts))
    clock(client, START + 30 * DAY - 1)
    client.tick()
    assert redis.zscore(f"{NS}jobs", str(job)) is not None
    clock(client, START + 30 * DAY)
    client.tick()
    assert keys(redis) == {"next_job", "vclock", "window"}


def test_a_job_that_came_back_is_not_purged(client: RedisClient) -> None:
    job = ended(client, JobState.CANCELLED)
    client.control("resume", job)
    clock(client, START + 31 * DAY)
    client.tick()
    assert about(client, job)["state"] in ("running", "failed")


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_without_its_tasks_a_job_cannot_come_back_and_a_new_one_takes_its_place(
    client: RedisClient, redis: redis_py.Redis, state: JobState
) -> None:
    job = ended(client, state)
    redis.delete(*(f"{NS}job:{job}:{part}" for part in SHORT))
    assert not client.control("resume", job)
    assert not client.control("retry", job)
    assert RedisView(client).job(job).failed == (state is not JobState.DONE), "it can still be looked at"
    assert client.create_job(spec_of(1), 1) == (job + 1, True)
    assert {job.id for job in RedisView(client).jobs()} == {job + 1}
    assert client.submit(job + 1, 0, files(1), "d")
    client.seal(job + 1, 1)
    assert complete(client, "w1", str(take(client).token), 0, "h1") is Settled.DONE


def test_within_seven_days_the_same_job_is_found_again(client: RedisClient) -> None:
    job = ended(client, JobState.DONE)
    assert client.create_job(spec_of(1), 1) == (job, False)
    assert client.listed(job) == (3, "digest", True)


def test_a_place_is_free_when_the_jobs_in_it_are_gone(client: RedisClient, redis: redis_py.Redis) -> None:
    job = ended(client, JobState.DONE)
    redis.delete(f"{NS}job:{job}")
    assert client.create_job(spec_of(1, repo_type=RepoType.DATASET), 1) == (job + 1, True)


def test_many_old_jobs_are_purged_a_few_at_a_time(client: RedisClient, redis: redis_py.Redis) -> None:
    for n in range(25):
        a_job(client, 0, spec=spec_of(n))
    clock(client, START + 30 * DAY)
    left = []
    for _ in range(3):
        client.tick()
        left.append(redis.zcard(f"{NS}jobs"))
    assert left == [15, 5, 0]
    assert keys(redis) == {"next_job", "window"}
