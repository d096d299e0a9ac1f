"""The last task of a job: when its turn comes, what stops it, and what it reads in a Redis."""

from __future__ import annotations

import json
import time
from itertools import islice
from typing import Literal

import pytest
import redis as redis_py

from distributed_downloader.models import Descriptor, JobState, RepoFile
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_closing import RedisClosing
from distributed_downloader.redis_files import RedisFiles
from distributed_downloader.redis_view import RedisView
from distributed_downloader.storage.manifest import Entry
from tests.queue.base import complete, spec_of, status_of

FILES = [RepoFile(path=f"f{n}", size=10, git_sha1="a" * 40) for n in range(3)]
CLOSING = Descriptor.of_closing(whole=True).to_line()


@pytest.fixture
def view(client: RedisClient) -> RedisView:
    return RedisView(client)


def made(client: RedisClient, *, always: bool = False) -> int:
    """Return a job of three files, and let worker w join."""
    client.register(status_of("w", 0))
    job, _ = client.create_job(spec_of(1), 1)
    assert client.submit(job, 0, FILES, "d")
    assert client.seal(job, len(FILES), CLOSING, always=always)
    return job


def claimed(client: RedisClient) -> str:
    """Return the next task, in the hands of worker w."""
    client.tick()
    token = client.claim("w", 1)
    assert token
    assert client.begin("w", token)
    return token


def files_done(client: RedisClient) -> None:
    for _ in FILES:
        complete(client, "w", claimed(client), 10, "h1")


def test_a_job_is_done_when_its_closing_is(client: RedisClient, view: RedisView) -> None:
    job = made(client)
    files_done(client)
    assert view.job(job).state is JobState.RUNNING
    assert (view.job(job).total, view.job(job).done, view.job(job).held) == (3, 3, 0)
    complete(client, "w", claimed(client), 0, "h1")
    assert view.job(job).state is JobState.DONE
    assert (view.job(job).total, view.job(job).done, view.job(job).files_done) == (3, 3, 3)
    assert client.listed(job)[0] == len(FILES)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_who_is_stopped_before_its_closing_comes_back_to_it(
    client: RedisClient, view: RedisView, verb: Literal["pause", "cancel"], *, begun: bool
) -> None:
    job = made(client)
    files_done(client)
    token = claimed(client) if begun else ""
    client.control(verb, job)
    if begun:
        client.release("w", [token])
    client.tick()
    assert view.job(job).state is (JobState.CANCELLED if verb == "cancel" else JobState.PAUSED)
    client.control("resume", job)
    complete(client, "w", claimed(client), 0, "h1")
    assert view.job(job).state is JobState.DONE


def test_a_job_that_is_forgotten_is_closed_by_nobody(client: RedisClient, redis: redis_py.Redis) -> None:
    job = made(client)
    files_done(client)
    token = claimed(client)
    assert client.forget(job)
    complete(client, "w", token, 0, "h1")
    assert not redis.keys(client.key(f"job:{job}*"))
    assert not list(RedisClosing(client, job).done())


def test_a_master_that_lists_again_makes_no_second_one(client: RedisClient, view: RedisView) -> None:
    job = made(client)
    assert client.seal(job, len(FILES), CLOSING)
    files_done(client)
    assert client.seal(job, len(FILES), CLOSING)
    complete(client, "w", claimed(client), 0, "h1")
    assert view.job(job).state is JobState.DONE


# -- what an earlier version, or somebody else, has left ------------------------------------------


def test_a_job_of_an_earlier_version_ends_without_one(client: RedisClient, redis: redis_py.Redis) -> None:
    client.register(status_of("w", 0))
    job, _ = client.create_job(spec_of(1), 1)
    about = json.loads(str(redis.hget(client.key(f"job:{job}"), "spec")))
    for new in ("layout", "force", "check", "run"):
        del about[new]
    redis.hset(client.key(f"job:{job}"), "spec", json.dumps(about))
    assert client.submit(job, 0, FILES, "d")
    assert client.seal(job, len(FILES))
    files_done(client)
    status = RedisView(client).job(job)
    assert (status.state, status.spec) == (JobState.DONE, spec_of(1))


def test_two_bytes_of_a_place_are_no_reason_to_stop(client: RedisClient, redis: redis_py.Redis) -> None:
    """An earlier version said where a file lies, and not when it came."""
    job = made(client)
    complete(client, "w", claimed(client), 10, "h1")
    redis.set(client.key(f"job:{job}:where"), b"\0\1\0\1\0\1")
    complete(client, "w", claimed(client), 10, "h2")
    complete(client, "w", claimed(client), 10, "h2")
    found = list(RedisClosing(client, job).done())
    assert [each.file for each in found] == FILES
    assert all(each.at <= time.time() for each in found), "nothing was verified in the future"
    assert [each.host for each in found][1:] == ["h2", "h2"]
    assert len(list(RedisFiles(client, job).all(3, []))) == 3


@pytest.mark.parametrize("total", [str(2**53), "9" * 400, "-1", "nan", ""])
def test_a_total_that_lies_keeps_nobody(client: RedisClient, redis: redis_py.Redis, total: str) -> None:
    job = made(client)
    files_done(client)
    redis.hset(client.key(f"job:{job}"), "total", total)
    found = list(islice(RedisClosing(client, job).done(), 10))
    assert [each.file for each in found] in ([], FILES)


@pytest.mark.parametrize("created", [str(2**53), "-5", "x", "9" * 400])
def test_a_time_that_lies_is_none_of_a_proof(
    client: RedisClient, redis: redis_py.Redis, created: str
) -> None:
    job = made(client)
    files_done(client)
    redis.hset(client.key(f"job:{job}"), "created_at", created)
    assert all(Entry.of(each.file, each.at).verified for each in RedisClosing(client, job).done())
