"""The arrows around split files: split, progress, steal, the last part and its seal, blind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as redis_py

from distributed_downloader.models import DownloadTask, JobState, Part, RepoFile, Token
from distributed_downloader.outcome import Range
from distributed_downloader.queue_terms import Blind, FileParts, Member, Split, Tail
from distributed_downloader.redis_client import Limits, RedisClient, Settled, Verdict
from distributed_downloader.redis_parts import RedisParts
from tests.queue.base import complete, spec_of, status_of
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
    files,
    keys,
    record,
    seal_of,
    take,
    take_all,
)
from tests.servers import Server

START = 1_000_000_000
MB = 1_000_000


@pytest.fixture
def client(server: Server, redis: redis_py.Redis) -> Iterator[RedisClient]:
    """The product's client, with a clock that the test moves; everything is checked in the end."""
    made = RedisClient(server.config, limits=Limits(tick=0))
    clock(made, START)
    yield made
    check(snapshot(redis, NS))
    made.close()


@pytest.fixture
def parts(client: RedisClient) -> RedisParts:
    a_worker(client, "w1")
    a_worker(client, "w2")
    return RedisParts(client)


def part_of(task: DownloadTask) -> Part:
    assert task.about.part
    return task.about.part


def steal(parts: RedisParts, client: RedisClient, worker: str, speed: float = 0) -> DownloadTask | None:
    """Take a tail and begin it."""
    token, _ = parts.steal(worker, speed)
    task = client.begin(worker, token) if token else None
    assert (token is None) == (task is None)
    return task


# -- split ----------------------------------------------------------------------------------------


def test_a_file_becomes_parts_and_a_seal_that_waits(client: RedisClient, parts: RedisParts) -> None:
    job, tasks = a_split_job(client, parts=3, size=100)
    assert [part_of(task) for task in tasks] == [
        Part(start=0, length=33, seal=0),
        Part(start=33, length=33, seal=0),
        Part(start=66, length=34, seal=0),
    ]
    assert {(task.file.path, task.file.size, task.about.place) for task in tasks} == {("big", 100, "ab12")}
    found = about(client, job)
    assert (found["total"], found["parts"], found["held"], found["out"]) == ("4", "3", "1", "3")
    assert (found["bytes"], found["bytes_done"]) == ("100", "0")


