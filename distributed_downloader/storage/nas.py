"""A repo's files on the NAS: whether they are there, and how they get there: copied, verified, renamed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import LocalError, PlaceError, PlaceUnseenError, RefusedError
from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.nas_names import namesakes, nas_parts
from distributed_downloader.storage.copying import PARTIAL, Copying, at_nas, at_source, damaged, temporary
from distributed_downloader.storage.disk import open_folder, refuse_other, sync_folder
from distributed_downloader.storage.place import STATE, claim_marker, read_marker, read_place, require_place
from distributed_downloader.storage.target import Target

_REPOS = [STATE.encode(), b"repos"]
#: Never through a link, and never waiting for the other end of a pipe.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
Progress = Callable[[int], None]


class Delivery(NamedTuple):
    """What it took to have a file on the NAS."""

    #: False = it was there already.
    copied: bool
    #: The local file; None if there is none apart from the one on the NAS.
    source: os.stat_result | None


class NasFolder:
    """One repo on the NAS; nothing is written unless the NAS's marker is seen, and `root` is never made.

    `nas_id` is the marker to expect where the job names none; "" for any.
    """

    def __init__(self, root: Path, spec: JobSpec, nas_id: str = "") -> None:
        self._root, self._spec = root, spec
        self._id = spec.nas or nas_id

    def path_of(self, file: RepoFile) -> Path:
        """Return where the file goes."""
        return self._root.joinpath(*map(os.fsdecode, nas_parts(self._spec, file)))

    def require(self) -> None:
        """Raise PlaceUnseenError unless the NAS is there, and is the job's."""
        if self._id:
            require_place(self._root, self._id)
        elif not read_place(self._root):
            raise PlaceUnseenError(
                f"{self._root} is not marked as the NAS: mount it, or mark it with `hf-downloader init-nas`"
            )

    def has(self, file: RepoFile, cancel: Cancel) -> bool:
        """Return whether the file is there and right, by its hash; without a hash only an empty one counts.

        False too where the NAS is away or refuses: then it does not help. Raises StoppedError, and
        RefusedError for an unsafe path.
        """
        copying = Copying(file, Path(), self.path_of(file), cancel, lambda _: None)
        try:
            with self._opened() as nas:
                return self._look(nas, copying) is not None and self._is_there(nas, copying)
        except (LocalError, RefusedError):
            return False

    def deliver(
        self,
        source: Path,
        file: RepoFile,
        cancel: Cancel,
        *,
        verify: str = "hash",
        read_back: bool = False,
        progress: Progress = lambda _: None,
    ) -> Delivery:
        """Bring a published file from the output folder `source` to the NAS, unless it is there.

        With verify `hash`, what is copied is proved on the way; with `size`, its size is. `read_back` proves
        what the NAS holds then. `progress` is told the bytes copied, also while none are but some are read.

        Raises CorruptError if the source is damaged, PlaceError and RefusedError for what is wrong with this
        one file, PlaceUnseenError if the NAS is not there, LocalError for other troubles of the NAS.
        """
        mine = Target(source, self._spec, file)
        copying = Copying(file, mine.path, self.path_of(file), cancel, progress)
        with self._opened() as nas, _opened_source(source, mine) as local:
            found = os.fstat(local) if local is not None else None
            there = self._look(nas, copying)
            one_place = read_place(source) == read_place(self._root)
            keep = found if not one_place else None
            if found and there and self._is_one(one_place, found, there):
                return Delivery(copied=False, source=None)
            if there and self._is_there(nas, copying):
                return Delivery(copied=False, source=keep)
            if found is None or local is None:
                raise PlaceError(f"{mine.path} is not there any more, and not on the NAS")
            if found.st_size != file.size:
                raise damaged(mine.path, f"it has {found.st_size:,} bytes, the hub lists {file.size:,}")
            self._claim(nas, file, replacing=there is not None)
            self._copy(nas, local, mine.digest, copying, hashed=verify == "hash", read_back=read_back)
        return Delivery(copied=True, source=keep)

    def remove_source(
        self,
        source: Path,
        file: RepoFile,
        delivery: Delivery,
        cancel: Cancel,
        *,
        progress: Progress = lambda _: None,
    ) -> bool:
        """Remove the local file, if it still is the one that is on the NAS; return whether it was.

        Another commit's file may have its name by now, and be owed itself. Raises PlaceError, StoppedError.
        """
        mine = Target(source, self._spec, file)
        copying = Copying(file, mine.path, self.path_of(file), cancel, progress)
        with _opened_source(source, mine) as local, at_source(mine.path):
            if local is None or delivery.source is None or not _is_same(os.fstat(local), delivery.source):
                return False
            if not delivery.copied and not copying.is_right(local, local=True):  # nobody has read it yet
                return False
            with open_folder(source, mine.parents, create=False) as folder:
                found = os.stat(mine.name, dir_fd=folder, follow_symlinks=False)
                if not _is_same(found, delivery.source):
                    return False
                os.unlink(mine.name, dir_fd=folder)
        return True

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Yield a descriptor of the NAS's root; what goes through it cannot get to another disk."""
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise PlaceUnseenError(f"{self._root}: {why}; is the NAS mounted here?") from error
        try:
            self.require()
            with at_nas(self._root, whole=True):
                same = os.path.samestat(os.fstat(fd), self._root.stat())
            if not same:  # the marker we saw is not the marker of what we opened
                raise PlaceUnseenError(f"{self._root} was mounted or unmounted this moment")
            yield fd
        finally:
            os.close(fd)

    def _is_one(self, one_place: bool, found: os.stat_result, there: os.stat_result) -> bool:
        """Whether this is one file, if seen through two mounts; an id could be copied with its folder."""
        twice = one_place and not self._spec.flat and _look_alike(found, there)
        return twice or os.path.samestat(found, there)

    def _look(self, nas: int, copying: Copying) -> os.stat_result | None:
        """Return what has the file's name on the NAS; raises RefusedError if that is no file."""
        *parents, name = nas_parts(self._spec, copying.file)
        with at_nas(copying.target):
            try:
                with _walk(nas, parents, self._root, create=False) as folder:
                    refuse_other(folder, name, copying.target, stat.S_IFREG)
                    return os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def _is_there(self, nas: int, copying: Copying) -> bool:
        *parents, name = nas_parts(self._spec, copying.file)
        with at_nas(copying.target):
            try:
                with _walk(nas, parents, self._root, create=False) as folder:
                    fd = os.open(name, _READ, dir_fd=folder)
            except FileNotFoundError:
                return False
        try:
            return copying.is_right(fd)
        finally:
            os.close(fd)

    def _claim(self, nas: int, file: RepoFile, *, replacing: bool) -> None:
        """Make sure that the names are this repo's; raises RefusedError if another repo owns them.

        The markers are those of an output folder, which the NAS may be too.
        """
        spec = self._spec
        owner = f"{spec.repo_type.value} {spec.repo_id}\n"
        with at_nas(self._root, whole=True), _walk(nas, _REPOS, self._root) as folder:
            marker = _marker_of(spec.repo_id)
            found = read_marker(folder, marker) or claim_marker(folder, marker, owner)
            others = namesakes(spec, nas_parts(spec, file)[-1]) if replacing and spec.flat else []
            rival = next((other for other in others if read_marker(folder, _marker_of(other))), None)
        if found != owner:
            raise RefusedError(
                f"the NAS already holds the {found.strip() or 'unknown repo'} under the name of the "
                f"{owner.strip()}; move it away, so that they do not mix"
            )
        if rival:
            raise RefusedError(
                f"{self.path_of(file)} may be a file of {rival}; move it away, or keep folders "
                "([nas] preserve_structure = true)"
            )

    def _copy(
        self, nas: int, local: int, digest: str, copying: Copying, *, hashed: bool, read_back: bool
    ) -> None:
        with at_nas(self._root, whole=True), _walk(nas, PARTIAL, self._root) as folder:
            copying.check_room(folder)
            with temporary(folder, digest) as (name, copy):
                (copying.with_hash if hashed else copying.by_kernel)(local, copy)
                copying.finish(copy)
                if read_back:
                    copying.read_back(folder, name, copy)
                copying.cancel.check()
                with at_nas(copying.target):
                    self._publish(nas, folder, name, copying)

    def _publish(self, nas: int, folder: int, name: str, copying: Copying) -> None:
        *parents, final = nas_parts(self._spec, copying.file)
        with _walk(nas, parents, self._root) as goal:
            refuse_other(goal, final, copying.target, stat.S_IFREG)
            os.rename(name, final, src_dir_fd=folder, dst_dir_fd=goal)
            sync_folder(goal)


