"""One arrow of the state diagram after the other, with everything around it that must not move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import redis as redis_py

from distributed_downloader.errors import ConflictError, UnknownJobError
from distributed_downloader.models import JobState, RepoType, Token
from distributed_downloader.redis_client import Done, Limits, RedisClient, Settled, Verdict
from distributed_downloader.redis_view import RedisView
from tests.queue.base import complete, spec_of, status_of
from tests.queue.steps import (
    NS,
    a_job,
    a_worker,
    about,
    clock,
    dump,
    failure,
    files,
    keys,
    take,
    take_all,
)
from tests.servers import Server

START = 1_000_000_000


@pytest.fixture
def client(server: Server, redis: redis_py.Redis) -> Iterator[RedisClient]:
    """The product's client, with a clock that the test moves, and a housekeeping whenever it asks."""
    with limited(server, batch=500) as made:
        yield made


@contextmanager
def limited(server: Server, batch: int) -> Iterator[RedisClient]:
    """Connect with a batch of another size."""
    made = RedisClient(server.config, limits=Limits(tick=0, batch=batch))
    clock(made, START)
    yield made
    made.close()


# -- jobs and listings ----------------------------------------------------------------------------


def test_the_same_identity_is_the_same_job_with_the_new_endpoint_and_weight(client: RedisClient) -> None:
    job = a_job(client)
    again = spec_of(1, endpoint="http://mirror", revision="v1")
    assert client.create_job(again, 7) == (job, False)
    found = about(client, job)
    assert (found["endpoint"], found["weight"]) == ("http://mirror", "7")
    a_worker(client)
    assert take(client).spec == again


@pytest.mark.parametrize("changes", [{"include": ("*.json",)}, {"commit": "d" * 40}, {"output_dir": "/data"}])
def test_another_identity_is_another_job(client: RedisClient, changes: dict[str, object]) -> None:
    assert client.create_job(spec_of(1), 1) == (1, True)
    assert client.create_job(spec_of(1, **changes), 1) == (2, True)


def test_another_repo_type_in_the_same_folder_is_refused_until_the_first_is_forgotten(
    client: RedisClient,
) -> None:
    job = a_job(client)
    dataset = spec_of(1, repo_type=RepoType.DATASET)
    with pytest.raises(ConflictError, match=rf"job {job} fills the same folder with the model org/repo1"):
        client.create_job(dataset, 1)
    assert client.create_job(spec_of(1, repo_type=RepoType.DATASET, output_dir="/other"), 1) == (2, True)
    client.forget(job)
    assert client.create_job(dataset, 1) == (3, True)


def test_a_chunk_is_taken_once_and_an_interrupted_listing_goes_on(client: RedisClient) -> None:
    job = a_job(client, 0, seal=False)
    assert client.submit(job, 0, files(2), "one")
    assert not client.submit(job, 0, files(2), "one")
    assert not client.submit(job, 5, files(2), "gap")
    assert client.listed(job) == (2, "one", False)
    assert client.submit(job, 2, files(3), "two")
    client.seal(job, 5)
    assert client.listed(job) == (5, "two", True)
    assert not client.submit(job, 5, files(1), "late")
    assert about(client, job)["bytes"] == str(0 + 1 + 0 + 1 + 2)


def test_a_chunk_has_a_size(client: RedisClient) -> None:
    job = a_job(client, 1000, seal=False)
    with pytest.raises(ValueError, match="1000 files at most, not 1001"):
        client.submit(job, 1000, files(1001), "x")
    assert client.submit(job, 1000, [], "empty")
    assert client.listed(job) == (1000, "empty", False)


def test_a_job_that_is_gone_takes_nothing_and_stays_gone(client: RedisClient, redis: redis_py.Redis) -> None:
    client.seal(9, 0)
    assert not client.submit(9, 0, files(1), "x")
    assert [client.control("pause", 9), client.control("retry", 9), client.forget(9)] == [False] * 3
    assert client.scripts.run("whole", 9, "why") == 0
    with pytest.raises(UnknownJobError, match="job 9 is gone"):
        client.listed(9)
    assert keys(redis) == set()