def test_a_split_whose_reply_is_lost_is_done_all_the_same(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    """The caller hears "not yours (any more)", which is true: it goes on with the next claim."""
    a_job(client, 1)
    token = str(take(client).token)
    assert parts.split("w1", token, "ab12", [Range(0, 1)])
    before = dump(redis)
    assert not parts.split("w1", token, "ab12", [Range(0, 1)])
    assert not parts.split("w2", token, "ab12", [Range(0, 1)])
    assert dump(redis) == before


def test_what_is_there_already_counts_and_is_told(client: RedisClient, parts: RedisParts) -> None:
    job = a_job(client, 0, seal=False)
    client.submit(job, 0, [RepoFile(path="big", size=100)], "d")
    written = [Range(0, 30), Range(60, 30)]
    missing = [Range(30, 30), Range(90, 10)]
    assert parts.split("w1", str(take(client).token), "ab12", missing, written=written)
    assert about(client, job)["bytes_done"] == "60"
    assert parts.of_file("w1", job, 0, 0) == FileParts(JobState.RUNNING, 2, "", written, 1)
    first, second = take_all(client)
    complete(client, "w1", str(first.token), 0, "h1", written=True)
    complete(client, "w1", str(second.token), 0, "h1", written=True)
    assert about(client, job)["bytes_done"] == "100"


@pytest.mark.parametrize("state", ["running", "paused", "cancelled"])
def test_a_file_of_which_nothing_is_missing_is_sealed_next(
    client: RedisClient, parts: RedisParts, state: str
) -> None:
    job = a_job(client, 2)
    take(client)
    token = str(take(client).token)
    if state != "running":
        client.control("pause" if state == "paused" else "cancel", job)
    assert parts.split("w1", token, "ab12", [])
    assert about(client, job)["bytes_done"] == "1"
    if state != "running":
        assert client.commands.llen(f"{NS}ready") == 0
        client.control("resume", job)
    task = take(client)
    assert (task.token.task, str(task.token) > token, task.about.is_seal) == (1, True, True)


def test_a_listing_goes_on_behind_parts(client: RedisClient, parts: RedisParts) -> None:
    job = a_job(client, 2, seal=False)
    empty, one = take_all(client)
    parts.split("w1", str(empty.token), "ab12", [])
    parts.split("w1", str(one.token), "ab12", [Range(0, 1)])
    assert client.listed(job) == (2, "digest", False)
    assert not client.submit(job, 3, files(1, 2), "the tasks are not the files")
    assert client.submit(job, 2, files(2, 2), "more")
    assert not client.submit(job, 2, files(2, 2), "more")
    assert client.listed(job) == (4, "more", False)
    client.seal(job, 4)
    while tasks := take_all(client):
        for task in tasks:
            complete(client, "w1", str(task.token), task.about.size, "h1")
    found = about(client, job)
    assert (found["state"], found["done"], found["bytes_done"]) == ("done", "5", found["bytes"])


def test_a_file_has_so_many_parts_at_most(client: RedisClient, parts: RedisParts) -> None:
    job = a_job(client, 0, seal=False)
    client.submit(job, 0, [RepoFile(path="big", size=2048)], "digest")
    token = str(take(client).token)
    with pytest.raises(ValueError, match="2048 parts at most, not 2049"):
        parts.split("w1", token, "ab12", [Range(n, 1) for n in range(2049)])
    assert parts.split("w1", token, "ab12", [Range(n, 1) for n in range(2048)])
    assert [part_of(task).start for task in take_all(client)] == list(range(2048))


def test_a_split_job_that_was_forgotten_leaves_nothing(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    job, (first, second, third) = a_split_job(client, parts=3)
    parts.progress("w1", {str(first.token): (5, 1), str(second.token): (5, 1)})
    complete(client, "w1", str(third.token), 0, "h1")
    client.forget(job)
    assert not [name for name in keys(redis) if name.startswith("job:")]
    assert parts.progress("w1", {str(first.token): (6, 1)}) == {}
    assert parts.steal("w2", 0) == Tail(None, True)
    assert parts.of_file("w1", job, 0, 0) is None
    assert complete(client, "w1", str(first.token), 0, "h1") is Settled.STALE
    client.leave("w1")
    assert not redis.exists(f"{NS}tails", f"{NS}progress", f"{NS}active:w1")


# -- two jobs, one file ---------------------------------------------------------------------------


def test_one_job_at_a_time_puts_a_file_together(client: RedisClient, parts: RedisParts) -> None:
    """Two would write into one file, and one would publish what the other still writes."""
    a_worker(client)
    one, two = a_big_file(client, 1), a_big_file(client, 2)
    first, second = take_all(client)
    assert parts.split("w1", str(first.token), "ab12", [Range(0, 1)], file="f") is Split.DONE
    assert parts.split("w1", str(second.token), "ab12", [Range(0, 1)], file="f") is Split.WAITS
    assert about(client, two)["delayed"] == "1"
    part = take(client)
    complete(client, "w1", str(part.token), 0, "h1")
    complete(client, "w1", str(take(client).token), 0, "h1")
    assert about(client, one)["state"] == "done"
    assert not client.commands.exists(f"{NS}splitting")
    again = come_back(client, two)
    assert parts.split("w1", str(again.token), "ab12", [Range(0, 1)], file="f") is Split.DONE


@pytest.mark.parametrize("end", ["forget", "cancel"])
def test_a_job_that_is_no_more_gives_way(client: RedisClient, parts: RedisParts, end: str) -> None:
    a_worker(client)
    one, two = a_big_file(client, 1), a_big_file(client, 2)
    first, second = take_all(client)
    assert parts.split("w1", str(first.token), "ab12", [Range(0, 1)], file="f") is Split.DONE
    part = take(client)
    assert client.forget(one) if end == "forget" else client.control("cancel", one)
    assert parts.split("w1", str(second.token), "ab12", [Range(0, 1)], file="f") is Split.DONE
    client.release("w1", [str(part.token)])
    if client.control("resume", one):
        begun = [client.begin("w1", token) for _ in range(2) if (token := client.claim("w1", 1))]
        assert [task.token.job for task in begun if task] == [two], "and when it comes back, it waits"
        assert about(client, one)["delayed"] == "1"


def a_big_file(client: RedisClient, n: int) -> int:
    job = a_job(client, 0, spec=spec_of(n), seal=False)
    client.submit(job, 0, [RepoFile(path="big", size=1)], "d")
    client.seal(job, 1)
    return job


def come_back(client: RedisClient, job: int) -> DownloadTask:
    """Let the time pass after which a task is tried again, and take it."""
    with client.commands.pipeline() as pipe:
        for token in client.commands.zrange(f"{NS}delayed", 0, -1):
            pipe.zadd(f"{NS}delayed", {str(token): 0})
        pipe.delete(f"{NS}tick")
        pipe.execute()
    client.tick()
    task = take(client)
    assert task.token.job == job
    return task


# -- the seal -------------------------------------------------------------------------------------


def test_the_first_to_finish_a_part_prepares_the_seal_and_gets_it(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    """I8."""
    job, tasks = a_split_job(client, parts=3)
    for n, (task, answer) in enumerate(
        zip(tasks, [Settled.SEALER, Settled.SEALER, Settled.DONE], strict=True)
    ):
        assert parts.of_file("w1", job, 0, 0) == FileParts(
            JobState.RUNNING, 3 - n, "", [record(each) for each in tasks[:n]], n
        )
        assert complete(client, "w1", str(task.token), 0, "h1", written=True) is answer
    before = dump(redis)
    found = parts.of_file("w1", job, 0, 2)
    assert found == FileParts(JobState.RUNNING, 0, seal_of(client, job), [record(tasks[2])], 1)
    assert parts.of_file("w2", job, 0, 3) == FileParts(JobState.RUNNING, 0, "", [], 0)
    assert dump(redis) == before, "to look changes nothing"
    seal = client.begin("w1", seal_of(client, job))
    assert seal
    assert seal.about.is_seal
    assert complete(client, "w1", str(seal.token), 0, "h1") is Settled.DONE
    assert parts.of_file("w1", job, 0, 0) is None
    assert about(client, job)["state"] == "done"


def test_who_prepares_the_seal_is_told_again_after_a_lost_reply(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    job, (first, second) = a_split_job(client)
    args = ("w1", str(first.token), 0, "h1")
    assert complete(client, *args) is Settled.SEALER
    before = dump(redis)
    assert complete(client, *args) is Settled.SEALER
    assert complete(client, "w2", str(first.token), 0, "h1") is Settled.ALREADY_DONE
    assert dump(redis) == before
    assert complete(client, "w1", str(second.token), 0, "h1") is Settled.DONE
    assert complete(client, *args) is Settled.ALREADY_DONE, "there is nothing left to prepare"
    assert about(client, job)["parts_done"] == "2"


def test_another_takes_the_place_of_a_dead_preparer(client: RedisClient, parts: RedisParts) -> None:
    job, tasks = a_split_job(client, parts=3)
    assert complete(client, "w1", str(tasks[0].token), 0, "h1") is Settled.SEALER
    client.leave("w1")
    second, third = take_all(client, "w2")
    assert complete(client, "w2", str(second.token), 0, "h2") is Settled.SEALER
    assert complete(client, "w2", str(third.token), 0, "h2") is Settled.DONE
    assert client.beat("w2", "h2").tokens == {seal_of(client, job): JobState.RUNNING}  # type: ignore[union-attr]


@pytest.mark.parametrize("why", ["dead", "paused"])
def test_a_seal_that_nobody_can_have_at_once_goes_into_the_queue(
    client: RedisClient, parts: RedisParts, why: str
) -> None:
    job, (first, second) = a_split_job(client)
    complete(client, "w1", str(first.token), 0, "h1")
    if why == "paused":
        client.control("pause", job)
        assert complete(client, "w1", str(second.token), 0, "h1") is Settled.DONE
        assert client.commands.llen(f"{NS}ready") == client.commands.llen(f"{NS}active:w1") == 0
        client.control("resume", job)
    else:
        client.leave("w1")
        assert complete(client, "w2", str(take(client, "w2").token), 0, "h2") is Settled.DONE
    assert str(take(client, "w2").token) == seal_of(client, job)


def test_a_file_of_one_part_has_no_preparer(client: RedisClient, parts: RedisParts) -> None:
    job, (only,) = a_split_job(client, parts=1)
    assert complete(client, "w1", str(only.token), 0, "h1") is Settled.DONE
    assert str(take(client, "w2").token) == seal_of(client, job)


def test_a_seal_that_its_worker_does_not_know_of_goes_to_others(
    client: RedisClient, parts: RedisParts
) -> None:
    """The heartbeat finds it in the list twice, and gives it back."""
    job, (first, second) = a_split_job(client)
    complete(client, "w1", str(first.token), 0, "h1")
    complete(client, "w1", str(second.token), 0, "h1")
    sealed = Token.parse(seal_of(client, job))
    assert client.release("w1", [str(sealed)]) == 1
    assert take(client, "w2").token == sealed._replace(epoch=sealed.epoch + 1)


def test_a_part_that_fails_fails_the_job_and_its_retry_brings_the_seal_along(
    client: RedisClient, parts: RedisParts
) -> None:
    job, (first, *others) = a_split_job(client, parts=3)
    for part in others:
        complete(client, "w1", str(part.token), 0, "h1")
    assert client.fail("w1", str(first.token), failure(), None) is Verdict.BURIED
    found = about(client, job)
    assert (found["state"], found["held"], found["failed"]) == ("failed", "1", "1")
    assert client.control("retry", job)
    assert complete(client, "w1", str(take(client).token), 0, "h1") is Settled.DONE
    assert client.beat("w1", "h1").tokens == {seal_of(client, job): JobState.RUNNING}  # type: ignore[union-attr]
    client.fail("w1", seal_of(client, job), failure(), None)
    assert parts.of_file("w1", job, 0, 0) is None
    assert about(client, job)["state"] == "failed"
    client.control("retry", job)
    assert complete(client, "w1", str(take(client).token), 0, "h1") is Settled.DONE
    assert about(client, job)["state"] == "done"


def test_a_lost_part_is_buried_under_the_name_of_its_file(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    job, _ = a_split_job(client, parts=1)
    for _ in range(10):
        redis.rpoplpush(f"{NS}ready", f"{NS}active:w1")
        clock(client, int(client.scripts.now) + 30_001)
        client.tick()
        a_worker(client)
    assert about(client, job)["state"] == "failed"
    assert '"path":"big"' in str(redis.hget(f"{NS}job:{job}:failed", "1"))


# -- progress and tails ---------------------------------------------------------------------------


def test_progress_tells_what_is_ours_and_how_long_it_is(client: RedisClient, parts: RedisParts) -> None:
    whole = a_job(client, 1)
    file = str(take(client).token)
    client.forget(whole)
    _, (first, second) = a_split_job(client)
    asked = {str(first.token): (5, 7.9), str(second.token): (0, 1.0), file: (1, 1.0), "9.9.9": (1, 1.0)}
    assert parts.progress("w1", asked) == {str(first.token): 50 * MB, str(second.token): 50 * MB}
    assert parts.progress("w2", asked) == {}
    client.release("w1", [str(first.token)])
    assert parts.progress("w1", asked) == {str(second.token): 50 * MB}
    assert parts.progress("w1", {}) == {}


@pytest.mark.parametrize(
    "how",
    [
        (0, 1, 0, 50),  # nobody knows anything: half
        (0, 1, 10 * MB, 50),  # its own speed is not known yet
        (20 * MB, MB, 0, 60),  # half of what is left
        (20 * MB, MB, 3 * MB, 40),  # a quarter of what is left
        (20 * MB, 9 * MB, MB, 92),  # nine tenths of what is left
    ],
)
def test_both_ends_are_done_at_the_same_time(
    client: RedisClient, parts: RedisParts, how: tuple[int, int, int, int]
) -> None:
    done, rate, speed, kept = how
    job, (task,) = a_split_job(client, parts=1)
    token = str(task.token)
    parts.progress("w1", {token: (done, rate)})
    tail = steal(parts, client, "w2", speed)
    assert tail
    assert (tail.token.task, tail.token.epoch, tail.tries) == (2, START, 0)
    (length,) = parts.progress("w1", {token: (done, rate)}).values()
    assert abs(length - kept * MB) <= 65536
    assert part_of(tail) == Part(start=length, length=100 * MB - length, seal=0)
    assert (part_of(tail).start % 65536 == 0) == (rate > 0)
    found = about(client, job)
    assert (found["total"], found["parts"], found["out"], found["held"]) == ("3", "2", "2", "1")
    assert complete(client, "w1", token, 0, "h1") is Settled.SEALER
    assert about(client, job)["bytes_done"] == str(length), "not what the worker says"
    assert complete(client, "w2", str(tail.token), 0, "h2") is Settled.DONE
    assert about(client, job)["bytes_done"] == str(100 * MB)


def test_a_fast_part_is_further_than_it_said(client: RedisClient, parts: RedisParts) -> None:
    _, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (0, 10 * MB)})
    clock(client, START + 4000)
    tail = steal(parts, client, "w2")
    assert tail
    assert abs(part_of(tail).start - 70 * MB) <= 65536


@pytest.mark.parametrize(("done", "kept"), [(80_000, 1), (120_000, 1), (150_000, 2)])
def test_a_slow_machine_does_not_even_finish_its_block(
    client: RedisClient, parts: RedisParts, done: int, kept: int
) -> None:
    """It would take 1.3 s at 50 kB/s."""
    _, (task,) = a_split_job(client, parts=1, size=4 * 65536)
    parts.progress("w1", {str(task.token): (done, 50_000)})
    tail = steal(parts, client, "w2", MB)
    assert tail
    assert part_of(tail).start == kept * 65536


def test_whose_speed_is_not_known_is_taken_for_one_of_the_others(
    client: RedisClient, parts: RedisParts
) -> None:
    """A slow machine must not take half of what a quick one has just begun."""
    _, (known, begun) = a_split_job(client, parts=2, size=20 * MB)
    parts.progress("w1", {str(known.token): (9_900_000, MB), str(begun.token): (0, 1)})
    tail = steal(parts, client, "w2", 250_000)
    assert tail
    assert abs(part_of(tail).length - 2 * MB) <= 65536


def test_of_a_part_that_is_late_nobody_knows_more_than_was_said(
    client: RedisClient, parts: RedisParts
) -> None:
    _, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (99 * MB, MB)})
    clock(client, START + 1200)
    assert parts.steal("w2", MB) == Tail(None, True), "it may just be done"
    clock(client, START + 1400)
    tail = steal(parts, client, "w2", MB)
    assert tail
    left = 100 * MB - part_of(tail).start
    assert abs(left - MB * 1.4 / 2.4) <= 65536


def test_a_slow_machine_takes_no_tail_that_the_other_has_sooner(
    client: RedisClient, parts: RedisParts
) -> None:
    _, (task,) = a_split_job(client, parts=1, size=10 * 65536)
    parts.progress("w1", {str(task.token): (0, MB)})
    assert parts.steal("w2", 50_000) == Tail(None, True)


@pytest.mark.parametrize(
    "how", [(100_000, 0, 1), (100 * MB, 99 * MB + 400_000, 3 * MB), (100 * MB, 100 * MB, 0)]
)
def test_tails_that_are_not_worth_it_stay(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis, how: tuple[int, int, int]
) -> None:
    size, done, rate = how
    _, (task,) = a_split_job(client, parts=1, size=size)
    parts.progress("w1", {str(task.token): (done, rate)})
    before = dump(redis)
    assert parts.steal("w2", 10 * MB) == Tail(None, True)
    assert dump(redis) == before


def test_the_part_with_the_most_time_left_loses_first(client: RedisClient, parts: RedisParts) -> None:
    _, (quick, slow, begun) = a_split_job(client, parts=3)
    told = {quick: (0, 5 * MB), slow: (20 * MB, 100_000), begun: (0, 1)}
    parts.progress("w1", {str(task.token): how for task, how in told.items()})
    tails = [steal(parts, client, "w2", MB) for _ in range(3)]
    ends = [part_of(tail).end for tail in tails if tail]
    assert ends[0] == part_of(slow).end
    assert ends[1] == part_of(begun).end, "counted as one of 1 MB/s"


def test_a_tail_can_lose_its_tail(client: RedisClient, parts: RedisParts) -> None:
    _, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (0, 1)})
    a_worker(client, "w3")
    tails = [steal(parts, client, worker) for worker in ("w2", "w3", "w2", "w3")]
    lengths = sorted(part_of(tail).length for tail in tails if tail)
    assert len(lengths) == 4
    assert lengths[0] >= 12 * MB, "each time from the longest"