def _marker_of(repo_id: str) -> str:
    return repo_id.replace("/", "--")


@contextmanager
def _opened_source(source: Path, mine: Target) -> Iterator[int | None]:
    """Yield a descriptor of the local file; None if there is none."""
    with at_source(mine.path):
        try:
            with open_folder(source, mine.parents, create=False) as folder:
                refuse_other(folder, mine.name, mine.path, stat.S_IFREG)
                fd = os.open(mine.name, _READ, dir_fd=folder)
        except FileNotFoundError:
            fd = None
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _look_alike(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether this is one file, and nobody has written to it in between."""
    return os.path.samestat(one, other) and _look_alike(one, other)


@contextmanager
def _walk(root: int, parts: Sequence[bytes], where: Path, *, create: bool = True) -> Iterator[int]:
    """Open `root/part/part...`, making what is missing; like `open_folder`, but from a descriptor.

    `where` is the root's path, for messages.
    """
    fd = os.dup(root)
    try:
        for part in parts:
            where = where / os.fsdecode(part)
            child = _enter(fd, part, where, create=create)
            os.close(fd)
            fd = child
        yield fd
    finally:
        os.close(fd)


def _enter(fd: int, name: bytes, where: Path, *, create: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=fd)
    except FileNotFoundError:
        if not create:
            raise
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            refuse_other(fd, name, where, stat.S_IFDIR)
        raise
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=fd)
        sync_folder(fd)
    return os.open(name, flags, dir_fd=fd)
