"""Things in Redis that we did not write: none of them stops a worker, and all of them can be looked at."""

from __future__ import annotations

from importlib.resources import files

import pytest
import redis as redis_py

from distributed_downloader.models import JobState, TaskStatus
from distributed_downloader.redis_client import RedisClient, Settled
from distributed_downloader.redis_deliveries import RedisDeliveries
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_view import RedisView
from tests.queue.base import LITTER, complete, spec_of
from tests.queue.invariants import check
from tests.queue.invariants import take as snapshot
from tests.queue.steps import NS, a_job, a_split_job, a_worker, about, clock, failure, seal_of, take, take_all


def poison(redis_client: redis_py.Redis) -> list[str]:
    found: list[str] = redis_client.lrange(f"{NS}poison", 0, -1)  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("litter", LITTER, ids=ascii)
def test_what_is_no_token_is_put_aside(client: RedisClient, redis: redis_py.Redis, litter: str) -> None:
    a_job(client, 1)
    a_worker(client)
    redis.rpush(f"{NS}ready", litter)
    token = client.claim("w1", 1)
    assert token == litter
    assert client.begin("w1", token) is None
    assert not redis.exists(f"{NS}active:w1")
    of_another_queue = litter == "999.0.0"  # well formed, of a job that may have been forgotten
    assert poison(redis) == ([] if of_another_queue else [litter])
    assert complete(client, "w1", str(take(client).token), 0, "h1") is Settled.DONE


def test_a_bitmap_that_somebody_overwrote_is_met_before_a_task_is_taken(
    client: RedisClient, redis: redis_py.Redis
) -> None:
    job = a_job(client, 3)
    a_worker(client)
    tokens = [str(task.token) for task in take_all(client)]
    redis.rpush(f"{NS}job:{job}:done", "junk")
    for token in tokens:
        assert complete(client, "w1", token, 0, "h1") is Settled.DONE
    found = about(client, job)
    assert (found["state"], found["out"], found["done"]) == ("done", "0", "3")


@pytest.mark.parametrize("litter", LITTER, ids=ascii)
def test_nor_does_it_get_far_in_other_ways(client: RedisClient, redis: redis_py.Redis, litter: str) -> None:
    job = a_job(client, 2)
    a_worker(client)
    for put in (
        lambda: client.release("w1", [litter]),
        lambda: complete(client, "w1", litter, 1, "h1"),
        lambda: client.fail("w1", litter, failure(), 1.0),
    ):
        redis.lpush(f"{NS}active:w1", litter)
        put()
        assert not redis.exists(f"{NS}active:w1")
    redis.rpush(f"{NS}ready", litter)
    client.control("pause", job)
    client.control("resume", job)
    redis.zadd(f"{NS}delayed", {litter: 0})
    redis.zadd(f"{NS}parked:h1", {litter: 0})
    redis.sadd(f"{NS}parked", "h1")
    assert client.home("w1", "h1") is None
    redis.zadd(f"{NS}parked:h1", {litter: 0})
    redis.sadd(f"{NS}parked", "h1")
    redis.lpush(f"{NS}active:w1", litter)
    clock(client, 10**15)
    client.tick()
    assert not redis.exists(f"{NS}delayed", f"{NS}parked:h1", f"{NS}active:w1")
    counters = about(client, job)
    assert (int(counters["pending"]) + int(counters["out"]), counters["failed"]) == (2, "0")
    redis.lrem(f"{NS}ready", 0, litter)
    check(snapshot(redis, NS))


def test_what_is_put_aside_is_bounded(client: RedisClient, redis: redis_py.Redis) -> None:
    a_worker(client)
    for n in range(120):
        redis.lpush(f"{NS}active:w1", f"junk {n}")
        client.release("w1", [f"junk {n}"])
    assert len(poison(redis)) == 100
    assert poison(redis)[0] == "junk 119"


def test_a_token_of_a_done_task_is_put_aside(client: RedisClient, redis: redis_py.Redis) -> None:
    job = a_job(client, 1)
    a_worker(client)
    complete(client, "w1", str(take(client).token), 0, "h1")
    client.commands.hset(f"{NS}job:{job}", "state", "running")
    redis.rpush(f"{NS}ready", f"{job}.0.7")
    assert client.begin("w1", str(client.claim("w1", 1))) is None
    assert poison(redis) == [f"{job}.0.7"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no tabs",
        "x\t\tpath",
        "-1\t\tpath",
        "5\tnot a hash\tpath",
        "5\t\t",
        "5\t\t\udcff\udcfe",
        "5\t\tpath\tpart=0+5",
        f"{2**53 + 1}\t\tpath",
    ],
    ids=ascii,
)
def test_a_descriptor_that_cannot_be_read_fails_for_good(
    client: RedisClient, redis: redis_py.Redis, line: str
) -> None:
    job = a_job(client, 2)
    a_worker(client)
    redis.hset(f"{NS}job:{job}:tasks", "0", line)
    assert client.begin("w1", str(client.claim("w1", 1))) is None
    assert complete(client, "w1", str(take(client).token), 1, "h1") is Settled.DONE
    view = RedisView(client)
    (reason,) = view.failures(job)
    assert "cannot be read; `forget` the job" in reason.error
    assert view.job(job).state is JobState.FAILED
    assert [file.status for file in view.files(job)] == [TaskStatus.FAILED, TaskStatus.DONE]