def test_other_work_comes_first(client: RedisClient, parts: RedisParts) -> None:
    _, (task,) = a_split_job(client, parts=1)
    assert parts.steal("w2", 0) == Tail(None, False), "nobody has said yet how far it is"
    parts.progress("w1", {str(task.token): (0, 1)})
    a_job(client, 1, spec=spec_of(2))
    assert parts.steal("w2", 0) == Tail(None, True)
    take(client, "w2")
    assert parts.steal("w2", 0).token


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_nobody_takes_from_a_job_that_does_not_run(client: RedisClient, parts: RedisParts, verb: str) -> None:
    """I6."""
    job, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (0, 1)})
    assert client.control(verb, job)  # type: ignore[arg-type]
    assert parts.steal("w2", 0) == Tail(None, True)
    client.control("resume", job)
    assert steal(parts, client, "w2")


def test_a_dead_worker_takes_nothing(client: RedisClient, parts: RedisParts) -> None:
    _, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (0, 1)})
    client.leave("w2")
    assert parts.steal("w2", 0) == Tail(None, True)


def test_from_a_silent_worker_a_part_is_taken_as_a_whole(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    job, (task,) = a_split_job(client, parts=1)
    token = str(task.token)
    parts.progress("w1", {token: (95 * MB, 1)})
    clock(client, START + 10_000)
    assert parts.steal("w1", 0).token is None, "nobody takes over from itself"
    whole = steal(parts, client, "w2")
    assert whole
    assert (whole.token, whole.about) == ((job, 1, START + 10_000), task.about)
    before = dump(redis)
    assert parts.progress("w1", {token: (96 * MB, 1)}) == {}, "so it must stop"
    assert complete(client, "w1", token, 0, "h1") is Settled.STALE
    assert client.fail("w1", token, failure(), 1.0) is Verdict.STALE
    assert dump(redis) == before
    assert complete(client, "w2", str(whole.token), 0, "h2") is Settled.DONE


def test_a_part_is_not_taken_for_ever(client: RedisClient, parts: RedisParts) -> None:
    """It may be the part that silences its workers; the fourth keeps it until it dies."""
    _, (task,) = a_split_job(client, parts=1)
    token, owner, other, taken = str(task.token), "w1", "w2", []
    for n in range(4):
        parts.progress(owner, {token: (MB, MB)})
        clock(client, START + (n + 1) * 10_000)
        client.beat("w1", "h1")
        client.beat("w2", "h1")
        if whole := steal(parts, client, other):
            token, owner, other = str(whole.token), other, owner
            taken.append(whole.token.epoch)
    assert taken == [START + 10_000, START + 20_000, START + 30_000]


@pytest.mark.parametrize("thief", ["w1", "w2"])
@pytest.mark.parametrize(("done", "kept"), [(0, 65536), (100, 65536), (200_000, 3 * 65536)])
def test_of_a_part_that_stalled_the_full_blocks_stay(
    client: RedisClient, parts: RedisParts, thief: str, done: int, kept: int
) -> None:
    _, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (done, 0)})
    tail = steal(parts, client, thief)
    assert tail
    assert (tail.token.task, part_of(tail).start) == (2, kept)


