"""What `status` and its kin read, in every state that a job, a file or a worker can be in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as redis_py

from distributed_downloader.cli.lookout import Lookout
from distributed_downloader.errors import UnknownJobError
from distributed_downloader.models import (
    DownloadTask,
    JobState,
    RepoFile,
    RepoType,
    TaskStatus,
    Transfer,
    WorkerStatus,
)
from distributed_downloader.outcome import Range
from distributed_downloader.redis_client import Limits, RedisClient
from distributed_downloader.redis_files import FileProgress
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_view import RedisView
from distributed_downloader.redis_waiting import NextTry
from tests.queue.base import complete, spec_of, status_of
from tests.queue.steps import NS, a_job, a_split_job, a_worker, failure, files, take, take_all
from tests.servers import Server


@pytest.fixture
def client(server: Server, redis: redis_py.Redis) -> Iterator[RedisClient]:
    made = RedisClient(server.config, limits=Limits(tick=0))
    yield made
    made.close()


@pytest.fixture
def view(client: RedisClient) -> RedisView:
    return RedisView(client)


def test_an_empty_redis(view: RedisView) -> None:
    assert (view.jobs(), view.workers()) == ([], [])
    queue = view.queue()
    assert queue.model_dump() == {
        "ready": 0,
        "delayed": 0,
        "parked": 0,
        "workers": 0,
        "slots": 0,
        "full": False,
        "pauses": {},
        "jobs": {},
    }
    assert view.failures(1) == []
    with pytest.raises(UnknownJobError, match="there is no job 1; `hf-downloader repos` lists them all"):
        view.job(1)
    with pytest.raises(UnknownJobError):
        view.files(1)


def test_pauses_that_hubs_asked_for(client: RedisClient, view: RedisView) -> None:
    job = a_job(client, 1)
    assert view.queue().pauses == view.pauses(view.jobs()) == {}
    client.hold("http://hub", 3000)
    client.hold("http://nobodys", 3000)
    ((endpoint, seconds),) = view.pauses(view.jobs()).items()
    assert (endpoint, 0 < seconds <= 3000) == ("http://hub", True)
    assert [*view.queue().pauses] == ["http://hub"]
    client.control("cancel", job)
    assert view.pauses(view.jobs()) == {}


def test_a_look_asks_for_each_thing_once(client: RedisClient, view: RedisView, redis: redis_py.Redis) -> None:
    a_job(client, 1)
    lookout = Lookout(view)
    lookout.look()  # connects
    redis.config_resetstat()
    seen = lookout.look()
    assert seen.queue
    assert (seen.full, seen.pauses) == (seen.queue.full, seen.queue.pauses)
    calls = {
        name.removeprefix("cmdstat_"): about["calls"] for name, about in redis.info("commandstats").items()
    }
    assert (calls["info"], calls["pttl"], calls["lrange"]) == (1, 1, 1)


def test_the_reason_for_which_nobody_goes_on_is_whatever_the_workers_say(
    client: RedisClient, view: RedisView
) -> None:
    job = a_job(client, 1)
    a_worker(client)
    reason = "hub.example: the host name is not known; waiting until the hub can be reached"
    RedisParts(client).blind("w1", str(take(client).token), reason)
    assert view.job(job).blocked == f"no living worker can go on with it: w1: {reason}"


def test_the_counters_of_a_job(client: RedisClient, view: RedisView) -> None:
    job = a_job(client, 200, seal=False)
    a_worker(client)
    done, delayed, failed, _ = (str(take(client).token) for _ in range(4))
    complete(client, "w1", done, 0, "h1")
    client.fail("w1", delayed, failure(), 60)
    client.fail("w1", failed, failure(), None)
    status = view.job(job)
    assert status.spec == spec_of(1)
    assert (status.state, status.listed, status.weight, status.ended_at) == (JobState.RUNNING, False, 1, None)
    numbers = (
        status.total,
        status.pending,
        status.active,
        status.delayed,
        status.held,
        status.failed,
        status.done,
    )
    assert numbers == (200, 196, 1, 1, 0, 1, 1), "what lies ready is pending: nobody has it"
    assert (status.bytes_total, status.bytes_done) == (sum(range(200)), 0)
    assert view.jobs() == [status]


def test_a_job_that_ended(client: RedisClient, view: RedisView) -> None:
    job = a_job(client, 0)
    status = view.job(job)
    assert status.state is JobState.DONE
    assert status.ended_at is not None
    assert status.created_at <= status.ended_at


def test_jobs_come_oldest_first_and_bad_ones_are_left_out(
    client: RedisClient, view: RedisView, redis: redis_py.Redis
) -> None:
    for n in range(4):
        a_job(client, 1, spec=spec_of(n))
    redis.hset(f"{NS}job:2", "total", "many")
    redis.delete(f"{NS}job:3")
    assert [job.id for job in view.jobs()] == [1, 4]
    with pytest.raises(UnknownJobError):
        view.job(2)


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("1", [1]),
        ("2", [2]),
        ("org/repo1", [1, 2, 3]),
        ("models/org/repo1", [1, 3]),
        ("datasets/org/repo1", [2]),
        ("gpt2", [4]),
        ("models/gpt2", [4]),
        ("77", [5]),
    ],
)
def test_jobs_are_found_by_number_and_by_name(
    client: RedisClient, view: RedisView, name: str, found: list[int]
) -> None:
    for spec in (
        spec_of(1),
        spec_of(1, repo_type=RepoType.DATASET, output_dir="/data"),
        spec_of(1, commit="d" * 40),
        spec_of(1, repo_id="gpt2"),
        spec_of(1, repo_id="77"),
    ):
        a_job(client, 1, spec=spec)
    assert [job.id for job in view.find(name)] == found


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("org/repo2", "did you mean org/repo1?"),
        ("spaces/org/repo1", "did you mean org/repo1?"),
        ("repo1", "did you mean org/repo1?"),
        ("99", ""),
        ("nothing like it", ""),
        ("²", ""),
        ("", ""),
    ],
)
def test_a_name_that_nobody_has_brings_near_ones(
    client: RedisClient, view: RedisView, name: str, hint: str
) -> None:
    a_job(client, 1)
    with pytest.raises(UnknownJobError) as caught:
        view.find(name)
    assert f"there is no job or repo {name!r}; {hint}" in str(caught.value)
    assert ("did you mean" in str(caught.value)) == bool(hint)
    assert "`hf-downloader repos`" in str(caught.value)


# -- the fleet ------------------------------------------------------------------------------------


def test_workers_say_what_they_do(client: RedisClient, view: RedisView, redis: redis_py.Redis) -> None:
    busy = status_of("b", 1, "h2", 4).model_copy(
        update={
            "transfers": (Transfer(job=1, task=2, path="p é", size=9, bytes_done=4, bytes_per_second=1.5),),
            "trouble": "disk full",
        }
    )
    for status in (busy, status_of("a", 1), status_of("c", 1), status_of("d", 1)):
        client.register(status)
    redis.set(f"{NS}worker:c", "not json")
    redis.delete(f"{NS}worker:d")
    first, second = view.workers()
    assert (first.id, second.model_copy(update={"lease": 0})) == ("a", busy)
    assert 20 < first.lease <= 30
    assert 0 < redis.pttl(f"{NS}worker:a") <= 90_000
    client.leave("a")
    assert [worker.id for worker in view.workers()] == ["b"]


@pytest.mark.parametrize("junk", ["{words},{words}", "", "]", "{words}]", '{{"id": "x', "null", "\udcff"])
def test_what_a_worker_says_concerns_no_other(
    client: RedisClient, view: RedisView, redis: redis_py.Redis, junk: str
) -> None:
    for name in ("a", "b", "c"):
        a_worker(client, name, host=f"host-{name}")
    redis.set(f"{NS}worker:b", junk.format(words=redis.get(f"{NS}worker:a")))
    assert [(worker.id, worker.host) for worker in view.workers()] == [("a", "host-a"), ("c", "host-c")]


def test_a_worker_whose_lease_is_over_is_not_shown(client: RedisClient, view: RedisView) -> None:
    """Nobody may be there to declare it dead."""
    client.scripts.now = 1000
    a_worker(client)
    client.scripts.now = ""
    assert view.workers() == []


def test_the_queue_in_numbers(client: RedisClient, view: RedisView) -> None:
    a_job(client, 5, spec=spec_of(1))
    client.control("pause", a_job(client, 5, spec=spec_of(2)))
    a_worker(client, "w1", slots=4)
    a_worker(client, "w2", slots=3)
    client.fail("w1", str(take(client).token), failure(host="h1"), 0, parked_for=60)
    client.tick()
    client.fail("w1", str(take(client).token), failure(), 60)
    queue = view.queue()
    assert (queue.ready, queue.delayed, queue.parked, queue.workers, queue.slots) == (3, 1, 1, 2, 7)
    assert queue.jobs == {"running": 1, "paused": 1}


# -- next tries ---------------------------------------------------------------------------------


def tries(view: RedisView, job: int, limit: int = 10) -> list[NextTry]:
    """Return the next tries of a job, with whole seconds."""
    found = view.next_tries({job}, limit)
    assert {number for number, _ in found} <= {job}
    return [shown.model_copy(update={"seconds": round(shown.seconds)}) for _, shown in found]


def test_who_waits_for_the_next_try_until_when_and_why(
    client: RedisClient, view: RedisView, redis: redis_py.Redis
) -> None:
    a_worker(client)
    job, other = a_job(client, 3), a_job(client, 1, spec=spec_of(2))
    first, second, third, foreign = take_all(client)
    client.fail("w1", str(first.token), failure("f0", "503"), 60)
    client.fail("w1", str(second.token), failure("f1", "timed out").model_copy(update={"kept": 7}), 30)
    client.fail("w1", str(foreign.token), failure("x", "no"), 10)
    soon, late = tries(view, job)
    assert 50 < late.seconds <= 60
    assert 20 < soon.seconds <= 30
    assert late == NextTry(path="f0", error="503", host="h1", tries=1, seconds=late.seconds)
    assert soon == NextTry(path="f1", error="timed out", host="h1", tries=1, seconds=soon.seconds, kept=7)
    assert [shown.path for shown in tries(view, job, 1)] == ["f1"]
    assert [number for number, _ in view.next_tries({job, other, 99}, 1)] == [job, other]
    assert redis.hlen(f"{NS}job:{job}:why") == 2
    client.release("w1", [str(third.token)])
    assert [shown.path for shown in tries(view, job)] == ["f1", "f0"], "what is given back waits for nothing"


def test_a_parked_file_waits_for_its_host(client: RedisClient, view: RedisView) -> None:
    a_worker(client)
    job = a_job(client, 1)
    why = failure("f0", "reset").model_copy(update={"kept": 5000})
    client.fail("w1", str(take(client).token), why, 0, parked_for=300)
    client.tick()
    (parked,) = tries(view, job)
    seconds = parked.seconds
    assert 290 < seconds <= 300
    assert parked == NextTry(
        path="f0", error="reset", host="h1", tries=1, seconds=seconds, parked=True, kept=5000
    )
    (file,) = view.files(job)
    assert (file.status, file.error) == (TaskStatus.PENDING, "reset")
    assert 290 < (file.next_try or 0) <= 301


@pytest.mark.parametrize("end", ["complete", "fail", "forget"])
def test_a_reason_goes_with_the_wait(client: RedisClient, redis: redis_py.Redis, end: str) -> None:
    a_worker(client)
    job = a_job(client, 1)
    client.fail("w1", str(take(client).token), failure(), 0)
    client.tick()
    assert redis.hlen(f"{NS}job:{job}:why") == 1
    token = str(take(client).token)
    if end == "complete":
        complete(client, "w1", token, 0, "h1")
    elif end == "fail":
        client.fail("w1", token, failure(), None)
    else:
        client.forget(job)
    assert not redis.exists(f"{NS}job:{job}:why")


def test_reasons_are_few_and_short(client: RedisClient, view: RedisView, redis: redis_py.Redis) -> None:
    """When a hub is away, all tasks may fail."""
    a_worker(client, slots=1100)
    job = a_job(client, 1100)
    tasks = take_all(client)
    client.fail("w1", str(tasks[0].token), failure("f0", "x" * 5000), 60)
    for task in tasks[1:]:
        client.fail("w1", str(task.token), failure(task.file.path), 60)
    assert redis.hlen(f"{NS}job:{job}:why") == 1000
    (first, *_) = tries(view, job)
    assert (first.path, first.error, first.host) == ("f0", "", "")


@pytest.mark.parametrize("nonsense", ["", "{}", "junk", "\udcff"], ids=ascii)
def test_a_reason_that_cannot_be_read_is_none(
    client: RedisClient, view: RedisView, redis: redis_py.Redis, nonsense: str
) -> None:
    a_worker(client)
    job = a_job(client, 1)
    client.fail("w1", str(take(client).token), failure(), 60)
    redis.hset(f"{NS}job:{job}:why", "0", nonsense)
    redis.zadd(f"{NS}delayed", {nonsense: 0, "999.0.0": 0})
    assert [(shown.path, shown.error) for shown in tries(view, job)] == [("f0", "")]
    assert [file.error for file in view.files(job)] == [""]


# -- files ----------------------------------------------------------------------------------------


def test_files_in_every_state(client: RedisClient, view: RedisView) -> None:
    job = a_job(client, 6)
    a_worker(client)
    one, two, failed, delayed, _ = (str(take(client).token) for _ in range(5))
    complete(client, "w1", one, 0, "h1")
    complete(client, "w1", two, 1, "hôst-2")
    client.fail("w1", failed, failure("f2", "gated"), None)
    client.fail("w1", delayed, failure(), 60)
    listed = list(view.files(job))
    wait = listed[3].next_try
    assert wait is not None
    assert 50 < wait <= 61
    assert listed == [
        FileProgress(path="f0", size=0, status=TaskStatus.DONE, host="h1"),
        FileProgress(path="f1", size=1, status=TaskStatus.DONE, host="hôst-2", bytes_done=1),
        FileProgress(path="f2", size=2, status=TaskStatus.FAILED, error="gated"),
        FileProgress(path="f3", size=3, status=TaskStatus.DELAYED, error="no", next_try=wait),
        FileProgress(path="f4", size=4, status=TaskStatus.ACTIVE),
        FileProgress(path="f5", size=5, status=TaskStatus.PENDING),
    ]
    assert list(view.files(job, failed_only=True)) == [listed[2]]


def test_a_split_file_is_one_file(client: RedisClient, view: RedisView) -> None:
    a_worker(client)
    job, tasks = a_split_job(client, parts=3, size=90)
    assert list(view.files(job)) == [FileProgress(path="big", size=90, status=TaskStatus.HELD)]
    complete(client, "w1", str(tasks[0].token), 0, "h1", written=True)
    client.report(_fetching(tasks[1], 12))
    assert [(file.status, file.bytes_done) for file in view.files(job)] == [(TaskStatus.HELD, 30 + 12)]
    status = view.job(job)
    assert (status.total, status.parts, status.files, status.held, status.active) == (4, 3, 1, 1, 2)
    assert (status.done, status.parts_done, status.files_done) == (1, 1, 0)
    assert (status.bytes_total, status.bytes_done) == (90, 30)
    for task in tasks[1:]:
        complete(client, "w1", str(task.token), 0, "h1", written=True)
    (seal,) = client.beat("w1", "h1").tokens  # type: ignore[union-attr]
    assert [(file.status, file.bytes_done) for file in view.files(job)] == [(TaskStatus.ACTIVE, 90)]
    complete(client, "w1", seal, 0, "h1", owes="ab12 /data")
    assert [(file.status, file.host) for file in view.files(job)] == [(TaskStatus.DONE, "h1")]
    status = view.job(job)
    assert (status.state, status.files, status.files_done) == (JobState.DELIVERING, 1, 1)
    assert (status.owed, status.delivered, status.ended_at) == (1, 0, None)
    assert (status.bytes_done, status.bytes_total) == (90, 90)
    assert not view.running()


def _fetching(task: DownloadTask, bytes_done: int) -> WorkerStatus:
    """Return what a worker says that is so far with a task."""
    about, part = task.about, task.about.part
    transfer = Transfer(
        job=task.token.job,
        task=task.token.task,
        path=about.file.path,
        size=about.size,
        start=part.start if part else None,
        bytes_done=bytes_done,
    )
    return status_of("w1", 1).model_copy(update={"transfers": (transfer,)})


def test_a_whole_file_is_as_far_as_its_worker_says(client: RedisClient, view: RedisView) -> None:
    job = a_job(client, 5)
    a_worker(client)
    for _ in range(4):
        task = take(client)
    client.report(_fetching(task, 2))
    assert [file.bytes_done for file in view.files(job)] == [0, 0, 0, 2, 0]


def test_what_was_there_before_a_split_counts(client: RedisClient, view: RedisView) -> None:
    a_worker(client)
    job = a_job(client, 0, seal=False)
    assert client.submit(job, 0, [RepoFile(path="big", size=90)], "digest")
    client.seal(job, 1)
    there = [Range(0, 20), Range(40, 10)]
    assert RedisParts(client).split(
        "w1", str(take(client).token), "ab12", [Range(20, 20), Range(50, 40)], written=there
    )
    assert [file.bytes_done for file in view.files(job)] == [30]


def test_reports_of_parts_that_cannot_be_read_count_as_nothing(
    client: RedisClient, view: RedisView, redis: redis_py.Redis
) -> None:
    a_worker(client)
    job, _ = a_split_job(client)
    redis.hset(f"{NS}job:{job}:records", mapping={"0": "many", "0.0": "nonsense 5+x 0+7"})
    assert [file.bytes_done for file in view.files(job)] == [7]


@pytest.mark.parametrize("kind", ["~", "?"])
def test_excused_tries_are_tries(client: RedisClient, view: RedisView, kind: str) -> None:
    job = a_job(client, 1)
    a_worker(client)
    client.fail("w1", str(take(client).token), failure(), 0, excused_tries=10, counted=kind)
    client.tick()
    client.fail("w1", str(take(client).token), failure(), 0, excused_tries=10, counted=kind)
    client.tick()
    client.fail("w1", str(take(client).token), failure(), None, excused_tries=10, counted=kind)
    assert [reason.tries for reason in view.failures(job)] == [3]


def test_a_part_that_failed_is_told_by_the_name_of_its_file(client: RedisClient, view: RedisView) -> None:
    a_worker(client)
    job, tasks = a_split_job(client, parts=2, size=90)
    client.fail("w1", str(tasks[0].token), failure("big"), None)
    assert [(file.path, file.size, file.error) for file in view.files(job, failed_only=True)] == [
        ("big", 45, "no")
    ]


def test_a_job_says_why_its_files_are_whole_and_why_nobody_goes_on(
    client: RedisClient, view: RedisView
) -> None:
    job = a_job(client, 2)
    client.whole(job, "no common folder")
    assert view.job(job).unsplit == "no common folder"
    for worker in ("w1", "w2"):
        a_worker(client, worker)
        assert view.job(job).blocked == ""
        RedisParts(client).blind(worker, str(take(client, worker).token), f"{worker} sees no mount")
    assert view.job(job).blocked == "no living worker can go on with it: w1: w1 sees no mount"
    a_worker(client, "w2")  # which sees another folder now
    complete(client, "w2", str(take(client, "w2").token), 0, "h1")
    assert view.job(job).blocked == ""
    client.leave("w2")
    assert view.job(job).blocked.startswith("no living worker")
    client.control("pause", job)
    assert view.job(job).blocked == "", "it is paused: nobody is to go on"
    client.leave("w1")
    client.control("resume", job)
    assert view.job(job).blocked == "", "there is no worker at all"


def test_more_files_than_one_read(client: RedisClient, view: RedisView) -> None:
    n = 2_350
    job = a_job(client, n)
    a_worker(client)
    done = set()
    while tasks := take_all(client):
        for task in tasks:
            host = f"h{task.token.task % 300}"
            if task.token.task % 7:
                complete(client, "w1", str(task.token), task.file.size, host)
                done.add(task.token.task)
            else:
                client.fail("w1", str(task.token), failure(task.file.path), None)
    listed = list(view.files(job))
    assert [file.path for file in listed] == [f"f{i}" for i in range(n)]
    assert {i for i, file in enumerate(listed) if file.status is TaskStatus.DONE} == done
    assert all(listed[i].host == f"h{i % 300}" for i in done)
    failed = list(view.files(job, failed_only=True))
    assert [(file.path, file.size) for file in failed] == [(f"f{i}", i) for i in range(0, n, 7)]
    assert len(view.failures(job)) == 20
    assert len(view.failures(job, limit=1000)) == len(failed)


def test_failures_come_by_path_and_bad_ones_are_shown_as_they_are(
    client: RedisClient, view: RedisView, redis: redis_py.Redis
) -> None:
    job = a_job(client, 3)
    a_worker(client)
    for path in ("z", "a"):
        client.fail("w1", str(take(client).token), failure(path), None)
    redis.hset(f"{NS}job:{job}:failed", "2", "0\tnot json")
    assert [reason.path for reason in view.failures(job)] == ["?", "a", "z"]
    assert "not json" in view.failures(job)[0].error


def test_files_of_a_job_whose_tasks_have_expired(
    client: RedisClient, view: RedisView, redis: redis_py.Redis
) -> None:
    job = a_job(client, 2)
    a_worker(client)
    for task in take_all(client):
        client.fail("w1", str(task.token), failure(task.file.path, "gone"), None)
    redis.delete(f"{NS}job:{job}:tasks")
    assert list(view.files(job)) == []
    assert [file.error for file in view.files(job, failed_only=True)] == ["gone", "gone"]


def test_reading_changes_nothing(client: RedisClient, view: RedisView, redis: redis_py.Redis) -> None:
    from tests.queue.steps import dump

    job = a_job(client, 3)
    a_worker(client)
    client.fail("w1", str(take(client).token), failure(), None)
    before = dump(redis)
    view.jobs()
    view.find("org/repo1")
    view.workers()
    view.queue()
    view.failures(job)
    list(view.files(job))
    assert dump(redis) == before


def test_a_listing_that_still_grows(client: RedisClient, view: RedisView) -> None:
    job = a_job(client, 2, seal=False)
    reading = view.files(job)
    first = next(reading)
    client.submit(job, 2, files(1, 2), "more")
    assert [first.path, *(file.path for file in reading)] == ["f0", "f1"]


def test_a_worker_is_overdue_from_the_end_of_its_lease_on(client: RedisClient) -> None:
    a_worker(client)
    view = RedisView(client)
    for over in (-60_000, 5):
        seconds, micros = client.commands.time()
        end = seconds * 1000 + micros // 1000 - over
        client.commands.zadd(client.key("workers"), {"w1": end})
        assert view.overdue() == (["w1"] if over > 0 else []), f"{over} ms after its end"
