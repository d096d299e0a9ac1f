"""The words for a job, a failure, a worker and the queue: one whole line each, for logs and pipes.

They are str, for a fleet has thousands of workers, and making a `Text` takes as long as finding its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from distributed_downloader.display import notices, units
from distributed_downloader.display.canvas import Canvas
from distributed_downloader.display.snapshot import Snapshot
from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import (
    Failure,
    JobState,
    JobStatus,
    Transfer,
    WorkerStatus,
)
from distributed_downloader.queue_terms import QueueStatus

if TYPE_CHECKING:
    from distributed_downloader.redis_waiting import NextTry

#: Seconds without a new file after which a listing's master may be gone.
LISTING_SILENT = 60
ALL_WAIT = "all workers wait"
NO_JOBS = "No jobs yet. Queue one with: hf-downloader master org/name"


def status(snapshot: Snapshot, canvas: Canvas) -> list[str]:
    """Return a line for each job, failed or waiting file, worker, and for what concerns all of them."""
    lines = [
        line for progress in snapshot.jobs for line in (job(progress, canvas), *note_lines(progress, canvas))
    ]
    lines += [failure(job, shown, canvas) for job, shown in snapshot.failures]
    lines += notices.failed(snapshot)
    lines += [next_try(job, shown, canvas) for job, shown in snapshot.waiting]
    lines += [worker(shown, canvas) for shown in snapshot.workers]
    lines += [queue(snapshot.queue)] if snapshot.queue else []
    lines += map(canvas.safe, notices.of_fleet(snapshot))
    return lines if snapshot.jobs else [NO_JOBS, *lines]


def job(progress: JobProgress, canvas: Canvas) -> str:
    """Return `job 3 org/name: 12 of 17 files, 6.8 of 16.1 GB, 42%, 45.2 MB/s, ETA 3m 25s`."""
    shown = progress.job
    running = shown.state is JobState.RUNNING
    words = (
        files(shown),
        size(progress),
        f"{int(progress.fraction * 100)}%" if running and shown.listed else "",
        speed_of(progress),
        outcome(progress, canvas),
        troubles(shown),
        asides(shown),
    )
    text = f"job {shown.id} {units.title(shown.spec)}: {', '.join(filter(None, words))}"
    return canvas.safe(text)


def files(shown: JobStatus) -> str:
    """Return `12 of 17 files`, or `17 files`; `17+` while more are being listed."""
    if not (shown.listed or shown.total):
        return ""
    if shown.state in (JobState.DONE, JobState.DELIVERING):
        return units.count(shown.files, "file")
    return f"{shown.files_done:,} of {shown.files:,}{'' if shown.listed else '+'} files"


def size(progress: JobProgress) -> str:
    """Return `6.8 of 16.1 GB`, `16.1 GB downloaded` of a delivery, or `16.1 GB` of a job that is done."""
    if progress.job.state is JobState.DONE:
        return units.size(progress.job.bytes_total)
    if progress.job.state is JobState.DELIVERING:
        return f"{units.size(progress.job.bytes_done)} downloaded"
    if not (progress.job.listed or progress.job.total):
        return ""
    return units.sizes(progress.bytes_now, progress.job.bytes_total)


def speed_of(progress: JobProgress) -> str:
    """Return `45.2 MB/s` of a job that moves, `-` of one that could, as far as that is known."""
    if progress.job.state is JobState.DELIVERING:
        return units.rate(progress.rate) if progress.rate >= 1 else ""
    moves = progress.job.state is JobState.RUNNING and not progress.job.blocked and not progress.stale
    return units.rate(progress.rate) if moves else ""


def outcome(progress: JobProgress, canvas: Canvas) -> str:
    """Return how the job stands, or when it will end."""
    shown = progress.job
    if shown.state is JobState.RUNNING:
        return _prospect(progress, canvas)
    if shown.state is JobState.DELIVERING:
        return _delivery(progress)
    took = f" in {units.duration(shown.ended_at - shown.created_at)}" if shown.ended_at else ""
    delivered = f", {_of_all(shown)} on the NAS" if shown.delivered else ""
    return f"{shown.state.value}{took}{delivered}"


def _of_all(shown: JobStatus) -> str:
    return "all" if shown.delivered == shown.files else f"{shown.delivered:,} of {shown.files:,} files"


def _delivery(progress: JobProgress) -> str:
    if not progress.workers:
        return "waits for a worker"
    if progress.nas_trouble:
        return "waits for the NAS"
    return "delivering" if progress.eta is None else f"delivering, ETA {units.duration(progress.eta)}"


def _prospect(progress: JobProgress, canvas: Canvas) -> str:
    shown = progress.job
    if shown.blocked:
        return "blocked"
    if not shown.listed:
        return listing(shown, canvas)
    if not progress.workers:
        return "waits for a worker"
    if shown.bytes_total == progress.bytes_now and shown.active and not (shown.pending or shown.delayed):
        return "checking"
    if progress.waits:
        return ALL_WAIT
    return f"ETA {units.duration(progress.eta)}" if progress.eta is not None else _turn(progress)


def _turn(progress: JobProgress) -> str:
    shown = progress.job
    if progress.stale:
        return ""
    if shown.active:
        return "ETA -"
    return "waits for its turn" if shown.pending else "waits for the next try" if shown.delayed else "ETA -"


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


def asides(shown: JobStatus) -> str:
    """Return `12 of 640 parts of large files`, and what is on the NAS, of a job under way; or nothing."""
    if shown.state.ended:
        return ""
    if shown.state is JobState.DELIVERING:
        return on_nas(shown)
    more = shown.parts_done < shown.parts
    parts = f"{shown.parts_done:,} of {shown.parts:,} parts of large files" if more else ""
    return ", ".join(filter(None, (parts, on_nas(shown))))


def on_nas(shown: JobStatus) -> str:
    """Return `12.0 GB (75%) on the NAS, 3 of 4 files`, or of a running job `9.0 GB (2 files) on the NAS`."""
    there = units.size(shown.bytes_delivered)
    if shown.state is JobState.DELIVERING:
        whole = units.count(shown.owed + shown.delivered, "file")
        part = percent(shown.bytes_delivered, shown.bytes_done)
        return f"{there} ({part}) on the NAS, {shown.delivered:,} of {whole}"
    return f"{there} ({units.count(shown.delivered, 'file')}) on the NAS" if shown.delivered else ""


def notes(progress: JobProgress) -> list[tuple[str, str]]:
    """Return what a job stands still for, and what it does without, each with its reason."""
    shown = progress.job
    if shown.state.ended:
        return []
    if shown.state is JobState.DELIVERING:
        reasons = [("NAS", progress.nas_trouble)]
    else:
        reasons = [("blocked", shown.blocked), (ALL_WAIT, progress.waits), ("not split", shown.unsplit)]
    return [(word, reason) for word, reason in reasons if reason]


def note_lines(progress: JobProgress, canvas: Canvas) -> list[str]:
    """Return `job 3 blocked: <reason>` for each of the notes."""
    return [canvas.safe(f"job {progress.job.id} {word}: {reason}") for word, reason in notes(progress)]


def failure(job_id: int, shown: Failure, canvas: Canvas) -> str:
    """Return `job 3 failed: <path>: <reason> (3 tries on gpu-07)`."""
    why = f"{shown.path}: {shown.error} ({units.tries(shown.tries)} on {shown.host})"
    return canvas.safe(f"job {job_id} failed: {why}")


def next_try(job_id: int, shown: NextTry, canvas: Canvas) -> str:
    """Return `job 3 to retry: <path>: <reason>; next try in 12s (1 try on gpu-07)`."""
    return canvas.safe(f"job {job_id} to retry: {shown.path}: {why_waits(shown)}")


def why_waits(shown: NextTry) -> str:
    """Return `<reason>; next try in 12s (1 try on gpu-07)`."""
    reason = f"{shown.error}; " if shown.error else ""
    tries = f" ({units.tries(shown.tries)} on {shown.host})" if shown.tries and not shown.parked else ""
    return f"{reason}{_next(shown)}{tries}"


def _next(shown: NextTry) -> str:
    if not shown.parked:
        return next_in(shown.seconds)
    has = f", which has {units.size(shown.kept)} of it" if shown.kept else ""
    return f"waits {units.duration(shown.seconds)} for {shown.host}{has}"


def next_in(seconds: float) -> str:
    """Return `next try in 12s`, or that it is due."""
    return f"next try in {units.duration(seconds)}" if seconds > 0 else "next try is due"


def worker(shown: WorkerStatus, canvas: Canvas) -> str:
    """Return `worker gpu-07-4711: 2 of 4 slots, 12.4 MB/s: a.bin 42%, b.bin 80%`."""
    head = f"worker {shown.id}: {len(shown.transfers)} of {units.count(shown.slots, 'slot')}"
    nas = f"; NAS: {shown.nas_trouble}" if shown.nas_trouble else ""
    if shown.trouble:
        return canvas.safe(f"{head}, waits: {shown.trouble}{nas}")
    if not shown.transfers:
        return canvas.safe(f"{head}, idle{nas}")
    return canvas.safe(f"{head}, {units.rate(speed(shown))}: {doing(shown)}{nas}")


def doing(shown: WorkerStatus) -> str:
    """Return `a.bin 42%, b.bin 64-128 MiB 80%, c.bin checking 7%`."""
    words = [
        f"{subject(each)} {'checking ' * each.sealing}{percent(each.bytes_done, each.size)}"
        for each in shown.transfers
    ]
    return ", ".join(words)


def subject(shown: Transfer) -> str:
    """Return the file's path, and of a part its range: `model.safetensors 64-128 MiB`."""
    return shown.path if shown.start is None else f"{shown.path} {extent(shown)}"


