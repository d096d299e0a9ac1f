"""Walks into folders without following links, and turns what the disk says into our errors."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from distributed_downloader.errors import LocalError, PlaceError, RefusedError, TransferError
from distributed_downloader.storage.openat2 import open_beneath

#: Never through a link: a link in our tree may point anywhere.
_INTO = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: What a disk may say that another machine would not, and what to do about it.
_ADVICE = {
    errno.ENOSPC: "free some space, or use another --output-dir",
    errno.EDQUOT: "your quota is used up; free some space, or use another --output-dir",
    errno.EROFS: "the disk is mounted read-only",
    errno.EACCES: "the worker's user needs write permission there",
    errno.EPERM: "the worker's user needs write permission there",
    errno.EIO: "the disk fails; look at the kernel's log",
    errno.ESTALE: "the network mount is gone; mount it again",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.EEXIST: "a file is where a folder should be",
    errno.EXDEV: "the repo's folder must not be a mount point of its own",
    errno.EFBIG: "this disk cannot hold a file of that size; use another --output-dir",
}
#: What no other machine would do better with such a name.
_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP)
#: What leads elsewhere, or nowhere.
_NO_NAMES = frozenset(("", ".", ".."))
#: What file systems say that cannot sync a folder: some of FUSE, vboxsf, 9p.
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS)


def disk_error(error: OSError, where: object, *, whole: bool = False) -> TransferError:
    """Return our error for what the disk said about `where`.

    A missing permission may concern this one place, unless `whole` says that it stands for the disk.
    """
    why = (error.strerror or str(error)).lower()
    # Without a name, EINVAL is about a descriptor that was already open.
    if error.errno in _NAMES and (error.errno != errno.EINVAL or error.filename is not None):
        return RefusedError(f"{where}: {why}; this disk cannot hold a file of that name")
    if error.errno == errno.EISDIR:
        name = error.filename2 or error.filename
        shown = os.fsdecode(name) if isinstance(name, bytes) else name
        return RefusedError(
            f"{where}: the folder {shown} is in the way, for a file belongs there; move it away"
        )
    one_place = error.errno == errno.EFBIG or (not whole and error.errno in (errno.EACCES, errno.EPERM))
    refused = PlaceError if one_place else LocalError
    return refused(f"{where}: {why}; {_ADVICE.get(error.errno or 0, 'see to the disk')}")


class disk:  # noqa: N801 - reads like a word of the language: `with disk(path):`
    """Translate each OSError of the block; `whole` as for `disk_error`."""

    __slots__ = ("_where", "_whole")

    # No generator, which costs three times as much: each file comes here many times.
    def __init__(self, where: object, *, whole: bool = False) -> None:
        self._where, self._whole = where, whole

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None and isinstance(error, OSError):
            raise disk_error(error, self._where, whole=self._whole) from error


def names(path: str) -> list[bytes]:
    """Split a repo path; raises RefusedError for one that could leave the repo's folder.

    Bytes, so that the locale has no say in what a file is called.
    """
    if "\0" in path or not _NO_NAMES.isdisjoint(path.split("/")):
        raise RefusedError(f"{path!r} is not a safe file name; it is not written")
    try:
        return path.encode().split(b"/")
    except UnicodeEncodeError:
        raise RefusedError(f"{path!r} is not valid Unicode; it is not written") from None


@contextmanager
def open_folder(root: Path, parts: Sequence[bytes], *, create: bool = True) -> Iterator[int]:
    """Open `root/part/part...` and yield its descriptor, making what is missing.

    `root` is the user's and may be a link; below it, links and files raise RefusedError.
    Raises FileNotFoundError if something is missing and `create` is false.
    """
    top = open_root(root, create=create)
    try:
        fd = open_below(top, parts, root, create=create)
    finally:
        os.close(top)
    try:
        yield fd
    finally:
        os.close(fd)


def open_below(top: int, parts: Sequence[bytes], root: Path, *, create: bool = True) -> int:
    """Return the descriptor of `part/part...` below `root`, which is open as `top`; else as `open_folder`."""
    fd = open_beneath(top, parts)
    return _walk(top, parts, root, create) if fd is None else fd


def _walk(top: int, parts: Sequence[bytes], root: Path, create: bool) -> int:
    fd = os.dup(top)
    try:
        for depth, part in enumerate(parts, 1):
            child = _enter(fd, part, create)
            if child is None:
                _refuse(fd, part, root.joinpath(*map(os.fsdecode, parts[:depth])))
            os.close(fd)
            fd = child
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_root(root: Path, *, create: bool) -> int:
    """Return the descriptor of the user's folder itself, which may be a link; made with `create`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(root, flags)
    except FileNotFoundError:
        if not create:
            raise
        root.mkdir(parents=True, exist_ok=True)
        return os.open(root, flags)


def _enter(fd: int, name: bytes, create: bool) -> int | None:
    """Open a folder in a folder, making it if it is missing; None if a link or a file is in its place."""
    try:
        return os.open(name, _INTO, dir_fd=fd)
    except FileNotFoundError:
        if not create:
            raise
        _make(fd, name)
        return os.open(name, _INTO, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def _refuse(fd: int, name: bytes, path: Path) -> NoReturn:
    """Raise the error for what is in a folder's place."""
    refuse_other(fd, name, path, stat.S_IFDIR)
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def _make(fd: int, name: bytes) -> None:
    try:
        os.mkdir(name, dir_fd=fd)
    except FileExistsError:
        return  # somebody else was faster
    sync_folder(fd)


def sync_folder(fd: int) -> None:
    """Make a folder's new names safe from a power cut, where the disk can."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def replace_file(folder: int, name: bytes, pieces: Iterable[bytes], *, sync: bool = True) -> None:
    """Write a file into an open folder: whole, or the old one stays. Raises OSError.

    Without `sync`, a power cut may leave it empty.
    """
    temporary = b"~%s" % secrets.token_hex(6).encode()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.writelines(pieces)
            file.flush()
            if sync:
                os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def remove_tree(folder: int, name: str) -> None:
    """Remove `name` from an open folder, with all that is in it; no link is followed. Raises OSError."""
    try:
        inner = os.open(name, _INTO, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(name, dir_fd=folder)
        return
    try:
        for child in os.listdir(inner):  # noqa: PTH208 - a descriptor
            remove_tree(inner, child)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=folder)


def is_link(fd: int, name: bytes) -> bool:
    """Return whether an open folder has a symbolic link of that name."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def refuse_other(fd: int, name: bytes, path: object, kind: int) -> None:
    """Raise RefusedError if `name` exists and is something else than `kind` (S_IFREG or S_IFDIR)."""
    try:
        found = stat.S_IFMT(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return
    if found == stat.S_IFLNK:
        raise RefusedError(f"{path} is a symbolic link, and nothing is written through one; remove it first")
    if found != kind:
        needed = "folder" if kind == stat.S_IFDIR else "file"
        raise RefusedError(f"{path} is in the way: the repo has a {needed} of that name; move it away")
