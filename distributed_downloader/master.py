"""MasterNode: turns a request into a job, and fills the job while its listing comes in."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from os.path import normpath
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from distributed_downloader.config import NASConfig
from distributed_downloader.errors import (
    NoSpaceError,
    NotFoundError,
    RedisUnavailableError,
    UnknownJobError,
    UsageError,
)
from distributed_downloader.feed import Feed, Listing, Pages, fill
from distributed_downloader.fit import fitting, goals_of
from distributed_downloader.hub.repo_name import parse_repo
from distributed_downloader.models import (
    JobSpec,
    JobState,
    JobStatus,
    Layout,
    RepoFile,
    RepoType,
)
from distributed_downloader.nas_names import nas_parts
from distributed_downloader.places import mark
from distributed_downloader.plan import Plan
from distributed_downloader.redis_view import RedisView

if TYPE_CHECKING:
    from distributed_downloader.hub import Hub
    from distributed_downloader.redis_client import RedisClient
    from distributed_downloader.rules import Rules

log = logging.getLogger(__name__)

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
        output_dir=absolute(request.output_dir),
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


def absolute(folder: str | Path) -> str:
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
            feed = Feed(self._redis, job, always=bool(spec.check))
            try:
                whole = listing is None  # else who has it may have left out some
                queued = fill(feed, plan, chain([first], pages), on_progress, whole=whole)
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
