"""The live view of one job: pictures on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

from distributed_downloader.display.notices import FULL
from distributed_downloader.display.progress import (
    MAY_LEAVE,
    QUIET,
    Lines,
    Picture,
    pictures,
    summary,
    viewer,
    watch,
)
from distributed_downloader.display.snapshot import Silence, Snapshot
from distributed_downloader.models import Failure, JobState, JobStatus
from distributed_downloader.quota import HubBudget
from tests.unit.looking_on import EVIL, done, failure, job, pipe, progress, queue, screen, transfer, worker

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
OWN_SCREEN, LEAVE_IT = "\x1b[?1049h", "\x1b[?1049l"
UP_AND_ERASE = "\x1b[1A\x1b[2K"


HUB = "https://hub.example"
GONE = Silence(1_000_200.0, "Redis at h:1/0 cannot be reached: is it running? (refused)", "h:1/0")
GONE_WORDS = (
    f"Redis at h:1/0 does not answer since {time.strftime('%H:%M:%S', time.localtime(1_000_200))}, "
    "trying again: it cannot be reached: is it running? (refused)"
)


def snapshot(
    shown: JobStatus, *failures: Failure, silence: Silence | None = None, rate: float = 0
) -> Snapshot:
    """Return a look at one job."""
    return Snapshot([progress(shown, rate=rate)], [(shown.id, each) for each in failures], silence=silence)


# -- off a terminal ----------------------------------------------------------------------------------------


class Log:
    """Lines on a pipe, by a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        console, self.file = pipe(FORCE_COLOR="1")
        self.view = Lines(console, clock=lambda: self.now)

    def look(self, seconds: float, shown: Snapshot) -> list[str]:
        """Look after that many seconds; return the new lines."""
        self.now += seconds
        before = len(self.file.getvalue())
        self.view(shown)
        return self.file.getvalue()[before:].splitlines()


def test_the_first_look_is_a_line() -> None:
    assert Log().look(0, snapshot(job(), rate=45e6)) == [
        "job 3 org/name: 12 of 17 files, 6.8 of 16.1 GB, 42%, 45.0 MB/s, ETA 3m 27s"
    ]


def test_nothing_new_is_no_line() -> None:
    log = Log()
    log.look(0, snapshot(job()))
    assert log.look(10 * QUIET, snapshot(job())) == []


def test_what_is_to_note_is_told_once() -> None:
    log = Log()
    blocked = job(blocked="/nas is not there", unsplit="no shared folder")
    assert log.look(0, snapshot(blocked))[1:] == [
        "job 3 blocked: /nas is not there",
        "job 3 not split: no shared folder",
    ]
    assert log.look(10 * QUIET, snapshot(blocked)) == []
    assert log.look(1, snapshot(job(unsplit="no shared folder"))) == [
        "job 3 org/name: 12 of 17 files, 6.8 of 16.1 GB, 42%, -, ETA -"
    ]
    assert log.look(1, snapshot(blocked))[1:] == ["job 3 blocked: /nas is not there"]


def test_a_delivery_moves_without_bytes_downloaded() -> None:
    log, state = Log(), JobState.DELIVERING
    log.look(0, snapshot(job(state=state, owed=2)))
    assert log.look(QUIET, snapshot(job(state=state, owed=1, delivered=1)))[0].endswith(
        "on the NAS, 1 of 2 files"
    )


def test_who_waits_for_a_nas_that_is_away_is_told_that_they_may_leave() -> None:
    console, file = pipe()
    with watch(console) as show:
        delivering = job(state=JobState.DELIVERING, owed=2)
        show(delivering, [worker(nas="ab12")])
        assert MAY_LEAVE not in file.getvalue()
        for _ in range(2):
            show(delivering, [worker(nas_trouble="/nas is not mounted")])
    assert file.getvalue().splitlines()[-2:] == ["job 3 NAS: /nas is not mounted", MAY_LEAVE]


def test_on_a_screen_that_stands_below_the_picture() -> None:
    console, tty = screen()
    with watch(console) as show:
        show(job(state=JobState.DELIVERING, owed=2), [worker(nas_trouble="/nas is not mounted")])
        assert MAY_LEAVE in tty.getvalue()


