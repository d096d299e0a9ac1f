"""What a folder can do, tried out in a private folder within it that is removed again."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from distributed_downloader.storage.disk import disk, open_folder, remove_tree, sync_folder
from distributed_downloader.storage.place import STATE

#: A name of as many bytes as a repo's may have.
_LONGEST = "n" * 255
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Abilities(NamedTuple):
    """What was found out."""

    long_names: bool
    tells_case: bool
    locks: bool


def probe(root: Path) -> Abilities:
    """Write to a folder that is there, flush and rename, and see what else it can do; nothing of it stays.

    Raises TransferError if one of the first three fails.
    """
    with disk(root / STATE, whole=True), _private(root) as folder:
        fd = _new(folder, "File")
        try:
            os.write(fd, b"hf-downloader doctor")
            os.fsync(fd)
            locks = _can(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
        finally:
            os.close(fd)
        os.rename("File", "Renamed", src_dir_fd=folder, dst_dir_fd=folder)
        sync_folder(folder)
        tells_case = not _can(lambda: os.stat("rENAMED", dir_fd=folder))
        return Abilities(_can(lambda: os.close(_new(folder, _LONGEST))), tells_case, locks)


@contextmanager
def _private(root: Path) -> Iterator[int]:
    """Yield a new folder of our own; one that a killed doctor leaves is swept as other old leftovers are.

    It is removed, and so is what it lies in, unless that was there or somebody has begun to use it.
    """
    path, own = list[bytes](), f"doctor-{secrets.token_hex(6)}.staging"
    with ExitStack() as stack:
        for name in (STATE, "partial", own):
            above = stack.enter_context(open_folder(root, path, create=False))
            if _make(above, name):
                stack.callback(remove_tree if name == own else _remove_empty, above, name)
            path.append(name.encode())
        yield stack.enter_context(open_folder(root, path, create=False))


def _make(above: int, name: str) -> bool:
    """Make a folder; return whether it was missing."""
    try:
        os.mkdir(name, dir_fd=above)
    except FileExistsError:
        return False
    return True


def _remove_empty(above: int, name: str) -> None:
    with suppress(OSError):
        os.rmdir(name, dir_fd=above)


def _new(folder: int, name: str) -> int:
    return os.open(name, _FLAGS, 0o600, dir_fd=folder)


def _can(work: Callable[[], object]) -> bool:
    """Return whether a disk does something; one that is full or fails raises OSError all the same."""
    try:
        work()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE):
            raise
        return False
    return True
