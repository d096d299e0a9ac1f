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
from distributed_downloader.concurrency import SILENT, Concurrency, Lap, Meter, busy
from distributed_downloader.hold import Hold, now
from distributed_downloader.models import Descriptor, DownloadTask, RepoFile, Token
from distributed_downloader.outage import Outage
from distributed_downloader.outcome import Finished
from distributed_downloader.queue_terms import Limits
from distributed_downloader.slots import Slots
from tests.unit.test_seal import SPEC

LIMITS = Limits()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


#: Laps of a slot that computes, that waits for half of its time, and that waits for nearly all of it.
COMPUTES, WAITS, IDLES = Lap(0.05, 0.04), Lap(0.05, 0.025), Lap(0.05, 0.001)


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
    assert files.limit == 4


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


def closing(clock: Clock) -> Concurrency:
    """Return one that waits for another file to end until one slot is alone."""
    files = opened(clock)
    files.begin()
    clock.now = 10
    done(files, COMPUTES)
    assert not files.admits()
    return files


def test_what_was_measured_while_others_ran_says_nothing_of_one_alone(clock: Clock) -> None:
    files = closing(clock)
    age = files.age
    files.end(WAITS)
    assert (files.limit, files.age) == (1, age)
    files.begin()
    assert files.age == age + 1, "who measures begins anew"
    files.end(WAITS)
    assert files.limit == 4


def test_slots_wait_but_a_moment_for_one_to_be_alone(clock: Clock) -> None:
    files = opened(clock, 8)
    for _ in range(6):
        files.begin()
    clock.now = 10
    done(files, COMPUTES)
    for _ in range(5):  # an end now and then must not keep all others from their work
        clock.now += SILENT / 4
        files.end(None)
    assert files.admits()
    assert files.limit == 8


def test_it_is_tried_less_and_less_often_in_vain(clock: Clock) -> None:
    files, tried = opened(clock), list[float]()
    for _ in range(3000):
        clock.now += 0.01
        files.begin()
        done(files, COMPUTES)
        files.end(None)
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

    @precondition(lambda self: self.running > 0)
    @rule(lap=st.none() | st.sampled_from([COMPUTES, WAITS, IDLES]))
    def end(self, lap: Lap | None) -> None:
        self.files.end(lap)
        self.running -= 1

    @invariant()
    def one_may_always_begin(self) -> None:
        assert 1 <= self.files.limit <= self.SLOTS
        assert self.running or self.files.admits()

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
    seconds = iter([1.0, 1.03, 2.0])
    meter = Meter(lambda: next(seconds))
    assert meter.lap(0.03) is None
    assert meter.lap(0.03) == pytest.approx((0.06, 0.03))
    assert meter.lap(0.04) is None
    assert meter.lap(0.01) == pytest.approx((0.05, 0.97))


def test_a_meter_that_restarts_forgets_what_was() -> None:
    seconds = iter([0.0, 0.02, 0.03])
    meter = Meter(lambda: next(seconds))
    assert meter.lap(0.04) is None
    meter.restart()
    assert meter.lap(0.04) is None
    assert meter.lap(0.01) == pytest.approx((0.05, 0.01))


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


def held(started: threading.Semaphore, go: threading.Event) -> Callable[[DownloadTask], None]:
    """Return what a task does that tells when it begins, and ends when it may."""

    def run(_: DownloadTask) -> None:
        started.release()
        go.wait(60)

    return run


def test_small_files_that_wait_are_done_by_all_slots() -> None:
    together = threading.Barrier(4)
    slots = slots_of(4, lambda _: cast("None", together.wait(60)))
    slots.start("w", [task(number, LIMITS.small) for number in range(8)], Cancel(), now())
    assert slots.wait_idle(60)
    assert not together.broken


def test_a_large_file_waits_for_no_small_one() -> None:
    started, go = threading.Semaphore(0), threading.Event()
    slots = slots_of(3, held(started, go))
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


def worked(count: int, run: Callable[[DownloadTask], None]) -> Slots:
    """Return slots all of whose threads have worked, and have nothing to do now."""
    together = threading.Barrier(count)

    def first(each: DownloadTask) -> None:
        if each.token.task < count:
            together.wait(60)
        else:
            run(each)

    slots = slots_of(count, first)
    slots.start("w", [task(number, LIMITS.small + 1) for number in range(count)], Cancel(), now())
    assert slots.wait_idle(60)
    return slots


def test_who_is_let_begin_wakes_the_next() -> None:
    """Else they would sleep while files wait: only one of them looks again by itself."""
    started, go = threading.Semaphore(0), threading.Event()
    slots = worked(4, held(started, go))
    slots.start("w", [task(100, 1)], Cancel(), now())
    assert started.acquire(timeout=60)
    slots.start("w", [task(number, 1) for number in (101, 102, 103)], Cancel(), now())
    assert all(started.acquire(timeout=60) for _ in range(3))
    go.set()
    assert slots.wait_idle(60)


def test_a_large_file_passes_small_ones_that_may_not_begin() -> None:
    began, go = list[int](), threading.Event()

    def run(each: DownloadTask) -> None:
        began.append(each.token.task)
        if each.token.task == 1000:
            go.set()
        go.wait(60)

    slots = slots_of(2, run)
    slots._small = Concurrency(2, lambda: 0.0)
    slots.start(
        "w", [*(task(number, 1) for number in range(9)), task(1000, LIMITS.small + 1)], Cancel(), now()
    )
    assert slots.wait_idle(60)
    assert sorted(began[:2]) == [0, 1000]


def test_slots_measure_themselves_from_one_to_all() -> None:
    """Files that only wait, each for less than the silence in which all may begin anyhow."""
    most, running, lock = [0], [0], threading.Lock()
    enough = threading.Event()

    def run(_: DownloadTask) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
            if most[0] == 3:
                enough.set()
        enough.wait(SILENT / 5)
        with lock:
            running[0] -= 1

    slots = slots_of(3, run)
    slots._small = Concurrency(3, lambda: 0.0)  # no silence
    slots.start("w", [task(number, 1) for number in range(1000)], Cancel(), now())
    assert enough.wait(60)
    assert slots.wait_idle(60)
