"""`status --watch`: when it looks, when it ends, and what it does when Redis goes away."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import pytest

from distributed_downloader.cli import run
from distributed_downloader.cli.app import App
from distributed_downloader.cli.lookout import Lookout, Patient, exit_code, follow, important_first
from distributed_downloader.display.snapshot import Silence, Snapshot
from distributed_downloader.errors import RedisUnavailableError, UnknownJobError
from distributed_downloader.models import Failure, JobState, JobStatus, WorkerStatus
from distributed_downloader.outage import Absence
from distributed_downloader.queue_terms import QueueStatus
from distributed_downloader.quota import HubBudget
from distributed_downloader.redis_waiting import NextTry
from tests.unit.looking_on import done, failure, job, progress, queue, transfer, worker
from tests.unit.test_display_json import check

Step = JobStatus | Sequence[JobStatus] | BaseException
ADDRESS = "localhost:6379/0"
DOWN = RedisUnavailableError("Redis at localhost:6379/0 does not answer")


class Script:
    """A view that shows one step of a story at each look, and is interrupted at its end."""

    def __init__(self, *steps: Step) -> None:
        self._steps: Iterator[Step] = iter(steps)
        self.asked: list[str] = []

    def _next(self) -> list[JobStatus]:
        step = next(self._steps, KeyboardInterrupt())
        if isinstance(step, BaseException):
            raise step
        return [step] if isinstance(step, JobStatus) else [*step]

    def jobs(self) -> list[JobStatus]:
        """Return the jobs of the next step."""
        self.asked.append("")
        return self._next()

    def find(self, name: str) -> list[JobStatus]:
        """Return the jobs of the next step."""
        self.asked.append(name)
        return self._next()

    def workers(self) -> list[WorkerStatus]:
        """Return a worker that works at job 3."""
        return [worker("a", transfer()), worker("b", transfer(job=4))]

    def failures(self, job: int, limit: int = 20) -> list[Failure]:
        """Return a failure."""
        return [failure(f"{job}.bin")][:limit]

    def next_tries(self, jobs: Collection[int], limit: int) -> list[tuple[int, NextTry]]:
        """Return nothing."""
        return []

    def pauses(self, jobs: Iterable[JobStatus]) -> dict[str, float]:
        """Return nothing."""
        return {}

    def budgets(self, jobs: Iterable[JobStatus]) -> list[HubBudget]:
        """Return nothing."""
        return []

    def full(self) -> bool:
        """Say no."""
        return False

    def queue(self, jobs: Sequence[JobStatus]) -> QueueStatus:
        """Return a queue."""
        return queue()


Watch = Callable[..., int]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Return a function that runs `status --watch` with a script and more words."""
    monkeypatch.setattr("time.sleep", lambda _: None)

    def watch(script: Script, *arguments: str) -> int:
        monkeypatch.setattr(App, "view", script)
        return run(["status", "--watch", *arguments])

    return watch


# -- the end --------------------------------------------------------------------------------------------


