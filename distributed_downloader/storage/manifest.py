"""The manifest of a repo in an output folder: the files with size and hash, and when each was verified.

`<output_dir>/.hf-downloader/<commit>.json` is JSON with a line of its own for each file, so that a long one
is read and written in constant memory. A second repo of the same commit, such as a copy of it, has its name
behind the commit.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from pydantic import Field

from distributed_downloader.checks import Count, Model
from distributed_downloader.descriptor import GitSha1, RepoFile, Sha256
from distributed_downloader.errors import RefusedError, one_line
from distributed_downloader.layout import folder_of
from distributed_downloader.models import Commit, JobSpec, Layout, RepoId, RepoType
from distributed_downloader.storage.disk import disk, open_folder, replace_file, sync_folder
from distributed_downloader.storage.partial import is_taken
from distributed_downloader.storage.place import STATE

log = logging.getLogger(__name__)

_STATE = [STATE.encode()]
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: No line of a manifest is longer: a path has 4,096 bytes at most, each of which JSON may write as six.
_LONGEST = 32 * 1024
_MOST_HEAD = 64
#: What a disk says of something that is no manifest of ours: a link, a folder, or another user's.
_FOREIGN = (errno.ELOOP, errno.EISDIR, errno.EACCES, errno.EPERM)
#: Seconds for which another process may change a manifest before it counts as hanging.
_PATIENCE = 60.0


class Entry(Model):
    """One file that was verified."""

    path: str = Field(min_length=1)
    size: Count
    sha256: Sha256 | None = None
    git_sha1: GitSha1 | None = None
    #: As in RepoFile: where all files lie in one folder, its name there tells it from another one's.
    clash: bool | None = None
    #: When its bytes were verified last: UTC, as in RFC 3339.
    verified: str

    @classmethod
    def of(cls, file: RepoFile, at: float) -> Entry:
        """Return the entry of a file that was verified at a Unix time."""
        return cls(
            path=file.path,
            size=file.size,
            sha256=file.sha256,
            git_sha1=file.git_sha1,
            clash=file.clash or None,
            verified=_moment(at),
        )

    @property
    def file(self) -> RepoFile:
        """The file as the hub listed it."""
        told = self.model_dump(exclude={"verified"}, exclude_none=True)
        return RepoFile(**told)


class Head(Model):
    """What a manifest is about."""

    format_version: Literal[1] = 1
    repo_type: RepoType
    repo_id: RepoId
    #: The revision as the user named it.
    revision: str
    commit: Commit
    #: Where the files came from.
    endpoint: str
    layout: Layout
    #: Whether `[nas] preserve_structure` was off: all files lie in one folder, and their names tell it.
    flat: bool = False
    #: Whether these are all files of the repo; else a job chose some.
    whole: bool
    #: When a job put files there last, UTC as in RFC 3339; "" if none did, but only a check.
    fetched: str = ""

    @classmethod
    def of(cls, spec: JobSpec, *, whole: bool) -> Head:
        """Return the head for what a job has put into its output folder."""
        shared = cls.model_fields.keys() & JobSpec.model_fields.keys()
        fetched = "" if spec.check else _moment(time.time())
        return cls(whole=whole, fetched=fetched, **{name: getattr(spec, name) for name in shared})

    @property
    def spec(self) -> JobSpec:
        """The job that would fetch this again."""
        own = {name: getattr(self, name) for name in JobSpec.model_fields if hasattr(self, name)}
        return JobSpec(**own)

    def is_of(self, other: Head) -> bool:
        """Return whether both are about the same files in the same places."""
        mine, theirs = self.spec, other.spec
        return (folder_of(mine), mine.repo_type, mine.commit, mine.flat) == (
            folder_of(theirs),
            theirs.repo_type,
            theirs.commit,
            theirs.flat,
        )


def _moment(at: float) -> str:
    """Return a Unix time in UTC, as in RFC 3339."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


class Found(NamedTuple):
    """A manifest in an output folder."""

    name: str
    head: Head
    #: When files were fetched for it last, and the Unix time at which it was written: later ones are greater.
    at: tuple[str, float]


