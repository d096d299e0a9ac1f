"""Where a repo's files lie on disk: unpublished, published, and which repo owns the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import CorruptError, PlaceError, RefusedError
from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.storage.disk import disk, names, open_folder, refuse_other
from distributed_downloader.storage.partial import Partial, host_tag, is_held
from distributed_downloader.verify import Hasher, feed

#: Our own folder in each output folder; never inside a repo's tree, so that `diff -r` finds the repo only.
STATE = ".hf-downloader"
#: Seconds after which partial data that nobody holds is removed.
KEEP_PARTIAL = 7 * 24 * 3600.0


class RepoFolder:
    """One repo in one output folder: `<output_dir>/<org>/<name>/<path>`."""

    def __init__(self, output_dir: Path, spec: JobSpec) -> None:
        self._root = output_dir
        self._spec = spec
        self._repo = names(spec.repo_id)
        #: Where the repo's files go.
        self.path = output_dir / spec.repo_id

    def claim_folder(self) -> None:
        """Make sure that the folder is this repo's; raises RefusedError if another repo owns it."""
        marker = self._root / STATE / "repos" / self._spec.repo_id.replace("/", "--")
        owner = f"{self._spec.repo_type.value} {self._spec.repo_id}\n"
        with disk(marker, whole=True), open_folder(self._root, [STATE.encode(), b"repos"]) as folder:
            found = _read(folder, marker.name) or _claim(folder, marker.name, owner)
        if found != owner:
            raise RefusedError(
                f"{self.path} already holds the {found.strip() or 'unknown repo'}; "
                f"give the {owner.strip()} another --output-dir, so that they do not mix"
            )

    def has(self, file: RepoFile, cancel: Cancel) -> bool:
        """Return whether the published file is there and right, by its hash.

        Without a hash only an empty file counts, for another commit's file may have the same size.
        """
        *parents, name = self._parts(file)
        hasher = Hasher(file)
        with disk(self.path / file.path):
            fd = _open_published(self._root, parents, name)
            if fd is None:
                return False
            try:
                info = os.fstat(fd)
                if not stat.S_ISREG(info.st_mode) or info.st_size != file.size:
                    return False
                feed(fd, hasher, cancel)
            finally:
                os.close(fd)
        return _is_right(hasher) and (hasher.proves or file.size == 0)

    @contextmanager
    def partial(self, file: RepoFile, cancel: Cancel) -> Iterator[Partial]:
        """Yield the file's partial; raises RefusedError early if the file could not be published."""
        path = self._root / STATE / "partial" / self._partial_name(file)
        self._check_target(file)
        with ExitStack() as stack:
            with disk(path, whole=True):  # and not around what the caller does with it
                folder = stack.enter_context(open_folder(self._root, [STATE.encode(), b"partial"]))
                partial = stack.enter_context(Partial(folder, path, file, cancel))
                _check_room(folder, path, file.size - partial.size)
            yield partial

    def publish(self, partial: Partial, file: RepoFile) -> None:
        """Give the partial its final name, replacing what was there."""
        partial.publish(self._root, self._parts(file))

    def _parts(self, file: RepoFile) -> list[bytes]:
        return [*self._repo, *names(file.path)]

    def _partial_name(self, file: RepoFile) -> str:
        spec = self._spec
        key = "\0".join((spec.repo_type.value, spec.repo_id, spec.commit, file.path))
        return f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.{host_tag()}.part"

    def _check_target(self, file: RepoFile) -> None:
        *parents, name = self._parts(file)
        target = self.path / file.path
        with disk(target), open_folder(self._root, parents) as folder:
            refuse_other(folder, name, target, stat.S_IFREG)


def sweep(output_dir: Path, *, older_than: float = KEEP_PARTIAL) -> int:
    """Remove our user's partial data that nobody held or touched for so many seconds; return how much.

    It is left behind where a worker was killed and another machine took over.
    """
    folder = output_dir / STATE / "partial"
    deadline = time.time() - older_than
    with disk(folder), suppress(FileNotFoundError):
        return sum(_discard(path) for path in folder.iterdir() if _is_stale(path, deadline))
    return 0


def _is_stale(path: Path, deadline: float) -> bool:
    info = path.lstat()
    if info.st_uid != os.geteuid() or info.st_mtime > deadline:
        return False
    if path.suffix == ".staging":
        return not path.with_suffix("").exists()
    return stat.S_ISREG(info.st_mode) and not is_held(path)


def _discard(path: Path) -> bool:
    if path.suffix == ".staging":
        shutil.rmtree(path)
    else:
        path.unlink()
    return True


def _open_published(root: Path, parents: list[bytes], name: bytes) -> int | None:
    """Open a published file for reading; None if there is no such thing, or a link."""
    try:
        with open_folder(root, parents, create=False) as folder:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise


def _is_right(hasher: Hasher) -> bool:
    try:
        hasher.check()
    except CorruptError:
        return False
    return True


def _check_room(folder: int, path: Path, needed: int) -> None:
    """Raise PlaceError before a disk is filled for nothing."""
    info = os.fstatvfs(folder)
    if not info.f_blocks:
        return  # a FUSE disk that does not know its size
    free = info.f_bavail * info.f_frsize
    if needed > free:
        raise PlaceError(
            f"{path.parent}: {needed:,} bytes are needed and {free:,} are free; "
            "free some space, or use another --output-dir"
        )


def _read(folder: int, name: str) -> str:
    """Return the marker's text, "" if there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return ""
    with os.fdopen(fd, encoding="utf-8", errors="replace") as marker:
        return marker.read(1024)


def _claim(folder: int, name: str, owner: str) -> str:
    """Write the marker unless somebody is faster; return whose it is now."""
    temporary = f"{name[:200]}.{secrets.token_hex(6)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    with os.fdopen(fd, "w", encoding="utf-8") as marker:
        marker.write(owner)
        marker.flush()
        os.fsync(fd)
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        pass
    except OSError:
        # A disk without hard links: two first claims in the same instant are not told apart.
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        return _read(folder, name)
    os.unlink(temporary, dir_fd=folder)
    return _read(folder, name)
