"""From a task to verified bytes where they belong: a whole file, a part of one, or a seal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distributed_downloader.cancel import Cancel
from distributed_downloader.checks import origin
from distributed_downloader.config import AppConfig
from distributed_downloader.errors import (
    AccessError,
    HubAwayError,
    LocalError,
    NoConnectionError,
    NotAllowedError,
    NotFoundError,
    PlaceUnseenError,
    RefusedError,
    RoomError,
    TransferError,
    WaitsForNasError,
)
from distributed_downloader.folders import Folders
from distributed_downloader.hold import Hold
from distributed_downloader.imports import whole_imports
from distributed_downloader.lately import Lately
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, Layout
from distributed_downloader.outcome import ON_NAS, Divided, Finished, Outcome
from distributed_downloader.patience import unless_silent
from distributed_downloader.rules import Rules
from distributed_downloader.ssl_config import HttpClient, trusted_origins
from distributed_downloader.storage import RepoFolder
from distributed_downloader.storage.leftovers import sweep
from distributed_downloader.storage.nas import NasFolder
from distributed_downloader.storage.place import make_place, read_place
from distributed_downloader.storage.records import cut, gaps, merged
from distributed_downloader.storage.room import Room
from distributed_downloader.storage.spool import Spool
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.division import Division, Fleet, bounded
from distributed_downloader.transfer.engine import Context, Engine, Progress
from distributed_downloader.transfer.engines import Engines
from distributed_downloader.transfer.split_files import SplitFiles

if TYPE_CHECKING:
    from distributed_downloader.transfer.closing import JobFiles

log = logging.getLogger(__name__)

#: Seconds without a byte after which a slot does not wait any longer for the NAS.
_NAS_SILENT = 10.0
#: Seconds before a task is given back that is not for this machine, so that it does not come round at once;
#: doubled with each in a row, up to the second.
_HELD_BACK, _HELD_BACK_MOST = 0.1, 5.0


class Downloader:
    """Runs tasks for all slots of a worker; they share its connections and its bandwidth.

    Without `fleet`, nothing is split; `jobs` tells the files of jobs that are to be closed.
    """

    def __init__(
        self,
        config: AppConfig,
        *,
        folders: Folders | None = None,
        fleet: Fleet | None = None,
        owes: Callable[[], bool] = lambda: False,
        http: HttpClient | None = None,
        throttle: Throttle | None = None,
        http_engine: Engine | None = None,
        jobs: Callable[[int], JobFiles] | None = None,
    ) -> None:
        self._settings, self._rules = config.huggingface, Rules(config)
        #: Tasks in a row that were not for this machine, or whose hub it did not reach.
        self._refused = self._unreached = 0
        self._folders = folders or Folders(config)
        self._owes, self._keeps = owes, not config.nas.delete_after_copy
        self._division = Division(config, self._folders, fleet) if fleet else None
        self._throttle = throttle or Throttle(config.app.max_bandwidth)
        self._engines = Engines(config.huggingface, http or HttpClient.of(config), http_engine)
        self._room = Room(config.app.disk_reserve)
        spool_dir, threads = config.app.spool_dir, config.nas.copy_threads
        self._spool = Spool(Path(spool_dir), threads, self._room) if spool_dir else None
        #: What reads ahead for seals.
        self.split_files = SplitFiles(self._folders, self._engines, self._room, self._throttle, self._spool)
        self._jobs = jobs
        self._lock, self._lately = threading.Lock(), Lately()
        self._swept: set[Path] = set()

    def run(
        self, task: DownloadTask, cancel: Cancel, progress: Progress, hold: Hold | None = None
    ) -> Outcome:
        """Return when the task's bytes are where they belong, or are to be fetched in parts.

        A whole file is then published and verified. Raises TransferError, and RedisUnavailableError
        where the fleet had to be asked.
        """
        cancel.check()
        self._require_allowed(task, cancel)
        try:
            outcome = self._do(task, cancel, progress, hold or Hold.unlimited())
        except (RoomError, NoConnectionError, AccessError, NotFoundError) as error:
            told = self._explain(error, task.spec.endpoint, cancel)
            if told is error:
                raise
            raise told from error
        self._unreached = 0
        return outcome

    def _do(self, task: DownloadTask, cancel: Cancel, progress: Progress, hold: Hold) -> Outcome:
        about, spec = task.about, task.spec
        if about.closing:
            return self._close(task, cancel)
        if spec.check:
            return self._check(task, cancel, progress)
        if about.part:
            return self.split_files.part(task, cancel, progress, hold)
        if about.is_seal:
            return self._seal(task, cancel, progress, hold)
        with self._folder(self._folders.root(spec), spec) as folder:
            if folder.is_place():
                return self._whole(task, folder, cancel, progress)
        # This tells what is wrong, or which folder it is now.
        with self._folder(self._folders.output(spec), spec) as folder:
            return self._whole(task, folder, cancel, progress)

    def _require_allowed(self, task: DownloadTask, cancel: Cancel) -> None:
        """Raise NotAllowedError for a job that is not for this machine, whoever put it into Redis."""
        objection = self._rules.objection(task.spec)
        self._refused = self._refused + 1 if objection else 0
        if objection:
            _hold_back(self._refused, cancel)
            raise NotAllowedError(f"{objection} on this machine: allow it there, or start a worker that may")

    def _check(self, task: DownloadTask, cancel: Cancel, progress: Progress) -> Finished:
        """See whether a file is there and right."""
        with whole_imports():  # few jobs check
            from distributed_downloader.transfer.checking import Checks  # noqa: PLC0415
        return Checks(self._folders, self._on_nas).run(task, cancel, progress)

    def _close(self, task: DownloadTask, cancel: Cancel) -> Finished:
        """Close a job."""
        with whole_imports():  # only now: it is the last that a job needs
            from distributed_downloader.transfer.closing import Closings  # noqa: PLC0415
        if not self._jobs:
            raise RefusedError("this worker knows no files of jobs, so it closes none")
        return Closings(self._folders, self._jobs).run(task, cancel)

    def close(self) -> None:
        """Close all connections; nothing may be running."""
        self._engines.close()
        self._throttle.close()
        if self._spool:
            self._spool.close()

    def _whole(self, task: DownloadTask, folder: RepoFolder, cancel: Cancel, progress: Progress) -> Outcome:
        """Have the file in `folder`, or find that it is better fetched in parts."""
        self._sweep(folder.root)
        self._claim(folder, task.spec)
        if not task.spec.force and folder.has(task.file, cancel):
            progress(task.file.size)
            return self._published(task, folder)  # who gave it its name may have died at once
        if self._nas_will_do(task, folder) and self._on_nas(task, cancel):
            progress(task.file.size)
            return Finished(owes=ON_NAS)
        if self._division and (shared := self._division.place(task)):
            divided = self._divide(self._division, task, *shared, cancel)
            if divided:
                return divided
        return self._fetch(task, folder, cancel, progress)

    def _claim(self, folder: RepoFolder, spec: JobSpec) -> None:
        ours = (folder.path, folder.place, spec.repo_type)
        if not self._lately.was(ours):
            folder.claim_folder()
            self._lately.note(ours)

    def _folder(self, root: Path, spec: JobSpec) -> RepoFolder:
        return RepoFolder(root, spec, self._room, self._folders.place(spec))

    def _fetch(self, task: DownloadTask, folder: RepoFolder, cancel: Cancel, progress: Progress) -> Finished:
        """Download the file as a whole and publish it."""
        with folder.partial(task.file, cancel) as partial:
            self._engines.fill(Context(task, partial, cancel, self._throttle, progress))
            cancel.check()
            folder.publish(partial, task.file, sync=False)
        return self._published(task, folder)

    def _published(self, task: DownloadTask, folder: RepoFolder) -> Finished:
        return Finished(
            owes=self._debt(task.spec, folder.root, folder.place), published=folder.published(task.file)
        )

    def _divide(
        self, division: Division, task: DownloadTask, place: str, size: int, cancel: Cancel
    ) -> Divided | None:
        """Make room for the file; None if the NAS does not take it, where it would be put together."""
        root = self._folders.shared(task.spec, task.about, place)
        split = self._folders.split_file(task, cancel, self._room, place)
        try:
            if root is self._folders.nas:
                NasFolder(root, task.spec).claim(task.file)
            split.prepare()
            records = split.records()  # once, for others may write meanwhile
        except (LocalError, RefusedError) as error:
            if root is not self._folders.nas:
                raise
            division.tell(task, f"the NAS, the only folder that all workers share: {error}")
            return None
        division.tell(task, "")
        missing = bounded(list(cut(gaps(records, task.file.size), size)))
        return Divided(place, missing, tuple(merged(records)), f"{place}:{split.path.name}")

    def _seal(self, task: DownloadTask, cancel: Cancel, progress: Progress, hold: Hold) -> Finished:
        with self.split_files.at_nas(task):
            root = self._folders.shared(task.spec, task.about)
            if self._was_sealed(task, root, cancel):
                there = self._folder(root, task.spec).published(task.file)
                return Finished(
                    owes=self._debt(task.spec, root, ""),
                    published=None if root is self._folders.nas else there,
                )
            if self.split_files.seal(task, cancel, progress, hold):
                return Finished(owes=self._debt(task.spec, root, ""))
            self.split_files.discard(task, cancel)  # first, for a disk may not have room for both
        plain = replace(task, about=Descriptor(file=task.file))
        with self._folder(self._folders.output(task.spec), task.spec) as folder:
            return self._fetch(plain, folder, cancel, progress)

    def _was_sealed(self, task: DownloadTask, root: Path, cancel: Cancel) -> bool:
        """Return whether somebody published the file, and died before it was reported."""
        if self._folders.split_file(task, cancel, self._room).exists():
            return False
        if root is self._folders.nas:
            found = self._look_at_nas(task, cancel)
            if found is None:
                raise PlaceUnseenError(f"{root} does not say whether {task.file.path} is there already")
            return found
        return self._folder(root, task.spec).has(task.file, cancel)

    def _debt(self, spec: JobSpec, root: Path, place: str) -> str:
        """Return from where a file that is in `root` still has to get to the NAS; see `Finished.owes`.

        `place` is its id, "" where that is to be looked for.
        """
        if not self._delivers(spec):
            return ""
        if root is self._folders.nas:
            return ON_NAS
        place = place or read_place(root) or make_place(root, create_root=False)
        return f"{place} {root}"

    def _delivers(self, spec: JobSpec) -> bool:
        """Return whether the job's files get to the NAS: it has trees, so no blobs of a cache."""
        return self._folders.nas is not None and spec.layout is not Layout.HF_CACHE

    def _nas_will_do(self, task: DownloadTask, folder: RepoFolder) -> bool:
        """Return whether a copy on the NAS is all that is wanted.

        It is not where a folder was named that keeps its files, nor where something wrong has the name.
        """
        wanted_here = task.spec.force or (task.spec.output_dir and self._keeps)
        return self._delivers(task.spec) and not wanted_here and folder.size_of(task.file) is None

    def _on_nas(self, task: DownloadTask, cancel: Cancel) -> bool:
        """Return whether the file is on the NAS, and right, as far as the NAS tells."""
        return bool(self._look_at_nas(task, cancel))

    def _look_at_nas(self, task: DownloadTask, cancel: Cancel) -> bool | None:
        """Return whether the file is on the NAS, and right; None if the NAS does not tell.

        What else has its name there is for whoever wants to write to refuse.
        """
        nas = self._folders.nas
        if nas is None:
            return False
        if not self._folders.nas_id:
            return None
        folder = NasFolder(nas, task.spec)

        def look(inner: Cancel, alive: Callable[[object], None]) -> bool:
            return folder.look(task.file, inner, alive)

        try:
            return unless_silent(look, cancel, _NAS_SILENT)
        except LocalError:
            return None
        except RefusedError:
            return False

    def _explain(self, error: TransferError, endpoint: str, cancel: Cancel) -> TransferError:
        """Return what says more of an error, from what only this worker knows; else the error itself."""
        if isinstance(error, NoConnectionError):
            return self._hub_away(error, endpoint, cancel)
        if isinstance(error, RoomError):
            # Neither the files that wait on the full disk nor this one are at fault.
            return WaitsForNasError(f"{error}; files wait here for the NAS") if self._owes() else error
        token = self._settings.token.get_secret_value()
        if not token or origin(endpoint) in trusted_origins(self._settings):
            return error
        return type(error)(
            f"{error}; this worker's token was not sent, because {endpoint} is not its endpoint: "
            "set HF_ENDPOINT on the worker too"
        )

    def _hub_away(self, error: NoConnectionError, endpoint: str, cancel: Cancel) -> TransferError:
        if origin(error.address) != origin(endpoint):
            return error
        self._unreached += 1
        _hold_back(self._unreached, cancel)
        return HubAwayError(f"the hub cannot be reached from here: {error}", passes=error.passes)

    def _sweep(self, root: Path) -> None:
        """Clear old leftovers, once for each output folder."""
        if root in self._swept:
            return
        with self._lock:
            if root in self._swept:
                return
            self._swept.add(root)
        try:
            sweep(root)
        except TransferError as error:
            log.warning("old partial data stays: %s", error)


def _hold_back(times: int, cancel: Cancel) -> None:
    """Keep a slot from what it cannot do, for longer each time: the same job would be its next claim."""
    cancel.wait(min(_HELD_BACK * 2.0 ** min(times - 1, 9), _HELD_BACK_MOST))
