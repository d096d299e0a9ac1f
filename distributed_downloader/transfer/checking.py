"""The tasks of a job that checks: is each file that should be there what the hub lists?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import FlawError
from distributed_downloader.folders import Folders
from distributed_downloader.layout import file_of, shown_folder
from distributed_downloader.models import DownloadTask, Layout
from distributed_downloader.outcome import Finished
from distributed_downloader.storage import Flaw, RepoFolder
from distributed_downloader.storage.nas import NasFolder
from distributed_downloader.storage.place import read_place
from distributed_downloader.transfer.engine import Progress


class Checks:
    """Runs such tasks for all slots of a worker."""

    def __init__(self, folders: Folders, on_nas: Callable[[DownloadTask, Cancel], bool]) -> None:
        """`on_nas` tells whether a file that is not in the output folder is on the NAS, and right."""
        self._folders, self._on_nas = folders, on_nas

    def run(self, task: DownloadTask, cancel: Cancel, progress: Progress) -> Finished:
        """Return if the file is right; raises FlawError if it is not, and what else a disk may say."""
        spec, file = task.spec, task.file
        root = self._folders.output(spec)
        folder = RepoFolder(root, spec, place=self._folders.place(spec))
        flaw = folder.flaw(file, cancel, progress, quick=spec.check == "size") or _unshown(task, root)
        if flaw and not (flaw.found == "missing" and self._is_elsewhere(task, root, cancel)):
            raise FlawError(f"{file.path}: {flaw.found}: {flaw.why}", flaw.found)
        progress(file.size)
        return Finished()

    def _is_elsewhere(self, task: DownloadTask, root: Path, cancel: Cancel) -> bool:
        """Return whether a file is right under a flat name in this folder, or on this worker's NAS."""
        if task.spec.flat and read_place(root) and NasFolder(root, task.spec).look(task.file, cancel):
            return True
        return self._on_nas(task, cancel)


def _unshown(task: DownloadTask, root: Path) -> Flaw | None:
    """Return what is wrong with the name in a cache that leads to a blob which is right; None if nothing."""
    spec, file = task.spec, task.file
    if spec.layout is not Layout.HF_CACHE:
        return None
    try:
        leads = (root / shown_folder(spec) / file.path).samefile(root / file_of(spec, file))
    except OSError:
        return Flaw("missing", "no name in the snapshot leads to its blob")
    return None if leads else Flaw("wrong", "its name in the snapshot does not lead to its blob")