def test_a_descriptor_that_is_gone_fails_for_good(client: RedisClient, redis: redis_py.Redis) -> None:
    job = a_job(client, 1)
    a_worker(client)
    redis.hdel(f"{NS}job:{job}:tasks", "0")
    assert client.begin("w1", str(client.claim("w1", 1))) is None
    assert about(client, job)["state"] == "failed"


@pytest.mark.parametrize("spec", ["", "{}", "[1]", "\udcff", '{"repo_type": "model"}'], ids=ascii)
def test_a_spec_that_cannot_be_read_fails_its_own_tasks_only(
    client: RedisClient, redis: redis_py.Redis, spec: str
) -> None:
    bad, good = a_job(client, 2, spec=spec_of(1)), a_job(client, 2, spec=spec_of(2))
    a_worker(client)
    redis.hset(f"{NS}job:{bad}", "spec", spec)
    begun = [client.begin("w1", str(client.claim("w1", 1))) for _ in range(4)]
    assert [task.token.job for task in begun if task] == [good, good]
    assert about(client, bad)["failed"] == "2"
    assert [job.id for job in RedisView(client).jobs()] == [good]


@pytest.mark.parametrize("spec", ["", "{}", "x" * (2 << 20)], ids=["none", "empty", "endless"])
def test_more_than_one_task_does_not_get_the_spec_of_another_job(
    client: RedisClient, redis: redis_py.Redis, spec: str
) -> None:
    good, bad = a_job(client, 2, spec=spec_of(1)), a_job(client, 2, spec=spec_of(2))
    a_worker(client, slots=8)
    redis.hset(f"{NS}job:{bad}", "spec", spec)
    begun = client.more("w1", 8)
    assert [(task.token.job, task.spec) for task in begun] == [(good, spec_of(1))] * 2
    assert about(client, bad)["failed"] == "2"


@pytest.mark.parametrize("field", ["pending", "out", "done", "bytes_done", "weight", "vtime", "total"])
def test_a_number_that_is_none_does_not_stop_the_others(
    client: RedisClient, redis: redis_py.Redis, field: str
) -> None:
    bad, good = a_job(client, 200, spec=spec_of(1)), a_job(client, 200, spec=spec_of(2))
    a_worker(client)
    redis.hset(f"{NS}job:{bad}", field, "many")
    done = 0
    for _ in range(400):
        client.tick()
        if (token := client.commands.rpoplpush(f"{NS}ready", f"{NS}active:w1")) is None:
            break
        if task := client.begin("w1", str(token)):
            done += (
                complete(client, "w1", str(task.token), 1, "h1") is Settled.DONE and task.token.job == good
            )
    assert done == 200
    assert about(client, good)["state"] == "done"
    if field in ("pending", "out", "done", "bytes_done"):
        assert any(f"job:{bad} {field}: many" in line for line in poison(redis))


ADD = (files("distributed_downloader") / "lua/_common.lua").read_text() + "return add('{x}h', 'n', 1)"


@pytest.mark.parametrize(
    ("value", "left"),
    [("7", 8), ("-1", 0), ("many", 1), ("1.5", 1), ("", 1), (str(2**63 - 1), 1), ("9" * 30, 1)],
)
def test_a_counter_that_is_no_number_begins_anew(redis: redis_py.Redis, value: str, left: int) -> None:
    redis.hset("{x}h", "n", value)
    assert redis.eval(ADD, 1, "{x}", "") == left
    assert redis.hget("{x}h", "n") == str(left)
    assert redis.lrange("{x}poison", 0, -1) == ([f"{{x}}h n: {value}"] if left == 1 else [])


