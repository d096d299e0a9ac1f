"""The words for a job, a failure, a worker and the queue: one whole line each, for logs and pipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.text import Text

from distributed_downloader.display import units
from distributed_downloader.display.canvas import Canvas
from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import Failure, JobState, JobStatus, QueueStatus, WorkerStatus

#: Seconds without a new file after which a listing's master may be gone.
LISTING_SILENT = 60


def job(progress: JobProgress, canvas: Canvas) -> Text:
    """Return `job 3 org/name: 12 of 17 files, 6.8 of 16.1 GB, 42%, 45.2 MB/s, ETA 3m 25s`."""
    shown = progress.job
    running = shown.state is JobState.RUNNING
    words = (
        files(shown),
        size(progress),
        f"{int(progress.fraction * 100)}%" if running and shown.listed else "",
        units.rate(progress.rate) if running else "",
        outcome(progress, canvas),
        troubles(shown),
    )
    text = f"job {shown.id} {units.repo(shown.spec)}: {', '.join(filter(None, words))}"
    return canvas.text(text)


def files(shown: JobStatus) -> str:
    """Return `12 of 17 files`, or `17 files`; `17+` while more are being listed."""
    if not (shown.listed or shown.total):
        return ""
    if shown.state is JobState.DONE:
        return units.count(shown.total, "file")
    return f"{shown.done:,} of {shown.total:,}{'' if shown.listed else '+'} files"


def size(progress: JobProgress) -> str:
    """Return `6.8 of 16.1 GB`, or `16.1 GB` of a job that is done."""
    if progress.job.state is JobState.DONE:
        return units.size(progress.job.bytes_total)
    if not (progress.job.listed or progress.job.total):
        return ""
    return units.sizes(progress.bytes_now, progress.job.bytes_total)


def outcome(progress: JobProgress, canvas: Canvas) -> str:
    """Return how the job stands, or when it will end."""
    shown = progress.job
    if shown.state.ended:
        took = f" in {units.duration(shown.ended_at - shown.created_at)}" if shown.ended_at else ""
        return shown.state.value + took
    if shown.state is JobState.PAUSED:
        return "paused"
    if not shown.listed:
        return listing(shown, canvas)
    if not progress.workers:
        return "waits for a worker"
    if progress.eta is None:
        return "waits for its turn" if shown.pending and not shown.active else "ETA -"
    return f"ETA {units.duration(progress.eta)}"


def listing(shown: JobStatus, canvas: Canvas) -> str:
    """Return `listing…`, or that its master may be gone."""
    if shown.listing_silent <= LISTING_SILENT:
        return f"listing{canvas.mark}"
    return f"listing silent for {units.duration(shown.listing_silent)}: if its master is gone, run it again"


def troubles(shown: JobStatus) -> str:
    """Return `2 failed, 3 to retry`, or nothing."""
    failed = f"{shown.failed:,} failed" if shown.failed else ""
    retry = f"{shown.delayed:,} to retry" if shown.delayed and not shown.state.ended else ""
    return ", ".join(filter(None, (failed, retry)))


def failure(job_id: int, shown: Failure, canvas: Canvas) -> Text:
    """Return `job 3 failed: <path>: <reason> (3 tries on gpu-07)`."""
    why = f"{shown.path}: {shown.error} ({units.tries(shown.tries)} on {shown.host})"
    return canvas.text(f"job {job_id} failed: {why}")


def worker(shown: WorkerStatus, canvas: Canvas) -> Text:
    """Return `worker gpu-07-4711: 2 of 4 slots, 12.4 MB/s: a.bin 42%, b.bin 80%`."""
    head = f"worker {shown.id}: {len(shown.transfers)} of {units.count(shown.slots, 'slot')}"
    if shown.trouble:
        return canvas.text(f"{head}, waits: {shown.trouble}")
    if not shown.transfers:
        return canvas.text(f"{head}, idle")
    doing = ", ".join(f"{t.path} {percent(t.bytes_done, t.size)}" for t in shown.transfers)
    return canvas.text(f"{head}, {units.rate(speed(shown))}: {doing}")


def queue(shown: QueueStatus) -> Text:
    """Return `queue: 120 ready, 3 to retry; 2 workers with 8 slots; jobs: 2 running, 1 paused`."""
    fleet = f"{units.count(shown.workers, 'worker')} with {units.count(shown.slots, 'slot')}"
    return Text(f"queue: {waiting(shown)}; {fleet}; jobs: {states(shown.jobs) or 'none'}")


def waiting(shown: QueueStatus) -> str:
    """Return `120 ready, 3 to retry`: the files that the next free slots take."""
    return f"{shown.ready:,} ready, {shown.delayed + shown.parked:,} to retry"


def states(numbers: Mapping[str, int]) -> str:
    """Return `2 running, 1 paused`: how many jobs are in each state."""
    return ", ".join(f"{numbers[state]:,} {state.value}" for state in JobState if numbers.get(state))


def slots(workers: Iterable[WorkerStatus]) -> tuple[int, int]:
    """Return how many slots the workers have, and how many of them are busy."""
    pairs = [(worker.slots, len(worker.transfers)) for worker in workers]
    return sum(have for have, _ in pairs), sum(busy for _, busy in pairs)


def speed(shown: WorkerStatus) -> float:
    """Return the bytes per second of all transfers of a worker."""
    return sum(transfer.bytes_per_second for transfer in shown.transfers)


def percent(part: float, whole: float) -> str:
    """Return `42%`; 100% only of what is complete."""
    return f"{int(100 * min(part / whole, 1.0)) if whole else 100}%"