def test_a_tail_whose_reply_is_lost_goes_to_others(client: RedisClient, parts: RedisParts) -> None:
    """It lies in the list of a worker that does not know of it, so nothing is lost, only two beats."""
    job, (task,) = a_split_job(client, parts=1)
    told = {str(task.token): (0, 1.0)}
    parts.progress("w1", told)
    lost, _ = parts.steal("w2", 0)
    assert lost
    beat = client.beat("w2", "h1")
    assert beat
    assert set(beat.tokens) == {lost}
    assert client.release("w2", [lost]) == 1
    tail = take(client, "w1")
    assert (tail.token.task, tail.token.epoch) == (2, START + 1)
    (length,) = parts.progress("w1", told).values()
    assert part_of(tail).start == length
    for each in (tail, task):
        complete(client, "w1", str(each.token), 0, "h1")
    sealed = seal_of(client, job)
    seal, _ = client.beat("w1", "h1").tokens, complete(client, "w1", sealed, 0, "h1")  # type: ignore[union-attr]
    assert set(seal) == {sealed}
    assert (about(client, job)["state"], about(client, job)["bytes_done"]) == ("done", str(100 * MB))


def test_a_lost_tail_is_taken_as_a_whole_by_whoever_is_free(client: RedisClient, parts: RedisParts) -> None:
    _, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (0, 1)})
    lost, _ = parts.steal("w2", 0)
    clock(client, START + 10_000)
    parts.progress("w1", {str(task.token): (99 * MB, 100 * MB)})
    again = steal(parts, client, "w1")
    assert again
    assert lost == f"{again.token.job}.{again.token.task}.{START}"
    assert again.token.epoch == START + 10_000