def test_it_ends_with_the_job(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(Script(job(), job(bytes_done=7_000_000_000), done()), "3") == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("job 3 org/name: 12 of 17 files, 8.9 of 16.1 GB, 55%, 11.2 MB/s, ETA ")
    assert last == "job 3 org/name: 17 files, 16.1 GB, done in 1h 00m"


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_a_job_that_is_not_done_is_exit_code_1(watch: Watch, state: JobState) -> None:
    assert watch(Script(job(), job(state=state)), "3") == 1


def test_a_job_that_has_ended_is_shown_once(watch: Watch) -> None:
    script = Script(done())
    assert watch(script, "3") == 0
    assert script.asked == ["3"]


def test_a_paused_job_has_not_ended(watch: Watch) -> None:
    assert watch(Script(job(state=JobState.PAUSED), job(), done()), "3") == 0


def test_all_jobs_of_a_repo_are_waited_for(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script([done(3), job(4)], [done(3), job(4), job(5)], [done(3), done(4), done(5)])
    assert watch(script, "org/name") == 0
    assert capsys.readouterr().out.count("done in") == 3


def test_one_failed_job_of_a_repo_is_exit_code_1(watch: Watch) -> None:
    assert watch(Script([done(3), job(4, state=JobState.FAILED)]), "org/name") == 1


def test_the_view_of_everything_ends_only_when_it_is_interrupted(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch(Script([], done(), done())) == 130
    output = capsys.readouterr()
    assert output.out == "job 3 org/name: 17 files, 16.1 GB, done in 1h 00m\n"
    assert output.err == "", "it ends quietly"


def test_a_job_that_is_forgotten_meanwhile_is_an_error(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch(Script(job(), UnknownJobError("there is no job 3")), "3") == 2
    assert capsys.readouterr().err == "error: there is no job 3\n"


# -- Redis goes away ------------------------------------------------------------------------------------


def test_redis_may_go_away_and_come_back(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(Script(job(), DOWN, DOWN, DOWN, job(), done()), "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(f"Redis at {ADDRESS} does not answer since ")
    assert lines[1].endswith(", trying again: it does not answer")
    assert re.fullmatch(r"Redis is back since \d\d:\d\d:\d\d \(it was away for 0s\)", lines[2])
    assert lines[3].endswith("done in 1h 00m")


def test_what_a_worker_knows_of_lost_data_counts_more_than_what_was_seen_here() -> None:
    lost = Absence(back_at=time.time(), seconds=5, lost=True)
    script = Script(job(), DOWN, job(), job(), job())
    told: list[Absence | None] = [None, lost, lost.model_copy(update={"back_at": time.time() - 601})]
    script.workers = lambda: [worker("a", absence=told.pop(0) if told else None)]  # type: ignore[method-assign]
    patient = Patient(Lookout(script, "3").look, ADDRESS)  # type: ignore[arg-type]
    seen = [patient.look() for _ in range(5)]
    assert [each.absence and each.absence.lost for each in seen] == [None, None, True, False, False]


@pytest.mark.parametrize(("made_at", "told"), [(-100.0, True), (-3.0, False), (60.0, False)])
def test_lost_data_are_told_until_somebody_queued_something(made_at: float, told: bool) -> None:
    lost = Absence(back_at=time.time() - 10, seconds=5, lost=True)
    script = Script(job(created_at=lost.back_at + made_at))
    script.workers = lambda: [worker("a", absence=lost)]  # type: ignore[method-assign]
    assert Lookout(script).look().absence == (lost if told else None)  # type: ignore[arg-type]


def test_redis_that_is_away_from_the_start_is_an_error(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch(Script(DOWN), "3") == 3
    assert capsys.readouterr().err == f"error: {DOWN}\n"


def test_what_was_last_seen_stays_with_the_time_since_when() -> None:
    script = Script(job(), DOWN, DOWN, job())
    patient = Patient(Lookout(script, "3").look, ADDRESS)  # type: ignore[arg-type]
    seen = [patient.look() for _ in range(4)]
    assert [len(each.jobs) for each in seen] == [1, 1, 1, 1]
    assert [bool(each.silence) for each in seen] == [False, True, True, False]
    assert seen[1].silence == seen[2].silence


def test_what_is_wrong_now_is_shown_with_the_time_since_when() -> None:
    loading = RedisUnavailableError(f"Redis at {ADDRESS} is still loading its data; try again shortly")
    patient = Patient(Lookout(Script(job(), DOWN, loading), "3").look, ADDRESS)  # type: ignore[arg-type]
    _, first, second = (patient.look().silence for _ in range(3))
    assert first
    assert second == replace(first, error=str(loading))


def test_an_end_that_was_seen_before_redis_went_away_is_no_end() -> None:
    steps = iter(
        [Snapshot([progress(done())], silence=Silence(1.0, str(DOWN), ADDRESS)), Snapshot([progress(done())])]
    )
    seen: list[Snapshot] = []
    last = follow(lambda: next(steps), seen.append, 0, until_ended=True)
    assert len(seen) == 2
    assert not last.silence


# -- what it shows --------------------------------------------------------------------------------------


def test_failures_are_told(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(Script(job(failed=1), job(state=JobState.FAILED, failed=1)), "3") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "job 3 failed: 3.bin: timed out (3 tries on gpu-07)"
    assert lines[-1] == "`hf-downloader retry 3` tries them again"


def test_off_a_terminal_there_are_no_escape_codes(
    watch: Watch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    watch(Script(job(), DOWN, done()), "3")
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err


def test_interval_is_the_time_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr(App, "view", Script(job(), job(), done()))
    assert run(["status", "3", "--watch", "--interval", "7.5"]) == 0
    assert slept == [7.5, 7.5]


def test_json_is_a_line_per_change(watch: Watch, capsys: pytest.CaptureFixture[str]) -> None:
    steps = (job(state=JobState.PAUSED), job(state=JobState.PAUSED), DOWN, done(), done())
    assert watch(Script(*steps), "3", "--json") == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for document in documents:
        check(document, "status")
    seen = [(document["jobs"][0]["state"], bool(document["outage"])) for document in documents]
    assert seen == [("paused", False), ("paused", True), ("done", False)]
    assert documents[1]["outage"]["error"] == str(DOWN)


def test_during_an_outage_nothing_is_known_that_moves(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch(Script(job(), DOWN, DOWN, job(), done()), "3", "--json") == 0
    moving, away, back, _ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    for document in (moving, back):
        assert document["jobs"][0]["bytes_per_second"] > 0
    assert (away["jobs"][0]["bytes_per_second"], away["jobs"][0]["eta_seconds"]) == (0, None)
    assert {each["bytes_per_second"] for each in away["workers"]} == {0}


# -- looking --------------------------------------------------------------------------------------------


def test_one_look_at_everything() -> None:
    seen = Lookout(Script([job(3, failed=1), job(4)])).look()  # type: ignore[arg-type]
    assert [each.job.id for each in seen.jobs] == [3, 4]
    assert [number for number, _ in seen.failures] == [3]
    assert [each.id for each in seen.workers] == ["a", "b"]
    assert seen.queue


def test_one_look_at_a_job() -> None:
    seen = Lookout(Script(job(3)), "3").look()  # type: ignore[arg-type]
    assert [each.id for each in seen.workers] == ["a"], "only those that work at it"
    assert seen.queue is None


def test_failures_of_very_many_jobs_are_not_all_read() -> None:
    many = [job(number, failed=1) for number in range(1000)]
    assert len(Lookout(Script(many)).look().failures) == 50  # type: ignore[arg-type]


def test_what_runs_comes_first_then_what_ended_last() -> None:
    jobs = [done(1, ended_at=10.0), done(2, ended_at=30.0), job(3), done(4, ended_at=20.0), job(5)]
    ordered = important_first(Snapshot([progress(each) for each in jobs]))
    assert [each.job.id for each in ordered.jobs] == [3, 5, 2, 4, 1]


def test_exit_code() -> None:
    assert exit_code(Snapshot([progress(done()), progress(done(4))])) == 0
    assert exit_code(Snapshot([progress(done()), progress(job(4))])) == 1