def test_an_empty_repo_is_done_as_soon_as_it_is_listed(client: RedisClient) -> None:
    job = a_job(client, 0, seal=False)
    assert about(client, job)["state"] == "running"
    client.seal(job, 0)
    assert about(client, job)["state"] == "done"


# -- claim, begin, complete -----------------------------------------------------------------------


def test_a_job_from_listing_to_done(client: RedisClient) -> None:
    job = a_job(client)
    a_worker(client)
    for i in range(3):
        task = take(client)
        assert (task.file, task.spec, task.tries, task.hold) == (files(3)[i], spec_of(1), 0, 0)
        assert client.begin("w1", str(task.token)) == task, "a lost reply"
        assert complete(client, "w1", str(task.token), task.file.size, "h1") is Settled.DONE
        assert complete(client, "w1", str(task.token), task.file.size, "h1") is Settled.ALREADY_DONE
    found = about(client, job)
    assert (found["state"], found["done"], found["bytes_done"]) == ("done", "3", "3")
    assert (
        client.control("resume", job)
        is client.control("cancel", job)
        is client.control("retry", job)
        is False
    )


def test_a_stale_report_changes_no_byte(client: RedisClient, redis: redis_py.Redis) -> None:
    """I5."""
    a_job(client, 5)
    a_worker(client)
    token = str(take(client).token)
    client.release("w1", [token])
    before = dump(redis)
    assert complete(client, "w1", token, 1, "h1") is Settled.STALE
    assert complete(client, "w2", token, 1, "h1") is Settled.STALE
    assert client.fail("w1", token, failure(), None) is Verdict.STALE
    assert client.release("w1", [token, "9.9.9", "junk"]) == 0
    assert client.begin("w1", token) is None
    assert client.begin("w1", "junk") is None
    assert dump(redis) == before


def test_repeated_calls_change_no_byte(client: RedisClient, redis: redis_py.Redis) -> None:
    """I11."""
    job = a_job(client, 4, seal=False)
    a_worker(client)
    one, two, three = (str(take(client).token) for _ in range(3))
    calls: list[Callable[[], object]] = [
        lambda: client.submit(job, 0, files(4), "digest"),
        lambda: client.seal(job, 4),
        lambda: complete(client, "w1", one, 0, "h1"),
        lambda: client.fail("w1", two, failure(), 5.0),
        lambda: client.release("w1", [three]),
        lambda: client.control("pause", job),
        lambda: client.control("resume", job),
        lambda: client.hold("http://hub", 1000),
        lambda: client.control("cancel", job),
        lambda: client.leave("w1"),
        lambda: client.forget(job),
    ]
    for call in calls:
        call()
        before = dump(redis)
        call()
        assert dump(redis) == before


def test_a_lost_claim_is_in_the_next_beat(client: RedisClient) -> None:
    job = a_job(client, 1)
    a_worker(client)
    token = client.claim("w1", 1)
    assert token
    beat = client.beat("w1", "h1")
    assert beat
    assert (beat.tokens, beat.parked) == ({token: JobState.RUNNING}, 0)
    client.control("cancel", job)
    beat = client.beat("w1", "h1")
    assert beat
    assert beat.tokens == {token: JobState.CANCELLED}
    client.forget(job)
    beat = client.beat("w1", "h1")
    assert beat
    assert beat.tokens == {token: None}
    assert client.begin("w1", token) is None
    beat = client.beat("w1", "h1")
    assert beat
    assert beat.tokens == {}