@pytest.mark.parametrize("end", ["complete", "fail", "release", "leave", "blind", "reap"])
def test_what_is_in_nobodys_hands_has_no_tail(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis, end: str
) -> None:
    """Nothing piles up there: each way out of a worker's list takes the tail along."""
    _, (task,) = a_split_job(client, parts=1)
    token = str(task.token)
    parts.progress("w1", {token: (0, 1)})
    assert (redis.zcard(f"{NS}tails"), redis.hlen(f"{NS}progress")) == (1, 1)
    if end == "complete":
        complete(client, "w1", token, 0, "h1")
    elif end == "fail":
        client.fail("w1", token, failure(), 1.0)
    elif end == "release":
        client.release("w1", [token])
    elif end == "leave":
        client.leave("w1")
    elif end == "blind":
        parts.blind("w1", token, "nothing")
    else:
        clock(client, START + 30_001)
        client.tick()
    assert not redis.exists(f"{NS}tails", f"{NS}progress")


# -- the fleet, and who sees what -----------------------------------------------------------------


def test_the_fleet_tells_its_folders(client: RedisClient, redis: redis_py.Redis) -> None:
    parts = RedisParts(client)
    assert parts.fleet() == []
    client.register(status_of("w1", 1, slots=3).model_copy(update={"folder": "ab12", "nas": "cd34"}))
    client.register(status_of("w2", 1))
    assert sorted(parts.fleet()) == [Member("w1", 3, "ab12", "cd34"), Member("w2", 1, "", "")]
    client.register(status_of("w2", 1).model_copy(update={"nas": "cd34"}))
    client.leave("w1")
    assert parts.fleet() == [Member("w2", 1, "", "cd34")]