def test_that_all_workers_wait_is_a_line_at_once() -> None:
    log, shown = Log(), job(active=0)
    log.look(0, snapshot(shown))
    waiting = Snapshot([progress(shown, trouble="/scratch is full")])
    assert log.look(0, waiting) == [
        "job 3 org/name: 12 of 17 files, 6.8 of 16.1 GB, 42%, -, all workers wait",
        "job 3 all workers wait: /scratch is full",
    ]


def test_progress_is_a_line_now_and_then() -> None:
    log = Log()
    log.look(0, snapshot(job()))
    assert log.look(QUIET / 2, snapshot(job(bytes_done=7_000_000_000))) == []
    assert len(log.look(QUIET / 2, snapshot(job(bytes_done=8_000_000_000)))) == 1
    assert log.look(QUIET / 2, snapshot(job(bytes_done=9_000_000_000))) == []


@pytest.mark.parametrize(
    "changed",
    [done(), job(state=JobState.PAUSED), job(failed=1), job(listed=False)],
    ids=["end", "pause", "failed file", "listing"],
)
def test_what_matters_is_a_line_at_once(changed: JobStatus) -> None:
    log = Log()
    log.look(0, snapshot(job()))
    assert len(log.look(0, snapshot(changed))) == 1


def test_a_failure_is_told_once() -> None:
    log = Log()
    failed = job(failed=1)
    lines = log.look(0, snapshot(failed, failure()))
    assert lines[0] == "job 3 failed: b.bin: timed out (3 tries on gpu-07)"
    assert log.look(99, snapshot(failed, failure())) == []
    assert log.look(0, snapshot(job(failed=2), failure(), failure("c.bin")))[0].startswith(
        "job 3 failed: c.bin"
    )


def test_jobs_are_told_apart() -> None:
    log = Log()
    both = Snapshot([progress(job(3)), progress(job(4, "org/other"))])
    assert [line[:6] for line in log.look(0, both)] == ["job 3 ", "job 4 "]
    later = Snapshot([progress(job(3)), progress(done(4, "org/other"))])
    assert log.look(0, later) == ["job 4 org/other: 17 files, 16.1 GB, done in 1h 00m"]


def test_a_notice_is_told_when_it_comes_and_when_it_goes() -> None:
    log = Log()
    log.look(0, snapshot(job()))
    gone = snapshot(job(), silence=GONE)
    assert log.look(1, gone) == [GONE_WORDS]
    assert log.look(1, gone) == []
    assert log.look(1, snapshot(job())) == ["Redis answers again"]


def test_what_stands_in_the_way_of_all_is_told_when_it_comes() -> None:
    log = Log()
    log.look(0, snapshot(job()))
    held = Snapshot([progress(job())], pauses={HUB: 48}, full=True)
    assert log.look(1, held) == ["the hub (hub.example) asks for a pause: 48s left", FULL]
    held = Snapshot([progress(job())], pauses={HUB: 47}, full=True)
    assert log.look(1, held) == []
    log.look(1, snapshot(job()))
    assert log.look(1, held) != []


def test_a_budget_of_the_hub_that_runs_out_is_told_once() -> None:
    log = Log()
    log.look(0, snapshot(job()))
    scarce = [HubBudget(HUB, "resolvers", left, 5000, 48) for left in (12, 3)]
    before, after = (Snapshot([progress(job())], budgets=[each]) for each in scarce)
    told = "hub budget: 12 left of 5,000, resets in 48s (hub.example, resolvers)"
    assert log.look(1, before) == [told]
    assert log.look(2, after) == []


def test_lines_have_no_escape_codes() -> None:
    log = Log()
    evil = Snapshot([progress(job(failed=1))], [(3, failure(EVIL, EVIL))], [worker(EVIL, transfer(EVIL))])
    assert all(line.isprintable() for line in log.look(0, evil))


def test_off_a_terminal_one_gets_lines() -> None:
    console, file = pipe()
    with viewer(console) as view:
        view(snapshot(job()))
    assert file.getvalue().count("\n") == 1


