"""Shows the blobs of a repo as a snapshot of huggingface_hub's cache: all of it at once, or nothing of it.

`<folder>/snapshots/<commit>/<path>` are links to `<folder>/blobs/<hash>`, `<folder>/refs/<revision>` holds
the commit without a newline, `<folder>/trees/<commit>.json` the listing (huggingface_hub, cache guide).
The links are made aside and get their place with one rename; what leads to them comes last.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import PlaceError, TransferError
from distributed_downloader.layout import file_of, folder_of
from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.storage.disk import disk, is_link, names, remove_tree, replace_file, sync_folder
from distributed_downloader.storage.place import STATE
from distributed_downloader.storage.root import Root
from distributed_downloader.storage.trees import Files, in_batches, write_tree

_PARTIAL = (STATE.encode(), b"partial")
#: What file systems say that know no links, or not of this kind.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class HfCache:
    """One repo in a cache."""

    def __init__(self, root: Path, place: str, spec: JobSpec, cancel: Cancel) -> None:
        """`place` is the id that the output folder `root` must have, "" for any."""
        self._root, self._spec, self._cancel = Root(root, place), spec, cancel
        self._path = root / folder_of(spec)
        self._base = tuple(names(folder_of(spec)))
        self._snapshots, self._commit = (*self._base, b"snapshots"), spec.commit.encode()

    def show(self, files: Files, *, whole: bool) -> None:
        """Make these files a snapshot, to be found by the revision's name; `whole` if the repo has no others.

        Raises LocalError, StoppedError, and RefusedError for an unsafe path.
        """
        with disk(self._path):
            if whole:
                write_tree(self._root, self._base, self._spec.commit, files())
            if self._is_shown():
                self._link((*self._snapshots, self._commit), files())
            else:
                self._appear(files)
            if self._spec.revision != self._spec.commit:
                self._refer()

    def _is_shown(self) -> bool:
        """Return whether there is a snapshot of the commit already, which may lack files."""
        with self._root as root:
            try:
                os.stat(self._commit, dir_fd=root.enter(self._snapshots), follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def _appear(self, files: Files) -> None:
        """Make the snapshot aside, and move it where it belongs."""
        # What a killed process leaves of such a name is swept with other old leftovers.
        stage = b"%s.%s.staging" % (self._commit, secrets.token_hex(6).encode())
        try:
            self._link((*_PARTIAL, stage), files())
            if not self._move(stage):  # somebody was faster
                self._link((*self._snapshots, self._commit), files())
        finally:
            self._remove(stage)

    def _move(self, stage: bytes) -> bool:
        """Give the snapshot its name; False if there is one by now."""
        with self._root as root:
            goal = root.enter(self._snapshots)
            try:
                os.rename(stage, self._commit, src_dir_fd=root.enter(_PARTIAL), dst_dir_fd=goal)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return False
            sync_folder(goal)
            return True

    def _remove(self, stage: bytes) -> None:
        """Remove what is left of a snapshot that was made aside; what cannot be is swept one day."""
        with suppress(OSError, TransferError), self._root as root:
            remove_tree(root.enter(_PARTIAL), stage.decode())

    def _link(self, where: tuple[bytes, ...], files: Iterable[RepoFile]) -> None:
        """Have a name below `where` for each file."""
        for batch in in_batches(files):
            self._cancel.check()
            with self._root as root:
                blobs, touched = root.enter((*self._base, b"blobs")), set()
                for file in batch:
                    *parents, name = names(file.path)
                    folder = root.enter((*where, *parents))
                    touched.add(folder)
                    _put_link(folder, name, _up(len(parents)) + self._blob(file), blobs)
                for folder in touched:
                    sync_folder(folder)

    def _blob(self, file: RepoFile) -> bytes:
        return names(file_of(self._spec, file))[-1]

    def _refer(self) -> None:
        *parents, name = names(self._spec.revision)
        with self._root as root:
            folder = root.enter((*self._base, b"refs", *parents))
            replace_file(folder, name, [self._commit])
            sync_folder(folder)


def _up(depth: int) -> bytes:
    """Return the way from so deep in a snapshot to the blobs."""
    return b"../" * (depth + 2) + b"blobs/"


def _put_link(folder: int, name: bytes, text: bytes, blobs: int) -> None:
    """Have a link to a blob, whatever else has the name; RefusedError comes of a folder."""
    try:
        _make_link(folder, name, text, blobs)
    except FileExistsError:
        if _leads(folder, name, text, blobs):
            return
        os.unlink(name, dir_fd=folder)
        with suppress(FileExistsError):  # somebody was faster
            _make_link(folder, name, text, blobs)


def _leads(folder: int, name: bytes, text: bytes, blobs: int) -> bool:
    """Return whether what has the name is our link to the blob, of either kind."""
    if is_link(folder, name):
        return os.readlink(name, dir_fd=folder) == text
    with suppress(FileNotFoundError):
        found, blob = os.stat(name, dir_fd=folder), os.stat(_blob_in(text), dir_fd=blobs)
        return os.path.samestat(found, blob)
    return False


def _make_link(folder: int, name: bytes, text: bytes, blobs: int) -> None:
    """Make a symbolic link to a blob; where the disk knows none, a hard link to it."""
    try:
        os.symlink(text, name, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _make_hard_link(folder, name, blobs, _blob_in(text))


def _make_hard_link(folder: int, name: bytes, blobs: int, blob: bytes) -> None:
    try:
        os.link(blob, name, src_dir_fd=blobs, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        words = "this disk knows neither symbolic nor hard links, which a cache needs: use --layout local-dir"
        raise PlaceError(words) from error


def _blob_in(text: bytes) -> bytes:
    return text.rpartition(b"/")[2]