def extent(shown: Transfer) -> str:
    """Return `4.9 GB`, or of a part `64-128 MiB`."""
    if shown.start is None:
        return units.size(shown.size)
    return units.span(shown.start, shown.start + shown.size)


def queue(shown: QueueStatus) -> str:
    """Return `queue: 120 ready, 3 to retry; 2 workers with 8 slots; jobs: 2 running, 1 paused`."""
    fleet = f"{units.count(shown.workers, 'worker')} with {units.count(shown.slots, 'slot')}"
    return f"queue: {waiting(shown)}; {fleet}; jobs: {states(shown.jobs) or 'none'}"


def waiting(shown: QueueStatus) -> str:
    """Return `120 ready, 3 to retry`: the files and parts that the next free slots take."""
    return f"{shown.ready:,} ready, {shown.delayed + shown.parked:,} to retry"


def states(numbers: Mapping[str, int]) -> str:
    """Return `2 running, 1 paused`: how many jobs are in each state."""
    return ", ".join(f"{numbers[state]:,} {state.value}" for state in JobState if numbers.get(state))


def slots(workers: Iterable[WorkerStatus]) -> tuple[int, int]:
    """Return how many slots the workers have, and how many of them are busy."""
    pairs = [(worker.slots, len(worker.transfers)) for worker in workers]
    return sum(have for have, _ in pairs), sum(busy for _, busy in pairs)


def speed(shown: WorkerStatus) -> float:
    """Return the bytes per second that a worker fetches; what it only checks does not count."""
    return sum([transfer.bytes_per_second for transfer in shown.transfers if not transfer.sealing])


def percent(part: float, whole: float) -> str:
    """Return `42%`; 100% only of what is complete."""
    return f"{int(100 * min(part / whole, 1.0)) if whole else 100}%"
