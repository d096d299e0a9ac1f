"""One worker on a real Redis, with downloads that the test plays: claim, report, adopt, die, stop, drain."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from distributed_downloader import claims
from distributed_downloader.cancel import Cancel
from distributed_downloader.config import RedisConfig
from distributed_downloader.deliverer import Deliverer
from distributed_downloader.embedded import EmbeddedRedis
from distributed_downloader.errors import (
    LocalError,
    NetworkError,
    NotFoundError,
    PlaceError,
    RateLimitError,
    UsageError,
)
from distributed_downloader.headroom import Headroom
from distributed_downloader.health import State, read
from distributed_downloader.heartbeat import Heartbeat
from distributed_downloader.hold import Hold
from distributed_downloader.life import Life
from distributed_downloader.models import DownloadTask, JobSpec, JobState, JobStatus, RepoFile, RepoType
from distributed_downloader.outcome import Finished, Outcome, Published
from distributed_downloader.queue_terms import Redo
from distributed_downloader.redis_client import Limits, RedisClient
from distributed_downloader.redis_deliveries import RedisDeliveries
from distributed_downloader.redis_view import RedisView
from distributed_downloader.retry import RetryPolicy
from distributed_downloader.worker import WorkerNode
from tests.queue.steps import NS, failure, owed_token
from tests.servers import Server, binaries

T = TypeVar("T")
SPEC = JobSpec(
    repo_type=RepoType.MODEL, repo_id="org/name", revision="main", commit="c" * 40, endpoint="http://hub.test"
)
AT_ONCE = RetryPolicy(place_delay=(0.0, 0.0), draw=lambda low, high: low)


def until(what: Callable[[], T | None], seconds: float = 30) -> T:
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return result


class Player:
    """Plays the downloads: finishes, fails or waits, as the test says by file name."""

    def __init__(self) -> None:
        self.started: list[DownloadTask] = []
        self.began: list[float] = []
        self.stopped: list[str] = []
        self.go = threading.Event()
        self.closed = False
        #: What each file that is done owes to the NAS.
        self.owes = ""
        #: Where files got their names, by path, if they are not durable there yet.
        self.published: dict[str, Published] = {}
        self.errors: dict[str, list[Exception]] = {}
        self._lock = threading.Lock()

    def run(self, task: DownloadTask, cancel: Cancel, progress: Callable[[int], None], hold: Hold) -> Outcome:
        with self._lock:
            self.started.append(task)
            self.began.append(time.monotonic())
            errors = self.errors.get(task.file.path, [])
            error = errors.pop(0) if errors else None
        if task.file.path.startswith("wait"):
            progress(5)
            while not self.go.is_set():
                if cancel.wait(0.01):
                    self.stopped.append(cancel.reason)
                    cancel.check()
        if error:
            raise error
        return Finished(owes=self.owes, published=self.published.get(task.file.path))

    def close(self) -> None:
        self.closed = True


class Stage:
    """A Redis, a player and the workers that the test starts."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.url, self.limits = url, limits
        self.clients: list[RedisClient] = []
        self.redis = self.client()
        self.view = RedisView(self.redis)
        self.raw = redis.Redis.from_url(url, decode_responses=True)
        self.player = Player()
        self.threads: list[tuple[WorkerNode, threading.Thread]] = []

    def client(self) -> RedisClient:
        self.clients.append(RedisClient(RedisConfig.model_validate({"url": self.url}), limits=self.limits))
        return self.clients[-1]

    def calls(self, *commands: str) -> int:
        """Return how often clients have called these commands."""
        about: Any = self.raw.info("commandstats")
        return sum(about.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in commands)

    def job(self, *paths: str) -> int:
        job, _ = self.redis.create_job(SPEC, 1)
        self.redis.submit(job, 0, [RepoFile(path=path, size=10) for path in paths], "d")
        self.redis.seal(job, len(paths))
        return job

    def worker(
        self,
        *,
        concurrency: int = 2,
        drain: bool = False,
        name: str | None = None,
        deliverer: Deliverer | None = None,
        headroom: Headroom | None = None,
        health_file: str = "",
    ) -> WorkerNode:
        node = WorkerNode(
            self.client(),
            self.player,
            concurrency=concurrency,
            worker_id=name,
            drain_when_empty=drain,
            policy=AT_ONCE,
            deliverer=deliverer,
            headroom=headroom,
            health_file=health_file,
        )
        thread = threading.Thread(target=node.run, daemon=True)
        thread.start()
        self.threads.append((node, thread))
        return node

    def job_with_worker(self, *paths: str) -> int:
        job = self.job(*paths)
        self.worker()
        return job

    def a_minute_passes(self) -> None:
        """Let the housekeeping find that every lease is over."""
        keeper = RedisClient(RedisConfig.model_validate({"url": self.url}), limits=Limits(tick=0))
        keeper.scripts.now = int(time.time() * 1000) + 60_000
        keeper.tick()
        keeper.close()

    def ended(self, job: int) -> JobStatus:
        return until(lambda: status if (status := self.view.job(job)).state.ended else None)

    def join(self, node: WorkerNode) -> None:
        thread = next(thread for each, thread in self.threads if each is node)
        thread.join(30)
        assert not thread.is_alive()

    def close(self) -> None:
        self.player.go.set()
        for node, _ in self.threads:
            node.stop()
        for node, _ in self.threads:
            self.join(node)
        for client in self.clients:
            client.close()
        self.raw.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with EmbeddedRedis() as url:
        stage = Stage(url, Limits(lease=3.0))
        yield stage
        stage.close()


