"""What `cleanup` removes: what dead workers, jobs of old and broken-off downloads have left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from distributed_downloader.layout import digest_of
from distributed_downloader.models import JobStatus
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_files import RedisFiles
from distributed_downloader.redis_view import RedisView
from distributed_downloader.storage.leftovers import Leftover, clear_incomplete, clear_partials, partials

#: Seconds for which partial data stays that no job knows: it may be that of a `download`.
UNKNOWN_KEPT = 24 * 3600.0


class Removed(NamedTuple):
    """One thing that went, or would go."""

    what: str
    #: Bytes on disk.
    size: int = 0


def stale_workers(redis: RedisClient, *, dry_run: bool) -> list[Removed]:
    """Have those declared dead whose lease is over, so that others get their tasks."""
    found = RedisView(redis).overdue()
    if found and not dry_run:
        while RedisView(redis).overdue():
            redis.tick()
            time.sleep(redis.limits.tick / 10)  # one worker may be at it as well
    return [Removed(f"worker {worker}, whose lease is over") for worker in found]


def old_jobs(redis: RedisClient, seconds: float, *, dry_run: bool) -> Iterator[Removed]:
    """Forget jobs that ended so long ago, but for what they still owe to the NAS."""
    for job in RedisView(redis).jobs():
        ended = job.ended_at is not None and time.time() - job.ended_at > seconds
        if ended and not job.owed:
            if not dry_run:
                redis.forget(job.id)
            yield Removed(f"job {job.id}, {job.spec.repo_id}, {job.state.value}")


def leftovers(folder: Path, needed: Callable[[str], float], *, dry_run: bool) -> Iterator[Removed]:
    """Remove what nobody needs of a folder: our partial data, and what huggingface_hub broke off.

    Raises LocalError.
    """
    yield from map(_removed, clear_partials(folder, needed, dry_run=dry_run))
    yield from map(_removed, clear_incomplete(folder, UNKNOWN_KEPT, dry_run=dry_run))


def broken_off(cache: Path, *, dry_run: bool) -> Iterator[Removed]:
    """Remove what huggingface_hub broke off in its cache; raises LocalError."""
    if cache.is_dir():
        yield from map(_removed, clear_incomplete(cache, UNKNOWN_KEPT, dry_run=dry_run))


def _removed(found: Leftover) -> Removed:
    return Removed(str(found.path), found.size)


def kept_for(redis: RedisClient, folder: Path, jobs: Iterable[JobStatus]) -> Callable[[str], float]:
    """Return what tells how long partial data stays, by its digest: for ever, if a job may go on with it.

    `jobs` are those that fill the folder. What belongs to a file that is done goes at once.
    """
    present = partials(folder)
    done, needed = set[str](), set[str]()
    for job in jobs if present else ():
        for row in RedisFiles(redis, job.id).rows():
            digest = digest_of(job.spec, row.about.file)
            if digest in present:
                (done if row.done else needed).add(digest)

    def seconds(digest: str) -> float:
        if digest in needed:
            return math.inf
        return 0.0 if digest in done else UNKNOWN_KEPT

    return seconds
