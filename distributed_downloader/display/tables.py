"""What `repos`, `queue`, `workers` and `files` show: models in, aligned lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from distributed_downloader.display import notices, plain, units
from distributed_downloader.display.canvas import Canvas
from distributed_downloader.display.picture import NO_WORKERS, STYLES
from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import JobStatus, TaskStatus, WorkerStatus
from distributed_downloader.queue_terms import QueueStatus

if TYPE_CHECKING:
    from distributed_downloader.redis_files import FileProgress

#: Seconds of lease below which a worker has missed a beat.
SILENT = 15.0
HOST_WIDTH = 14
FILE_STYLES = {
    TaskStatus.DONE: "green",
    TaskStatus.FAILED: "red",
    TaskStatus.ACTIVE: "cyan",
    TaskStatus.HELD: "cyan",
}
#: Where the queue's word says little to people.
FILE_WORDS = {TaskStatus.HELD: "in parts", TaskStatus.DELAYED: "to retry"}


def by_repo(jobs: Iterable[JobStatus]) -> dict[str, list[JobStatus]]:
    """Return the jobs of each repo, both in the order in which they came."""
    found: dict[str, list[JobStatus]] = {}
    for job in jobs:
        found.setdefault(units.repo(job.spec), []).append(job)
    return found


def repos(jobs: Iterable[JobProgress], canvas: Canvas) -> list[Text]:
    """Return a line per job, those of a repo beside each other under its name."""
    progress = {each.job.id: each for each in jobs}
    rows = [
        _repo_row(name, progress[job.id], canvas, first=number == 0)
        for name, some in by_repo(each.job for each in progress.values()).items()
        for number, job in enumerate(some)
    ]
    if not rows:
        return [canvas.cut(Text(plain.NO_JOBS))]
    return canvas.columns(
        [_head("Repo", "Job", "Revision", "State", "Files", "Size"), *rows], flexible=0, right={1}
    )


def _repo_row(name: str, progress: JobProgress, canvas: Canvas, *, first: bool) -> list[Text]:
    job = progress.job
    # In a pipe every line says whose it is.
    shown = name if first or canvas.width is None else ""
    revision = canvas.shorten(canvas.text(job.spec.revision), 16)
    return [
        canvas.text(shown),
        Text(str(job.id)),
        revision,
        Text(job.state.value, STYLES[job.state]),
        Text(plain.files(job).rpartition(" ")[0]),
        Text(plain.size(progress)),
    ]


def queue(shown: QueueStatus, canvas: Canvas) -> list[Text]:
    """Return a line per number, with what it counts; below them what stands in the way of all."""
    rows = [
        ("Ready", f"{shown.ready:,}", "files and parts that the next free slots take"),
        ("To retry", f"{shown.delayed:,}", "files and parts that wait for their next try"),
        (
            "Parked",
            f"{shown.parked:,}",
            "files whose next try is offered first to the host that has a part of them",
        ),
        ("Workers", f"{shown.workers:,}", f"with {units.count(shown.slots, 'slot')}"),
        ("Jobs", f"{sum(shown.jobs.values()):,}", plain.states(shown.jobs)),
    ]
    cells = [[Text(name, "bold"), Text(number), Text(words, "dim")] for name, number, words in rows]
    obstacles = [canvas.text(words, "yellow") for words in notices.in_the_way(shown.full, shown.pauses)]
    return [*canvas.columns(cells, right={1}), *(line for each in obstacles for line in canvas.wrap(each))]


def workers(shown: Sequence[WorkerStatus], now: float, canvas: Canvas) -> list[Text]:
    """Return a line per worker; `now` is the Unix time from which ages are counted."""
    if not shown:
        return [canvas.cut(Text(NO_WORKERS))]
    head = _head("Worker", "Slots", "Rate", "Up", "Lease", "Doing")
    return canvas.columns([head, *(_worker_row(worker, now, canvas) for worker in shown)], right={2, 3, 4})


def _worker_row(worker: WorkerStatus, now: float, canvas: Canvas) -> list[Text]:
    name = canvas.text(worker.id)
    return [
        canvas.shorten(name, max(12, canvas.width * 3 // 10)) if canvas.width else name,
        Text(f"{len(worker.transfers)} of {worker.slots}"),
        Text(units.rate(plain.speed(worker))),
        Text(units.duration(now - worker.started_at)),
        Text(units.duration(worker.lease), "yellow" if worker.lease < SILENT else ""),
        _doing(worker, canvas),
    ]


def _doing(worker: WorkerStatus, canvas: Canvas) -> Text:
    if worker.trouble:
        line = canvas.text(f"waits: {worker.trouble}", "yellow")
    else:
        line = canvas.text(plain.doing(worker)) if worker.transfers else Text("idle", "dim")
    if worker.nas_trouble:
        line = Text.assemble(line, canvas.text(f"; NAS: {worker.nas_trouble}", "yellow"))
    return line


def files(shown: Iterable[FileProgress], canvas: Canvas) -> Iterable[Text]:
    """Yield a line per file as they come: state, how far it is, size, host, path, and why it failed."""
    for file in shown:
        yield _file(file, canvas)


def _file(file: FileProgress, canvas: Canvas) -> Text:
    state = FILE_WORDS.get(file.status, file.status.value)
    moving = file.status in (TaskStatus.ACTIVE, TaskStatus.HELD)
    far = plain.percent(file.bytes_done, file.size) if moving else ""
    head = Text.assemble((f"{state:<8}", FILE_STYLES.get(file.status, "")), f"{far:>5}")
    head.append(f"{units.size(file.size):>9}  ")
    head.append_text(
        canvas.fill(canvas.shorten(canvas.text(file.host or "-"), HOST_WIDTH), HOST_WIDTH)
    ).append("  ")
    path = canvas.text(file.path)
    if canvas.width is not None:
        path = canvas.shorten(path, max(12, canvas.width - head.cell_len))
    head.append_text(path)
    return head.append_text(_reason(file, canvas))


def _reason(file: FileProgress, canvas: Canvas) -> Text:
    wait = "" if file.next_try is None else plain.next_in(file.next_try)
    words = "; ".join(filter(None, (file.error, wait)))
    return canvas.text(f": {words}", "yellow" if wait else "red") if words else Text()


def _head(*names: str) -> list[Text]:
    return [Text(name, "bold") for name in names]