@pytest.mark.parametrize("end", ["time", "a worker joins", "resume"])
def test_a_job_of_which_nobody_sees_the_folder_sleeps(
    client: RedisClient, parts: RedisParts, end: str
) -> None:
    """The workers have time for other jobs then, and none of them tries again and again."""
    client.leave("w2")
    unseen, seen = a_job(client, 20), a_job(client, 3, spec=spec_of(2))
    task = take(client)
    assert task.token.job == unseen
    assert parts.blind("w1", str(task.token), "no mount") is Blind.ASLEEP
    client.submit(unseen, 20, files(1), "d")
    assert {each.token.job for each in take_all(client)} == {seen}
    if end == "time":
        clock(client, START + 14_999)
        client.tick()
        assert take_all(client) == []
        clock(client, START + 15_000)
        client.tick()
    elif end == "a worker joins":
        a_worker(client, "w3")
    else:
        client.control("pause", unseen)
        client.control("resume", unseen)
    assert take(client).token.job == unseen


def test_a_job_of_which_somebody_sees_the_folder_goes_on(client: RedisClient, parts: RedisParts) -> None:
    job = a_job(client, 20)
    assert parts.blind("w1", str(take(client).token), "no mount") is Blind.FOR_OTHERS
    assert take(client, "w2").token.job == job


