"""The words for what concerns all who look on: Redis, pauses of hubs, odd listings, and failed files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import starmap
from urllib.parse import urlsplit

from distributed_downloader.display import units
from distributed_downloader.display.snapshot import Silence, Snapshot
from distributed_downloader.models import JobState, JobStatus
from distributed_downloader.outage import Absence
from distributed_downloader.plan import Plan
from distributed_downloader.quota import HubBudget

FULL = "Redis is full: raise its maxmemory; until then nothing goes on, and workers seem to be gone"


def of_fleet(snapshot: Snapshot) -> list[str]:
    """Return what stands in the way of all jobs, and what happened to Redis, the worst first."""
    return [
        *([silence(snapshot.silence)] if snapshot.silence else []),
        *in_the_way(snapshot.full, snapshot.pauses),
        *map(budget, snapshot.budgets),
        *([back(snapshot.absence)] if snapshot.absence else []),
    ]


def in_the_way(full: bool, pauses: Mapping[str, float]) -> list[str]:
    """Return what keeps all jobs from going on: a full Redis, and pauses that hubs asked for."""
    return [*([FULL] if full else []), *starmap(pause, pauses.items())]


def silence(shown: Silence) -> str:
    """Return `Redis at <address> does not answer since 14:02:11, trying again: it <what is wrong>`."""
    since = time.strftime("%H:%M:%S", time.localtime(shown.since))
    redis = f"Redis at {shown.address}"
    reason = shown.error.removeprefix(f"{redis} ")
    return f"{redis} does not answer since {since}, trying again: it {reason}"


def pause(endpoint: str, seconds: float) -> str:
    """Return `the hub (hub.example) asks for a pause: 48s left`."""
    return f"the hub ({urlsplit(endpoint).netloc}) asks for a pause: {units.duration(seconds)} left"


def budget(shown: HubBudget) -> str:
    """Return `hub budget: 12 left of 5,000, resets in 48s (hub.example, resolvers)`."""
    left, where = f"{shown.left:,} left of {shown.quota:,}", urlsplit(shown.endpoint).netloc
    return f"hub budget: {left}, resets in {units.duration(shown.seconds)} ({where}, {shown.bucket})"


def back(shown: Absence) -> str:
    """Return `Redis is back since 14:02:11 (it was away for 23s)`, and what follows if it lost its data."""
    since = time.strftime("%H:%M:%S", time.localtime(shown.back_at))
    away = f" (it was away for {units.duration(shown.seconds)})" if shown.seconds else ""
    lost = " without its data: run the same `master` commands again; what is on disk is kept"
    return f"Redis is back since {since}{away}{lost * shown.lost}"


def whose(snapshot: Snapshot) -> str:
    """Return the number of the only job that has failed files, or `JOB`."""
    return _name(progress.job.id for progress in snapshot.jobs if progress.job.failed)


def again(snapshot: Snapshot) -> str:
    """Return "`hf-downloader retry 3` tries them again", or "" if no failed file may be tried."""
    jobs = (progress.job for progress in snapshot.jobs)
    found = [job.id for job in jobs if job.failed and job.state is not JobState.CANCELLED]
    return retry(_name(found)) if found else ""


def _name(jobs: Iterable[int]) -> str:
    only, *others = [*map(str, jobs), "JOB"]
    return only if len(others) < 2 else "JOB"


def listing(plan: Plan) -> list[str]:
    """Return what a listing has that needs a person's eye."""
    lines = [f"refused: {units.safe(path)}: {reason}" for path, reason in plan.skipped]
    if plan.skipped_count > len(plan.skipped):
        lines.append(f"refused: {plan.skipped_count - len(plan.skipped):,} more")
    for one, other in plan.alike:
        lines.append(
            f"note: {units.safe(one)} and {units.safe(other)} are one file on a disk that ignores case"
        )
    if plan.unhashed:
        lines.append(
            f"note: the hub tells no hash of {units.count(plan.unhashed, 'file')}, so that only sizes can be "
            "checked; is the repo gated and your token without access?"
        )
    return lines


def retry(job: int | str) -> str:
    """Return what tries the failed files of a job again."""
    return f"`hf-downloader retry {job}` tries them again"


def more(job: JobStatus, shown: int) -> str:
    """Return "and 3 more: `hf-downloader files 3 --failed`" if more files failed than are shown, else ""."""
    left = job.failed - shown
    number = f"and {left:,} more" if shown else units.count(left, "file")
    return f"{number}: `hf-downloader files {job.id} --failed`" if left > 0 else ""


def failed(snapshot: Snapshot) -> list[str]:
    """Return how many failed files of each job are not shown, and what to do about all of them."""
    shown = Counter(job for job, _ in snapshot.failures)
    jobs = [progress.job for progress in snapshot.jobs]
    left = [(job.id, words) for job in jobs if (words := more(job, shown[job.id]))]
    return [*(f"job {job} failed: {words}" for job, words in left), *filter(None, [again(snapshot)])]
