"""Closes a job: leaves with its files what others need to make use of them, once all are complete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from distributed_downloader.cancel import Cancel
from distributed_downloader.descriptor import DoneFile, Extra
from distributed_downloader.errors import LocalError, PlaceUnseenError, RefusedError
from distributed_downloader.folders import Folders
from distributed_downloader.models import DownloadTask, Layout, RepoFile
from distributed_downloader.outcome import Finished
from distributed_downloader.patience import unless_silent
from distributed_downloader.plan import path_filter
from distributed_downloader.storage import RepoFolder
from distributed_downloader.storage.hf_cache import HfCache
from distributed_downloader.storage.local_dir import leave_metadata
from distributed_downloader.storage.manifest import Entry, Head, Manifests
from distributed_downloader.storage.place import require_place
from distributed_downloader.storage.survey import survey

log = logging.getLogger(__name__)

#: Seconds without an answer after which a NAS counts as away.
_NAS_SILENT = 30.0
#: Files that are none of the repo's and are told by name; the rest is only counted.
_EXTRA_SHOWN = 1000


class JobFiles(Protocol):
    """What the queue tells of one job's files."""

    def done(self) -> Iterator[DoneFile]:
        """Yield those that are complete, in the order of the listing."""

    def names(self) -> Iterator[str]:
        """Yield the paths of all."""

    def tell_extra(self, extra: Extra) -> None:
        """Say which others were found beside them."""

    def delivered(self) -> int:
        """Return how many of them are on the NAS."""

    def flawed(self) -> int:
        """Return how many of them failed."""


class Closings:
    """Runs the tasks that close jobs, for all slots of a worker."""

    def __init__(self, folders: Folders, jobs: Callable[[int], JobFiles]) -> None:
        self._folders, self._jobs = folders, jobs

    def run(self, task: DownloadTask, cancel: Cancel) -> Finished:
        """Return when the job's output folder, and the NAS, have what belongs to its layout.

        Raises PlaceUnseenError where others may see these folders, TransferError, RedisUnavailableError.
        """
        root, job = self._folders.output(task.spec), self._jobs(task.token.job)
        done = partial(self._here, task, root)
        is_here = any(True for _ in done())  # workers with folders of their own may have all of it
        if task.spec.check:
            self._survey(task, root, cancel)
        if is_here and task.spec.check:
            self._note_checked(root, Head.of(task.spec, whole=_is_whole(task) and not job.flawed()), done())
        elif is_here:
            self._settle(task, root, done, cancel)
            _write(root, Head.of(task.spec, whole=_is_whole(task)), done())
        if job.delivered():
            self._write_at_nas(task, cancel)
        return Finished()

    def _settle(
        self, task: DownloadTask, root: Path, done: Callable[[], Iterator[DoneFile]], cancel: Cancel
    ) -> None:
        """Do what makes a layout complete."""
        spec, place, whole = task.spec, self._folders.place(task.spec), _is_whole(task)

        def files() -> Iterator[RepoFile]:
            return (each.file for each in done())

        if spec.layout is Layout.HF_CACHE:
            HfCache(root, place, spec, cancel).show(files, whole=whole)
        elif spec.layout is Layout.LOCAL_DIR:
            leave_metadata(root, place, spec, files, cancel, whole=whole)

    def _survey(self, task: DownloadTask, root: Path, cancel: Cancel) -> None:
        """Look for files that are none of the repo's; those that the job's filters leave out do not count."""
        spec, job = task.spec, self._jobs(task.token.job)
        known = {hash(name) for name in job.names()}
        wanted = path_filter(spec.include, spec.exclude)
        found = survey(root, spec, lambda path: hash(path) in known or not wanted(path), cancel)
        first = tuple(islice(found, _EXTRA_SHOWN))
        job.tell_extra(Extra(count=len(first) + sum(1 for _ in found), first=first))

    def _here(self, task: DownloadTask, root: Path) -> Iterator[DoneFile]:
        """Yield the complete files of the job that are in the folder: all, if it is that of the job."""
        spec, done = task.spec, self._jobs(task.token.job).done()
        if spec.output_dir:
            return done
        folder = RepoFolder(root, spec, place=self._folders.place(spec))
        return (each for each in done if folder.size_of(each.file) == each.file.size)

    def _note_checked(self, root: Path, head: Head, done: Iterator[DoneFile]) -> None:
        """Note when files were checked, where that can be written: an archive may well be read-only."""
        try:
            _write(root, head, done)
        except (LocalError, RefusedError) as error:
            log.warning("the manifest stays as it was: %s", error)

    def _write_at_nas(self, task: DownloadTask, cancel: Cancel) -> None:
        nas, spec = self._folders.nas, task.spec
        seen = self._folders.nas_id
        if nas is None or not seen or spec.nas not in ("", seen):
            raise PlaceUnseenError("the NAS, which gets the manifest of what was delivered, is not seen here")
        head = Head.of(spec.model_copy(update={"layout": Layout.TREE}), whole=_is_whole(task))

        def write(_cancel: Cancel, alive: Callable[[object], None]) -> bool:
            def living() -> Iterator[DoneFile]:
                for each in self._jobs(task.token.job).done():
                    alive(each)
                    yield each

            require_place(nas, seen)
            _write(nas, head, living())
            return True

        if not unless_silent(write, cancel, _NAS_SILENT):
            raise PlaceUnseenError(f"{nas}: the NAS does not answer")


def _write(root: Path, head: Head, done: Iterator[DoneFile]) -> None:
    """Bring the manifest up to date."""
    Manifests(root).write(head, (Entry.of(each.file, each.at) for each in done))


def _is_whole(task: DownloadTask) -> bool:
    return task.about.closing == "whole"
