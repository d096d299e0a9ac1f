"""The library: what a program calls instead of a command, with the same settings and the same results.

Nothing is printed and no signal handled; what the commands would show is logged below the logger
`distributed_downloader`. When a function returns or raises, nothing that it started is left.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from distributed_downloader.client import Client
from distributed_downloader.config import AppConfig, ConfigManager
from distributed_downloader.display import notices, units
from distributed_downloader.errors import FilesFailedError, UsageError
from distributed_downloader.master import JobRequest, MasterNode
from distributed_downloader.models import Failure, JobStatus
from distributed_downloader.plan import Skipped
from distributed_downloader.request import job_request
from distributed_downloader.standalone import standalone, where

if TYPE_CHECKING:
    from distributed_downloader.cancel import Cancel

RepoTypeName = Literal["model", "dataset", "space"]
LayoutName = Literal["tree", "local-dir", "hf-cache"]
StrPath = str | os.PathLike[str]

log = logging.getLogger(__name__)
# Else Python itself would print the warnings of a program that has set up no logging.
logging.getLogger("distributed_downloader").addHandler(logging.NullHandler())

#: Failed files that an error tells of.
_MOST_REASONS = 1000
_PRIORITIES = range(1, 1001)


def download(
    repo: str,
    *,
    output_dir: StrPath | None = None,
    repo_type: RepoTypeName | None = None,
    revision: str | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    layout: LayoutName | None = None,
    force: bool = False,
    config_file: StrPath | None = None,
    settings: Mapping[str, object] | None = None,
    on_progress: Callable[[JobStatus], object] | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Fetch a repo on this machine alone, as `hf-downloader download` does, and return its folder.

    Every file in it is complete and verified. It goes on from what an earlier call left, however that ended.

    Args:
        repo: `org/name`, `datasets/org/name`, `spaces/org/name`, or an address on the hub.
        output_dir: Folder to fill: `<output_dir>/<org>/<name>/<path>`; `[app] output_dir` by default.
        repo_type: What kind of repo; found out by default.
        revision: Branch, tag, commit or PR ref such as `refs/pr/1`; `main` by default.
        include: Only files that match one of these globs; `*` also matches `/`, `dir/` is all below `dir`.
        exclude: No files that match one of these.
        layout: How the files lie in `output_dir`, as for `--layout`; `[app] layout` by default.
        force: Fetch everything again, also what is there and right.
        config_file: The configuration file; by default the one that the commands would find.
        settings: `section.key` -> value, such as `{"app.concurrency": 8, "app.max_bandwidth": "10MB/s"}`;
            these win over environment and file. docs/configuration.md has all keys.
        on_progress: Called in the calling thread from the first page of the listing on, five times a second
            at most, and once with the job as it has ended. What it raises ends the download, and comes out.
        cancel: Ends the download from any other thread, with `cancel.set("why")`.

    Returns:
        The absolute folder that has the files under their paths. With `[nas] enabled` they are on the NAS
            too, or instead.

    Raises:
        FilesFailedError: Some files could not be had; it names them. The others are there.
        UsageError: Words are off; of its kinds: ConfigError, a setting is; AmbiguousRepoError, say a
            `repo_type`; ConflictError, another one fetches it into this folder; NoSpaceError, no room.
        NotFoundError: No such repo or revision, or no file matches; AccessError: not for this token.
        UnreachableError: The hub cannot be reached, or there is no redis-server to start.
        LocalError: This machine's disk: full, read-only, no permission.
        RefusedError: The folder belongs to another repo.
        StoppedError: `cancel` was set.

    Example:
        >>> from distributed_downloader import download
        >>> folder = download("org/name", output_dir="hub", include="*.json")
        >>> sorted(path.name for path in folder.iterdir())
        ['config.json']

    """
    with closing(_client(config_file, settings)) as client:
        output_dir = output_dir or client.config.app.output_dir
        what = _What(repo, output_dir, repo_type, revision, include, exclude, layout, force)
        return _download(client, what.request(client.config), on_progress, cancel)


def _download(
    client: Client,
    request: JobRequest,
    on_progress: Callable[[JobStatus], object] | None,
    cancel: Cancel | None,
) -> Path:
    with standalone(client) as alone, alone.fetching(request, cancel) as looks:
        for job in looks:
            if on_progress:
                on_progress(job)
        failures = alone.failures(job, _MOST_REASONS)
    if count := job.failed + alone.plan.skipped_count:
        raise _incomplete(job, count, failures, alone.plan.skipped, "the same call tries them again")
    return where(job.spec)


