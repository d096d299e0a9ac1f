"""A repo's files on the NAS: whether they are there, and how they get there: copied, verified, renamed."""

from __future__ import annotations

import errno
import os
import stat
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import MissingError, PlaceUnseenError, RefusedError
from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.nas_names import namesakes, nas_parts
from distributed_downloader.storage.copying import (
    PARTIAL,
    READ,
    Copying,
    at_nas,
    at_source,
    damaged,
    is_same,
    look_alike,
    opened_source,
    remove_source,
    temporary,
)
from distributed_downloader.storage.disk import refuse_other, sync_folder
from distributed_downloader.storage.place import (
    STATE,
    claim_marker,
    read_marker,
    read_place,
    require_place,
    unmarked,
)
from distributed_downloader.storage.target import Target

_REPOS = [STATE.encode(), b"repos"]
Progress = Callable[[int], None]
#: Between the look for a twin and the rename, so that two of our threads do not both find none.
_publishing = threading.Lock()


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
            raise unmarked(self._root)

    def look(self, file: RepoFile, cancel: Cancel, progress: Progress = lambda _: None) -> bool:
        """Return whether the file is there and right, by its hash; without a hash only an empty one counts.

        `progress` is called as bytes are read. Raises StoppedError, LocalError where the NAS does not tell,
        and RefusedError for an unsafe path, or if something else has the file's name.
        """
        copying = Copying(file, Path(), self.path_of(file), cancel, progress)
        with self._opened() as nas:
            return self._found(nas, copying) is not None and self._is_there(nas, copying)

    def claim(self, file: RepoFile) -> None:
        """Before a file is put together on the NAS, make sure that it can get its name there.

        Raises what `deliver` does of the NAS.
        """
        copying = Copying(file, Path(), self.path_of(file), Cancel(), lambda _: None)
        with self._opened() as nas:
            self._claim(nas, file, replacing=self._found(nas, copying) is not None)
            with at_nas(self._root, whole=True), _walk(nas, PARTIAL, self._root) as folder:
                self._check_goal(nas, folder, copying)

    def deliver(
        self,
        source: Path,
        file: RepoFile,
        cancel: Cancel,
        *,
        verify: str = "hash",
        read_back: bool = False,
        suspect: bool = False,
        progress: Progress = lambda _: None,
    ) -> Delivery:
        """Bring a published file from the output folder `source` to the NAS, unless it is there.

        With verify `hash`, the very bytes that are copied are proved; with `size` the kernel copies, and what
        is proved is the source, and the copy's size. `read_back` proves what the NAS holds then. With
        `suspect` the source is proved before anything is copied. `progress` is told the bytes copied, also
        while none are but some are read.

        Raises CorruptError if the source is damaged, MissingError if it is gone, PlaceError and RefusedError
        for what is wrong with this one file, PlaceUnseenError if the NAS is not there, LocalError for other
        troubles of the NAS.
        """
        mine = Target(source, self._spec, file)
        copying = Copying(file, mine.path, self.path_of(file), cancel, progress)
        with self._opened() as nas, opened_source(source, mine) as local:
            found = os.fstat(local) if local is not None else None
            there = self._found(nas, copying)
            one_place = read_place(source) == read_place(self._root)
            keep = found if not one_place else None
            if found and there and self._is_one(found, there, one_place=one_place):
                return Delivery(copied=False, source=None)
            if there and self._is_there(nas, copying):
                return Delivery(copied=False, source=keep)
            if found is None or local is None:
                raise MissingError(f"{mine.path} is not there any more, and not on the NAS")
            if found.st_size != file.size:
                raise damaged(mine.path, f"it has {found.st_size:,} bytes, the hub lists {file.size:,}")
            if suspect:
                copying.prove(local)
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

        Another commit's file may have its name by now, and be owed itself. Empty folders stay, for somebody
        may be about to publish there. Raises PlaceError, StoppedError.
        """
        mine = Target(source, self._spec, file)
        copying = Copying(file, mine.path, self.path_of(file), cancel, progress)
        with opened_source(source, mine) as local, at_source(mine.path):
            if local is None or delivery.source is None or not is_same(os.fstat(local), delivery.source):
                return False
            if not delivery.copied and not copying.is_right(local, local=True):  # nobody has read it yet
                return False
            return remove_source(source, mine, delivery.source)

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

    def _is_one(self, found: os.stat_result, there: os.stat_result, *, one_place: bool) -> bool:
        """Whether this is one file, if seen through two mounts; an id could be copied with its folder."""
        alike = found.st_ino == there.st_ino and look_alike(found, there)
        return (one_place and not self._spec.flat and alike) or os.path.samestat(found, there)

    def _found(self, nas: int, copying: Copying) -> os.stat_result | None:
        """Return what has the file's name on the NAS; raises RefusedError if that is no file."""
        *parents, name = nas_parts(self._spec, copying.file)
        with at_nas(copying.target):
            try:
                self._refuse_twin(nas, copying)
                with _walk(nas, parents, self._root, create=False) as folder:
                    refuse_other(folder, name, copying.target, stat.S_IFREG)
                    return os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def _refuse_twin(self, nas: int, copying: Copying) -> None:
        """Raise RefusedError if the NAS takes another name, of a file or of a folder above it, for ours."""
        parts = nas_parts(self._spec, copying.file)
        folds = _folds(nas)
        for depth, name in enumerate(parts):
            if name.isascii() and not folds:
                continue
            with _walk(nas, parts[:depth], self._root, create=False) as folder:
                spelled = _is_spelled_so(folder, name, folds=folds)
            if not spelled:
                raise RefusedError(
                    f"{copying.target}: the NAS has {os.fsdecode(name)!r} in another spelling, and makes no "
                    "difference between the two (upper and lower case, or accents): they would be one there, "
                    "so this file is not copied"
                )

    def _is_there(self, nas: int, copying: Copying) -> bool:
        *parents, name = nas_parts(self._spec, copying.file)
        with at_nas(copying.target):
            try:
                with _walk(nas, parents, self._root, create=False) as folder:
                    fd = os.open(name, READ, dir_fd=folder)
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
                self._check_goal(nas, folder, copying)
                (copying.with_hash if hashed else copying.by_kernel)(local, copy)
                copying.finish(copy)
                if read_back:
                    copying.read_back(folder, name, copy)
                copying.cancel.check()
                with at_nas(copying.target):
                    self._publish(nas, folder, name, copying)

    def _check_goal(self, nas: int, folder: int, copying: Copying) -> None:
        """Find what would refuse the copy in the end, before any byte is moved; raises PlaceError."""
        *parents, _ = nas_parts(self._spec, copying.file)
        with at_nas(copying.target), _walk(nas, parents, self._root) as goal:
            if os.fstat(goal).st_dev != os.fstat(folder).st_dev:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            effective = os.access in os.supports_effective_ids
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=goal, effective_ids=effective):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def _publish(self, nas: int, folder: int, name: str, copying: Copying) -> None:
        *parents, final = parts = nas_parts(self._spec, copying.file)
        twins = _folds(nas) or not all(map(bytes.isascii, parts))
        with _walk(nas, parents, self._root) as goal:
            with _publishing if twins else nullcontext():  # a rename that hangs holds up all that wait
                self._refuse_twin(nas, copying)
                refuse_other(goal, final, copying.target, stat.S_IFREG)
                os.rename(name, final, src_dir_fd=folder, dst_dir_fd=goal)
            sync_folder(goal)


def _marker_of(repo_id: str) -> str:
    return repo_id.replace("/", "--")


def _folds(nas: int) -> bool:
    """Return whether the NAS finds our own folder in upper case; a mount may give it two inode numbers."""
    return _exists(nas, STATE.upper().encode())


def _is_spelled_so(folder: int, name: bytes, *, folds: bool) -> bool:
    """Return whether an entry is listed under this very name, if it is found by it at all.

    The list may be long, so it is read only where the NAS folds case, or finds accents in both spellings.
    """
    text = name.decode()
    forms = {text} if folds else {unicodedata.normalize(form, text) for form in ("NFC", "NFD")} - {text}
    if not (_exists(folder, name) and any(_exists(folder, form.encode()) for form in forms)):
        return True
    with os.scandir(folder) as entries:
        return any(os.fsencode(entry.name) == name for entry in entries)


def _exists(folder: int, name: bytes) -> bool:
    with suppress(OSError):  # a spelling may be too long, or more than the NAS can read
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


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