# -- on a terminal -----------------------------------------------------------------------------------------


def test_pictures_replace_each_other_and_leave_none() -> None:
    console, tty = screen()
    with viewer(console) as view:
        view(snapshot(job(bytes_done=0)))
        view(snapshot(job()))
    shown = tty.getvalue()
    assert shown.count("org/name") == 3, "one for each look, and one that is wiped away at the end"
    assert shown.index(HIDE_CURSOR) < shown.index("  0%") < shown.index(" 42%") < shown.index(SHOW_CURSOR)
    assert shown.endswith(UP_AND_ERASE)
    assert OWN_SCREEN not in shown


def test_nothing_is_drawn_before_the_first_look() -> None:
    console, tty = screen()
    with viewer(console, "title"):
        assert tty.getvalue() == HIDE_CURSOR


def test_a_full_screen_is_left_as_it_was() -> None:
    console, tty = screen()
    with pictures(console, screen=True) as view:
        view(snapshot(job()))
    assert OWN_SCREEN in tty.getvalue()
    assert tty.getvalue().endswith(LEAVE_IT)


def test_the_cursor_comes_back_after_an_interrupt() -> None:
    console, tty = screen()

    def interrupted() -> None:
        with pictures(console, screen=True) as view:
            view(snapshot(job()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert SHOW_CURSOR in tty.getvalue()
    assert tty.getvalue().endswith(LEAVE_IT)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40), (200, 50), (40, 8)])
def test_a_picture_fits_the_terminal_below_its_title(width: int, height: int) -> None:
    console, tty = screen(width, height)
    picture = Picture("the title", screen=True)
    picture.snapshot = Snapshot(
        [progress(job(number)) for number in range(30)],
        [(1, failure(f"{n}")) for n in range(30)],
        [worker(f"w{n}", transfer(), transfer()) for n in range(30)],
        queue(),
    )
    console.print(picture)
    lines = tty.getvalue().splitlines()
    assert lines[0] == "the title"
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_a_full_screen_says_how_to_leave_it() -> None:
    console, tty = screen()
    picture = Picture(screen=True)
    picture.snapshot = snapshot(job())
    console.print(picture)
    assert "Ctrl+C ends this view, not the jobs" in tty.getvalue()


def test_an_outage_is_in_the_picture_in_all_its_words() -> None:
    console, tty = screen()
    picture = Picture(screen=True)
    picture.snapshot = snapshot(job(), rate=5e6).silent(GONE)
    console.print(picture)
    lines = tty.getvalue().splitlines()
    assert " ".join("".join(f"{line} " for line in lines).split()).endswith(GONE_WORDS)
    assert " ".join(lines[1].split()) == "12 of 17 files 6.8 of 16.1 GB", "nobody knows how fast it is"


def test_the_title_is_foreign_text() -> None:
    console, tty = screen()
    picture = Picture(EVIL)
    picture.snapshot = snapshot(job())
    console.print(picture)
    assert EVIL not in tty.getvalue()
    assert tty.getvalue().splitlines()[0].isprintable()


def test_log_lines_appear_above_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    console, tty = screen()
    monkeypatch.setattr(sys, "stderr", tty)
    monkeypatch.setattr(sys, "__stderr__", tty)
    handler = logging.StreamHandler()
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    with viewer(console) as view:
        view(snapshot(job()))
        logging.getLogger("x").warning("a [red]log[/red] line")
        view(snapshot(job()))
    assert handler.stream is tty
    before, _, after = tty.getvalue().partition("a [red]log[/red] line\n")
    assert before.endswith(UP_AND_ERASE), "the picture is wiped away before the line is written"
    assert "org/name" in after, "and drawn again below"


def test_other_log_handlers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    handler = logging.StreamHandler(file)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    with viewer(screen()[0]) as view:
        view(snapshot(job()))
        assert handler.stream is file


# -- watch -------------------------------------------------------------------------------------------------