def test_it_does_all_files_and_counts_them(stage: Stage) -> None:
    job = stage.job(*(f"file-{number}" for number in range(40)))
    stage.worker(concurrency=4)
    status = stage.ended(job)
    assert (status.state, status.done, status.bytes_done) == (JobState.DONE, 40, 400)
    assert len(stage.player.started) == 40


def test_no_more_at_once_than_it_has_slots(stage: Stage) -> None:
    stage.job(*(f"wait-{number}" for number in range(6)))
    node = stage.worker(concurrency=2)
    until(lambda: len(stage.player.started) == 2)
    before = node._heartbeat.last_beat
    until(lambda: node._heartbeat.last_beat > before)  # time enough for a third claim
    until(lambda: stage.raw.llen(f"{{hfd}}:active:{node.id}") == 2)
    assert len(node.describe().transfers) == len(stage.player.started) == 2


def test_small_files_are_claimed_ahead_and_go_to_others_when_they_wait_too_long(stage: Stage) -> None:
    stage.job(*(f"wait-{number}" for number in range(6)))
    node = stage.worker(concurrency=2, name="w")
    until(lambda: len(node.holds()) > 2)
    until(lambda: len(node.describe().transfers) == 2)  # the others wait for a slot
    until(lambda: stage.raw.llen("{hfd}:active:w") == len(node.holds()) == 2)
    stage.worker(concurrency=4)
    until(lambda: len(stage.player.started) == 6)
    assert len({task.file.path for task in stage.player.started}) == 6


def test_a_retry_whose_bytes_are_here_comes_before_more_small_files(stage: Stage) -> None:
    """The files ahead of it never end: each that is done brings another."""
    node = stage.worker(concurrency=1, name="w")
    until(stage.view.workers)
    stage.job("kept", *(f"f-{number}" for number in range(300)))
    until(lambda: stage.view.jobs()[0].done > 5)
    parked = node._heartbeat.parked
    assert parked == 0
    node._claims.ahead, node._heartbeat.parked = True, 1
    until(lambda: node._heartbeat.parked == 0)  # it has been asked for
    stage.ended(1)


