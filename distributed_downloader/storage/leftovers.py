"""What was left behind in output folders: partial data that nobody needs or holds any more."""

from __future__ import annotations

import logging
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from distributed_downloader.errors import RefusedError
from distributed_downloader.storage.disk import disk, disk_error, open_folder, remove_tree
from distributed_downloader.storage.partial import is_held
from distributed_downloader.storage.place import STATE, is_unclaimed

log = logging.getLogger(__name__)

#: Seconds after which partial data that nobody holds is removed.
KEEP_PARTIAL = 7 * 24 * 3600.0
#: A split file and its journal, which many machines use without locks, are as old as the newer of the two.
_TWINS = {".split": ".records", ".records": ".split"}
#: Where huggingface_hub keeps unfinished downloads, below a repo's folder of a cache, and of a local folder.
_IN_CACHE, _IN_LOCAL = (b"blobs",), (b".cache", b"huggingface", b"download")
_INCOMPLETE = ".incomplete"
_PARTIAL = [STATE.encode(), b"partial"]


class Leftover(NamedTuple):
    """Something that nobody needs."""

    path: Path
    size: int


def sweep(output_dir: Path, *, older_than: float = KEEP_PARTIAL) -> int:
    """Remove our user's partial data that nobody held or touched for so many seconds; return how much.

    What cannot be removed is told once for each folder, and stays. Raises TransferError if nothing can be
    looked at.
    It is left behind where a worker was killed and another machine took over.
    """
    deadline = time.time() - older_than
    swept = _sweep_folder(output_dir, [STATE, "partial"], deadline, lambda _: True)
    markers = ([STATE], [STATE, "repos"])
    return swept + sum(_sweep_folder(output_dir, parts, deadline, is_unclaimed) for parts in markers)


def _sweep_folder(root: Path, parts: list[str], deadline: float, doomed: Callable[[str], bool]) -> int:
    inner = [part.encode() for part in parts]
    where = root.joinpath(*parts)
    failed, swept = list[OSError](), 0
    with disk(where), suppress(FileNotFoundError), open_folder(root, inner, create=False) as folder:
        found = os.listdir(folder)  # noqa: PTH208 - a descriptor
        swept = sum(_sweep_one(folder, name, deadline, failed) for name in found if doomed(name))
    if failed:
        log.warning("%d old leftovers stay: %s", len(failed), disk_error(failed[0], where))
    return swept


def _sweep_one(folder: int, name: str, deadline: float, failed: list[OSError]) -> bool:
    """Remove what is stale; False if it stays, or another machine's sweep was faster."""
    try:
        if _is_stale(folder, name, deadline):
            remove_tree(folder, name)
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        failed.append(error)
    return False


def _is_stale(folder: int, name: str, deadline: float) -> bool:
    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if info.st_uid != os.geteuid() or info.st_mtime > deadline:
        return False
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, and no path
    if suffix == ".staging":
        return _age(folder, stem) is None
    if suffix in _TWINS:
        return (_age(folder, stem + _TWINS[suffix]) or 0) <= deadline
    return stat.S_ISREG(info.st_mode) and not is_held(folder, name)


def _age(folder: int, name: str) -> float | None:
    """Return the Unix time of what has a name, None if nothing has."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return None


def partials(output_dir: Path) -> set[str]:
    """Return the digests (layout.digest_of) of files of which there is partial data; raises LocalError."""
    with (
        disk(output_dir),
        suppress(FileNotFoundError),
        open_folder(output_dir, _PARTIAL, create=False) as folder,
    ):
        return {name.partition(".")[0] for name in os.listdir(folder)}  # noqa: PTH208 - a descriptor
    return set()


def clear_partials(
    output_dir: Path, kept_for: Callable[[str], float], *, dry_run: bool
) -> Iterator[Leftover]:
    """Remove partial data that nobody has held or touched for as long as `kept_for` says of its digest.

    Yields what it was; with `dry_run` it stays. Raises LocalError.
    """
    where = output_dir / STATE / "partial"
    with disk(where), suppress(FileNotFoundError), open_folder(output_dir, _PARTIAL, create=False) as folder:
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - a descriptor
            seconds = kept_for(name.partition(".")[0])
            if math.isinf(seconds) or not _is_stale(folder, name, time.time() - seconds):
                continue
            size = _room_of(folder, name)
            if not dry_run:
                remove_tree(folder, name)
            yield Leftover(where / name, size)


def clear_incomplete(folder: Path, seconds: float, *, dry_run: bool) -> Iterator[Leftover]:
    """Remove what huggingface_hub began in a cache or in local folders and has not touched for so long.

    Since 1.18 the library never goes on with such a file, whose name is new each time. Raises LocalError.
    """
    deadline = time.time() - seconds
    with disk(folder):
        for parts in [*_folders_with(folder, _IN_CACHE), *_folders_with(folder, _IN_LOCAL)]:
            yield from _clear_below(folder, parts, deadline, dry_run=dry_run)


def _folders_with(root: Path, inner: tuple[bytes, ...]) -> Iterator[tuple[bytes, ...]]:
    """Yield the folders `inner` of repos, whose own folders lie one or two levels below the root."""
    for one in _subfolders(root, ()):
        for parts in [(*one, *inner), *((*two, *inner) for two in _subfolders(root, one))]:
            with suppress(FileNotFoundError, RefusedError), open_folder(root, parts, create=False):
                yield parts


def _clear_below(
    root: Path, parts: tuple[bytes, ...], deadline: float, *, dry_run: bool
) -> Iterator[Leftover]:
    with suppress(FileNotFoundError, RefusedError), open_folder(root, parts, create=False) as folder:
        for name in os.listdir(folder):  # noqa: PTH208 - a descriptor
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            old = stat.S_ISREG(info.st_mode) and info.st_mtime <= deadline and info.st_uid == os.geteuid()
            if name.endswith(_INCOMPLETE) and old and not is_held(folder, name):
                if not dry_run:
                    os.unlink(name, dir_fd=folder)
                yield Leftover(root.joinpath(*map(os.fsdecode, parts), name), info.st_size)
    for inner in _subfolders(root, parts):
        yield from _clear_below(root, inner, deadline, dry_run=dry_run)


def _subfolders(root: Path, parts: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """Return the folders in a folder, but ours; no link counts."""
    with (
        suppress(FileNotFoundError, RefusedError),
        open_folder(root, parts, create=False) as folder,
        os.scandir(folder) as found,
    ):
        names = [os.fsencode(each.name) for each in found if each.is_dir(follow_symlinks=False)]
        return [(*parts, name) for name in names if name != STATE.encode()]
    return []


def _room_of(folder: int, name: str) -> int:
    """Return how many bytes a file takes on disk; of a folder, what is in it does not count."""
    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return info.st_blocks * 512