def test_watch_ends_with_what_came_of_it_on_a_pipe() -> None:
    console, file = pipe()
    with watch(console) as show:
        show(job(), [worker("a", transfer())])
        show(job(failed=1), [], [failure()])
        show(done())
    first, failed, second, third, end = file.getvalue().splitlines()
    assert first.startswith("job 3 org/name: 12 of 17 files, 8.9 of 16.1 GB, 55%, 11.2 MB/s, ETA ")
    assert failed == "job 3 failed: b.bin: timed out (3 tries on gpu-07)"
    assert second.endswith(", 1 failed")
    assert third == "job 3 org/name: 17 files, 16.1 GB, done in 1h 00m"
    assert end.startswith("Job 3 (org/name) done: 17 files, 16.1 GB in ")


def test_watch_ends_with_what_came_of_it_on_a_terminal() -> None:
    console, tty = screen()
    with watch(console, "fetching") as show:
        show(job())
        show(done())
    picture, _, end = tty.getvalue().rpartition(UP_AND_ERASE)
    assert "fetching" in picture
    assert end.startswith("Job 3 (org/name) done: 17 files, 16.1 GB in ")


FAILED = job(state=JobState.FAILED, failed=6)
FIVE = [failure(f"{n}.bin") for n in range(5)]


@pytest.mark.parametrize(
    ("alone", "advice"),
    [
        (False, ["and 1 more: `hf-downloader files 3 --failed`", "`hf-downloader retry 3` tries them again"]),
        (True, ["and 1 more", "the same command again tries them again"]),
    ],
)
def test_watch_says_what_to_do_about_failed_files(alone: bool, advice: list[str]) -> None:
    console, file = pipe()
    with watch(console, alone=alone) as show:
        show(FAILED, [], FIVE)
    *failed, _, end, more, again = file.getvalue().splitlines()
    assert [line.partition(" failed: ")[2].partition(":")[0] for line in failed] == [f.path for f in FIVE]
    assert end.startswith("Job 3 (org/name) failed: ")
    assert [more, again] == advice


def test_watch_leaves_the_failed_files_on_a_terminal() -> None:
    console, tty = screen(width=100)
    with watch(console) as show:
        show(job(state=JobState.FAILED, failed=1), [], [failure()])
    failed, end, again = tty.getvalue().rpartition(UP_AND_ERASE)[2].splitlines()
    assert failed.endswith("job 3 failed: b.bin: timed out (3 tries on gpu-07)")
    assert end.startswith("Job 3 (org/name) failed: ")
    assert again == "`hf-downloader retry 3` tries them again"


@pytest.mark.parametrize("last", [job(), job(state=JobState.PAUSED)])
def test_watch_says_nothing_of_a_job_that_has_not_ended(last: JobStatus) -> None:
    console, file = pipe()
    with watch(console) as show:
        show(last)
    assert "Job 3" not in file.getvalue()


def test_watch_of_nothing() -> None:
    console, file = pipe()
    with watch(console):
        pass
    assert file.getvalue() == ""


def test_watch_says_nothing_when_it_is_interrupted() -> None:
    console, file = pipe()

    def interrupted() -> None:
        with watch(console) as show:
            show(done())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "Job 3" not in file.getvalue()


@pytest.mark.parametrize(
    ("first", "last", "seconds", "words"),
    [
        (job(bytes_done=0), done(), 357, "done: 17 files, 16.1 GB in 5m 57s (45.1 MB/s)"),
        (job(bytes_done=16_100_000_000), done(), 3, "done: 17 files, 16.1 GB in 3s"),
        (done(), done(), 0.0, "done: 17 files, 16.1 GB in 0s"),
        (
            job(bytes_done=0),
            job(state=JobState.FAILED, failed=5),
            68,
            "failed: 12 of 17 files, 6.8 GB in 1m 08s (100 MB/s), 5 failed",
        ),
        (job(), job(state=JobState.CANCELLED), 5, "cancelled: 12 of 17 files, 6.8 GB in 5s"),
    ],
)
def test_summary(first: JobStatus, last: JobStatus, seconds: float, words: str) -> None:
    assert summary(first, last, seconds).plain == f"Job 3 (org/name) {words}"