class Manifests:
    """The manifests of one output folder; all methods raise LocalError if the disk refuses."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, head: Head, files: Iterable[Entry]) -> None:
        """Add files to the manifest of their repo and commit, or make it; whole, or the old one stays.

        What it had of others stays, so that jobs which fetch different files of a commit add up.
        """
        path = self._root / STATE
        with disk(path), open_folder(self._root, _STATE) as folder, _locked(folder):
            name, old = self._name_of(folder, head)
            merged = _merged(folder, head, name, old) if old else head
            replace_file(folder, os.fsencode(name), self._lines(folder, merged, files, name if old else ""))
            sync_folder(folder)

    def find(self) -> list[Found]:
        """Return all that can be read, those of one folder in the order in which they were fetched."""
        where = disk(self._root / STATE)
        with where, suppress(FileNotFoundError), open_folder(self._root, _STATE, create=False) as folder:
            names = [name for name in os.listdir(folder) if name.endswith(".json")]  # noqa: PTH208 - a descriptor
            heads = {name: head for name in names if (head := _read_head(folder, name))}
            times = {name: os.stat(name, dir_fd=folder).st_mtime for name in heads}
            found = [Found(name, head, (head.fetched, times[name])) for name, head in heads.items()]
            return sorted(found, key=lambda each: (folder_of(each.head.spec), each.at))
        return []

    def entries(self, name: str) -> Iterator[Entry]:
        """Yield the files of one manifest; raises RefusedError for what we have not written."""
        with disk(self._root / STATE / name), open_folder(self._root, _STATE, create=False) as folder:
            yield from _read_entries(folder, name)

    def _name_of(self, folder: int, head: Head) -> tuple[str, Head | None]:
        """Return the name of a repo's manifest, and what is there of it already."""
        flat = folder_of(head.spec).replace("/", "--")
        plain, own = f"{head.commit}.json", f"{head.commit}.{flat}.json"
        for name in (plain, own):
            found = _read_head(folder, name)
            if found is None and not _exists(folder, name):
                return name, None
            if found and found.is_of(head):
                return name, found
        return own, None

    def _lines(self, folder: int, head: Head, files: Iterable[Entry], old: str) -> Iterator[bytes]:
        fields = head.model_dump(mode="json").items()
        yield b"{\n"
        yield from (f"{json.dumps(key)}: {json.dumps(value)},\n".encode() for key, value in fields)
        yield b'"files": [\n'
        before = b""
        for entry in _united(files, _legible(_read_entries(folder, old))) if old else files:
            yield before + entry.model_dump_json(exclude_none=True).encode()
            before = b",\n"
        yield b"\n]}\n" if before else b"]}\n"


def _united(files: Iterable[Entry], old: Iterator[Entry]) -> Iterator[Entry]:
    """Yield the new entries, and of the old ones those that no new one replaces."""
    seen = set()
    for entry in files:
        seen.add(hash(entry.path))
        yield entry
    yield from (entry for entry in old if hash(entry.path) not in seen)


def _legible(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yield what can be read of an old manifest: the rest must not keep a job from ending."""
    try:
        yield from entries
    except RefusedError as error:
        log.warning("%s; what it listed behind that is left out", error)


def _merged(folder: int, head: Head, name: str, old: Head) -> Head:
    """Return the head for what there is, and what comes to it."""
    whole = head.whole or (old.whole and _is_sound(folder, name))
    return head.model_copy(update={"whole": whole, "fetched": head.fetched or old.fetched})


def _is_sound(folder: int, name: str) -> bool:
    """Return whether a manifest can be read to its end."""
    try:
        for _ in _read_entries(folder, name):
            pass
    except RefusedError:
        return False
    return True


@contextmanager
def _locked(folder: int) -> Iterator[None]:
    """Keep other processes from changing a manifest meanwhile, where the disk has locks."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open("manifests.lock", flags, 0o666, dir_fd=folder)
    try:
        deadline = time.monotonic() + _PATIENCE
        while is_taken(fd) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _opened(folder: int, name: str) -> Iterator[BinaryIO]:
    with os.fdopen(os.open(name, _READ, dir_fd=folder), "rb") as file:
        yield file


def _read_head(folder: int, name: str) -> Head | None:
    """Return what a manifest is about; None if there is none, or it is none of ours."""
    try:
        with _opened(folder, name) as file:
            return _parse_head(file)
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        if error.errno not in _FOREIGN:
            raise
        return None


def _parse_head(file: BinaryIO) -> Head:
    """Read up to the first file; raises ValueError for what we have not written."""
    lines = [line.strip() for line in islice(iter(lambda: file.readline(_LONGEST), b""), _MOST_HEAD)]
    end = lines.index(b'"files": [')
    file.seek(0)
    for _ in lines[: end + 1]:
        file.readline(_LONGEST)
    return Head.model_validate_json(b"\n".join(lines[:end]).rstrip(b",") + b"}")


def _read_entries(folder: int, name: str) -> Iterator[Entry]:
    with _opened(folder, name) as file:
        try:
            _parse_head(file)
            while (line := file.readline(_LONGEST).strip()) not in (b"]}", b""):
                yield Entry.model_validate_json(line.removesuffix(b","))
            _require_end(line)
        except ValueError as error:
            why = one_line(error)
            raise RefusedError(f"{STATE}/{name} is not as we have written it ({why}); remove it") from error


def _require_end(line: bytes) -> None:
    """Raise ValueError where a manifest breaks off."""
    if not line:
        raise ValueError("its end is missing")
