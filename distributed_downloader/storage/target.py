"""Where a file of a repo belongs in an output folder, and how a complete one gets its name there."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.storage.disk import disk, names, open_folder, refuse_other, sync_folder


def _read_umask() -> int:
    """Return the umask, which can only be read by setting it; so this is done once, early."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


_UMASK = _read_umask()
#: What file systems say that know no modes: some of CIFS and FUSE.
_NO_MODES = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Target:
    """`<root>/<org>/<name>/<path>`, or `<root>/` and other `parts`, such as those on a NAS.

    Raises RefusedError for a path that could leave the repo's folder. All methods raise LocalError if the
    disk refuses.
    """

    def __init__(
        self, root: Path, spec: JobSpec, file: RepoFile, parts: Sequence[bytes] | None = None
    ) -> None:
        self._root = root
        *self.parents, self.name = parts or [*names(spec.repo_id), *names(file.path)]
        self.path = root.joinpath(*map(os.fsdecode, [*self.parents, self.name]))
        key = "\0".join((spec.repo_type.value, spec.repo_id, spec.commit, file.path))
        #: Names the file and its commit, for what lies elsewhere until it is complete.
        self.digest = hashlib.sha256(key.encode()).hexdigest()[:32]

    def check(self) -> None:
        """Raise RefusedError if a link or a folder is in the way."""
        with disk(self.path), open_folder(self._root, self.parents) as folder:
            refuse_other(folder, self.name, self.path, stat.S_IFREG)

    def settle(self, fd: int) -> None:
        """Give an open file the mode it needs here and bring it to disk, which may take minutes."""
        with disk(self.path):
            _set_mode(fd)
            os.fsync(fd)

    def move(self, folder: int, name: str) -> None:
        """Move the file `name` of `folder`, which is settled, here; raises RefusedError as `check` does.

        So it is on disk before it has its name, and that is safe from a power cut too.
        """
        with disk(self.path), open_folder(self._root, self.parents) as there:
            refuse_other(there, self.name, self.path, stat.S_IFREG)
            os.rename(name, self.name, src_dir_fd=folder, dst_dir_fd=there)
            sync_folder(there)


def _set_mode(fd: int) -> None:
    """Let those read the file whom the umask lets; what the disk says to that is its owner's choice."""
    try:
        os.fchmod(fd, 0o666 & ~_UMASK)
    except OSError as error:
        if error.errno not in _NO_MODES:
            raise
