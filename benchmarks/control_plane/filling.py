"""Jobs of any size in a queue, without a hub: what rows need that do not measure the listing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from benchmarks.waiting import check_interrupted
from distributed_downloader.models import JobSpec, RepoFile, RepoType
from distributed_downloader.redis_client import RedisClient

#: Bytes of each file, where that does not matter.
SIZE = 4096


def spec_of(number: int, split_over: int = 0) -> JobSpec:
    """Return the job of a repo of that number; no hub has it."""
    return JobSpec(
        repo_type=RepoType.DATASET,
        repo_id=f"org/repo-{number}",
        revision="main",
        commit=f"{number:040x}",
        endpoint="http://hub.invalid",
        split_over=split_over,
    )


def fill(
    queue: RedisClient,
    number: int,
    count: int,
    *,
    size: int = SIZE,
    split_over: int = 0,
    paused: bool = False,
) -> int:
    """Make a job of `count` files and return its id; `paused`, nothing of it can be claimed yet.

    Each file has `size` bytes, and may be split if that is more than `split_over`, unless that is 0.
    """
    job, _ = queue.create_job(spec_of(number, split_over), 1)
    if paused:
        queue.control("pause", job)
    for base in range(0, count, queue.limits.chunk):
        check_interrupted()
        chunk = list(_files(base, min(count, base + queue.limits.chunk), size))
        if not queue.submit(job, base, chunk, "-"):
            raise AssertionError(f"job {job} did not take its files from {base} on")
    queue.seal(job, count)
    return job


def fill_evenly(queue: RedisClient, jobs: int, tasks: int, *, paused: bool = False) -> list[int]:
    """Make jobs that have so many tasks together, and return their ids."""
    shares = [tasks // jobs + (number < tasks % jobs) for number in range(jobs)]
    return [fill(queue, number, share, paused=paused) for number, share in enumerate(shares)]


def _files(first: int, end: int, size: int) -> Iterator[RepoFile]:
    """Yield files with paths of 44 characters, and a sha256 each, as large repos have them."""
    for number in range(first, end):
        path = f"data/shard-{number // 1000:05}/file-{number:014}.parquet"
        yield RepoFile(path=path, size=size, sha256=hashlib.sha256(path.encode()).hexdigest())
