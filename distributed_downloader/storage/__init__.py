"""Where a repo's files lie on disk: unpublished, published, and which repo owns the folder."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import ConflictError, CorruptError, RefusedError, TransferError
from distributed_downloader.layout import folder_of
from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.outcome import Published
from distributed_downloader.storage.disk import disk, is_link, open_folder
from distributed_downloader.storage.durable import make_durable
from distributed_downloader.storage.partial import Partial, host_tag, is_taken
from distributed_downloader.storage.place import (
    STATE,
    claim_marker,
    read_marker,
)
from distributed_downloader.storage.room import Room
from distributed_downloader.storage.root import Root
from distributed_downloader.storage.target import Target
from distributed_downloader.verify import Hasher, feed

log = logging.getLogger(__name__)

_PARTIAL, _REPOS = (STATE.encode(), b"partial"), (STATE.encode(), b"repos")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Flaw(NamedTuple):
    """What is wrong with a file that should be there."""

    found: Literal["missing", "wrong"]
    why: str


class RepoFolder:
    """One repo in one output folder: `<output_dir>/<org>/<name>/<path>`."""

    def __init__(self, output_dir: Path, spec: JobSpec, room: Room | None = None, place: str = "") -> None:
        """`place` is the id that the output folder must have, else that which the job names.

        `with folder:` keeps open what it uses, of the place that it is; else each method looks anew.
        """
        self.root, self.place = output_dir, place or spec.place
        self._open = Root(output_dir, self.place)
        self._spec = spec
        self._room = room or Room(0)
        self._known: tuple[RepoFile, Target] | None = None
        #: What had no file when it was looked for last.
        self._missing: Target | None = None
        self._flat = folder_of(spec).replace("/", "--")

    def __enter__(self) -> RepoFolder:
        self._open.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.__exit__()

    def is_place(self) -> bool:
        """Return whether the output folder is seen to be the place that it is to be; nothing is raised."""
        if not self.place:
            return False
        try:
            with self._open as root:
                root.look()
        except (OSError, TransferError):
            return False
        return True

    @property
    def path(self) -> Path:
        """Where the repo's files go."""
        return self.root / folder_of(self._spec)

    def claim_folder(self) -> None:
        """Make sure that the folder is this repo's; raises RefusedError if another repo owns it."""
        marker = self.root / STATE / "repos" / self._flat
        owner = f"{self._spec.repo_type.value} {self._spec.repo_id}\n"
        with disk(marker, whole=True), self._open as root:
            folder = root.enter(_REPOS)
            found = read_marker(folder, marker.name) or claim_marker(folder, marker.name, owner)
        if found != owner:
            raise RefusedError(
                f"{self.path} already holds the {found.strip() or 'unknown repo'}; "
                f"give the {owner.strip()} another --output-dir, so that they do not mix"
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others who want to be alone with this repo out, until the block or the process ends.

        It is for those who share no Redis: two of them would put one split file together, each believing
        that nobody else writes what it has proven. Raises ConflictError. A disk without locks keeps nobody
        out.
        """
        lock = self.root / STATE / "alone" / self._flat
        with ExitStack() as stack:
            with disk(lock, whole=True):  # and not around what the caller does
                folder = stack.enter_context(open_folder(self.root, [STATE.encode(), b"alone"]))
                # It stays for ever, for who removes a lock may remove another one's.
                fd = os.open(lock.name, _LOCK, 0o666, dir_fd=folder)
                stack.callback(os.close, fd)
                taken = is_taken(fd)
            if taken:
                raise ConflictError(
                    f"another `download` of {self._spec.repo_id} writes into {self.path}; "
                    "wait until it ends, or use another --output-dir"
                )
            yield

    def has(self, file: RepoFile, cancel: Cancel) -> bool:
        """Return whether the published file is there and right, by its hash.

        Without a hash only an empty file counts, for another commit's file may have the same size.
        """
        provable = file.sha256 or file.git_sha1 or file.size == 0
        return bool(provable) and self.flaw(file, cancel) is None

    def flaw(
        self,
        file: RepoFile,
        cancel: Cancel,
        progress: Callable[[int], object] = lambda _: None,
        *,
        quick: bool = False,
    ) -> Flaw | None:
        """Return what is wrong with the published file; None if its size and hash are right.

        If `quick`, the size is enough; it is all there is where the hub told no hash.
        """
        target = self._target(file)
        with disk(target):
            fd = self._open_published(target)
            if fd is None:
                return self._absence(target)
            try:
                return _flaw_of(fd, file, cancel, progress, quick=quick)
            finally:
                os.close(fd)

    def _absence(self, target: Target) -> Flaw:
        """Return why a published file cannot be opened."""
        if target is self._missing:
            return Flaw("missing", "there is no such file")
        with self._open as root, suppress(FileNotFoundError):
            if is_link(root.enter(target.parents, create=False), target.name):
                return Flaw("wrong", "it is a symbolic link, and none is followed")
        return Flaw("missing", "there is no such file")

    def size_of(self, file: RepoFile) -> int | None:
        """Return how many bytes the file has that has the name, right or wrong; None if there is none."""
        target = self._target(file)
        with disk(target):
            fd = self._open_published(target)
            if fd is None:
                return None
            try:
                info = os.fstat(fd)
            finally:
                os.close(fd)
        return info.st_size if stat.S_ISREG(info.st_mode) else None

    def _open_published(self, target: Target) -> int | None:
        """Open a published file for reading; None if there is no such thing, or a link."""
        with self._open as root:
            try:
                folder = root.enter(target.parents, create=False)
            except FileNotFoundError:
                return None
            try:
                return os.open(target.name, _READ, dir_fd=folder)
            except FileNotFoundError:
                self._missing = target
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENXIO):
                    raise
            return None

    @contextmanager
    def partial(self, file: RepoFile, cancel: Cancel) -> Iterator[Partial]:
        """Yield the file's partial; raises RefusedError early if the file could not be published.

        Raises PlaceUnseenError if it would not lie in the job's folder, whose disk may go away at any moment:
        from where it lies, it is not moved to another disk.
        """
        target = self._target(file)
        name = f"{target.digest}.{host_tag()}.part"
        with self._open as root:
            if self._missing is not target:
                with disk(target):
                    target.check_in(root.enter(target.parents))
            self._missing = None
            where = _partials(self.root)
            with disk(where, whole=True):  # and not around what the caller does with it
                folder = root.enter(_PARTIAL)
            with (
                Partial(folder, where, name, file, cancel) as partial,
                self._room.take(self.root, lambda: file.size - partial.size, partial.device),
            ):
                yield partial

    def publish(self, partial: Partial, file: RepoFile, *, sync: bool = True) -> None:
        """Give the partial its final name, replacing what was there.

        Without `sync`, the name is safe from a power cut only when `make_durable` was told `published`.
        """
        target = self._target(file)
        partial.publish(target, self._open)
        if sync:
            make_durable(self.published(file))

    def published(self, file: RepoFile) -> Published:
        """Return where the file has its name."""
        return Published(self.root, self.place, self._target(file).parents)

    def _target(self, file: RepoFile) -> Target:
        """Return where a file belongs: of the same file again, as it was."""
        if not self._known or self._known[0] is not file:
            self._known = file, Target(self.root, self._spec, file)
        return self._known[1]


@lru_cache(64)
def _partials(root: Path) -> Path:
    return root / STATE / "partial"


def _flaw_of(
    fd: int, file: RepoFile, cancel: Cancel, progress: Callable[[int], object], *, quick: bool
) -> Flaw | None:
    info, hasher = os.fstat(fd), Hasher(file)
    if not stat.S_ISREG(info.st_mode):
        return Flaw("wrong", "it is no file")
    if info.st_size != file.size:
        return Flaw("wrong", f"it has {info.st_size:,} bytes, the hub lists {file.size:,}")
    if quick:
        return None
    feed(fd, hasher, cancel, progress)
    try:
        hasher.check()
    except CorruptError as error:
        return Flaw("wrong", str(error).removeprefix(f"{file.path}: "))
    return None
