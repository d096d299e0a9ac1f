"""Progress, rate and time left, as they follow from look after look."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.display.speed import WINDOW, JobProgress, Meter, Speedometer
from distributed_downloader.models import JobState, JobStatus, WorkerStatus
from tests.unit.looking_on import done, job, progress, transfer, worker

MB = 1_000_000


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def looks(*states: tuple[float, JobStatus, list[WorkerStatus]]) -> list[JobProgress]:
    """Return the progress at each (time, job, workers)."""
    clock = Clock()
    speedometer, found = Speedometer(clock), []
    for clock.now, shown, workers in states:
        found += speedometer.measure([shown], workers)
    return found


# -- bytes ---------------------------------------------------------------------------------------------


def test_bytes_in_flight_count() -> None:
    busy = [worker("a", transfer(at=0.5, size=100)), worker("b", transfer(at=0.1, size=100, task=2))]
    (seen,) = looks((0, job(bytes_done=1000), busy))
    assert seen.bytes_now == 1060


def test_bytes_in_flight_of_other_jobs_do_not_count() -> None:
    (seen,) = looks((0, job(bytes_done=1000), [worker("a", transfer(at=0.5, size=100, job=4))]))
    assert seen.bytes_now == 1000


def test_a_file_that_has_just_finished_is_not_counted_twice() -> None:
    """The counters already have it while the worker's report, which is older, still shows it."""
    late = [worker("a", transfer(at=0.9, size=100), transfer(at=0.2, size=100, task=2))]
    (seen,) = looks((0, job(bytes_done=1000, active=1), late))
    assert seen.bytes_now == 1020


def test_parts_count_and_what_is_only_checked_does_not() -> None:
    part = transfer(at=0.5, size=100, start=400, bytes_per_second=3.0)
    seal = transfer(at=0.9, size=1000, sealing=True, task=2, bytes_per_second=50.0)
    (seen,) = looks((0, job(bytes_done=1000, active=1), [worker("a", seal, part)]))
    assert (seen.bytes_now, seen.rate) == (1050, 3)


def delivering(bytes_delivered: int) -> JobStatus:
    fields = {"done": 17, "owed": 9, "delivered": 8, "bytes_delivered": bytes_delivered}
    return job(state=JobState.DELIVERING, bytes_done=16_000).model_copy(update=fields)


@pytest.mark.parametrize(
    ("shown", "fraction"),
    [
        (delivering(4000), 0.25),
        (delivering(16_000), 1.0),
        (delivering(0).model_copy(update={"bytes_done": 0}), 8 / 17),
    ],
)
def test_a_delivery_is_as_far_as_the_nas_has_it(shown: JobStatus, fraction: float) -> None:
    (seen,) = looks((0, shown, []))
    assert seen.fraction == pytest.approx(fraction)
    assert (seen.rate, seen.eta) == (0, None)


def test_empty_files_count_as_files_not_as_tasks() -> None:
    shown = job(total=20, parts=16, parts_done=16, done=18, bytes_total=0, bytes_done=0)
    assert progress(shown).fraction == 0.5


def test_bytes_never_exceed_the_total() -> None:
    (seen,) = looks((0, job(bytes_total=1000, bytes_done=990), [worker("a", transfer(at=1, size=100))]))
    assert seen.bytes_now == 1000


def test_nothing_is_in_flight_of_a_job_that_has_ended() -> None:
    cancelled = job(state=JobState.CANCELLED, bytes_done=1000)
    (seen,) = looks((0, cancelled, [worker("a", transfer(at=0.9, size=100))]))
    assert (seen.bytes_now, seen.rate) == (1000, 0)


# -- rate ----------------------------------------------------------------------------------------------


def test_the_first_look_takes_the_workers_own_rates() -> None:
    busy = [worker("a", transfer(bytes_per_second=2e6)), worker("b", transfer(bytes_per_second=3e6, task=2))]
    (seen,) = looks((0, job(), busy))
    assert seen.rate == 5e6