def submit(
    repo: str,
    *,
    output_dir: StrPath | None = None,
    repo_type: RepoTypeName | None = None,
    revision: str | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    layout: LayoutName | None = None,
    force: bool = False,
    priority: int = 1,
    config_file: StrPath | None = None,
    settings: Mapping[str, object] | None = None,
) -> int:
    """Queue a repo for the fleet, as `hf-downloader master` does, and return the number of its job.

    It returns when all files are listed; workers begin with the first page of the listing. The same repo,
    commit, filters and folder again is the same job: it goes on, and files that failed are tried again. Files
    that may not be written, for their names, are left out, with a warning in the log.

    Args:
        repo: As for `download`.
        output_dir: Folder for all workers; each worker's own by default.
        repo_type: As for `download`.
        revision: As for `download`.
        include: As for `download`.
        exclude: As for `download`.
        layout: As for `download`; `hf-cache` needs an `output_dir`.
        force: As for `download`.
        priority: Weight beside other jobs, 1 to 1000: 10 gets ten files for each of a job with 1.
        config_file: As for `download`.
        settings: As for `download`; Redis is that of `[redis]`, such as `{"redis.url": "redis://head-node"}`.

    Returns:
        The number that `status`, `watch` and the commands take.

    Raises:
        RedisUnavailableError: Redis does not answer, refuses us, or is full.
        UsageError, NotFoundError, AccessError, HubUnavailableError: As for `download`.

    Example:
        >>> from distributed_downloader import submit
        >>> job = submit("org/name", priority=10)

    """
    if priority not in _PRIORITIES:
        raise UsageError(f"priority {priority} is not between {_PRIORITIES[0]} and {_PRIORITIES[-1]}")
    with closing(_client(config_file, settings)) as client:
        what = _What(repo, output_dir or "", repo_type, revision, include, exclude, layout, force)
        request = what.request(client.config)
        client.warn_of_redis()
        client.share_budgets()
        master = MasterNode(client.hub, client.redis, client.config.nas, client.rules, reserve=client.reserve)
        submitted = master.submit(master.prepare(request), priority)
    for line in notices.listing(submitted.plan):
        log.warning("%s", line)
    return submitted.job


def status(
    job: int, *, config_file: StrPath | None = None, settings: Mapping[str, object] | None = None
) -> JobStatus:
    """Return how far a job of the fleet is; see docs/library.md for the fields and their units.

    Raises:
        UnknownJobError: There is no such job (any more).
        RedisUnavailableError: Redis does not answer, or refuses us.
        ConfigError: A setting is wrong.

    Example:
        >>> from distributed_downloader import status, submit
        >>> now = status(submit("org/name"))
        >>> percent = 100 * now.bytes_done / now.bytes_total

    """
    with closing(_client(config_file, settings)) as client:
        return client.view.job(job)


def watch(
    job: int,
    *,
    interval: float = 1.0,
    config_file: StrPath | None = None,
    settings: Mapping[str, object] | None = None,
) -> Iterator[JobStatus]:
    """Yield how far a job of the fleet is, every `interval` seconds; last what it has ended as.

    Leave the loop whenever you like: the job goes on. After an error, call it again.

    Raises:
        FilesFailedError: The job has ended, and some of its files failed; after the last look.
        UsageError: `interval` is less than 0.
        UnknownJobError, RedisUnavailableError, ConfigError: As for `status`.

    Example:
        >>> from distributed_downloader import submit, watch
        >>> for now in watch(submit("org/name")):
        ...     if now.state.ended or now.bytes_done * 2 > now.bytes_total:
        ...         break

    """
    if not 0 <= interval <= threading.TIMEOUT_MAX:
        raise UsageError(f"interval {interval} is no number of seconds to wait")
    with closing(_client(config_file, settings)) as client:
        while not (now := client.view.job(job)).state.ended:
            yield now
            time.sleep(interval)
        yield now
        if now.failed:
            failures = client.view.failures(job, _MOST_REASONS)
            raise _incomplete(now, now.failed, failures, (), notices.retry(job))


class _What(NamedTuple):
    """What to fetch, as the caller said it."""

    repo: str
    output_dir: StrPath
    repo_type: RepoTypeName | None
    revision: str | None
    include: str | Iterable[str]
    exclude: str | Iterable[str]
    layout: LayoutName | None
    force: bool

    def request(self, config: AppConfig) -> JobRequest:
        """Return what it comes to under these settings; raises UsageError."""
        return job_request(
            config,
            self.repo,
            output_dir=os.fspath(self.output_dir),
            repo_type=self.repo_type,
            revision=self.revision,
            include=_globs(self.include),
            exclude=_globs(self.exclude),
            layout=self.layout,
            force=self.force,
        )


def _client(config_file: StrPath | None, settings: Mapping[str, object] | None) -> Client:
    return Client(lambda: _config(config_file, settings))


def _config(config_file: StrPath | None, settings: Mapping[str, object] | None) -> AppConfig:
    """Return the configuration; huggingface_hub, which has one client for a whole process, is left alone."""
    manager = ConfigManager(Path(config_file) if config_file else None, settings, in_code=True)
    config = manager.load()
    for warning in manager.warnings:
        log.warning("%s", warning)
    if config.huggingface.engine != "auto":
        return config
    direct = config.huggingface.model_copy(update={"engine": "direct"})
    return config.model_copy(update={"huggingface": direct})


def _globs(given: str | Iterable[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _incomplete(
    job: JobStatus, count: int, failures: Sequence[Failure], refused: Sequence[Skipped], again: str
) -> FilesFailedError:
    reasons = {each.path: each.error for each in failures} | {each.path: each.reason for each in refused}
    first = next((f": {path}: {reason}" for path, reason in reasons.items()), "")
    more = f" (and {count - 1:,} more)" if first and count > 1 else ""
    missing = f"{units.repo(job.spec)} lacks {units.count(count, 'file')}"
    return FilesFailedError(f"{missing}{first}{more}; {again}", reasons, count)
