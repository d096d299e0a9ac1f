"""What is owed to the NAS: taken, kept, brought and counted, once, whoever does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_py

from distributed_downloader.models import JobSpec
from distributed_downloader.outcome import ON_NAS
from distributed_downloader.queue_terms import Owed, Redo
from distributed_downloader.redis_client import Limits, RedisClient
from distributed_downloader.redis_deliveries import RedisDeliveries
from distributed_downloader.redis_view import RedisView
from tests.queue.base import complete, spec_of
from tests.queue.invariants import check
from tests.queue.invariants import take as snapshot
from tests.queue.steps import (
    NS,
    a_job,
    a_split_job,
    a_worker,
    about,
    clock,
    dump,
    failure,
    keys,
    owed_token,
    seal_of,
    take,
)
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


def finished(
    client: RedisClient, n: int = 3, owes: str = OWES, *, all_of: bool = True, spec: JobSpec | None = None
) -> int:
    """Download a job's files, all but one if not all; each owes the same."""
    job = a_job(client, n, spec=spec)
    for _ in range(n - (not all_of)):
        task = take(client)
        complete(client, "w1", str(task.token), task.about.size, "h1", owes=owes)
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
    complete(client, "w1", str(task.token), task.about.size, "h1", owes=OWES)
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
    complete(client, "w1", str(take(client).token), 2, "h1", owes="cd34 /other")
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
    complete(client, "w1", str(take(client).token), 0, "h1", owes=OWES)
    assert about(client, job)["state"] == "running"
    deliveries.delivered("ab12", owed_token(client, "ab12", job, 0))
    assert about(client, job)["state"] == "running"
    client.seal(job, 1)
    assert about(client, job)["state"] == "done"


# -- damaged before it got to the NAS ---------------------------------------------------------------


def redo(client: RedisClient, deliveries: RedisDeliveries, job: int, task: int = 0) -> Redo:
    """Find a file of a job damaged."""
    found = failure(f"f{task}", "damaged", "")
    return deliveries.redo("ab12", owed_token(client, "ab12", job, task), found)


def again(client: RedisClient, now: int = START + 2000) -> None:
    """Download what is due by then."""
    clock(client, now)
    client.beat("w1", "h1")
    client.tick()
    task = take(client)
    complete(client, "w1", str(task.token), task.about.size, "h1", owes=OWES)


def counted(client: RedisClient, job: int) -> tuple[str, ...]:
    found = about(client, job)
    return tuple(found[name] for name in ("state", "done", "delayed", "owed", "bytes_done"))


def test_a_damaged_file_comes_back_and_is_delivered(client: RedisClient, deliveries: RedisDeliveries) -> None:
    job = finished(client)
    first = owed_token(client, "ab12", job, 2)
    assert counted(client, job) == ("delivering", "3", "0", "3", "3")
    assert redo(client, deliveries, job, 2) is Redo.AGAIN
    assert counted(client, job) == ("running", "2", "1", "2", "1")
    ((_, shown),) = RedisView(client).next_tries([job], 5)
    assert (shown.path, shown.error) == ("f2", "damaged")
    assert redo(client, deliveries, job, 2) is Redo.STALE
    assert not deliveries.delivered("ab12", first), "a copy of what was there before"
    again(client)
    assert counted(client, job) == ("delivering", "3", "0", "3", "3")
    assert not deliveries.delivered("ab12", first)
    for task in range(3):
        assert deliveries.delivered("ab12", owed_token(client, "ab12", job, task))
    assert about(client, job)["state"] == "done"


def test_a_folder_that_eats_files_is_left_to_a_person(
    client: RedisClient, deliveries: RedisDeliveries, redis: redis_py.Redis
) -> None:
    job, now = finished(client, 1), START
    for seconds in (2, 4, 8, 16, 32, 64, 128, 256, 300):
        assert redo(client, deliveries, job) is Redo.AGAIN
        now += seconds * 1000
        due: Any = redis.zrange(f"{NS}delayed", 0, -1, withscores=True)
        assert [at for _, at in due] == [now]
        again(client, now)
    before = dump(redis)
    assert redo(client, deliveries, job) is Redo.STAYS
    assert dump(redis) == before
    assert deliveries.delivered("ab12", owed_token(client, "ab12", job, 0))


