"""Where a file of a repo belongs in an output folder, and how a complete one gets its name there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from distributed_downloader.layout import digest_of, file_of
from distributed_downloader.models import JobSpec, Layout, RepoFile
from distributed_downloader.storage.disk import (
    disk,
    is_link,
    names,
    open_folder,
    refuse_other,
    sync_folder,
)


def _read_umask() -> int:
    """Return the umask, which can only be read by setting it; so this is done once, early."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


_UMASK = _read_umask()
#: What file systems say that know no modes: some of CIFS and FUSE.
_NO_MODES = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Target:
    """Where the job's layout has the file below `root`, or `<root>/` and other `parts`, such as on a NAS.

    Raises RefusedError for a path that could leave the repo's folder. All methods raise LocalError if the
    disk refuses.
    """

    def __init__(
        self, root: Path, spec: JobSpec, file: RepoFile, parts: Sequence[bytes] | None = None
    ) -> None:
        self._root = root
        if spec.layout is Layout.HF_CACHE:
            names(file.path)  # which links to the blob: one that is not safe is refused before it is fetched
        *parents, self.name = parts or names(file_of(spec, file))
        self.parents = tuple(parents)
        #: Names the file and its commit, for what lies elsewhere until it is complete.
        self.digest = digest_of(spec, file)
        #: A blob is what its name says, so nothing is lost with a link that stands in its place.
        self._replaces_links = spec.layout is Layout.HF_CACHE

    @cached_property
    def path(self) -> Path:
        """Where the file belongs."""
        return self._root.joinpath(*map(os.fsdecode, [*self.parents, self.name]))

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        """Raise RefusedError if a link or a folder is in the way."""
        with disk(self), open_folder(self._root, self.parents) as folder:
            self.check_in(folder)

    def check_in(self, there: int) -> None:
        """Do as `check`, where the file's folder is open; raises OSError instead of LocalError."""
        if not (self._replaces_links and is_link(there, self.name)):
            refuse_other(there, self.name, self, stat.S_IFREG)

    def settle(self, fd: int) -> None:
        """Give an open file the mode it needs here and bring it to disk, which may take minutes."""
        with disk(self):
            _set_mode(fd)
            os.fsync(fd)

    def move(self, folder: int, name: str) -> None:
        """Move the file `name` of `folder`, which is settled, here; raises RefusedError as `check` does.

        So it is on disk before it has its name, and that is safe from a power cut too.
        """
        with disk(self), open_folder(self._root, self.parents) as there:
            self.put(folder, name, there)
            sync_folder(there)

    def put(self, folder: int, name: str, there: int) -> None:
        """Do as `move`, where the file's folder is open; its name may not survive a power cut yet.

        Raises OSError instead of LocalError.
        """
        self.check_in(there)
        os.rename(name, self.name, src_dir_fd=folder, dst_dir_fd=there)


def _set_mode(fd: int) -> None:
    """Let those read the file whom the umask lets; what the disk says to that is its owner's choice."""
    try:
        os.fchmod(fd, 0o666 & ~_UMASK)
    except OSError as error:
        if error.errno not in _NO_MODES:
            raise
