"""Fills a job with its listing, which may be there in part: each file once, and always the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

from distributed_downloader.errors import ConflictError
from distributed_downloader.models import Descriptor, RepoFile
from distributed_downloader.plan import Plan, biggest_first
from distributed_downloader.redis_client import RedisClient

#: Files in one submission: what one Redis script handles without keeping others waiting.
CHUNK = 1000
#: A listing, page by page.
Pages = Generator[list[RepoFile], None, None]


@dataclass(frozen=True)
class Listing:
    """How far a job's listing has come, in files and bytes."""

    job: int
    files: int = 0
    size: int = 0


def fill(
    feed: Feed,
    plan: Plan,
    pages: Iterable[list[RepoFile]],
    on_progress: Callable[[Listing], None],
    *,
    whole: bool,
) -> int:
    """Queue what the job does not have yet of the listing; return how many files that were."""
    if feed.complete:
        return 0
    for page in pages:
        for start in range(0, len(page), CHUNK):
            feed.add(page[start : start + CHUNK])
            on_progress(Listing(feed.job, feed.files, feed.size))
    feed.finish(Descriptor.of_closing(whole=whole and plan.is_whole))
    return feed.queued


class Feed:
    """Adds a listing to a job that may have the beginning of it already, and checks that it is the same."""

    def __init__(self, redis: RedisClient, job: int, *, always: bool) -> None:
        """`always` if the job is closed also where files have failed."""
        self._redis, self._always = redis, always
        self.job = job
        self._hash = hashlib.sha256()
        self._read_job()
        self.files = self.size = self.queued = 0

    def add(self, files: Sequence[RepoFile]) -> None:
        """Add the next files of the listing, at most `CHUNK`."""
        while files:
            known = files[: max(self._total - self.files, 0)]
            if known:
                self._go_past(known)
                self._check()
            files = files[len(known) :]
            if files and self._submit(files):
                return

    def finish(self, closing: Descriptor) -> None:
        """Say that the listing is complete, and what closes the job when all files are."""
        if self.files != self._total:
            raise self._conflict()
        if not self._redis.seal(self.job, self.files, closing.to_line(), always=self._always):
            self._read_job()
            raise self._conflict()

    def _submit(self, files: Sequence[RepoFile]) -> bool:
        """Queue files; return False if another master was faster, whose files are then skipped."""
        digest = self._hash.copy()
        digest.update(_lines(files))
        if self._redis.submit(self.job, self.files, biggest_first(files), digest.hexdigest()):
            self._go_past(files)
            self._total = self.files
            self.queued += len(files)
            return True
        self._read_job()
        if self._total <= self.files:
            raise self._conflict()
        return False

    def _read_job(self) -> None:
        self._total, self._digest, self.complete = self._redis.listed(self.job)

    def _go_past(self, files: Sequence[RepoFile]) -> None:
        self._hash.update(_lines(files))
        self.files += len(files)
        self.size += sum(file.size for file in files)

    def _check(self) -> None:
        """Compare the listing with the job's, where the job's ends."""
        if self.files == self._total and self._hash.hexdigest() != self._digest:
            raise self._conflict()

    def _conflict(self) -> ConflictError:
        if self._total < self.files:
            return ConflictError(
                f"Redis lost the end of the listing of job {self.job}, maybe with its last second; "
                "run the same command again: it goes on from there"
            )
        return ConflictError(
            f"the hub now lists this commit otherwise than when job {self.job} was begun (another mirror?); "
            f"run `hf-downloader forget {self.job}` and then this command again: what is there is kept"
        )


def _lines(files: Iterable[RepoFile]) -> bytes:
    return "".join(f"{file.to_line()}\n" for file in files).encode()