@pytest.mark.parametrize("how", ["complete", "progress", "register"])
def test_whoever_sees_the_folder_again_ends_the_sleep(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis, how: str
) -> None:
    job, (first, *others) = a_split_job(client, parts=3)
    client.release("w1", [str(task.token) for task in others])
    assert parts.blind("w2", str(take(client, "w2").token), "no mount") is Blind.FOR_OTHERS
    redis.hset(f"{NS}job:{job}:blind", "w1", "no mount, a while ago")
    assert parts.blind("w2", str(take(client, "w2").token), "no mount") is Blind.ASLEEP
    assert take_all(client, "w2") == []
    if how == "complete":
        complete(client, "w1", str(first.token), 0, "h1", written=True)
    elif how == "progress":
        parts.progress("w1", {str(first.token): (10, 1.0)})
    else:
        a_worker(client, "w1")
    assert redis.hkeys(f"{NS}job:{job}:blind") == ["w2"]
    assert take(client, "w1").token.job == job


def test_nobody_takes_from_a_job_that_sleeps(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    job, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (0, 1)})
    redis.zadd(f"{NS}asleep", {str(job): START + 15_000})
    assert parts.steal("w2", 0) == Tail(None, True)
    redis.delete(f"{NS}asleep")
    assert steal(parts, client, "w2")


