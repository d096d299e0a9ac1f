"""Tells whether two machines see the same folder: by a random id that lies in it."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed_downloader.errors import PlaceUnseenError, RefusedError
from distributed_downloader.storage.disk import disk, open_below, open_folder, refuse_other, sync_folder
from distributed_downloader.unexpected import dry

#: Our own folder in each output folder; never inside a repo's tree, so that `diff -r` finds the repo only.
STATE = ".hf-downloader"
_MARKER = "place"
_ID = re.compile(r"([0-9a-f]{32})\n")
#: A marker that is not claimed yet; no repo and no marker can have such a name.
_UNCLAIMED = re.compile(r"~[0-9a-f]{12}")
#: The markers that were read last, by the id that they hold.
_read: dict[str, tuple[int, ...]] = {}
_MOST = 64


def read_place(root: Path) -> str:
    """Return the id of a folder, or "" if it has none that can be read; nothing is made, nothing raised."""
    try:
        with open_folder(root, [STATE.encode()], create=False) as folder:
            return _id_in(folder)
    except (OSError, RefusedError):
        return ""


def make_place(root: Path, *, create_root: bool) -> str:
    """Return the id of a folder, giving it one if it has none; all who do so at once get the same.

    Without `create_root`, a folder that is missing stays so, because it may be a mount that is. Raises
    LocalError, and RefusedError if something that is not ours lies where the id belongs.
    """
    marker = root / STATE / _MARKER
    with disk(marker, whole=True):
        if create_root:
            with open_folder(root, []):
                pass
        with open_within(root, [], [STATE.encode()]) as folder:
            refuse_other(folder, _MARKER.encode(), marker, stat.S_IFREG)
            place = _id_in(folder)
            if not place:
                claim_marker(folder, _MARKER, f"{secrets.token_hex(16)}\n")
                place = _id_in(folder)
    if not place:
        raise RefusedError(f"{marker} does not hold an id, so it is not ours; remove it")
    return place


def require_place(root: Path, place: str) -> None:
    """Raise PlaceUnseenError unless `root` is the folder that has this id."""
    found = read_place(root)
    if found == place:
        return
    if not _is_folder(root):
        raise PlaceUnseenError(f"{root} is not there; mount it on this machine, as on the others")
    marker = root / STATE / _MARKER
    if not found:
        refuse_if_dry(root)
        raise PlaceUnseenError(
            f"{root} is not the folder that the job's other machines see, for {marker} is missing or cannot "
            "be read; mount that folder on this machine, readable for the worker's user"
        )
    raise PlaceUnseenError(
        f"{root} is another folder than the one that the job's other machines see: {marker} holds "
        f"{found[:8]}… instead of {place[:8]}…; mount the same folder on all machines"
    )


def require_same_place(top: int, root: Path, place: str) -> None:
    """Raise PlaceUnseenError unless the open folder `root` has this id; raises OSError too.

    A marker is read once: as long as it is the same file and nobody has written to it, it says the same.
    """
    marker = _look_at_marker(top)
    if marker and _read.get(place) == marker:
        return
    found = ""
    if marker:
        with suppress(FileNotFoundError), _opened(top, root) as folder:
            found = _id_in(folder)
    if found != place:
        raise other_place(root)
    if len(_read) >= _MOST:
        _read.clear()
    _read[place] = marker


def other_place(root: Path) -> PlaceUnseenError:
    """Return the error for a folder that is not the wanted one, or not there."""
    return PlaceUnseenError(f"{root} is not the folder any more that the job names; mount that one again")


def unmarked(root: Path) -> PlaceUnseenError:
    """Return the error for a NAS that is not there, or was never marked."""
    return PlaceUnseenError(
        f"{root} is not marked as the NAS: mount it, or mark it with `hf-downloader init-nas`"
    )


def _look_at_marker(top: int) -> tuple[int, ...]:
    """Return what tells the marker of an open folder from any other, and from itself with another text."""
    try:
        info = os.stat(f"{STATE}/{_MARKER}", dir_fd=top, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


@contextmanager
def _opened(top: int, root: Path) -> Iterator[int]:
    """Open our own folder in the open folder `root`."""
    folder = open_below(top, [STATE.encode()], root, create=False)
    try:
        yield folder
    finally:
        os.close(folder)


def refuse_if_dry(root: Path) -> None:
    """Raise LocalError if it is this machine that can open nothing at the moment."""
    try:
        os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        if local := dry(error):
            raise local from error


@contextmanager
def open_within(
    root: Path, there: Sequence[bytes], missing: Sequence[bytes], mode: int = 0o777
) -> Iterator[int]:
    """Open `root/there/missing` and yield its descriptor; what must be `there` is never made.

    What is made, less open than `mode` by the umask, lies in the folder that was found, even if its mount
    goes away at the same time.
    Raises FileNotFoundError if something is not there, and RefusedError as `open_folder` does.
    """
    path = list(there)
    for part in missing:
        with open_folder(root, path, create=False) as folder, suppress(FileExistsError):
            os.mkdir(part, mode, dir_fd=folder)
            sync_folder(folder)
        path.append(part)
    with open_folder(root, path, create=False) as folder:
        yield folder


def read_marker(folder: int, name: str) -> str:
    """Return a marker's text, "" if there is none or something else has its name."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return ""
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        return os.pread(fd, 1024, 0).decode(errors="replace") if is_file else ""
    finally:
        os.close(fd)


def claim_marker(folder: int, name: str, text: str) -> str:
    """Write a marker unless somebody is faster; return what it says now."""
    temporary = f"~{secrets.token_hex(6)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as marker:
            marker.write(text)
            marker.flush()
            os.fsync(fd)
        _claim(folder, temporary, name)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
    sync_folder(folder)
    return read_marker(folder, name)


def is_unclaimed(name: str) -> bool:
    """Return whether a file of that name is what somebody left who was killed while he claimed a marker."""
    return _UNCLAIMED.fullmatch(name) is not None


def _claim(folder: int, temporary: str, name: str) -> None:
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        pass
    except OSError:
        # A disk without hard links: two first claims in the same instant are not told apart.
        if not read_marker(folder, name):
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _id_in(folder: int) -> str:
    found = _ID.fullmatch(read_marker(folder, _MARKER))
    return found[1] if found else ""


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False