@pytest.mark.parametrize(
    ("spoil", "mend", "error"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "OOM|maxmemory"),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "read only|READONLY"),
        (("RENAME", "{x}s", "{x}h"), ("DEL", "{x}h"), "WRONGTYPE"),
        (("ACL", "SETUSER", "default", "-hincrby"), ("ACL", "SETUSER", "default", "+@all"), "can't run|ACL"),
    ],
    ids=["full", "replica", "wrong type", "not permitted"],
)
def test_a_counter_is_not_written_over_for_another_reason(
    redis: redis_py.Redis, spoil: tuple[str, ...], mend: tuple[str, ...], error: str
) -> None:
    redis.hset("{x}h", "n", 7)
    redis.set("{x}s", "kept")
    redis.execute_command(*spoil)  # type: ignore[no-untyped-call]
    try:
        with pytest.raises(redis_py.ResponseError, match=error):
            redis.eval(ADD, 1, "{x}", "")
        kept = redis.hget("{x}h", "n") if spoil[0] != "RENAME" else redis.get("{x}h")
    finally:
        redis.execute_command(*mend)  # type: ignore[no-untyped-call]
    assert kept == ("7" if spoil[0] != "RENAME" else "kept")
    assert redis.exists("{x}poison") == 0


def test_tries_that_are_no_number_count_from_one(client: RedisClient, redis: redis_py.Redis) -> None:
    job = a_job(client, 1)
    a_worker(client)
    redis.hset(f"{NS}job:{job}:tries", "0", "several")
    task = take(client)
    assert task.tries == 0
    client.fail("w1", str(task.token), failure(), 1.0)
    assert redis.hget(f"{NS}job:{job}:tries", "0") == "1"


def test_a_window_that_is_no_number_is_replaced(client: RedisClient, redis: redis_py.Redis) -> None:
    redis.set(f"{NS}window", "wide")
    a_job(client, 100)
    assert redis.llen(f"{NS}ready") == 8
    a_worker(client)
    assert len(take_all(client)) == 100


# -- what belongs to split files ------------------------------------------------------------------

NONSENSE = ("", "several", "-3", "1.5", "\udcff", "9" * 30, "nan")


@pytest.mark.parametrize("nonsense", NONSENSE, ids=ascii)
@pytest.mark.parametrize("where", ["seals", "sealer", "records", "held"])
def test_a_split_file_ends_whatever_stands_beside_it(
    client: RedisClient, redis: redis_py.Redis, where: str, nonsense: str
) -> None:
    """The seal proves the file, so the worst that may come of it is that bytes are fetched again."""
    a_worker(client)
    a_worker(client, "w2")
    parts = RedisParts(client)
    job, (first, second) = a_split_job(client)
    other = a_job(client, 1, spec=spec_of(2))
    redis.hset(f"{NS}job:{job}:{where}", "0", nonsense)
    parts.progress("w1", {str(first.token): (0, 1)})
    assert parts.of_file("w1", job, 0, 0)
    for token in (str(first.token), str(second.token)):
        assert complete(client, "w1", token, 0, "h1") in (Settled.DONE, Settled.SEALER)
    for _ in range(3):
        client.commands.delete(f"{NS}tick")
        client.tick()
        for worker in ("w1", "w2"):
            while (token_ := redis.rpoplpush(f"{NS}ready", f"{NS}active:{worker}")) is not None:
                client.begin(worker, str(token_))
            for held in redis.lrange(f"{NS}active:{worker}", 0, -1):
                complete(client, worker, str(held), 0, "h1")
    assert about(client, other)["state"] == "done"
    assert about(client, job)["done"] == "3"


@pytest.mark.parametrize("nonsense", NONSENSE, ids=ascii)
def test_tails_of_nothing_are_dropped(client: RedisClient, redis: redis_py.Redis, nonsense: str) -> None:
    a_worker(client)
    a_worker(client, "w2")
    parts = RedisParts(client)
    _, (first, second) = a_split_job(client)
    token = str(first.token)
    parts.progress("w1", {token: (0, 1), str(second.token): (0, 1)})
    for litter in (nonsense, *LITTER, "1.1.9"):
        redis.zadd(f"{NS}tails", {litter: 10**12})
        redis.hset(f"{NS}progress", litter, f"w1 0 1 {10**12} {10**12}")
    redis.hset(f"{NS}progress", token, nonsense)
    redis.zadd(f"{NS}tails", {token: 10**11})
    assert parts.steal("w2", 0).token, "the other one"
    assert redis.zcard(f"{NS}tails") == redis.hlen(f"{NS}progress") == 2
    assert parts.progress("w1", {token: (0, 1)}), "and the first is back with its next report"