def test_many_small_files_take_few_round_trips(stage: Stage) -> None:
    count = 400
    for _ in range(count // 100):
        stage.player.started.clear()
        job = stage.job(*(f"f-{number}" for number in range(100)))
        if not stage.threads:
            calls = stage.calls("evalsha", "brpoplpush")
            stage.worker(concurrency=8)
        stage.ended(job)
        assert len({task.file.path for task in stage.player.started}) == 100
        stage.redis.forget(job)
    # Claim, begin and complete of each file alone would be three; what is left is mostly the reports.
    assert stage.calls("evalsha", "brpoplpush") - calls < 2 * count


def test_one_file_s_failure_does_not_stop_the_others(stage: Stage) -> None:
    stage.player.errors["bad"] = [NotFoundError("the hub has no such file")]
    job = stage.job("good-1", "bad", "good-2")
    stage.worker()
    status = stage.ended(job)
    assert (status.state, status.done, status.failed) == (JobState.FAILED, 2, 1)
    (failure,) = stage.view.failures(job)
    assert (failure.path, failure.error, failure.tries) == ("bad", "the hub has no such file", 1)


def test_three_tries_then_it_is_reported_and_retry_queues_it_again(stage: Stage) -> None:
    stage.player.errors["flaky"] = [NetworkError("reset")] * 3
    job = stage.job("flaky")
    stage.worker()
    assert stage.ended(job).state is JobState.FAILED
    assert [task.tries for task in stage.player.started] == [0, 1, 2]
    assert stage.redis.control("retry", job)
    assert stage.ended(job).state is JobState.DONE


def test_two_failures_are_not_the_end(stage: Stage) -> None:
    stage.player.errors["flaky"] = [NetworkError("reset")] * 2
    assert stage.job("flaky")
    stage.worker()
    assert stage.ended(1).state is JobState.DONE


def test_an_error_of_ours_is_a_failure_of_the_file_not_of_the_worker(stage: Stage) -> None:
    stage.player.errors["odd"] = [ZeroDivisionError("oops")]
    job = stage.job("odd", "even")
    stage.worker()
    assert stage.ended(job).state is JobState.DONE
    assert len(stage.player.started) == 3


def test_a_pause_that_the_hub_asks_for_is_kept_by_the_whole_fleet(stage: Stage) -> None:
    stage.player.errors["limited"] = [RateLimitError("slow down", 2)]
    stage.job("limited")
    stage.worker(concurrency=1)
    until(lambda: stage.raw.keys("{hfd}:hold:*"))
    over = time.monotonic() + stage.raw.pttl("{hfd}:hold:http://hub.test") / 1000
    spec = SPEC.model_copy(update={"repo_id": "org/other"})
    job, _ = stage.redis.create_job(spec, 1)
    stage.redis.submit(job, 0, [RepoFile(path=f"other-{number}", size=10) for number in range(3)], "d")
    stage.redis.seal(job, 3)
    stage.worker(concurrency=3)
    assert stage.ended(job).state is JobState.DONE
    assert stage.ended(1).state is JobState.DONE
    began = stage.player.began[1:]
    assert len(began) == 4
    assert min(began) >= over - 0.05


def test_a_file_without_a_place_here_is_tried_elsewhere_and_does_not_stop_the_others(stage: Stage) -> None:
    stage.player.errors["huge"] = [PlaceError("too large for this disk")] * 10
    job = stage.job("huge", *(f"small-{number}" for number in range(20)))
    node = stage.worker()
    status = stage.ended(job)
    assert (status.state, status.done, status.failed) == (JobState.FAILED, 20, 1)
    assert node.trouble == ""
    assert stage.view.failures(job)[0].error == "too large for this disk"


def test_pauses_that_the_hub_asks_for_leave_a_file_its_three_tries(stage: Stage) -> None:
    limited: list[Exception] = [RateLimitError("slow down", 0)] * 3
    stage.player.errors["file"] = [*limited, NetworkError("reset"), NetworkError("reset")]
    assert stage.ended(stage.job_with_worker("file")).state is JobState.DONE
    assert [task.tries for task in stage.player.started] == [0, 0, 0, 0, 1, 2]


def test_a_machine_with_a_full_disk_gives_the_task_back_and_rests(stage: Stage) -> None:
    stage.player.errors["big"] = [LocalError("/data is full")]
    job = stage.job("big")
    node = stage.worker()
    until(lambda: node.trouble == "/data is full")
    assert (
        until(lambda: [each for each in stage.view.workers() if each.trouble])[0].trouble == "/data is full"
    )
    assert stage.view.job(job).failed == 0
    healthy = stage.worker()
    assert stage.ended(job).state is JobState.DONE
    assert healthy.trouble == ""
    assert [task.tries for task in stage.player.started] == [0, 0]


class Scarce(Headroom):
    """The headroom of a machine that has what the test says."""

    looks = 0

    def look(self) -> str:
        self.looks += 1
        return self.reason


def test_a_machine_without_headroom_claims_nothing_until_it_has_some(stage: Stage) -> None:
    headroom = Scarce()
    headroom.reason = "91% of the memory are in use"
    job, node = stage.job("a", "b"), stage.worker(headroom=headroom)
    until(lambda: headroom.looks >= 3)
    assert [worker.trouble for worker in stage.view.workers()] == [node.trouble] == [headroom.reason]
    assert stage.view.job(job).pending == 2
    headroom.reason = ""
    assert stage.ended(job).state is JobState.DONE


def test_a_file_whose_folder_does_not_get_to_disk_is_not_done_and_others_are(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "broken"):
        (tmp_path / name).mkdir()
        stage.player.published[name] = Published(tmp_path, "", (name.encode(),))
    broken = (tmp_path / "broken").stat()
    real, mended = os.fsync, threading.Event()

    def fsync(fd: int) -> None:
        if os.path.samestat(os.fstat(fd), broken) and not mended.is_set():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    job = stage.job("good", "broken")
    node = stage.worker()
    until(lambda: "broken: input/output error" in node.trouble)
    until(lambda: stage.view.job(job).done == 1)
    status = stage.view.job(job)
    assert (status.done, status.failed) == (1, 0)
    mended.set()
    stage.worker()
    assert stage.ended(job).state is JobState.DONE
    assert [task.file.path for task in stage.player.started].count("broken") > 1
    assert {task.tries for task in stage.player.started} == {0}


def test_stop_gives_everything_back_at_once_and_leaves(stage: Stage) -> None:
    job = stage.job("wait-1", "wait-2", "wait-3")
    node = stage.worker(concurrency=2)
    until(lambda: len(stage.player.started) == 2)
    node.stop()
    stage.join(node)
    assert stage.player.closed
    status = stage.view.job(job)
    assert (status.pending + status.active, status.failed) == (3, 0)
    assert stage.player.stopped == ["the worker stops"] * 2
    assert stage.view.workers() == []
    stage.player.go.set()
    stage.worker()
    assert stage.ended(job).state is JobState.DONE
    assert all(task.tries == 0 for task in stage.player.started)


def test_stop_ends_a_worker_that_waits_for_work(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_SECONDS", 600)
    node = stage.worker()
    until(stage.view.workers)
    node.stop()
    stage.join(node)


def test_drain_ends_a_worker_that_waits_for_work(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_SECONDS", 600)
    node = stage.worker()
    until(stage.view.workers)
    node.drain()
    stage.join(node)


def test_drain_finishes_what_runs_and_claims_nothing_new(stage: Stage) -> None:
    job = stage.job("wait-1", "wait-2", "wait-3")
    node = stage.worker(concurrency=2)
    until(lambda: len(stage.player.started) == 2)
    node.drain()
    until(lambda: len(node.holds()) == 2)
    stage.player.go.set()
    stage.join(node)
    assert stage.view.job(job).done == 2
    assert stage.player.stopped == []


def test_drain_gives_back_what_was_claimed_ahead(stage: Stage) -> None:
    stage.job("wait-1", "wait-2", "wait-3")
    node = stage.worker(concurrency=2, name="w")
    until(lambda: len(node.holds()) == 3)
    node.drain()
    until(lambda: stage.raw.llen("{hfd}:active:w") == 2)
    assert len(stage.player.started) == 2
    stage.player.go.set()
    stage.join(node)


def test_drain_when_empty_ends_when_nothing_is_left(stage: Stage) -> None:
    job = stage.job("a", "b")
    stage.join(stage.worker(drain=True))
    assert stage.view.job(job).state is JobState.DONE


def test_drain_when_empty_waits_for_a_listing_that_goes_on(stage: Stage) -> None:
    job, _ = stage.redis.create_job(SPEC, 1)
    node = stage.worker(drain=True)
    until(stage.view.workers)
    stage.redis.submit(job, 0, [RepoFile(path="late", size=10)], "d")
    until(lambda: stage.view.job(job).done == 1)
    stage.redis.seal(job, 1)
    stage.join(node)
    assert stage.view.job(job).state is JobState.DONE


class Reader:
    """Reads the only file back when it is waited for: damaged the first time, right the second."""

    nas, trouble = "cd34", ""

    def __init__(self, stage: Stage, job: int) -> None:
        self.queue, self.stage, self.job = RedisDeliveries(stage.redis), stage, job
        self.answers: list[Redo | bool] = []

    def start(self) -> None: ...

    def bell(self) -> None: ...

    def wait_done(self, seconds: float) -> bool:
        token = owed_token(self.stage.redis, "ab12", self.job, 0)
        if self.answers:
            self.answers.append(self.queue.delivered("ab12", token))
        else:
            self.answers.append(self.queue.redo("ab12", token, failure()))
            for name in self.stage.raw.zrange(f"{NS}delayed", 0, -1):
                self.stage.raw.zadd(f"{NS}delayed", {str(name): 0})  # due at once
        return True

    def stop(self) -> None: ...

    def join(self, seconds: float) -> bool:
        return True


def test_drain_when_empty_does_what_comes_back_while_it_waits_for_the_nas(stage: Stage) -> None:
    stage.player.owes = "ab12 /x"
    job = stage.job("a")
    reader = Reader(stage, job)
    stage.join(stage.worker(drain=True, deliverer=reader))
    assert reader.answers == [Redo.AGAIN, True]
    assert [task.file.path for task in stage.player.started] == ["a", "a"]
    assert stage.view.job(job).state is JobState.DONE


def test_cancel_stops_what_runs(stage: Stage) -> None:
    job = stage.job("wait-1")
    stage.worker()
    until(lambda: stage.player.started)
    stage.redis.control("cancel", job)
    until(lambda: stage.player.stopped == ["the job was cancelled"])
    until(lambda: stage.view.job(job).active == 0)


def test_forget_stops_what_runs(stage: Stage) -> None:
    job = stage.job("wait-1")
    stage.worker()
    until(lambda: stage.player.started)
    stage.redis.forget(job)
    until(lambda: stage.player.stopped == ["the job was forgotten"])


def test_a_claim_whose_reply_was_lost_goes_to_whoever_is_free(stage: Stage) -> None:
    stage.job("wait-1")
    stage.worker(name="w1", concurrency=1)
    until(lambda: stage.player.started)  # its only slot is busy: it claims nothing itself
    spec = SPEC.model_copy(update={"repo_id": "org/other"})
    job, _ = stage.redis.create_job(spec, 1)
    stage.redis.submit(job, 0, [RepoFile(path="lost", size=10)], "d")
    stage.redis.seal(job, 1)
    # What Redis does when it serves a claim; the worker never hears of it.
    assert stage.raw.brpoplpush("{hfd}:ready", "{hfd}:active:w1", 5)
    stage.worker()
    assert stage.ended(job).state is JobState.DONE
    assert stage.view.job(1).done == 0  # its own slot is still busy


def test_a_worker_that_was_taken_for_dead_stops_and_comes_back_under_a_new_name(stage: Stage) -> None:
    job = stage.job("wait-1")
    node = stage.worker(name="w1")
    until(lambda: stage.player.started)
    stage.a_minute_passes()
    until(lambda: stage.player.stopped == ["the lease was lost"])
    until(lambda: node.id != "w1" and [each.id for each in stage.view.workers()] == [node.id])
    stage.player.go.set()
    assert stage.ended(job).state is JobState.DONE
    assert [task.tries for task in stage.player.started] == [0, 0]


def waits_for_redis(caplog: pytest.LogCaptureFixture) -> bool:
    return any(line.endswith("; waiting for it") for line in caplog.messages)


def test_it_waits_for_a_redis_that_is_not_there_yet(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(binaries()[0])
    player = Player()
    client = RedisClient(server.config, limits=Limits(lease=3.0))
    node = WorkerNode(client, player, concurrency=1)
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    until(lambda: waits_for_redis(caplog))
    try:
        server.start()
        stage = Stage(server.config.url.get_secret_value(), Limits(lease=3.0))
        assert stage.ended(stage.job("file")).state is JobState.DONE
        stage.close()
        node.stop()
        thread.join(30)
        assert not thread.is_alive()
    finally:
        client.close()
        server.remove()


@pytest.mark.parametrize("end", [WorkerNode.stop, WorkerNode.drain])
def test_it_can_be_ended_while_it_waits_for_redis(
    tmp_path: Path, end: Callable[[WorkerNode], None], caplog: pytest.LogCaptureFixture
) -> None:
    client = RedisClient(RedisConfig.model_validate({"url": f"unix://{tmp_path}/none"}))
    node = WorkerNode(client, Player(), concurrency=1)
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    until(lambda: waits_for_redis(caplog))
    end(node)
    thread.join(30)
    assert not thread.is_alive()


def test_a_worker_that_has_left_does_not_come_back(stage: Stage) -> None:
    node = stage.worker()
    until(stage.view.workers)
    node.stop()
    stage.join(node)
    node._heartbeat._beat(node.describe())  # a last beat that was slow on its way
    assert stage.view.workers() == []


def test_names() -> None:
    assert Life.first(None).id != Life.first(None).id
    with pytest.raises(UsageError, match="worker id"):
        WorkerNode(RedisClient(RedisConfig()), Player(), concurrency=1, worker_id="a b")


def test_a_claim_that_is_cut_off_is_no_outage(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A server that was restarted, or a router that forgot us: the next call answers, so nothing is said."""
    caplog.set_level(logging.INFO)
    node = stage.worker()

    def waiting() -> str | None:
        claims = (each for each in stage.raw.client_list() if each["cmd"] == "brpoplpush")
        return next((each["id"] for each in claims if "b" in each["flags"]), None)

    stage.raw.client_kill_filter(_id=until(waiting))
    assert stage.ended(stage.job("a")).state is JobState.DONE
    assert not [line for line in caplog.messages if "waiting for it" in line or "is back" in line]
    assert node.describe().absence is None


def test_who_leaves_joins_no_thread_that_has_not_begun(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's thread makes it while the worker leaves by itself."""
    node, begin, joinable = stage.worker(), threading.Thread.start, list[list[threading.Thread]]()

    def start(thread: threading.Thread) -> None:
        if thread.name == "unblock":
            joinable.append(list(node._wake._insisting))
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    node.drain()
    stage.join(node)
    assert joinable == [[]]


# -- its health -----------------------------------------------------------------------------------


def test_a_worker_that_waits_or_works_is_alive_and_leaves_no_file(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "health"
    node = stage.worker(health_file=str(path))
    job = stage.job("wait")
    until(lambda: stage.player.started)
    health = until(lambda: found if (found := read(path)) and len(found.turns) == 2 else None)
    assert (health.worker, health.state, health.ailment(time.monotonic())) == (node.id, State.RUNNING, "")
    node.drain()
    assert until(lambda: found if (found := read(path)) and found.state is State.LEAVING else None)
    stage.player.go.set()
    stage.join(node)
    assert stage.view.job(job).state is JobState.DONE
    assert not path.exists()


@pytest.mark.parametrize("thread", ["fetcher", "heartbeat"])
def test_a_thread_that_hangs_shows_in_what_the_other_one_writes(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    go_on, path = threading.Event(), tmp_path / "health"
    stage.limits = replace(stage.limits, lease=0.2)
    for name in ("_SECONDS", "_SECONDS_WHEN_IDLE"):  # no claim waits for longer than a thread may be silent
        monkeypatch.setattr(claims, name, 0.1)
    kind, name = (claims.Claims, "next") if thread == "fetcher" else (Heartbeat, "_say_parts")
    real = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda *words: real(*words) if go_on.wait(30) else None)
    stage.worker(health_file=str(path))
    said = until(lambda: found.ailment(time.monotonic()) if (found := read(path)) else "")
    assert said.startswith(f"its {thread} has not gone on for ")
    go_on.set()
    until(lambda: (found := read(path)) and not found.ailment(time.monotonic()))
