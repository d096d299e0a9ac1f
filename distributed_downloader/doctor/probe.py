"""What a folder can do, tried out in a private folder within it that is removed again."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    """Yield a new folder of our own, in our own folder there, which is removed, too, if it was not there."""
    name = f"doctor-{secrets.token_hex(6)}"
    with open_folder(root, [], create=False) as top:
        made = _make(top)
        try:
            with open_folder(root, [STATE.encode()], create=False) as state:
                os.mkdir(name, 0o700, dir_fd=state)
                try:
                    with open_folder(root, [STATE.encode(), name.encode()], create=False) as folder:
                        yield folder
                finally:
                    remove_tree(state, name)
        finally:
            if made:  # unless somebody has begun to use it
                with suppress(OSError):
                    os.rmdir(STATE, dir_fd=top)


def _make(top: int) -> bool:
    """Make our own folder; return whether it was missing."""
    try:
        os.mkdir(STATE, dir_fd=top)
    except FileExistsError:
        return False
    return True


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