@pytest.mark.parametrize(
    "line", [*NONSENSE, "\tpart=0+5\tseal=0\tplace=ab", "x\ty\tz\tpart=a+b\tseal=c\tplace=d"], ids=ascii
)
def test_a_part_that_cannot_be_read_fails_its_job_only(
    client: RedisClient, redis: redis_py.Redis, line: str
) -> None:
    a_worker(client)
    parts = RedisParts(client)
    job, (first, second) = a_split_job(client)
    client.release("w1", [str(first.token)])
    redis.hset(f"{NS}job:{job}:tasks", mapping={"1": line})
    parts.progress("w1", {str(second.token): (0, 1)})
    assert client.begin("w1", str(client.claim("w1", 1))) is None
    complete(client, "w1", str(second.token), 0, "h1")
    assert about(client, job)["state"] == "failed"
    assert "cannot be read" in RedisView(client).failures(job)[0].error


@pytest.mark.parametrize(
    "litter",
    ["junk", "1", "1.0", "1.x.0", "999.0.0", "1.00.0", "1.99999999999999999999.0", "\udcff"],
    ids=ascii,
)
def test_what_nobody_owes_is_dropped(client: RedisClient, redis: redis_py.Redis, litter: str) -> None:
    a_worker(client)
    job = a_job(client, 1)
    complete(client, "w1", str(take(client).token), 0, "h1", owes="ab12 /data")
    redis.zadd(f"{NS}owed:ab12", {litter: 0})
    deliveries = RedisDeliveries(client)
    assert [owed.token.task for owed in deliveries.take_owed("ab12", 10, 60, ended_only=False)] == [0]
    assert redis.zcard(f"{NS}owed:ab12") == 1
    assert about(client, job)["owed"] == "1"


def test_a_file_of_which_nobody_knows_what_it_is_is_not_owed_for_ever(
    client: RedisClient, redis: redis_py.Redis
) -> None:
    a_worker(client)
    job = a_job(client, 1)
    complete(client, "w1", str(take(client).token), 0, "h1", owes="ab12 /data")
    redis.hdel(f"{NS}job:{job}:tasks", "0")
    assert RedisDeliveries(client).take_owed("ab12", 10, 60, ended_only=False) == []
    assert about(client, job)["state"] == "done"


@pytest.mark.parametrize("line", ["", "no tabs", "5\tnot a hash\tpath", "5\t\t\udcff"], ids=ascii)
def test_a_debt_that_cannot_be_read_does_not_stop_the_others(
    client: RedisClient, redis: redis_py.Redis, line: str
) -> None:
    a_worker(client)
    job = a_job(client, 2)
    for _ in range(2):
        complete(client, "w1", str(take(client).token), 0, "h1", owes="ab12 /data")
    redis.hset(f"{NS}job:{job}:tasks", "0", line)
    deliveries = RedisDeliveries(client)
    (owed,) = deliveries.take_owed("ab12", 10, 60, ended_only=False)
    assert owed.token.task == 1
    assert deliveries.delivered("ab12", owed.token)
    assert about(client, job)["state"] == "delivering"


@pytest.mark.parametrize("nonsense", [*NONSENSE, "²", "3", "3 - -", "x y z a"], ids=ascii)
def test_a_member_of_the_fleet_that_cannot_be_read_has_one_slot(
    client: RedisClient, redis: redis_py.Redis, nonsense: str
) -> None:
    a_worker(client)
    redis.hset(f"{NS}fleet", "w1", nonsense)
    (member,) = RedisParts(client).fleet()
    assert member.worker == "w1"
    assert member.slots >= 1 or nonsense.startswith("0")
    client.commands.delete(f"{NS}tick")
    client.tick()
    assert RedisView(client).queue().workers == 1


@pytest.mark.parametrize("field", ["parts", "parts_done", "owed", "delivered", "bytes_delivered", "held"])
def test_a_counter_of_parts_or_deliveries_that_is_none(
    client: RedisClient, redis: redis_py.Redis, field: str
) -> None:
    a_worker(client)
    job, tasks = a_split_job(client)
    good = a_job(client, 2, spec=spec_of(2))
    client.control("pause", good)
    redis.hset(f"{NS}job:{job}", field, "many")
    parts = RedisParts(client)
    parts.progress("w1", {str(tasks[0].token): (0, 1)})
    tail = parts.steal("w1", 0).token
    assert tail
    client.control("resume", good)
    for token in (tail, *(str(task.token) for task in tasks)):
        complete(client, "w1", token, 0, "h1")
    complete(client, "w1", seal_of(client, job), 0, "h1", owes="ab12 /data")
    for owed in RedisDeliveries(client).take_owed("ab12", 1, 60, ended_only=False):
        RedisDeliveries(client).delivered("ab12", owed.token)
    for task in take_all(client):
        complete(client, "w1", str(task.token), 0, "h1")
    assert about(client, good)["state"] == "done"
    assert any(f"job:{job} {field}: many" in line for line in poison(redis))