@pytest.mark.parametrize("stirs", ["", "tails", "delayed", "parked"])
def test_a_lease_is_longer_where_only_a_beat_tells_of_nothing(client: RedisClient, stirs: str) -> None:
    a_worker(client)
    if stirs == "parked":
        client.commands.sadd(f"{NS}{stirs}", "h2")
    elif stirs:
        client.commands.zadd(f"{NS}{stirs}", {"1.0.1": START})
    beat = client.beat("w1", "h1", longer=60.0)
    assert beat
    assert beat.longer == (0 if stirs else 60)
    assert client.commands.zscore(f"{NS}workers", "w1") == START + 30_000 + beat.longer * 1000


def test_one_that_keeps_house_is_enough(server: Server) -> None:
    client = RedisClient(server.config)
    assert [client.tick(), client.tick()] == [True, False]
    client.close()


def test_the_window_follows_the_fleet(client: RedisClient, redis: redis_py.Redis) -> None:
    a_worker(client, "w1", slots=20)
    a_worker(client, "w2", slots=30)
    assert redis.get(f"{NS}window") == "50"
    clock(client, START + 20_000)
    client.beat("w1", "h1")
    clock(client, START + 30_001)
    client.tick()
    assert redis.get(f"{NS}window") == "20"


def test_a_window_that_is_lost_is_found_again(client: RedisClient, redis: redis_py.Redis) -> None:
    """However many keys there are."""
    redis.mset({f"other:{n}": "" for n in range(1000)})
    a_worker(client, slots=20)
    redis.delete(f"{NS}window")
    for _ in range(20):
        client.tick()
    assert redis.get(f"{NS}window") == "20"


# -- failures -------------------------------------------------------------------------------------


def test_three_tries_then_failed(client: RedisClient) -> None:
    """I7."""
    job = a_job(client, 1)
    a_worker(client)
    for tries in range(3):
        clock(client, START + tries * 60_000)
        client.beat("w1", "h1")
        client.tick()
        task = take(client)
        assert task.tries == tries
        verdict = client.fail("w1", str(task.token), failure(), 1.0)
        assert verdict is (Verdict.BURIED if tries == 2 else Verdict.RETRY)
        assert client.fail("w1", str(task.token), failure(), 1.0) is Verdict.STALE
    assert about(client, job)["state"] == "failed"


def test_a_permanent_error_fails_at_once_and_the_others_go_on(client: RedisClient) -> None:
    job = a_job(client, 2)
    a_worker(client)
    assert client.fail("w1", str(take(client).token), failure(), None) is Verdict.BURIED
    assert about(client, job)["state"] == "running"
    assert complete(client, "w1", str(take(client).token), 1, "h1") is Settled.DONE
    assert about(client, job)["state"] == "failed"


def test_a_retry_waits_for_its_delay(client: RedisClient) -> None:
    a_job(client, 1)
    a_worker(client)
    client.fail("w1", str(take(client).token), failure(), 5.0)
    for after, ready in ((4_999, 0), (5_000, 1)):
        clock(client, START + after)
        client.tick()
        assert client.commands.llen(f"{NS}ready") == ready


def test_losing_workers_uses_up_no_tries_but_ends(client: RedisClient, redis: redis_py.Redis) -> None:
    """I7: ten losses, counted apart from failures."""
    job = a_job(client, 1)
    for n in range(10):
        assert about(client, job)["state"] == "running"
        clock(client, START + n * 60_000)
        a_worker(client, f"w{n}")
        assert take(client, f"w{n}").tries == 0
        clock(client, START + n * 60_000 + 30_001)
        client.tick()
        assert client.beat(f"w{n}", "h1") is None
    found = about(client, job)
    assert (found["state"], found["failed"]) == ("failed", "1")
    reason = redis.hget(f"{NS}job:{job}:failed", "0")
    assert "lost with its worker 10 times" in str(reason)
    assert '"path":"f0"' in str(reason)


def test_what_the_dead_are_handed_does_not_use_up_losses(client: RedisClient) -> None:
    """I7: their claims wait on in Redis where machines lost their power, and each takes a task once more."""
    workers = [f"w{n}" for n in range(12)]
    for worker in workers:
        a_worker(client, worker)
    clock(client, START + 30_001)
    client.tick()
    job = a_job(client, 1)
    for n, worker in enumerate(workers):
        clock(client, START + 40_000 + n * 1_000)
        assert client.claim(worker, 0.1)
        client.tick()
    assert about(client, job)["state"] == "running"
    a_worker(client, "living")
    assert take(client, "living").tries == 0


