"""The JSON of `--json`, as docs/json.md promises it: models in, plain dicts out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distributed_downloader.display import plain, units
from distributed_downloader.display.snapshot import Silence, Snapshot
from distributed_downloader.display.speed import JobProgress
from distributed_downloader.display.tables import by_repo
from distributed_downloader.findings import Finding, exit_code
from distributed_downloader.models import (
    Failure,
    JobState,
    JobStatus,
    Transfer,
    WorkerStatus,
)
from distributed_downloader.outage import Absence
from distributed_downloader.queue_terms import QueueStatus
from distributed_downloader.quota import HubBudget

if TYPE_CHECKING:
    from distributed_downloader.redis_files import FileProgress
    from distributed_downloader.redis_waiting import NextTry
    from distributed_downloader.verification import Report

Json = dict[str, Any]


def dump(document: object, *, indent: int | None = 2) -> str:
    """Return the document as ASCII: what is in a file's name cannot steer a terminal."""
    return json.dumps(document, indent=indent)


def status(snapshot: Snapshot) -> Json:
    """Return the `status` object."""
    return {
        "jobs": [job(progress) for progress in snapshot.jobs],
        "failures": [failure(number, shown) for number, shown in snapshot.failures],
        "waiting": [_next_try(number, shown) for number, shown in snapshot.waiting],
        "workers": [worker(shown) for shown in snapshot.workers],
        "queue": queue(snapshot.queue) if snapshot.queue else None,
        "pauses": _pauses(snapshot.pauses),
        "budgets": [_budget(shown) for shown in snapshot.budgets],
        "full": snapshot.full,
        "absence": _absence(snapshot.absence) if snapshot.absence else None,
        "outage": _outage(snapshot.silence) if snapshot.silence else None,
    }


def _pauses(shown: Mapping[str, float]) -> list[Json]:
    return [{"endpoint": endpoint, "seconds": round(seconds)} for endpoint, seconds in shown.items()]


def _budget(shown: HubBudget) -> Json:
    return {
        "endpoint": shown.endpoint,
        "bucket": shown.bucket,
        "left": shown.left,
        "quota": shown.quota,
        "resets_in_seconds": round(shown.seconds),
    }


def folder(jobs: Iterable[JobProgress]) -> Json:
    """Return the `folder` object."""
    return {"written_at": round(time.time(), 3), "jobs": [job(progress) for progress in jobs]}


def _outage(shown: Silence) -> Json:
    return {"since": shown.since, "error": shown.error}


def job(progress: JobProgress) -> Json:
    """Return the `job` object."""
    shown = progress.job
    eta = progress.eta
    return {
        "id": shown.id,
        "repo": units.repo(shown.spec),
        **shown.spec.model_dump(mode="json"),
        "state": shown.state.value,
        "listed": shown.listed,
        "listing_silent_seconds": round(shown.listing_silent),
        "priority": shown.weight,
        "files": _counters(shown),
        "parts": {"total": shown.parts, "done": shown.parts_done},
        "bytes": {"total": shown.bytes_total, "done": shown.bytes_done, "now": progress.bytes_now},
        "delivery": {"owed": shown.owed, "delivered": shown.delivered, "bytes": shown.bytes_delivered},
        "unsplit": shown.unsplit,
        "blocked": shown.blocked,
        "extra": list(shown.extra),
        "extra_count": shown.extra_count,
        "waits": progress.waits,
        "bytes_per_second": round(progress.rate),
        "eta_seconds": None if eta is None else round(eta),
        "created_at": shown.created_at,
        "ended_at": shown.ended_at,
    }


def _counters(shown: JobStatus) -> Json:
    names = ("pending", "active", "delayed", "held", "failed")
    tasks = {name: getattr(shown, name) for name in names}
    return {"total": shown.files, **tasks, "done": shown.files_done}