def test_after_a_window_the_rate_is_what_was_measured() -> None:
    busy = [worker("a", transfer(at=0, bytes_per_second=99e6))]
    states = [(float(t), job(done=t, bytes_done=t * 10 * MB), busy) for t in range(31)]
    assert looks(*states)[-1].rate == pytest.approx(10 * MB)


def test_before_that_measurement_and_reports_share_the_window() -> None:
    busy = [worker("a", transfer(at=0, bytes_per_second=20e6))]
    later = job(done=13, bytes_done=int(WINDOW / 3 * 5 * MB))
    seen = looks((0, job(bytes_done=0), busy), (WINDOW / 3, later, busy))
    assert seen[-1].rate == pytest.approx(5 * MB / 3 + 20 * MB * 2 / 3)


def test_a_paused_job_has_no_rate_and_starts_to_measure_anew() -> None:
    busy = [worker("a", transfer(at=0, bytes_per_second=1e6))]
    seen = looks(
        (0, job(bytes_done=0), busy),
        (10, job(bytes_done=500 * MB), busy),
        (20, job(state=JobState.PAUSED, bytes_done=600 * MB), []),
        (9999, job(bytes_done=600 * MB), busy),
    )
    assert [each.rate > 0 for each in seen] == [True, True, False, True]
    assert seen[-1].rate == 1e6


def test_a_transfer_that_starts_over_makes_no_negative_rate() -> None:
    seen = looks(
        (0, job(), [worker("a", transfer(at=0.5, bytes_per_second=1e6))]),
        (1, job(), [worker("a", transfer(at=0.0, bytes_per_second=2e6))]),
    )
    assert seen[-1].rate == 2e6


def test_what_a_transfer_found_on_disk_is_no_speed() -> None:
    """It goes on from 4 GB, and has fetched 2 MB when it is first seen."""
    resumed = transfer(size=5000 * MB, bytes_done=4002 * MB, bytes_per_second=2e6, task=2)
    later = resumed.model_copy(update={"bytes_done": 4004 * MB})
    seen = looks(
        (0, job(), [worker()]),
        (1, job(), [worker("a", resumed)]),
        (2, job(), [worker("a", later)]),
    )
    assert 0 < seen[1].rate <= seen[2].rate <= 2e6
    assert seen[2].bytes_now == job().bytes_done + 4004 * MB


def test_when_it_is_done_its_rest_is_speed_and_nothing_else() -> None:
    resumed = transfer(size=5000 * MB, bytes_done=4000 * MB, bytes_per_second=0, task=2)
    before, after = job(bytes_done=0), job(bytes_done=5000 * MB, done=13)
    states = [(0.0, before, [worker()]), (1.0, before, [worker("a", resumed)]), (WINDOW, after, [worker()])]
    assert looks(*states)[-1].rate == pytest.approx(1000 * MB / WINDOW)


def test_what_was_there_at_a_split_is_no_speed() -> None:
    before, split = job(bytes_done=0), job(bytes_done=5000 * MB, parts=20, total=37)
    assert looks((0, before, [worker()]), (1, split, [worker()]))[-1].rate == 0


def test_a_delivery_has_a_rate_of_its_own() -> None:
    """From when it was first seen, for the NAS gets bytes by whole files."""
    nas = [worker(nas="ab12")]
    seen = looks((0, delivering(4000), nas), (2, delivering(4000), nas), (10, delivering(8000), nas))
    assert [(each.rate, each.eta) for each in seen] == [(0, None), (0, None), (400, 20)]


def test_a_delivery_that_is_over_is_measured_anew() -> None:
    states = [(0, delivering(0)), (1, delivering(8000)), (2, job()), (3, delivering(8000))]
    assert [each.rate > 0 for each in looks(*((t, each, []) for t, each in states))] == [
        False,
        True,
        False,
        False,
    ]


# -- who waits -----------------------------------------------------------------------------------------

FULL = worker("a", trouble="/scratch is full")


