"""MasterNode: turns a request into a job, and fills the job while its listing comes in."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from os.path import normpath
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from distributed_downloader.config import NASConfig
from distributed_downloader.errors import (
    ConflictError,
    NoSpaceError,
    NotFoundError,
    RedisUnavailableError,
    UnknownJobError,
    UsageError,
)
from distributed_downloader.fit import fitting, goals_of
from distributed_downloader.hub.repo_name import parse_repo
from distributed_downloader.models import (
    Descriptor,
    JobSpec,
    JobState,
    JobStatus,
    Layout,
    RepoFile,
    RepoType,
)
from distributed_downloader.nas_names import nas_parts
from distributed_downloader.places import mark
from distributed_downloader.plan import Plan, biggest_first
from distributed_downloader.redis_view import RedisView

if TYPE_CHECKING:
    from distributed_downloader.hub import Hub
    from distributed_downloader.redis_client import RedisClient
    from distributed_downloader.rules import Rules

log = logging.getLogger(__name__)

#: Files in one submission: what one Redis script handles without keeping others waiting.
CHUNK = 1000
#: A listing, page by page.
Pages = Generator[list[RepoFile], None, None]
DEFAULT_REVISION = "main"


@dataclass(frozen=True)
class JobRequest:
    """What a user asks for, in their own words."""

    repo: str
    repo_type: RepoType | None = None
    revision: str | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    #: Folder for all workers, or "" for each worker's own.
    output_dir: str = ""
    #: As in JobSpec.
    split_over: int = 0
    part_size: int = 0
    flat: bool = False
    layout: Layout = Layout.TREE
    force: bool = False


@dataclass(frozen=True)
class Listing:
    """How far a job's listing has come, in files and bytes."""

    job: int
    files: int = 0
    size: int = 0


@dataclass(frozen=True)
class Submitted:
    """What came of a submission."""

    job: int
    #: False if the job was there already; `before` is what it looked like then.
    created: bool
    before: JobStatus
    after: JobStatus
    #: How many files this run has queued.
    queued: int
    #: What was noticed in the listing, such as files that are refused.
    plan: Plan = field(repr=False)


def prepare(hub: Hub, request: JobRequest, rules: Rules | None = None) -> JobSpec:
    """Find the repo and pin its revision; nothing is queued yet.

    Raises UsageError, also for what the rules of this machine forbid, and what `Hub.find_type` and `Hub.pin`
    raise.
    """
    name = parse_repo(request.repo, request.repo_type, hub.endpoint)
    if request.include and name.include:
        raise UsageError(f"{name.include[0]} is in the address already; give the repo's name with --include")
    if request.revision and name.revision and request.revision != name.revision:
        raise UsageError(f"the address says revision {name.revision}, --revision says {request.revision}")
    if request.layout is Layout.HF_CACHE and not request.output_dir:
        raise UsageError("--layout hf-cache needs --output-dir: a cache is one folder, for all workers")
    revision = name.revision or request.revision or DEFAULT_REVISION
    repo_type = name.type or hub.find_type(name.id)
    repo_id, commit = hub.pin(repo_type, name.id, revision)
    if repo_id != name.id:
        log.warning("%s is called %s now", name.id, repo_id)
    spec = JobSpec(
        repo_type=repo_type,
        repo_id=repo_id,
        revision=revision,
        commit=commit,
        endpoint=hub.endpoint,
        include=tuple(request.include) or name.include,
        exclude=tuple(request.exclude),
        output_dir=_absolute(request.output_dir),
        flat=request.flat,
        split_over=request.split_over,
        part_size=request.part_size,
        layout=request.layout,
        force=request.force,
        run=secrets.token_hex(16) if request.force else "",
    )
    if rules and (objection := rules.objection(spec)):
        raise UsageError(f"{objection}; this machine's configuration has to allow it first")
    return spec


def _absolute(folder: str) -> str:
    """Return a folder's path as all machines can use it; "" for none."""
    return f"/{normpath(Path(folder).expanduser().absolute()).lstrip('/')}" if folder else ""


def plan_of(spec: JobSpec) -> Plan:
    """Return what decides which files of the listing are queued."""
    flat_name = (lambda file: nas_parts(spec, file)[-1]) if spec.flat else None
    return Plan(spec.include, spec.exclude, flat_name)


