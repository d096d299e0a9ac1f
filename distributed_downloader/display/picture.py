"""What `status` and its kin show: models in, lines out; nothing is read or printed here.

With a `Canvas` that has a width, the lines fit on it; with one that has none (a file, a pipe) each thing
is one whole line, as `plain` words it.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from distributed_downloader.display import notices, plain, units
from distributed_downloader.display.canvas import GAP, Canvas
from distributed_downloader.display.snapshot import Snapshot
from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import Failure, JobState, Transfer, WorkerStatus

if TYPE_CHECKING:
    from distributed_downloader.redis_waiting import NextTry

STYLES = {
    JobState.RUNNING: "cyan",
    JobState.PAUSED: "yellow",
    JobState.DELIVERING: "blue",
    JobState.CANCELLED: "dim",
    JobState.DONE: "green",
    JobState.FAILED: "red",
}
NO_WORKERS = "No workers. Start one on each machine with: hf-downloader worker"
#: Columns of a terminal of which nothing is known, and columns from which a job takes one line.
NARROW, WIDE = 80, 150
#: So that the columns after a rate stand still while it changes.
RATE_WIDTH = 9
#: Columns below which words are cut rather than wrapped.
_NARROWEST = 20
FOOTER = "Ctrl+C ends this view, not the jobs"


@dataclass
class Section:
    """A part of the picture that can give up its last items where room is scarce."""

    title: Text | None
    items: list[list[Text]]
    #: What follows "... and 12 more".
    rest: str = ""
    #: How little it is asked to give way.
    weight: int = 1
    hidden: int = 0

    @property
    def height(self) -> int:
        """Lines that the section takes, with the blank one after it."""
        return 1 + bool(self.title) + sum(map(len, self.items)) + bool(self.hidden)

    def drop(self) -> None:
        """Give up the last item."""
        self.items.pop()
        self.hidden += 1

    def lines(self, canvas: Canvas) -> list[Text]:
        """Return title, items and what is left out."""
        found = [line for item in self.items for line in item]
        if self.title:
            found.insert(0, canvas.cut(self.title))
        if self.hidden:
            more = f" {canvas.mark} and {self.hidden:,} more{self.rest}"
            found.append(canvas.cut(Text(more, "dim")))
        return found


def status(snapshot: Snapshot, canvas: Canvas) -> list[Text] | list[str]:
    """Return the whole picture, or where nothing cuts a line, one whole line of each thing."""
    return plain.status(snapshot, canvas) if canvas.width is None else draw(snapshot, canvas)


def draw(snapshot: Snapshot, canvas: Canvas, footer: Text | None = None) -> list[Text]:
    """Return the picture: jobs, failed files, workers, queue."""
    parts = _sections(snapshot, canvas, whole=True)
    last = _last_lines(snapshot, canvas, footer)
    room = None if canvas.height is None else max(1, canvas.height - len(last))
    if room is not None and sum(part.height for part in parts) > room:
        parts = _sections(snapshot, canvas, whole=False)
        _fit(parts, room)
    lines = [line for part in parts for line in (*part.lines(canvas), Text())][:room]
    return [*lines, *last][: canvas.height] if last else lines[:-1]


def _sections(snapshot: Snapshot, canvas: Canvas, *, whole: bool) -> list[Section]:
    """Return the parts that have something to say; with `whole`, nothing in them is abridged."""
    return [
        Section(_jobs_title(snapshot), jobs(snapshot.jobs, canvas), weight=2),
        *([_failures(snapshot, canvas, whole=whole)] if snapshot.failures else []),
        *([_waiting(snapshot, canvas, whole=whole)] if snapshot.waiting else []),
        *([_workers(snapshot, canvas, whole=whole)] if snapshot.workers or snapshot.queue else []),
    ]


def _last_lines(snapshot: Snapshot, canvas: Canvas, footer: Text | None) -> list[Text]:
    queue = snapshot.queue and Text.assemble(("Queue", "bold"), "  ", plain.waiting(snapshot.queue))
    notes = [canvas.text(words, "yellow") for words in notices.of_fleet(snapshot)]
    below = [*canvas.wrap(Text(snapshot.hint)), *([canvas.cut(footer)] if footer else [])]
    return [
        *(line for note in notes for line in canvas.wrap(note)),
        *([canvas.cut(queue)] if queue else []),
        *below,
    ]


def _fit(parts: list[Section], height: int) -> None:
    for part in parts:
        while len(part.items) > max(height, 1):
            part.drop()
    while sum(part.height for part in parts) > height:
        biggest = max(parts, key=lambda part: (len(part.items) > 1, part.height / part.weight))
        if len(biggest.items) < 2:
            return
        biggest.drop()


def _jobs_title(snapshot: Snapshot) -> Text | None:
    """Return `Jobs  2 running, 1 paused`; one job that was asked for speaks for itself."""
    if snapshot.queue is None and len(snapshot.jobs) == 1:
        return None
    words = plain.states(Counter(progress.job.state.value for progress in snapshot.jobs))
    return Text.assemble(("Jobs", "bold"), "  ", (words, "dim"))


def jobs(shown: Sequence[JobProgress], canvas: Canvas) -> list[list[Text]]:
    """Return two lines per job, its bar and its numbers; on a wide canvas both in one line.

    Below them is what there is to note, in all its words.
    """
    if not shown:
        return [[canvas.cut(Text(plain.NO_JOBS))]]
    width = canvas.width or NARROW
    wide = width >= WIDE
    id_width = max(len(str(progress.job.id)) for progress in shown)
    rows = [_numbers(progress, canvas) for progress in shown]
    below = _too_wide(rows, width - (0 if wide else id_width + 3))
    numbers = canvas.columns(rows, indent=2 if wide else id_width + 3)
    room = width - (max(line.cell_len for line in numbers) if wide else 0)
    bars = _bars(shown, canvas, id_width, room)
    return [
        [
            *([bar.append_text(line)] if wide else [canvas.cut(bar), line]),
            *(canvas.cut(Text(" " * (id_width + 3)).append_text(outcome)) for outcome in last),
            *_notes(progress, canvas, id_width + 3),
        ]
        for progress, bar, line, last in zip(shown, bars, numbers, below, strict=True)
    ]


def _too_wide(rows: Sequence[list[Text]], width: int) -> list[list[Text]]:
    """Take from each row the last cell if it would be cut, for a line of its own."""
    before = sum(max(cell.cell_len + GAP for cell in column) for column in [*zip(*rows, strict=True)][:-1])
    return [[row.pop()] if before + row[-1].cell_len > width else [] for row in rows]


def _notes(progress: JobProgress, canvas: Canvas, indent: int) -> list[Text]:
    job = progress.job
    lines = [Text(plain.asides(job), STYLES[job.state] if job.state is JobState.DELIVERING else "dim")]
    said = plain.outcome(progress, canvas)
    for word, reason in plain.notes(progress):
        words = reason if word == said else f"{word}: {reason}"
        lines.append(canvas.text(words, "dim" if word == "not split" else "yellow"))
    return [wrapped for line in lines for wrapped in canvas.wrap(line, indent)]


def _bars(shown: Sequence[JobProgress], canvas: Canvas, id_width: int, width: int) -> list[Text]:
    names = [canvas.text(units.title(progress.job.spec)) for progress in shown]
    name_width = min(max(name.cell_len for name in names), max(12, width * 2 // 5))
    bar_width = max(0, width - id_width - name_width - 11)
    return [
        Text.assemble(
            f" {progress.job.id:>{id_width}}  ",
            canvas.fill(canvas.shorten(name, name_width), name_width),
            "  ",
            canvas.bar(progress.fraction, bar_width, STYLES[progress.job.state]),
            f"{int(progress.fraction * 100)}%".rjust(6) if progress.job.listed else " " * 6,
        )
        for progress, name in zip(shown, names, strict=True)
    ]


def _numbers(progress: JobProgress, canvas: Canvas) -> list[Text]:
    job = progress.job
    running = job.state is JobState.RUNNING
    quiet = "dim" if job.state.ended else ""
    outcome = Text(plain.outcome(progress, canvas), "" if running else STYLES[job.state])
    stuck = running and (job.blocked or progress.waits)
    outcome.stylize("yellow" if stuck else "")
    if troubles := plain.troubles(job):
        outcome.append(", ", "dim").append(troubles, "red" if job.failed else "yellow")
    return [
        Text(plain.files(job), quiet),
        Text(plain.size(progress), quiet),
        Text(plain.speed_of(progress).ljust(RATE_WIDTH)),
        outcome,
    ]


def _failures(snapshot: Snapshot, canvas: Canvas, *, whole: bool) -> Section:
    total = sum(progress.job.failed for progress in snapshot.jobs)
    title = Text.assemble(("Failed files", "bold red"), f"  {total:,}  ", (notices.again(snapshot), "dim"))
    title.rstrip()
    make = _whole_failure if whole else _short_failure
    items = [make(job, failure, canvas) for job, failure in snapshot.failures]
    found = Section(title, items, f": hf-downloader files {notices.whose(snapshot)} --failed")
    found.hidden = max(0, total - len(snapshot.failures))
    return found


def _whole_failure(job: int, failure: Failure, canvas: Canvas) -> list[Text]:
    indent = f" {job}  "
    width = max(8, (canvas.width or NARROW) - len(indent))
    reason = canvas.text(f"{failure.error} ({units.tries(failure.tries)} on {failure.host})")
    path = canvas.shorten(canvas.text(failure.path, "red"), width)
    return [Text.assemble(indent, path), *canvas.wrap(reason, len(indent))]


def _short_failure(job: int, failure: Failure, canvas: Canvas) -> list[Text]:
    path = canvas.shorten(canvas.text(failure.path, "red"), (canvas.width or NARROW) * 2 // 5)
    return [canvas.cut(Text.assemble(f" {job}  ", path, "  ", canvas.text(failure.error)))]


def _waiting(snapshot: Snapshot, canvas: Canvas, *, whole: bool) -> Section:
    total = max(sum(progress.job.delayed for progress in snapshot.jobs), len(snapshot.waiting))
    make = _whole_wait if whole else _short_wait
    items = [make(job, shown, canvas) for job, shown in snapshot.waiting]
    title = Text.assemble(("To retry", "bold yellow"), f"  {total:,}")
    found = Section(title, items, ": hf-downloader files JOB")
    found.hidden = total - len(snapshot.waiting)
    return found


def _whole_wait(job: int, shown: NextTry, canvas: Canvas) -> list[Text]:
    indent = f" {job}  "
    path = canvas.shorten(canvas.text(shown.path, "yellow"), max(8, (canvas.width or NARROW) - len(indent)))
    return [Text.assemble(indent, path), *canvas.wrap(canvas.text(plain.why_waits(shown)), len(indent))]


def _short_wait(job: int, shown: NextTry, canvas: Canvas) -> list[Text]:
    path = canvas.shorten(canvas.text(shown.path, "yellow"), (canvas.width or NARROW) * 2 // 5)
    return [canvas.cut(Text.assemble(f" {job}  ", path, "  ", canvas.text(plain.why_waits(shown))))]


def _workers(snapshot: Snapshot, canvas: Canvas, *, whole: bool) -> Section:
    slots, busy = plain.slots(snapshot.workers)
    words = f"{len(snapshot.workers):,} with {units.count(slots, 'slot')}, {busy:,} busy"
    title = Text.assemble(("Workers", "bold"), "  ", (words if snapshot.workers else "", "dim"))
    return Section(title, workers(snapshot.workers, canvas, whole=whole))


def workers(shown: Sequence[WorkerStatus], canvas: Canvas, *, whole: bool = True) -> list[list[Text]]:
    """Return for each worker who it is and what it does: one line, or with `whole` one per transfer."""
    if not shown:
        return [[canvas.cut(Text(NO_WORKERS))]]
    names = [canvas.shorten(canvas.text(worker.id), _name_width(canvas)) for worker in shown]
    # One blank before the name, two behind each column.
    room = (canvas.width or NARROW) - max(name.cell_len for name in names) - RATE_WIDTH - 5
    # Where room is scarce, the first that has a trouble still tells it in all its words.
    told = next((worker for worker in shown if worker.trouble), None)
    rows = [
        _worker_rows(name, worker, canvas, room if whole or worker is told else 0)
        for name, worker in zip(names, shown, strict=True)
    ]
    lines = iter(canvas.columns([row for some in rows for row in some], flexible=2, right={1, 3}, indent=1))
    return [[next(lines) for _ in some] for some in rows]


def _name_width(canvas: Canvas) -> int:
    return max(12, (canvas.width or NARROW) * 3 // 10)


def _worker_rows(name: Text, worker: WorkerStatus, canvas: Canvas, room: int) -> list[list[Text]]:
    first, *others = _doing(worker, canvas, room)
    return [
        [name, Text(units.rate(plain.speed(worker))), *first],
        *([Text(), Text(), *cells] for cells in others),
    ]


def _doing(worker: WorkerStatus, canvas: Canvas, room: int) -> list[list[Text]]:
    """Return the cells of each line: all transfers and words in `room` columns, or with 0 one of each."""
    nas = _trouble(f"NAS: {worker.nas_trouble}", canvas, room) if worker.nas_trouble else []
    return [*_fetching(worker, canvas, room), *nas]


def _trouble(words: str, canvas: Canvas, room: int) -> list[list[Text]]:
    line = canvas.text(words, "yellow")
    pieces = textwrap.wrap(line.plain, max(room, _NARROWEST)) if room else [line.plain]
    return [[Text(piece, line.style)] for piece in pieces]


def _fetching(worker: WorkerStatus, canvas: Canvas, room: int) -> list[list[Text]]:
    if worker.trouble:
        return _trouble(f"waits: {worker.trouble}", canvas, room)
    if not worker.transfers:
        return [[Text("idle", "dim")]]
    lines = [_transfer(transfer, canvas) for transfer in worker.transfers]
    if room or len(lines) == 1:
        return lines
    return [[lines[0][0], Text(f"and {len(lines) - 1} more", "dim")]]


def _transfer(transfer: Transfer, canvas: Canvas) -> list[Text]:
    done = f"{plain.percent(transfer.bytes_done, transfer.size)} of {plain.extent(transfer)}"
    return [canvas.text(transfer.path), Text(f"{'checking ' * transfer.sealing}{done}", "dim")]
