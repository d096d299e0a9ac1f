"""One slot does small files where it computes, and all do where each waits for something else."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from distributed_downloader.cancel import Cancel
from distributed_downloader.concurrency import SILENT, Concurrency, Lap, Meter
from distributed_downloader.hold import Hold, now
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, RepoFile, RepoType, Token
from distributed_downloader.outage import Outage
from distributed_downloader.outcome import Finished
from distributed_downloader.queue_terms import Limits
from distributed_downloader.slots import Slots
from distributed_downloader.waits import waited, waiting

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


#: Laps of a slot that computes, that waits as long, and that does neither, for others have the interpreter.
COMPUTES, WAITS, IDLES = Lap(0.05, 0.04, 0.01), Lap(0.05, 0.02, 0.02), Lap(0.05, 0.001, 0.04)


def done(files: Concurrency, lap: Lap | None) -> None:
    files.begin()
    files.end(lap)


def opened(clock: Clock, slots: int = 4) -> Concurrency:
    files = Concurrency(slots, clock)
    done(files, WAITS)
    assert files.limit == slots
    return files


def test_the_first_small_file_is_alone_until_something_is_known(clock: Clock) -> None:
    files = Concurrency(4, clock)
    assert files.admits()
    files.begin()
    assert not files.admits()


def test_one_slot_that_computes_stays_alone(clock: Clock) -> None:
    files = Concurrency(4, clock)
    for lap in (COMPUTES, None, COMPUTES):
        done(files, lap)
        assert files.limit == 1


def test_where_one_slot_waits_all_may_begin(clock: Clock) -> None:
    files = opened(clock)
    for _ in range(4):
        assert files.admits()
        files.begin()
    assert not files.admits(), "there are no more slots"


def test_where_nothing_moves_all_slots_may_begin(clock: Clock) -> None:
    files = Concurrency(4, clock)
    files.begin()
    clock.now = SILENT / 2
    assert not files.admits()
    clock.now = 2 * SILENT
    assert files.admits()
    assert files.room == 3


def test_that_there_was_nothing_to_do_says_nothing(clock: Clock) -> None:
    files = Concurrency(4, clock)
    done(files, COMPUTES)
    clock.now = 60
    assert files.admits()
    assert files.limit == 1


def test_slots_that_keep_the_interpreter_busy_give_one_a_try(clock: Clock) -> None:
    files = opened(clock)
    files.begin()
    done(files, COMPUTES)
    assert files.limit == 4, "that was found to be too few just now"
    clock.now = 10
    done(files, IDLES)
    assert files.limit == 4, "these are not busy"
    done(files, COMPUTES)
    assert files.limit == 1


def test_what_was_measured_while_others_ran_says_nothing_of_one_alone(clock: Clock) -> None:
    files = opened(clock)
    files.begin()
    clock.now, age = 10, files.age
    done(files, COMPUTES)
    assert files.limit == 1
    assert not files.admits(), "another still runs"
    files.end(WAITS)
    assert (files.limit, files.age) == (1, age)
    files.begin()
    assert files.age == age + 1, "who measures begins anew"
    files.end(WAITS)
    assert files.limit == 4


def test_it_is_tried_less_and_less_often_in_vain(clock: Clock) -> None:
    files, tried = opened(clock), list[float]()
    while len(tried) < 8:
        clock.now += 0.01
        done(files, COMPUTES)
        if files.limit == 1:
            tried.append(clock.now)
            done(files, WAITS)
    pauses = [round(later - earlier, 1) for earlier, later in itertools.pairwise(tried)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1 < pauses[-2] == pauses[-1]


class Fleet(RuleBasedStateMachine):
    """Slots that begin and end small files in any order, with any laps, at any time."""

    SLOTS = 3

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.files, self.running = Concurrency(self.SLOTS, self.clock), 0

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def begin(self) -> None:
        if self.running < self.SLOTS and self.files.admits():
            self.files.begin()
            self.running += 1

    @precondition(lambda self: self.running)
    @rule(lap=st.none() | st.sampled_from([COMPUTES, WAITS, IDLES]))
    def end(self, lap: Lap | None) -> None:
        self.files.end(lap)
        self.running -= 1

    @invariant()
    def one_may_always_begin(self) -> None:
        assert 1 <= self.files.limit <= self.SLOTS
        assert self.running or self.files.admits()
        assert self.running + self.files.room <= self.SLOTS

    @invariant()
    def nobody_waits_where_nothing_moves(self) -> None:
        if self.running == self.SLOTS:
            return
        now, self.clock.now = self.clock.now, self.clock.now + 2 * SILENT
        copied = copy.copy(self.files)
        assert copied.admits()
        self.clock.now = now


TestFleet = Fleet.TestCase


def test_a_lap_tells_of_work_that_is_long_enough() -> None:
    computed, waited = iter([0.0, 0.03, 0.05]), iter([1.0, 1.01, 1.05])
    meter = Meter(lambda: next(computed), lambda: next(waited))
    assert meter.lap(0.03) is None
    assert meter.lap(0.03) == pytest.approx((0.06, 0.03, 0.01))
    assert meter.lap(0.01) is None
    assert meter.lap(0.06) == pytest.approx((0.07, 0.02, 0.04))


def test_a_meter_that_restarts_forgets_what_was() -> None:
    seconds = iter([0.0, 0.02, 0.03])
    meter = Meter(lambda: next(seconds), lambda: 0.0)
    assert meter.lap(0.04) is None
    meter.restart()
    assert meter.lap(0.04) is None
    assert meter.lap(0.01) == pytest.approx((0.05, 0.01, 0.0))


def test_a_thread_that_computes_does_not_wait() -> None:
    before, began = waited(), time.thread_time()
    with waiting():
        while time.thread_time() - began < 0.02:
            pass
        threading.Event().wait(0.05)
    own = waited() - before
    assert own > 0.04
    began_wall = time.monotonic()
    with waiting():
        threading.Event().wait(0.01)
    assert waited() - before - own <= time.monotonic() - began_wall
    other = list[float]()
    thread = threading.Thread(target=lambda: other.append(waited()))
    thread.start()
    thread.join()
    assert other == [0.0], "each thread has its own"


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
