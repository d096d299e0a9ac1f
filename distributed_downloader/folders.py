"""Which folders a worker sees: its own for downloads, the NAS, and those that jobs name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig
from distributed_downloader.errors import LocalError, PlaceUnseenError, TransferError
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec
from distributed_downloader.nas_names import nas_parts
from distributed_downloader.storage.place import make_place, read_place, refuse_if_dry, require_place
from distributed_downloader.storage.room import Room
from distributed_downloader.storage.split import SplitFile

log = logging.getLogger(__name__)


class Folders:
    """The folders of one worker; each has an id that tells whether two machines see the same one.

    `nas_id` tells the id of the NAS as it was seen a moment ago, "" if it does not answer: a slot that asks
    a NAS that hangs would hang with it.
    """

    def __init__(
        self, config: AppConfig, nas_id: Callable[[], str] | None = None, *, alone: bool = False
    ) -> None:
        """With `alone`, split files are not shared with others: see `SplitFile`."""
        self._own = Path(config.app.output_dir)
        #: Where the NAS is mounted; None if this worker does not deliver to one.
        self.nas: Path | None = Path(config.nas.path) if config.nas.enabled else None
        self._nas_id = nas_id or self._look_for_nas
        #: The ids of those that no job tells: the worker's own, and what a master could not mark.
        self._ids: dict[Path, str] = {}
        self._told = False
        self._alone = alone

    @property
    def own_id(self) -> str:
        """Id of the worker's own output folder, which is made if need be; "" where it cannot be.

        With nobody to share it, the job's folder is the worker's own, and made where the job needs it.
        """
        if self._alone:
            return read_place(self._own)
        if self._own not in self._ids:
            try:
                self._ids[self._own] = make_place(self._own, create_root=True)
            except TransferError as error:
                level = logging.DEBUG if self._told else logging.WARNING
                log.log(level, "%s; what needs the folder will not work here", error)
                self._told = True
        return self._ids.get(self._own, "")

    @property
    def nas_id(self) -> str:
        """Id of the NAS; "" if it is not there, does not answer, or this worker does not deliver to one."""
        return self._nas_id()

    def _look_for_nas(self) -> str:
        return read_place(self.nas) if self.nas else ""

    def output(self, spec: JobSpec) -> Path:
        """Return where a job's whole files go; raises PlaceUnseenError if this machine does not see it.

        Raises LocalError where the job does not tell which folder it is, and the one seen here has gone.
        """
        root = self.root(spec)
        if spec.place:
            require_place(root, spec.place)
        elif spec.check:
            pass  # what is not there is missing, and nothing is made
        elif root in self._ids:
            self._require_still(root)
        elif spec.output_dir:
            self._ids[root] = make_place(root, create_root=True)
        return root

    def place(self, spec: JobSpec) -> str:
        """Return the id of the folder into which a job's whole files go, "" if it has none."""
        return spec.place or self._ids.get(self.root(spec), "")

    def root(self, spec: JobSpec) -> Path:
        """Return where a job's whole files go, whether or not this machine sees it."""
        return _absolute(spec.output_dir) if spec.output_dir else self._own

    def _require_still(self, root: Path) -> None:
        """Follow a folder to another disk; but where there is none, its disk is not mounted any more."""
        found = read_place(root)
        if not found:
            refuse_if_dry(root)
            raise LocalError(
                f"{root} is not what it was any more: mount its disk again "
                "(or start this worker again, if it is to be a new folder)"
            )
        self._ids[root] = found

    def split_file(self, task: DownloadTask, cancel: Cancel, room: Room, place: str = "") -> SplitFile:
        """Return the split file of a task, in the folder that has the id `place`; raises PlaceUnseenError."""
        spec, file = task.spec, task.file
        root = self.shared(spec, task.about, place)
        parts = nas_parts(spec, file) if root is self.nas else None
        return SplitFile(root, spec, file, cancel, room, parts=parts, alone=self._alone)

    def shared(self, spec: JobSpec, about: Descriptor, place: str = "") -> Path:
        """Return where a split file is put together, `nas` itself where that is the NAS.

        Where the output folder is the NAS, the file gets the name of one in an output folder. Raises
        PlaceUnseenError.
        """
        place, mine = place or about.place, self.root(spec)
        found = read_place(mine)
        if found == place:
            return mine
        if self.nas and self.nas_id == place:
            return self.nas
        seen = [f"{mine} is {'another one' if found else 'not mounted, or has no id'}"]
        if self.nas:
            seen.append(f"the NAS at {self.nas} is {'another one' if self.nas_id else 'not there'}")
        raise PlaceUnseenError(
            f"{about.file.path}: its parts are put together in a folder that this machine does not see: "
            f"{', and '.join(seen)}; mount it there, or let this worker work elsewhere"
        )


@lru_cache(64)
def _absolute(folder: str) -> Path:
    return Path(folder).expanduser().absolute()