def test_what_failed_is_tried_again_with_all_its_tries_and_a_new_epoch(client: RedisClient) -> None:
    job = a_job(client, 1)
    a_worker(client)
    token = take(client).token
    client.fail("w1", str(token), failure(), None)
    assert client.control("retry", job)
    assert not client.control("retry", job)
    task = take(client)
    assert (task.token.epoch, task.tries) == (token.epoch + 1, 0)
    assert complete(client, "w1", str(task.token), 0, "h1") is Settled.DONE
    assert about(client, job)["state"] == "done"


@pytest.mark.parametrize("n", [1, 499, 501, 1_700])
def test_a_retry_of_many_goes_in_batches(client: RedisClient, redis: redis_py.Redis, n: int) -> None:
    """I14: one call of the script moves 500 at most, the method all."""
    job = a_job(client, n)
    a_worker(client)
    while tasks := take_all(client):
        for task in tasks:
            client.fail("w1", str(task.token), failure(), None)
    assert about(client, job)["state"] == "failed"
    moved, _ = client.scripts.run("retry", job, "0", 500)
    assert moved == min(n, 500)
    client.control("retry", job)
    found = about(client, job)
    assert (found["failed"], int(found["pending"]) + int(found["out"])) == ("0", n)
    assert not redis.exists(f"{NS}job:{job}:failed")


# -- parked retries -------------------------------------------------------------------------------


def test_a_retry_is_offered_to_the_host_with_its_bytes_first(client: RedisClient) -> None:
    a_job(client, 1)
    a_worker(client, "w1", host="h1")
    a_worker(client, "w2", host="h2")
    client.fail("w1", str(take(client).token), failure(host="h1"), 0.0, parked_for=60)
    client.tick()
    beats = [client.beat("w1", "h1"), client.beat("w2", "h2")]
    assert [beat.parked for beat in beats if beat] == [1, 0]
    assert client.home("w2", "h2") is None
    token = client.home("w1", "h1")
    assert token
    task = client.begin("w1", token)
    assert task
    assert task.tries == 1
    assert client.home("w1", "h1") is None


def test_nobody_at_home_so_anybody_may_have_it(client: RedisClient) -> None:
    a_job(client, 1)
    a_worker(client)
    client.fail("w1", str(take(client).token), failure(host="h9"), 0.0, parked_for=20)
    client.tick()
    assert client.commands.zcard(f"{NS}parked:h9") == 1
    clock(client, START + 20_000)
    client.tick()
    assert take(client).tries == 1
    assert not client.commands.exists(f"{NS}parked:h9", f"{NS}parked")


def test_a_parked_retry_of_a_paused_job_stays_with_the_job(client: RedisClient) -> None:
    job = a_job(client, 1)
    a_worker(client)
    client.fail("w1", str(take(client).token), failure(host="h1"), 0.0, parked_for=60)
    client.tick()
    client.control("pause", job)
    assert client.home("w1", "h1") is None
    client.control("resume", job)
    assert take(client).tries == 1


# -- people ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_no_task_of_a_stopped_job_is_handed_out(client: RedisClient, verb: str) -> None:
    """I6: neither from the window, nor one that is claimed but not begun."""
    job = a_job(client, 5)
    a_worker(client)
    running, claimed = take(client), client.claim("w1", 1)
    assert claimed
    assert client.control(verb, job)  # type: ignore[arg-type]
    assert client.commands.llen(f"{NS}ready") == 0
    assert client.begin("w1", claimed) is None
    client.tick()
    assert client.commands.llen(f"{NS}ready") == 0
    assert complete(client, "w1", str(running.token), 0, "h1") is Settled.DONE, (
        "what runs may end, and counts"
    )
    found = about(client, job)
    assert (found["done"], found["pending"]) == ("1", "4")
    assert ("ended_at" in found) == (verb == "cancel")
    assert client.control("resume", job)
    assert {task.token.task for task in take_all(client)} == {1, 2, 3, 4}


