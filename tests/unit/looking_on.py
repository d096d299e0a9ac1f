"""What the tests of the views share: jobs and workers at chosen moments, screens and pipes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Literal

from rich.console import Console
from rich.text import Text

from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import (
    Failure,
    JobSpec,
    JobState,
    JobStatus,
    RepoType,
    Transfer,
    WorkerStatus,
)
from distributed_downloader.outage import Absence
from distributed_downloader.queue_terms import QueueStatus
from distributed_downloader.redis_waiting import NextTry

COMMIT = "0123456789abcdef0123456789abcdef01234567"
#: A name that would clear the screen, set the window's title, colour and reorder text if it were printed raw.
EVIL = "a\x1b[2Jb\x1b]0;title\x07c\rd\u202ee\x9bf[red]g[/red]\udcff\n"
EVIL_SHOWN = r"a\x1b[2Jb\x1b]0;title\x07c\rd\u202ee\x9bf[red]g[/red]\udcff\n"


def spec(repo_id: str = "org/name", repo_type: RepoType = RepoType.MODEL, revision: str = "main") -> JobSpec:
    """Return what a job fetches."""
    endpoint = "https://huggingface.co"
    return JobSpec(repo_type=repo_type, repo_id=repo_id, revision=revision, commit=COMMIT, endpoint=endpoint)


def job(
    id: int = 3,  # noqa: A002
    repo_id: str = "org/name",
    state: JobState = JobState.RUNNING,
    *,
    repo_type: RepoType = RepoType.MODEL,
    revision: str = "main",
    **fields: object,
) -> JobStatus:
    """Return a job that is listed and has 12 of 17 files and 6.8 of 16.1 GB; `fields` override."""
    values = {
        "id": id,
        "spec": spec(repo_id, repo_type, revision),
        "state": state,
        "listed": True,
        "weight": 1,
        "total": 17,
        "pending": 1,
        "active": 4,
        "delayed": 0,
        "held": 0,
        "failed": 0,
        "done": 12,
        "bytes_total": 16_100_000_000,
        "bytes_done": 6_800_000_000,
        "created_at": 1_000_000.0,
    }
    return JobStatus.model_validate({**values, **fields})


def done(id: int = 3, repo_id: str = "org/name", **fields: object) -> JobStatus:  # noqa: A002
    """Return a job that is done after an hour."""
    values = {"pending": 0, "active": 0, "done": 17, "bytes_done": 16_100_000_000, "ended_at": 1_003_600.0}
    return job(id, repo_id, JobState.DONE).model_copy(update={**values, **fields})


def progress(
    shown: JobStatus,
    bytes_now: int | None = None,
    rate: float = 0,
    *,
    workers: bool = True,
    trouble: str = "",
    nas_trouble: str = "",
) -> JobProgress:
    """Return the progress of a job with nothing in flight, unless told."""
    now = shown.bytes_done if bytes_now is None else bytes_now
    return JobProgress(shown, now, rate, workers, trouble, nas_trouble)


def transfer(
    path: str = "model.safetensors", at: float = 0.42, size: int = 4_900_000_000, **fields: object
) -> Transfer:
    """Return a transfer of job 3 that is `at` of its size."""
    values = {"job": 3, "task": 1, "bytes_per_second": 11_200_000.0, "bytes_done": int(size * at)}
    return Transfer.model_validate({"path": path, "size": size, **values, **fields})


def worker(id: str = "gpu-07-4711-ab12cd", *transfers: Transfer, **fields: object) -> WorkerStatus:  # noqa: A002
    """Return a worker with four slots."""
    values = {
        "id": id,
        "host": "gpu-07",
        "pid": 4711,
        "version": "0.1.0",
        "slots": 4,
        "started_at": 1_000_000.0,
        "lease": 24.0,
        "transfers": transfers,
    }
    return WorkerStatus.model_validate({**values, **fields})


def failure(
    path: str = "b.bin", error: str = "timed out", *, tries: int = 3, host: str = "gpu-07"
) -> Failure:
    """Return a failure."""
    return Failure(path=path, error=error, tries=tries, host=host, at=1_000_100.0)


#: A time without Redis.
AWAY = Absence(back_at=1_000_200.0, seconds=23.4)


def next_try(path: str = "c.bin", error: str = "timed out", **fields: object) -> NextTry:
    """Return a file that waits for its next try."""
    values = {"path": path, "error": error, "host": "gpu-07", "tries": 1, "seconds": 12.4}
    return NextTry.model_validate({**values, **fields})


def queue(**fields: object) -> QueueStatus:
    """Return a queue in which something happens."""
    jobs = {"running": 2, "paused": 1}
    values = {"ready": 120, "delayed": 3, "parked": 1, "workers": 2, "slots": 8, "jobs": jobs}
    return QueueStatus.model_validate({**values, **fields})


def words(lines: Iterable[Text | str]) -> str:
    """Return lines as they look, each with a newline."""
    return "".join(f"{str(line).rstrip()}\n" for line in lines)


class Tty(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def screen(
    width: int = 80, height: int = 24, *, colors: bool = False, no_color: bool = False, term: str = "xterm"
) -> tuple[Console, Tty]:
    """Return a console on a terminal of that size, and the terminal."""
    tty = Tty()
    system: Literal["standard"] | None = "standard" if colors else None
    console = Console(
        file=tty,
        width=width,
        height=height,
        highlight=False,
        legacy_windows=False,
        color_system=system,
        no_color=no_color,
        _environ={"TERM": term},
    )
    return console, tty


def pipe(**environment: str) -> tuple[Console, io.StringIO]:
    """Return a console that writes to a pipe, and what was written."""
    file = io.StringIO()
    return Console(file=file, highlight=False, _environ=environment), file
