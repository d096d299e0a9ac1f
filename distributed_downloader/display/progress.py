"""Shows the progress of a job to whoever waits for it (`download`, `master --wait`, `demo`).

    with watch(console) as show:
        while True:
            job = view.job(number)
            show(job, view.workers(), view.failures(number) if job.failed else [])
            if job.state.ended:
                break
            time.sleep(1)

`console` writes to standard error. On a terminal there is one picture that is drawn over; elsewhere a line
is printed when the job's state or its failures change, and every `QUIET` seconds while it moves. Call `show`
as often as you like (once a second is pleasant); it never blocks. When the block ends after a job that has
ended, one line says what came of it. Log lines written meanwhile appear above the picture; child processes
must not write to the same terminal.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from distributed_downloader.display import notices, picture, plain, units
from distributed_downloader.display.canvas import Canvas, emit, is_screen
from distributed_downloader.display.snapshot import Silence, Snapshot
from distributed_downloader.display.speed import JobProgress, Speedometer
from distributed_downloader.models import Failure, JobState, JobStatus, WorkerStatus
from distributed_downloader.outage import Absence
from distributed_downloader.quota import HubBudget

#: Seconds between two plain lines about a job whose state stays the same.
QUIET = 10.0
RECOVERED = "Redis answers again"
#: For who waits until all is delivered, and the NAS is away.
MAY_LEAVE = "All is downloaded. Ctrl+C is safe: the same command delivers the rest later."


class Show(Protocol):
    """What `watch` gives."""

    def __call__(
        self,
        job: JobStatus,
        workers: Sequence[WorkerStatus] = (),
        failures: Sequence[Failure] = (),
        budgets: Sequence[HubBudget] = (),
    ) -> None:
        """Show one look at a job, its workers, the first of its failures, and what its hub still allows."""


Viewer = Callable[[Snapshot], None]


class Picture:
    """Draws the latest snapshot in the size that the terminal has at that moment."""

    def __init__(self, title: str = "", *, screen: bool = False) -> None:
        self._title, self._screen = title, screen
        self.snapshot: Snapshot | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.snapshot is None:
            return
        canvas = Canvas.of(console, full_screen=True)
        head = [canvas.cut(canvas.text(self._title, "bold")), Text()] if self._title else []
        # The cursor rests below an inline picture.
        taken = len(head) + (not self._screen)
        lines = picture.draw(self.snapshot, canvas.lower(taken), self._footer(self.snapshot))
        yield Text("\n", no_wrap=True, overflow="crop").join([*head, *lines])

    def _footer(self, snapshot: Snapshot) -> Text | None:
        silent = snapshot.silence or not self._screen  # whose time stands there
        return None if silent else Text(f"{time.strftime('%H:%M:%S')}  {picture.FOOTER}", "dim")


class Lines:
    """Prints one plain line per job when something changed: at once if it matters, else now and then."""

    def __init__(
        self, console: Console, quiet: float = QUIET, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._quiet, self._clock = console, quiet, clock
        self._last: dict[int, tuple[tuple[object, ...], JobProgress, float]] = {}
        self._failures: set[tuple[int, Failure]] = set()
        self._noted: dict[int, list[str]] = {}
        self._hint = ""
        self._silence: Silence | None = None
        self._absence: Absence | None = None
        #: What stood in the way of all at the last look: a full Redis, hubs that paused or allow little.
        self._obstacles: set[str] = set()

    def __call__(self, snapshot: Snapshot) -> None:
        """Print what changed since the last call."""
        canvas = Canvas.of(self._console)
        changed = [progress for progress in snapshot.jobs if self._changed(progress)]
        fresh = [pair for pair in snapshot.failures if pair not in self._failures]
        self._failures.update(fresh)
        emit(self._console, [plain.failure(*pair, canvas) for pair in fresh])
        emit(self._console, [plain.job(progress, canvas) for progress in changed])
        emit(self._console, [line for each in snapshot.jobs for line in self._notes(each, canvas)])
        if snapshot.hint != self._hint:
            self._hint = snapshot.hint
            emit(self._console, [self._hint] if self._hint else [])
        emit(self._console, self._in_the_way(snapshot, canvas))
        emit(self._console, self._news(snapshot, canvas))

    def _news(self, snapshot: Snapshot, canvas: Canvas) -> list[str]:
        """Return whether Redis is there, if that has changed."""
        silence, absence = self._silence, self._absence
        self._silence, self._absence = snapshot.silence, snapshot.absence or absence
        if snapshot.silence:
            return [canvas.safe(notices.silence(snapshot.silence))] if snapshot.silence != silence else []
        if snapshot.absence and snapshot.absence != absence:
            return [canvas.safe(notices.back(snapshot.absence))]
        return [RECOVERED] if silence else []

    def _in_the_way(self, snapshot: Snapshot, canvas: Canvas) -> list[str]:
        """Return what has come in the way of all since the last look."""
        now = {hub: notices.pause(hub, seconds) for hub, seconds in snapshot.pauses.items()}
        now |= {notices.FULL: notices.FULL} if snapshot.full else {}
        now |= {f"{each.endpoint} {each.bucket}": notices.budget(each) for each in snapshot.budgets}
        before, self._obstacles = self._obstacles, {*now}
        return [canvas.safe(words) for what, words in now.items() if what not in before]

    def _notes(self, progress: JobProgress, canvas: Canvas) -> list[str]:
        """Return what there is to note, unless it was told."""
        told, now = self._noted.get(progress.job.id, []), plain.note_lines(progress, canvas)
        self._noted[progress.job.id] = now
        return [line for line in now if line not in told]

    def _changed(self, progress: JobProgress) -> bool:
        now, job = self._clock(), progress.job
        key = (job.state, job.listed, job.failed, bool(job.blocked), bool(progress.waits))
        old = self._last.get(job.id)
        if old and old[0] == key:
            moved = _position(old[1]) != _position(progress)
            if not moved or now - old[2] < self._quiet:
                return False
        self._last[job.id] = (key, progress, now)
        return True


def _position(progress: JobProgress) -> tuple[int, int, int]:
    return progress.bytes_now, progress.job.done, progress.job.delivered


@contextmanager
def watch(console: Console, title: str = "", *, alone: bool = False, quiet: float = QUIET) -> Iterator[Show]:
    """Show one job's progress on `console` while the block runs, and at the end what came of it.

    With `alone`, the job is known to nobody else: what failed is tried again by the same command. `quiet` is
    the time between two lines, in seconds.
    """
    speedometer, began = Speedometer(), time.monotonic()
    seen: list[JobStatus] = []
    failed: Sequence[Failure] = ()
    with viewer(console, title, quiet) as view:

        def show(
            job: JobStatus,
            workers: Sequence[WorkerStatus] = (),
            failures: Sequence[Failure] = (),
            budgets: Sequence[HubBudget] = (),
        ) -> None:
            nonlocal failed
            seen.append(job)
            del seen[1:-1]
            failed = failures
            pairs = [(job.id, failure) for failure in failures]
            measured = speedometer.measure([job], workers)
            hint = MAY_LEAVE if measured[0].nas_trouble and job.state is JobState.DELIVERING else ""
            view(Snapshot(measured, pairs, workers, budgets=budgets, hint=hint))

        yield show
    if seen and seen[-1].state.ended:
        told = failed if is_screen(console) else ()  # elsewhere, the progress was lines that told it
        emit(console, [plain.failure(seen[-1].id, each, Canvas.of(console)) for each in told])
        emit(console, [summary(seen[0], seen[-1], time.monotonic() - began)])
        emit(console, advice(seen[-1], len(failed), alone=alone))


def viewer(console: Console, title: str = "", quiet: float = QUIET) -> AbstractContextManager[Viewer]:
    """Return what shows snapshots on this console: pictures on a terminal, lines elsewhere."""
    return pictures(console, title) if is_screen(console) else lines(console, quiet)


@contextmanager
def lines(console: Console, quiet: float = QUIET) -> Iterator[Viewer]:
    """Show snapshots as lines, with `quiet` seconds between two about a job whose state stays the same."""
    yield Lines(console, quiet)


@contextmanager
def pictures(console: Console, title: str = "", *, screen: bool = False) -> Iterator[Viewer]:
    """Show snapshots as pictures that replace each other, and leave none.

    With `screen`, the picture has the whole terminal to itself, and leaves it as it was.
    """
    drawn = Picture(title, screen=screen)

    def view(snapshot: Snapshot) -> None:
        drawn.snapshot = snapshot
        live.refresh()

    live = Live(drawn, console=console, auto_refresh=False, transient=True, screen=screen)
    with live, _logs_above():
        yield view


@contextmanager
def _logs_above() -> Iterator[None]:
    """Let log handlers that write to the real standard error write above the picture instead."""
    moved = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.__stderr__
    ]
    for handler in moved:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in moved:
            handler.setStream(sys.__stderr__)


def summary(first: JobStatus, last: JobStatus, seconds: float) -> Text:
    """Return `Job 3 (org/name) done: 17 files, 16.1 GB in 5m 57s (45.1 MB/s)`."""
    gained = last.bytes_done - first.bytes_done
    average = f" ({units.rate(gained / seconds)})" if seconds > 0 and gained > 0 else ""
    words = f"{plain.files(last)}, {units.size(last.bytes_done)} in {units.duration(seconds)}{average}"
    failed = f", {last.failed:,} failed" if last.failed else ""
    style = picture.STYLES[last.state]
    name = units.safe(f"Job {last.id} ({units.title(last.spec)}) ")
    return Text.assemble(name, (last.state.value, style), f": {words}{failed}")


def advice(job: JobStatus, shown: int, *, alone: bool) -> list[str]:
    """Return how many more files of a job failed than were shown, and what tries them again."""
    if not job.failed or job.spec.check:
        return []
    if alone:
        more = f"and {job.failed - shown:,} more" if job.failed > shown else ""
        return [*filter(None, [more]), "the same command again tries them again"]
    return [*filter(None, [notices.more(job, shown)]), notices.retry(job.id)]