def test_a_cancelled_job_ends_when_its_last_task_comes_back(client: RedisClient) -> None:
    job = a_job(client, 2, seal=False)
    a_worker(client)
    token = str(take(client).token)
    client.control("cancel", job)
    assert "ended_at" not in about(client, job)
    client.release("w1", [token])
    assert "ended_at" in about(client, job)


def test_forget_leaves_no_key_and_late_reports_bring_none_back(
    client: RedisClient, redis: redis_py.Redis
) -> None:
    """I13."""
    a_worker(client)
    own = keys(redis)
    job = a_job(client, 8)
    done, failed, retried, parked, left, lost, dead = (str(take(client).token) for _ in range(7))
    complete(client, "w1", done, 1, "h1")
    client.fail("w1", failed, failure(), None)
    client.fail("w1", retried, failure(), 1.0)
    client.fail("w1", parked, failure(), 0.0, parked_for=60)
    client.tick()
    assert client.forget(job)
    assert not client.forget(job)
    assert not [name for name in keys(redis) if name.startswith("job:")]

    assert complete(client, "w1", left, 1, "h1") is Settled.STALE
    assert client.fail("w1", lost, failure(), 1.0) is Verdict.STALE
    assert client.home("w1", "h1") is None
    clock(client, START + 60_000)
    client.tick()
    assert client.begin("w1", dead) is None
    assert keys(redis) - own <= {"dead", "next_job", "tick", "vclock", "window"}
    assert a_job(client) == job + 1, "a number is never used again"


def test_forget_leaves_the_others_alone(client: RedisClient) -> None:
    one, two = a_job(client, 5, spec=spec_of(1)), a_job(client, 5, spec=spec_of(2))
    client.forget(one)
    a_worker(client)
    assert {task.token.job for task in take_all(client)} == {two}


# -- workers --------------------------------------------------------------------------------------


def test_a_dead_workers_tasks_go_to_others_and_its_late_report_counts_for_nothing(
    client: RedisClient,
) -> None:
    a_job(client, 1)
    a_worker(client, "w1")
    old = str(take(client, "w1").token)
    clock(client, START + 30_001)
    a_worker(client, "w2")
    client.tick()
    assert client.beat("w1", "h1") is None
    new = take(client, "w2")
    assert str(new.token) != old
    assert complete(client, "w1", old, 0, "h1") is Settled.STALE
    assert complete(client, "w2", str(new.token), 0, "h2") is Settled.DONE


def test_a_claim_that_arrives_after_death_is_swept_and_never_begun(
    client: RedisClient, redis: redis_py.Redis
) -> None:
    a_job(client, 2)
    a_worker(client, "w1")
    clock(client, START + 30_001)
    client.tick()
    begun, never = client.claim("w1", 1), client.claim("w1", 1)
    assert begun
    assert never
    assert client.begin("w1", begun) is None
    client.tick()
    assert not redis.exists(f"{NS}active:w1")
    a_worker(client, "w2")
    again = {task.token.task: task.token.epoch for task in take_all(client, "w2")}
    assert again == {Token.parse(token).task: START + 30_001 for token in (begun, never)}


def test_a_worker_that_leaves_gives_back_all_of_it_without_a_loss(
    server: Server, redis: redis_py.Redis
) -> None:
    with limited(server, batch=3) as client:
        job = a_job(client, 10)
        a_worker(client, slots=10)
        assert len(take_all(client)) == 10
        client.leave("w1")
        assert not redis.exists(f"{NS}active:w1", f"{NS}worker:w1", f"{NS}fleet", f"{NS}job:{job}:tries")
        a_worker(client, "w2", slots=10)
        assert len(take_all(client, "w2")) == 10