def nothing_matches(spec: JobSpec, plan: Plan) -> NotFoundError:
    """Return the error for a listing without any file to download."""
    name = f"{spec.repo_type.value}s/{spec.repo_id} at {spec.revision}"
    if plan.skipped:
        path, reason = plan.skipped[0]
        return NotFoundError(f"{name} has no file that may be written: {path!r} is refused ({reason})")
    if spec.include or spec.exclude:
        look = f"`hf-downloader master {spec.repo_id} --dry-run`"
        return NotFoundError(f"no file of {name} matches --include and --exclude; {look} lists them all")
    return NotFoundError(f"{name} has no files")


class MasterNode:
    """Makes jobs, whose files get to `nas` if that is enabled; may be used by several threads."""

    def __init__(
        self,
        hub: Hub,
        redis: RedisClient,
        nas: NASConfig | None = None,
        rules: Rules | None = None,
        *,
        reserve: int | None = None,
    ) -> None:
        """Make one that takes no job which cannot fit beside `reserve` bytes; None for any."""
        self._hub, self._rules, self._reserve = hub, rules, reserve
        self._redis = redis
        self._nas = nas or NASConfig()
        self._view = RedisView(redis)

    def prepare(self, request: JobRequest) -> JobSpec:
        """Find the repo and pin its revision; see the function of that name."""
        return prepare(self._hub, request, self._rules)

    def submit(
        self,
        spec: JobSpec,
        weight: int,
        on_progress: Callable[[Listing], None] = lambda _: None,
        listing: Pages | None = None,
    ) -> Submitted:
        """Make the job, or find it, and queue what of it is not queued yet.

        `on_progress` is called as soon as the job exists, and then after each page. `listing` has the files
        where the hub is not to be asked for them.
        The same repo, commit, filters and output is the same job: a listing that was interrupted goes
        on, a paused or cancelled job is resumed, and files that failed are queued again. Raises
        NotFoundError when no file matches and NoSpaceError when its first page cannot fit (nothing is made
        then; where a later one cannot, the job is paused), and ConflictError when the job cannot go on.
        """
        plan = plan_of(spec)
        found = listing or self._hub.pages(spec.repo_type, spec.repo_id, spec.commit)
        with closing(found):
            pages = self._fitting(plan.pages(found), spec)
            first = next(pages, None)
            if first is None:
                raise nothing_matches(spec, plan)
            spec, unsplit = mark(spec, self._nas)
            job, created = self._redis.create_job(spec, weight)
            if unsplit or not created:
                self._redis.whole(job, unsplit)
            on_progress(Listing(job))
            before = self._revive(job)
            feed = _Feed(self._redis, job, always=bool(spec.check))
            try:
                whole = listing is None  # else who has it may have left out some
                queued = _fill(feed, plan, chain([first], pages), on_progress, whole=whole)
            except NoSpaceError as error:
                self._redis.control("pause", job)
                raise NoSpaceError(f"{error}; job {job} is paused until this command is run again") from None
        return Submitted(job, created, before, self._view.job(job), queued, plan)

    def wait(
        self, job: int, on_status: Callable[[JobStatus], None] = lambda _: None, interval: float = 1.0
    ) -> JobState:
        """Return how the job ends, looking every `interval` seconds; a Redis that is away is waited for.

        `on_status` is called with each look, and may read from Redis too.
        Raises UnknownJobError when somebody forgets the job meanwhile, RedisUnavailableError when Redis does.
        """
        away = was_away = False
        while True:
            try:
                status = self._view.job(job)
                on_status(status)
                away = False
                if status.state.ended:
                    return status.state
            except RedisUnavailableError as error:
                if not away:
                    log.warning("%s; waiting for it to come back", error)
                away = was_away = True
            except UnknownJobError:
                if not was_away:
                    raise
                raise RedisUnavailableError(
                    f"Redis came back without its data, job {job} among it: run the same command again; what "
                    "is on disk is kept"
                ) from None
            sleep(interval)

    def _fitting(self, pages: Iterator[list[RepoFile]], spec: JobSpec) -> Iterator[list[RepoFile]]:
        """Yield the pages as long as the job can fit, if that is asked for; a check needs no room."""
        if self._reserve is None or spec.check:
            return pages
        return fitting(pages, spec, goals_of(spec, self._nas, self._reserve))

    def _revive(self, job: int) -> JobStatus:
        """Let a job go on that somebody or something had stopped; return what it was like before."""
        status = self._view.job(job)
        if status.state in (JobState.PAUSED, JobState.CANCELLED):
            self._redis.control("resume", job)
        if status.failed:
            self._redis.control("retry", job)
        return status


def _fill(
    feed: _Feed,
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


class _Feed:
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