def test_a_damaged_file_in_parts_comes_back_as_its_seal(
    client: RedisClient, deliveries: RedisDeliveries
) -> None:
    job, parts = a_split_job(client)
    for part in parts:
        complete(client, "w1", str(part.token), part.about.size, "h1")
    client.claim("w1", 0.01)
    assert client.begin("w1", seal_of(client, job))
    complete(client, "w1", seal_of(client, job), 0, "h1", owes=OWES)
    done = ("delivering", "3", "0", "1", "100000000")
    assert counted(client, job) == done
    assert redo(client, deliveries, job) is Redo.AGAIN
    assert counted(client, job) == ("running", "2", "1", "0", "100000000")
    again(client)
    assert counted(client, job) == done
    assert about(client, job)["parts_done"] == "2"


@pytest.mark.parametrize("state", ["running", "paused", "failed", "cancelled"])
def test_a_damaged_file_of_a_job_that_is_not_downloaded(
    client: RedisClient, deliveries: RedisDeliveries, state: str
) -> None:
    job = finished(client, all_of=False)
    if state == "failed":
        client.fail("w1", str(take(client).token), failure(), None)
    elif state != "running":
        client.control("pause" if state == "paused" else "cancel", job)
    answer = redo(client, deliveries, job, 1)
    assert answer is (Redo.STAYS if state == "cancelled" else Redo.AGAIN)
    if state == "cancelled":
        assert client.control("resume", job)
        assert redo(client, deliveries, job, 1) is Redo.AGAIN
    clock(client, START + 2000)
    client.tick()
    assert about(client, job)["state"] == ("paused" if state == "paused" else "running")
    client.control("resume", job)
    for _ in range(1 if state == "failed" else 2):
        task = take(client)
        complete(client, "w1", str(task.token), task.about.size, "h1", owes=OWES)
    assert about(client, job)["state"] == ("failed" if state == "failed" else "delivering")


@pytest.mark.parametrize("then", ["", "forgotten"])
def test_a_file_of_another_commit_is_not_replaced_by_an_older_one(
    client: RedisClient, deliveries: RedisDeliveries, then: str
) -> None:
    job = finished(client)
    same = client.create_job(spec_of(1, include=("a",)), 1)[0]
    elsewhere = client.create_job(spec_of(1, commit="d" * 40, output_dir="/elsewhere"), 1)[0]
    assert redo(client, deliveries, job) is Redo.AGAIN
    later = client.create_job(spec_of(1, commit="d" * 40), 1)[0]
    if then:
        client.forget(later)
    assert redo(client, deliveries, job, 1) is Redo.STAYS
    replaced = {"replaced" in about(client, each) for each in (job, same)}
    assert replaced == {True}
    assert "replaced" not in about(client, elsewhere) | about(client, later)


def test_the_names_are_those_of_the_commit_that_was_asked_for_last(
    client: RedisClient, deliveries: RedisDeliveries
) -> None:
    """Also where that is an older job, which is known."""
    older, newer = finished(client), finished(client, spec=spec_of(1, commit="d" * 40))
    assert about(client, older)["replaced"] == str(newer)
    assert client.create_job(spec_of(1), 1) == (older, False)
    assert "replaced" not in about(client, older)
    assert about(client, newer)["replaced"] == str(older)
    assert redo(client, deliveries, newer) is Redo.STAYS
    assert redo(client, deliveries, older) is Redo.AGAIN


def test_a_damaged_file_of_a_forgotten_job_is_nobodys(
    client: RedisClient, deliveries: RedisDeliveries, redis: redis_py.Redis
) -> None:
    job = finished(client)
    token = owed_token(client, "ab12", job, 0)
    client.forget(job)
    before = dump(redis)
    assert deliveries.redo("ab12", token, failure()) is Redo.STALE
    assert dump(redis) == before


@pytest.mark.parametrize(
    "name", ["delayed", "fair", "ended", "owed:ab12", "job:1:done", "job:1:tries", "job:1:why", "job:1:tasks"]
)
def test_a_damaged_file_that_meets_a_key_of_a_wrong_type(
    client: RedisClient, deliveries: RedisDeliveries, redis: redis_py.Redis, name: str
) -> None:
    job = finished(client)
    token = owed_token(client, "ab12", job, 1)
    before = counted(client, job)
    redis.delete(f"{NS}{name}")
    redis.rpush(f"{NS}{name}", "somebody's")
    answer = deliveries.redo("ab12", token, failure())
    lost = {"owed:ab12": Redo.STALE, "job:1:done": Redo.STAYS, "job:1:tasks": Redo.STALE}
    assert answer is lost.get(name, Redo.AGAIN)
    assert counted(client, job) == (before if name in lost else ("running", "2", "1", "2", "2"))
    redis.flushall()