def test_a_name_belongs_to_one_living_process(client: RedisClient) -> None:
    a_job(client, 1)
    client.register(status_of("w1", 1.5))
    token = str(take(client).token)
    client.register(status_of("w1", 1.5))
    beat = client.beat("w1", "h1")
    assert beat
    assert list(beat.tokens) == [token], "a registration that is repeated takes nothing away"
    with pytest.raises(ConflictError, match=r"worker id w1 is in use \(host:pid:start h1:1:1.5\)"):
        client.register(status_of("w1", 2.5))
    clock(client, START + 30_001)
    client.register(status_of("w1", 2.5))
    beat = client.beat("w1", "h1")
    assert beat
    assert beat.tokens == {}
    assert take(client).token.epoch == START + 30_001


@pytest.mark.parametrize(("slots", "window"), [(1, 8), (40, 40), (128, 128)])
def test_the_window_is_one_token_per_slot_within_bounds(client: RedisClient, slots: int, window: int) -> None:
    a_worker(client, slots=slots)
    job = a_job(client, 5000)
    client.control("pause", job)
    client.control("resume", job)
    assert client.commands.llen(f"{NS}ready") == window


def test_a_large_window_is_filled_in_small_steps(client: RedisClient) -> None:
    """I14: nobody waits for a script that fills thousands of places."""
    a_worker(client, slots=5000)
    a_job(client, 5000)
    lengths = [int(client.commands.llen(f"{NS}ready"))]
    for _ in range(40):
        take(client)
        lengths.append(int(client.commands.llen(f"{NS}ready")))
    assert max(lengths) > 4096 / 2
    assert all(after - before <= 127 for before, after in pairwise(lengths))


def test_a_tick_moves_no_more_than_a_batch(server: Server, redis: redis_py.Redis) -> None:
    """I14, with everything due at once."""
    with limited(server, batch=7) as client:
        a_job(client, 40)
        a_worker(client, slots=40)
        tasks = take_all(client)
        for i, task in enumerate(tasks[:24]):
            client.fail("w1", str(task.token), failure(host=f"h{i % 3}"), 0.0, parked_for=60 * (i % 2))
        clock(client, START + 100_000)
        rounds, moved = 0, []
        while redis.exists(f"{NS}active:w1", f"{NS}delayed", f"{NS}parked"):
            moved.append(client.scripts.run("tick", 0, 10, 7, 64, 4096))
            rounds += 1
            clock(client, START + 100_000 + rounds * 10_000)
        assert max(moved) == 7
        assert sum(moved) == 40 + 12, "16 reaped, 24 promoted, and 12 of those opened"
        assert redis.llen(f"{NS}ready") + redis.llen(f"{NS}job:1:pending") == 40


def test_one_of_many_keeps_house(client: RedisClient) -> None:
    assert client.scripts.run("tick", 60_000, 10, 500, 64, 4096) == 0
    assert client.scripts.run("tick", 60_000, 10, 500, 64, 4096) == -1


def test_the_longest_pause_counts(client: RedisClient) -> None:
    a_job(client, 2, spec=spec_of(1, endpoint="http://hub"))
    a_worker(client)
    client.hold("http://other", 1000)
    assert take(client).hold == 0
    client.hold("http://hub", 1000)
    client.hold("http://hub", 10)
    client.hold("http://hub", 0)
    assert 900 < take(client).hold <= 1000


def test_reports_that_go_together_end_each_job_that_they_end(client: RedisClient) -> None:
    a_worker(client)
    jobs = [a_job(client, 1, spec=spec_of(number)) for number in range(3)]
    tokens = [client.claim("w1", 1) for _ in jobs]
    assert all(token and client.begin("w1", token) for token in tokens)
    client.complete_all("w1", "h1", [Done(token or "", 1) for token in tokens])
    assert [RedisView(client).job(job).state for job in jobs] == [JobState.DONE] * 3
