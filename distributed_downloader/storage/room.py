"""Room on disks: whether there is enough for a file, and how it is reserved."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from distributed_downloader.cancel import Cancel
from distributed_downloader.display import units
from distributed_downloader.errors import RoomError
from distributed_downloader.lately import MOMENT
from distributed_downloader.storage.disk import disk

#: What file systems say that cannot reserve: NFS before 4.2, FUSE, ZFS, and sandboxes without the call.
_NO_FALLOCATE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENODEV)
#: Bytes reserved at once, so that a stop signal is heard in between.
_STEP = 1 << 30


class Space(NamedTuple):
    """The bytes of a disk, as far as we may have them."""

    free: int
    total: int

    def kept(self, reserve: int) -> int:
        """Return how many are left free: `reserve` ([app] disk_reserve), or 5 % where that is less."""
        return min(reserve, self.total // 20)


def space(folder: Path) -> Space | None:
    """Return the space where a folder lies, None for a disk that does not know it; raises OSError."""
    info = os.statvfs(folder)
    if not info.f_blocks:
        return None  # some of FUSE
    return Space(info.f_bavail * info.f_frsize, info.f_blocks * info.f_frsize)


def nearest(folder: Path) -> Path:
    """Return the folder itself if it is there, else the one above it in which it would be made."""
    return next((each for each in (folder, *folder.parents) if os.path.exists(each)), folder)  # noqa: PTH110 - Path's may raise


#: Says how many more bytes a transfer writes.
Need = Callable[[], int]


@dataclass
class _Disk:
    """One file system: who still needs room there. The lock is its own, for another one may hang."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    needs: list[Need] = field(default_factory=list)
    #: Bytes that were left at the last look, less all that was granted since, and until when that is good.
    left: int = 0
    good_until: float = 0.0


class Room:
    """What the transfers of one worker still need on each disk; for use from any thread."""

    def __init__(self, reserve: int) -> None:
        """Keep `reserve` bytes free on each disk, or 5 % of it where that is less."""
        self._reserve = reserve
        self._disks: dict[int, _Disk] = {}

    def take(
        self, folder: Path, needed: int | Need, device: int | None = None
    ) -> AbstractContextManager[None]:
        """Count on so many bytes where `folder` lies, until the block ends.

        Give a function if the need shrinks as bytes are written, so that these are not counted twice, and
        the disk's number (st_dev) where it is known. Raises RoomError if there is no room.
        """
        return _Taking(self, folder, needed if callable(needed) else lambda: needed, device)

    def grant(self, folder: Path, need: Need, device: int | None) -> _Disk:
        """Note a need, and return where; raises as `take`. Small files do not ask the disk each time."""
        where = self._disk(folder, device)
        with where.lock:
            needed = max(0, need())
            if needed > where.left or time.monotonic() > where.good_until:
                others = sum(max(0, other()) for other in where.needs)
                where.left = self._look(folder, needed, others)
                where.good_until = time.monotonic() + MOMENT
            where.left -= needed
            where.needs.append(need)
        return where

    def _disk(self, folder: Path, device: int | None) -> _Disk:
        if device is None:
            with disk(folder, whole=True):
                device = folder.stat().st_dev
        return self._disks.get(device) or self._disks.setdefault(device, _Disk())

    def _look(self, folder: Path, needed: int, others: int) -> int:
        """Return how many bytes nobody needs yet; raises RoomError if that is not enough."""
        with disk(folder, whole=True):
            found = space(folder)
        if found is None:
            return sys.maxsize
        free, reserve = found.free, found.kept(self._reserve)
        if needed and needed > free - reserve - others:
            raise RoomError(
                f"{folder}: {units.size(needed)} are needed and {units.size(free)} are free, of which "
                f"{units.size(others)} are for transfers that run and {units.size(reserve)} are kept free "
                "(disk_reserve); "
                "free some space, or use another --output-dir"
            )
        return free - reserve - others


class _Taking:
    """See `Room.take`; no generator, for each file goes through it."""

    __slots__ = ("_device", "_folder", "_need", "_room", "_where")

    def __init__(self, room: Room, folder: Path, need: Need, device: int | None) -> None:
        self._room, self._folder, self._need, self._device = room, folder, need, device

    def __enter__(self) -> None:
        self._where = self._room.grant(self._folder, self._need, self._device)

    def __exit__(self, *_: object) -> None:
        with self._where.lock:
            self._where.needs.remove(self._need)


def preallocate(fd: int, size: int, cancel: Cancel) -> None:
    """Reserve the first `size` bytes of a file that has that size, where the disk can; no byte changes.

    Not `os.posix_fallocate`: where the disk cannot, glibc writes into each block, and with that over what
    another machine writes there. Raises OSError, ENOSPC included, and StoppedError.
    """
    call = _find_fallocate()
    for start in range(0, size, _STEP):
        cancel.check()
        if call is None or not _reserve(call, fd, start, min(_STEP, size - start)):
            return


def _find_fallocate() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    # The name with 64 has 64-bit offsets everywhere; musl has only the other, which then does too.
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if call is not None:
        call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        call.restype = ctypes.c_int
    return call


def _reserve(call: Callable[..., int], fd: int, start: int, length: int) -> bool:
    """Reserve a range; False if the disk cannot."""
    while call(fd, 0, start, length):
        number = ctypes.get_errno()
        if number in _NO_FALLOCATE:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