def test_who_gave_a_task_back_takes_no_tail_of_its_job_for_a_minute(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    """But for no longer: it may see the folder again, and gets on with the job in no other way."""
    job, (task,) = a_split_job(client, parts=1)
    parts.progress("w1", {str(task.token): (0, 1)})
    redis.hset(f"{NS}job:{job}:blind", "w2", f"{START - 59_999} no mount")
    assert parts.steal("w2", 0) == Tail(None, True)
    redis.hset(f"{NS}job:{job}:blind", "w2", f"{START - 60_000} no mount")
    assert steal(parts, client, "w2")


def test_what_a_blind_worker_gives_back_is_behind_what_it_can_do(
    client: RedisClient, parts: RedisParts, redis: redis_py.Redis
) -> None:
    unseen, seen = a_job(client, 20), a_job(client, 20, spec=spec_of(2))
    while (task := take(client)).token.job == unseen:
        token = str(task.token)
        parts.blind("w1", token, "no mount")
        before = dump(redis)
        parts.blind("w1", token, "no mount")
        assert dump(redis) == before
    assert task.token.job == seen
    assert redis.hgetall(f"{NS}job:{unseen}:blind") == {"w1": f"{START} no mount"}
    other = next(each for each in take_all(client, "w2") if each.token.job == unseen)
    client.leave("w1")
    parts.blind("w2", str(other.token), "nor here")
    assert redis.hgetall(f"{NS}job:{unseen}:blind") == {"w2": f"{START} nor here"}, "the dead are not counted"
    assert not redis.exists(f"{NS}job:{unseen}:tries")
