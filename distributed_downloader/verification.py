"""What `verify` checks and finds: repos in folders, and what is missing, wrong, or none of theirs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from distributed_downloader.errors import FilesFailedError, NotFoundError
from distributed_downloader.feed import CHUNK, Pages
from distributed_downloader.layout import folder_of
from distributed_downloader.master import absolute
from distributed_downloader.models import Failure, JobSpec, JobState, JobStatus, RepoFile
from distributed_downloader.plan import in_chunks
from distributed_downloader.redis_closing import RedisClosing
from distributed_downloader.storage.manifest import Found, Manifests
from distributed_downloader.storage.place import STATE


class Subject(NamedTuple):
    """One repo in one folder."""

    spec: JobSpec
    #: Its files, where the hub is not to be asked for them.
    listing: Callable[[], Pages] | None = None
    #: Files that nobody can check, and why.
    unchecked: Mapping[str, str] = {}


class Crew(Protocol):
    """Who does the work: a fleet, or this machine alone."""

    def work(self, spec: JobSpec, listing: Pages | None) -> JobStatus:
        """Make a job, see it to its end, and return how it ended; raises what `MasterNode.submit` does."""

    def files(self, job: int) -> RedisClosing:
        """Return what tells the files of a job."""

    def failures(self, job: JobStatus) -> list[Failure]:
        """Return what failed of a job."""


@dataclass
class Report:
    """What was found of one repo."""

    spec: JobSpec
    files: int = 0
    size: int = 0
    missing: list[str] = field(default_factory=list)
    #: Path -> what is wrong with it.
    wrong: dict[str, str] = field(default_factory=dict)
    #: Path -> why it could not be checked.
    unchecked: dict[str, str] = field(default_factory=dict)
    #: Files that are none of the repo's: the first, and how many.
    extra: tuple[str, ...] = ()
    extra_count: int = 0
    #: Files that were fetched again, and are right now.
    repaired: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether all files are there and right by now."""
        repaired = {*self.repaired}
        left = [path for path in (*self.missing, *self.wrong) if path not in repaired]
        return not (left or self.unchecked)


def verify(crew: Crew, subject: Subject, *, quick: bool, repair: bool) -> Report:
    """Check every file of a repo by its hash, or its size if `quick`; with `repair`, fetch what is not right.

    Raises what `MasterNode.submit` does, and FilesFailedError when somebody has stopped the check.
    """
    job = crew.work(_check(subject.spec, quick=quick), subject.listing() if subject.listing else None)
    if job.state is JobState.CANCELLED:
        count = f"{job.files_done} of {job.files} files"
        raise FilesFailedError(f"the check, job {job.id}, was cancelled after {count}; run it again", {}, 0)
    report = Report(subject.spec, job.files, job.bytes_total, extra=job.extra, extra_count=job.extra_count)
    report.unchecked.update(subject.unchecked)
    _sort(report, crew.failures(job))
    if repair and (report.missing or report.wrong):
        _repair(crew, job, report)
    return report


def _check(spec: JobSpec, *, quick: bool) -> JobSpec:
    """Return the job that checks what another one fetched; it is never the same as an earlier one."""
    changes = {"check": "size" if quick else "hash", "run": secrets.token_hex(16), "force": False}
    return spec.model_copy(update=changes)


def _sort(report: Report, failures: Iterable[Failure]) -> None:
    for each in failures:
        if each.found == "missing":
            report.missing.append(each.path)
        elif each.found == "wrong":
            report.wrong[each.path] = each.error.removeprefix("wrong: ")
        else:
            report.unchecked[each.path] = each.error


def _repair(crew: Crew, job: JobStatus, report: Report) -> None:
    """Fetch what the check found missing or wrong, as a job of its own."""
    flawed = {*report.missing, *report.wrong}
    files = (file for file in crew.files(job.id).failed() if file.path in flawed)
    spec = report.spec.model_copy(update={"run": secrets.token_hex(16), "include": (), "exclude": ()})
    fetched = crew.work(spec, _pages(files))
    report.repaired = [done.file.path for done in crew.files(fetched.id).done()]
    report.unchecked.update({each.path: each.error for each in crew.failures(fetched)})


def _pages(files: Iterable[RepoFile]) -> Pages:
    yield from in_chunks(files, CHUNK)


# -- what there is to verify ----------------------------------------------------------------------


def at_path(path: Path) -> list[Subject]:
    """Return what the manifests at a path, or in a folder above it, say should be there; newest commits only.

    `path` is an output folder, or the folder of one repo in it.
    """
    inside = Path(absolute(path))
    for root in (inside, *inside.parents):
        if os.path.isdir(root / STATE):  # noqa: PTH112 - one that may not be looked at is none
            found = Manifests(root).find()
            return [_of_manifest(root, each) for each in _newest(found) if _covers(root, each, inside)]
    return []


def _newest(found: Iterable[Found]) -> list[Found]:
    """Return of each folder the manifest of what was fetched last."""
    return [*{folder_of(each.head.spec): each for each in found}.values()]


def _covers(root: Path, found: Found, path: Path) -> bool:
    """Return whether a path is a repo's folder, or above or below it."""
    repo = root / folder_of(found.head.spec)
    return repo.is_relative_to(path) or path.is_relative_to(repo)


def _of_manifest(root: Path, found: Found) -> Subject:
    spec = found.head.spec.model_copy(update={"output_dir": str(root)})
    entries = Manifests(root).entries

    def listing() -> Pages:
        return _pages(entry.file for entry in entries(found.name))

    return Subject(spec, listing)


def in_own_folders(job: JobStatus, files: RedisClosing, folders: Mapping[str, set[str]]) -> list[Subject]:
    """Return what a job without a folder of its own has left in those of workers, one subject for each.

    `folders` has the ids of the folders that the living workers of each host have. Raises NotFoundError if
    nobody lives who could check any of it.
    """
    hosts = {done.host for done in files.done()}
    known = {host: folders.get(host, set()) - {""} for host in hosts}
    places = {host: next(iter(found)) for host, found in known.items() if len(found) == 1}
    if not places:
        seen = ", ".join(sorted(hosts)) or "no host yet"
        raise NotFoundError(
            f"job {job.id} put its files into its workers' own folders, on {seen}: "
            "start one worker there, or run `hf-downloader verify FOLDER` there"
        )
    lost = {
        done.file.path: f"it lies on {done.host}, where not exactly one folder of a living worker is known"
        for done in files.done()
        if done.host not in places
    }

    def in_place(place: str) -> Subject:
        def listing() -> Pages:
            return _pages(done.file for done in files.done() if places.get(done.host) == place)

        return Subject(job.spec.model_copy(update={"place": place}), listing)

    subjects = [in_place(place) for place in sorted({*places.values()})]
    return [subjects[0]._replace(unchecked=lost), *subjects[1:]]
