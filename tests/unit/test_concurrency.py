"""As many slots do small files as one interpreter keeps up with, and all of them where they wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.cancel import Cancel
from distributed_downloader.concurrency import SILENT, Concurrency, Meter, busy
from distributed_downloader.hold import Hold, now
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, RepoFile, RepoType, Token
from distributed_downloader.outage import Outage
from distributed_downloader.outcome import Finished
from distributed_downloader.queue_terms import Limits
from distributed_downloader.slots import Slots

LIMITS = Limits()
SPEC = JobSpec(
    repo_type=RepoType.MODEL,
    repo_id="org/model",
    revision="main",
    commit="a" * 40,
    endpoint="http://localhost",
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def done(files: Concurrency, share: float | None) -> None:
    files.begin()
    files.end(share)


def test_the_first_small_file_is_alone_until_something_is_known(clock: Clock) -> None:
    files = Concurrency(4, clock)
    assert files.admits()
    files.begin()
    assert not files.admits()


@pytest.mark.parametrize(
    ("share", "limit"), [(1.2, 1), (0.84, 1), (0.51, 1), (0.5, 2), (0.3, 3), (0.1, 8), (0.0, 8)]
)
def test_together_they_keep_one_interpreter_busy(clock: Clock, share: float, limit: int) -> None:
    files = Concurrency(8, clock)
    done(files, share)
    assert files.limit == limit


def test_what_is_not_measured_changes_nothing(clock: Clock) -> None:
    files = Concurrency(8, clock)
    done(files, 0.25)
    done(files, None)
    assert files.limit == 4


def test_where_nothing_moves_all_slots_may_begin(clock: Clock) -> None:
    files = Concurrency(4, clock)
    files.begin()
    clock.now = SILENT / 2
    assert not files.admits()
    clock.now = 2 * SILENT
    for _ in range(3):
        assert files.admits()
        files.begin()
    assert not files.admits(), "there are no more slots"


@given(st.integers(1, 100), st.lists(st.none() | st.floats(0, 100)))
def test_there_is_always_one_and_never_more_than_there_are_slots(
    slots: int, shares: list[float | None]
) -> None:
    files = Concurrency(slots, Clock())
    for share in shares:
        done(files, share)
        assert 1 <= files.limit <= slots
        assert files.admits()


def test_a_share_is_told_of_work_that_is_long_enough() -> None:
    readings = iter([0.0, 0.03, 0.03])
    meter = Meter(lambda: next(readings))
    assert meter.lap(0.015) is None
    assert meter.lap(0.045) == pytest.approx(0.5)
    assert meter.lap(0.03) == 0


def test_a_thread_is_busy_as_long_as_it_computes_and_not_while_it_sleeps() -> None:
    before, computed = busy(), time.thread_time()
    while time.thread_time() - computed < 0.01:
        pass
    assert busy() - before >= 0.01
    before, began = busy(), time.monotonic()
    threading.Event().wait(0.1)
    assert busy() - before <= time.monotonic() - began - 0.09


class Runner:
    """Runs a task as it is told to."""

    def __init__(self, run: Callable[[DownloadTask], None]) -> None:
        self._run = run

    def run(
        self, task: DownloadTask, cancel: Cancel, progress: Callable[[int], None], hold: Hold
    ) -> Finished:
        self._run(task)
        return Finished()

    def close(self) -> None:
        pass


def slots_of(count: int, run: Callable[[DownloadTask], None]) -> Slots:
    class Reports:
        def success(self, *_: object) -> Callable[[], None]:
            return lambda: None

    reports, none = cast("Any", Reports()), cast("Any", None)
    outage, between = Outage("x"), lambda: 0.0
    return Slots(count, Runner(run), reports, none, outage=outage, limits=LIMITS, pause_between=between)


def task(number: int, size: int) -> DownloadTask:
    file = RepoFile(path=f"{number}.bin", size=size)
    return DownloadTask(Token(1, number, 1), SPEC, Descriptor(file=file))


def test_small_files_that_wait_are_done_by_all_slots() -> None:
    together = threading.Barrier(4)
    slots = slots_of(4, lambda _: cast("None", together.wait(60)))
    slots.start("w", [task(number, LIMITS.small) for number in range(8)], Cancel(), now())
    assert slots.wait_idle(60)
    assert not together.broken


def test_a_large_file_waits_for_no_small_one() -> None:
    started, go = threading.Semaphore(0), threading.Event()

    def run(_: DownloadTask) -> None:
        started.release()
        go.wait(60)

    slots = slots_of(3, run)
    slots._small = Concurrency(3, lambda: 0.0)  # whose clock stands still: one small file, for ever
    slots.start("w", [task(0, 1)], Cancel(), now())
    slots.start("w", [task(number, LIMITS.small + 1) for number in (1, 2)], Cancel(), now())
    assert all(started.acquire(timeout=60) for _ in range(3))
    go.set()
    assert slots.wait_idle(60)


def test_a_slot_that_is_done_takes_the_next_small_file() -> None:
    done = []
    slots = slots_of(4, lambda each: done.append(each.token.task))
    slots._small = Concurrency(4, lambda: 0.0)
    slots.start("w", [task(number, 1) for number in range(100)], Cancel(), now())
    assert slots.wait_idle(60)
    assert done == list(range(100)), "one after the other"


def test_what_waits_is_done_when_the_slots_close() -> None:
    go, done = threading.Event(), []

    def run(each: DownloadTask) -> None:
        go.wait(60)
        done.append(each.token.task)

    slots = slots_of(2, run)
    slots._completions = cast("Any", SimpleNamespace(close=lambda: None))
    slots._small = Concurrency(2, lambda: 0.0)
    slots.start("w", [task(number, 1) for number in range(4)], Cancel(), now())
    slots.close()
    go.set()
    assert slots.wait_idle(60)
    assert sorted(done) == [0, 1, 2, 3]
