"""How a worker reports the end of a task, what its log says of that, and when it rests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import fakeredis
import pytest

from distributed_downloader import rest as rests
from distributed_downloader import running as runs
from distributed_downloader.cancel import Cancel
from distributed_downloader.completions import Completion
from distributed_downloader.errors import (
    HubAwayError,
    LocalError,
    PlaceUnseenError,
    StoppedError,
    TransferError,
)
from distributed_downloader.hold import Hold
from distributed_downloader.models import Descriptor, DownloadTask, RepoFile, Token
from distributed_downloader.outcome import Finished
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.reports import Reports
from distributed_downloader.rest import Rest
from distributed_downloader.retry import RetryPolicy
from distributed_downloader.running import Running
from tests.unit.looking_on import spec, worker

ME = "gpu-07-4711-ab12cd"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rests, "time", found)
    monkeypatch.setattr(runs, "time", found)
    return found


@pytest.fixture
def client() -> Iterator[RedisClient]:
    made = RedisClient.over(fakeredis.FakeRedis(decode_responses=True, encoding_errors="surrogateescape"))
    made.register(worker(ME))
    yield made
    made.close()


def claim(client: RedisClient, *files: RepoFile) -> DownloadTask:
    """Queue a job with these files, and let the worker begin with the first."""
    job, _ = client.create_job(spec(), 1)
    client.submit(job, 0, files, "")
    client.seal(job, len(files))
    task = client.begin(ME, client.claim(ME, 1) or "")
    assert task
    return task


def running(task: DownloadTask) -> Running:
    return Running(ME, task, Cancel(), Hold.unlimited())


# -- rests ---------------------------------------------------------------------------------------------


def test_a_trouble_that_goes_on_is_told_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rest = Rest()
    for _ in range(3):
        rest.begin("/nas is not there", PlaceUnseenError())
        rest.begin("/nas is not there", PlaceUnseenError())  # another slot, during the pause
        clock.now += 61
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("ERROR", "/nas is not there; claiming nothing for 5 s"),
        ("DEBUG", "/nas is not there; claiming nothing for 10 s"),
        ("DEBUG", "/nas is not there; claiming nothing for 20 s"),
    ]


def test_another_trouble_and_one_that_comes_back_later_are_told(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    rest = Rest()
    for reason, seconds in (("full", 6.0), ("read-only", 400.0), ("read-only", 0)):
        rest.begin(reason, LocalError())
        clock.now += seconds
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "full",
        "read-only",
        "read-only",
    ]


# -- what the log says ---------------------------------------------------------------------------------


def report(client: RedisClient, task: DownloadTask, error: TransferError) -> list[tuple[str, TransferError]]:
    """Report a failure; return the rests that it began."""
    rested: list[tuple[str, TransferError]] = []
    made = Reports(client, host="h1", policy=RetryPolicy(), on_rest=lambda *what: rested.append(what))
    made.failure(running(task), error)()
    return rested


@pytest.mark.parametrize(
    ("error", "rested", "level"),
    [
        (LocalError("a: /data is read-only"), ["/data is read-only"], logging.DEBUG),
        (StoppedError("the worker stops"), [], logging.INFO),
    ],
)
def test_what_is_this_machines_trouble_is_told_by_its_rest_alone(
    client: RedisClient,
    caplog: pytest.LogCaptureFixture,
    error: TransferError,
    rested: list[str],
    level: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    task = claim(client, RepoFile(path="a", size=5))
    assert report(client, task, error) == [(reason, error) for reason in rested]
    (record,) = (record for record in caplog.records if record.getMessage().startswith("back "))
    assert record.levelno == level
    assert record.getMessage() == f"back    a: {str(error).removeprefix('a: ')}"


def test_a_worker_rests_only_while_others_see_the_folder(
    client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody does, the job sleeps, and the workers have time for others."""
    client.register(worker("another"))
    error = PlaceUnseenError("a: /nas is not there")
    task = claim(client, RepoFile(path="a", size=5), RepoFile(path="b", size=5))
    assert report(client, task, error) == [("/nas is not there", error)]
    assert caplog.messages == []
    client.leave("another")
    other = client.begin(ME, client.claim(ME, 1) or "")
    assert other
    assert report(client, other, error) == []
    said = f"back    {other.name}: {error}; no living worker can go on with job {other.token.job}"
    assert caplog.messages == [said]
    assert client.claim(ME, 1) is None


def test_each_job_of_a_hub_that_is_away_is_told_once_and_when_it_goes_on(
    client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = Reports(client, host="h1", policy=RetryPolicy(), on_rest=lambda *_: None)
    jobs = [client.create_job(spec(f"org/{name}"), 1)[0] for name in "ab"]
    for job in jobs:
        client.submit(job, 0, [RepoFile(path="a", size=5)], "")
        client.seal(job, 1)

    def wake(*jobs: int) -> list[DownloadTask]:
        for job in jobs:
            client.control("pause", job)
            client.control("resume", job)
        tasks = [task for _ in jobs if (task := client.begin(ME, client.claim(ME, 1) or ""))]
        assert sorted(task.token.job for task in tasks) == sorted(jobs)
        return sorted(tasks, key=lambda task: task.token.job)

    for _ in range(3):
        for task in wake(*jobs):
            made.failure(running(task), HubAwayError("the hub is away"))()
    said = "back    a: the hub is away; no living worker can go on with job"
    told = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert told == [(logging.WARNING, f"{said} {job}") for job in jobs]

    caplog.clear()
    (task,) = wake(jobs[1])
    client.release(ME, [str(task.token)])
    report_done(made, client, task)
    assert caplog.messages == ["done    a, but the task is not this worker's any more"]

    caplog.clear()
    (task,) = wake(jobs[1])
    report_done(made, client, task)
    assert caplog.messages == [f"job {jobs[1]} goes on", "done    a"]


@pytest.mark.parametrize(
    ("file", "place", "line"),
    [
        (RepoFile(path="a", size=5), "", "done    a"),
        (RepoFile(path="a", size=5, sha256="0" * 64), "ab12", "sealed  a: complete, sha256 right"),
        (RepoFile(path="a", size=5, git_sha1="0" * 40), "ab12", "sealed  a: complete, git hash right"),
        (RepoFile(path="a", size=5), "ab12", "sealed  a: complete, size right"),
    ],
)
def test_a_file_that_is_done_and_one_that_is_sealed(
    client: RedisClient, caplog: pytest.LogCaptureFixture, file: RepoFile, place: str, line: str
) -> None:
    caplog.set_level(logging.INFO)
    task = claim(client, file)
    task = replace(task, about=Descriptor(file=file, place=place))
    made = Reports(client, host="h1", policy=RetryPolicy(), on_rest=lambda *_: None)
    report_done(made, client, task)
    assert caplog.messages == [line]


def report_done(made: Reports, client: RedisClient, task: DownloadTask) -> None:
    completion = made.success(running(task), Finished())
    assert isinstance(completion, Completion)
    (settled,) = client.complete_all(ME, completion.host, [completion.done()])
    completion.settle(completion, settled)


# -- how fast ------------------------------------------------------------------------------------------


def test_the_first_burst_and_what_was_there_are_no_rate(clock: Clock) -> None:
    file = RepoFile(path="a", size=10_000)
    one = running(DownloadTask(token=Token(1, 0, 0), spec=spec(), about=Descriptor(file=file)))
    one.progress(4000)
    clock.now += 0.01
    one.progress(4500)
    assert one.snapshot().bytes_per_second == 500
    clock.now += 2
    one.progress(6500)
    assert one.snapshot().bytes_per_second == 1000