def report(shown: Report) -> Json:
    """Return the `report` object."""
    return {
        "repo": units.repo(shown.spec),
        "revision": shown.spec.revision,
        "commit": shown.spec.commit,
        "output_dir": shown.spec.output_dir,
        "layout": shown.spec.layout.value,
        "ok": shown.is_well,
        "files": shown.files,
        "bytes": shown.size,
        "missing": shown.missing,
        "wrong": _flaws(shown.wrong),
        "unchecked": _flaws(shown.unchecked),
        "repaired": shown.repaired,
        "extra": list(shown.extra),
        "extra_count": shown.extra_count,
    }


def _flaws(found: Mapping[str, str]) -> list[Json]:
    return [{"path": path, "why": why} for path, why in found.items()]


def failure(job_id: int, shown: Failure) -> Json:
    """Return the `failure` object."""
    return {"job": job_id, **shown.model_dump()}


def _next_try(job_id: int, shown: NextTry) -> Json:
    return {"job": job_id, **shown.model_dump(exclude={"seconds"}), "next_try_seconds": round(shown.seconds)}


def _absence(shown: Absence) -> Json:
    return {"back_at": shown.back_at, "seconds": round(shown.seconds), "lost": shown.lost}


def worker(shown: WorkerStatus) -> Json:
    """Return the `worker` object."""
    return {
        "id": shown.id,
        "host": shown.host,
        "pid": shown.pid,
        "version": shown.version,
        "slots": shown.slots,
        "started_at": shown.started_at,
        "lease_seconds": round(shown.lease, 1),
        "trouble": shown.trouble,
        "nas_trouble": shown.nas_trouble,
        "folder": shown.folder,
        "nas": shown.nas,
        "absence": _absence(shown.absence) if shown.absence else None,
        "bytes_per_second": round(plain.speed(shown)),
        "transfers": [_transfer(transfer) for transfer in shown.transfers],
    }


def _transfer(shown: Transfer) -> Json:
    return {**shown.model_dump(exclude={"task"}), "bytes_per_second": round(shown.bytes_per_second)}


def queue(shown: QueueStatus) -> Json:
    """Return the `queue` object; its `jobs` names every state."""
    return {
        **shown.model_dump(exclude={"jobs", "pauses"}),
        "pauses": _pauses(shown.pauses),
        "jobs": {state.value: shown.jobs.get(state.value, 0) for state in JobState},
    }


def repos(shown: Iterable[JobProgress]) -> list[Json]:
    """Return a list of `repo` objects."""
    progress = {each.job.id: each for each in shown}
    return [
        {
            "repo": name,
            "state": _state(jobs).value,
            "jobs": [job(progress[each.id]) for each in jobs],
        }
        for name, jobs in by_repo(each.job for each in progress.values()).items()
    ]


def _state(jobs: list[JobStatus]) -> JobState:
    """Return the state of the newest job that has not ended, else of the newest."""
    return max(jobs, key=lambda job: (not job.state.ended, job.id)).state


def files(shown: Iterable[FileProgress]) -> Iterator[str]:
    """Yield the lines of a list of `file` objects, as they come."""
    before = "["
    for file in shown:
        yield f"{before}{dump(_file(file), indent=None)}"
        before = ","
    yield "[]" if before == "[" else "]"


def _file(file: FileProgress) -> Json:
    return {
        "path": file.path,
        "size": file.size,
        "state": file.status.value,
        "bytes_done": file.bytes_done,
        "host": file.host,
        "error": file.error,
        "next_try_seconds": None if file.next_try is None else round(file.next_try),
    }


def action(name: str, shown: JobStatus, changed: bool) -> Json:
    """Return the `action` object."""
    return {"job": shown.id, "repo": units.repo(shown.spec), "action": name, "changed": changed}


def doctor(shown: Sequence[Finding]) -> Json:
    """Return the `doctor` object."""
    verdict = ("good", "warning", "broken")[exit_code(shown)]
    return {"verdict": verdict, "findings": [_finding(each) for each in shown]}


def _finding(shown: Finding) -> Json:
    return {**shown._asdict(), "verdict": shown.verdict.value}