@pytest.mark.parametrize(
    ("workers", "waits"),
    [
        ([], ""),
        ([FULL], "/scratch is full"),
        ([FULL, worker("b", trouble="not mounted")], "a: /scratch is full"),
        ([FULL, worker("b")], ""),
    ],
)
def test_a_job_waits_for_what_all_workers_wait_for(workers: list[WorkerStatus], waits: str) -> None:
    (seen,) = looks((0, job(active=0), workers))
    assert seen.waits == waits


@pytest.mark.parametrize(
    "shown",
    [
        job(active=1),
        job(active=0, pending=0),
        job(active=0, blocked="not mounted"),
        job(active=0, state=JobState.PAUSED),
    ],
    ids=["runs", "nothing to do", "blocked", "paused"],
)
def test_a_job_that_does_not_wait_for_the_workers(shown: JobStatus) -> None:
    (seen,) = looks((0, shown, [FULL]))
    assert seen.waits == ""


@pytest.mark.parametrize(
    ("workers", "trouble"),
    [
        ([], ""),
        ([worker()], ""),
        ([worker(nas_trouble="not mounted"), worker("b")], "not mounted"),
        ([worker("a", nas_trouble="not mounted"), worker("b", nas_trouble="full")], "a: not mounted"),
        ([worker(nas_trouble="not mounted"), worker("b", nas="ab12")], ""),
    ],
)
def test_the_nas_is_away_where_no_worker_brings_anything(workers: list[WorkerStatus], trouble: str) -> None:
    (seen,) = looks((0, delivering(0), workers))
    assert seen.nas_trouble == trouble


def test_jobs_are_measured_apart() -> None:
    clock = Clock()
    speedometer = Speedometer(clock)
    for clock.now in (0.0, WINDOW):
        done = int(clock.now)
        slow, fast = job(1, done=done, bytes_done=done * MB), job(2, done=done, bytes_done=done * 9 * MB)
        seen = speedometer.measure([slow, fast], [])
    assert [each.rate for each in seen] == [1 * MB, 9 * MB]


@given(
    st.lists(
        st.tuples(
            st.floats(min_value=0, max_value=60),
            st.integers(0, 10**12),
            st.floats(min_value=0, max_value=1e9),
        ),
        min_size=1,
    )
)
def test_a_rate_is_never_negative_whatever_comes(steps: list[tuple[float, int, float]]) -> None:
    meter, now = Meter(), 0.0
    for step, count, reported in steps:
        now += step
        assert meter.rate(now, count, reported) >= 0


def test_a_meter_forgets_what_is_older_than_its_window() -> None:
    meter = Meter()
    for second in range(100):
        meter.rate(float(second), second * 5, 0)
    for second in range(100, 200):
        steady = meter.rate(float(second), 500 + second, 0)
    assert steady == pytest.approx(1)


# -- what follows --------------------------------------------------------------------------------------


def test_eta() -> None:
    assert progress(job(), rate=93_000_000).eta == pytest.approx(100)


@pytest.mark.parametrize(
    "shown",
    [
        progress(job(), rate=0),
        progress(job(listed=False), rate=1e6),
        progress(job(state=JobState.PAUSED), rate=1e6),
        progress(done(), rate=1e6),
    ],
    ids=["nothing moves", "listing", "paused", "done"],
)
def test_no_eta_where_it_cannot_be_known(shown: JobProgress) -> None:
    assert shown.eta is None


@pytest.mark.parametrize(
    ("shown", "fraction"),
    [
        (progress(job(bytes_total=200, bytes_done=50)), 0.25),
        (progress(job(bytes_total=0, bytes_done=0, total=4, done=1)), 0.25),
        (progress(job(bytes_total=0, bytes_done=0, total=0, done=0)), 0.0),
        (progress(done()), 1.0),
        (progress(done(total=0, bytes_total=0, bytes_done=0)), 1.0),
    ],
    ids=["bytes", "only empty files", "nothing yet", "done", "empty repo"],
)
def test_fraction(shown: JobProgress, fraction: float) -> None:
    assert shown.fraction == fraction


def test_whether_there_are_workers_is_known() -> None:
    assert [each.workers for each in looks((0, job(), []), (1, job(), [worker()]))] == [False, True]
