"""A repo of the local hub: a folder's files with their hashes, and a commit id that its content decides."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

#: The hub keeps these, and everything above `LFS_SIZE` bytes, in large file storage; the rest in git.
LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".gguf", ".onnx", ".pt", ".zip", ".gz", ".tar")
LFS_SIZE = 1 << 20
_READ = 1 << 20
_DATE = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Entry:
    """One file or folder of a listing; `oid` is its git id, `sha256` is set for LFS files only."""

    path: str
    size: int
    oid: str
    sha256: str | None = None
    folder: bool = False

    def to_json(self, *, commit: str = "", masked: bool = False) -> dict[str, object]:
        """Return the line of a `/tree` page; with `commit` the expanded one, masked for outsiders."""
        kind = "directory" if self.folder else "file"
        line: dict[str, object] = {"type": kind, "oid": self.oid, "size": self.size, "path": self.path}
        if self.sha256:
            oid = "*" * 64 if masked else self.sha256
            line["lfs"] = {"oid": oid, "size": self.size, "pointerSize": len(_pointer(self))}
        if commit:
            line["lastCommit"] = {"id": commit, "title": "Upload", "date": _DATE}
        return line

    def to_sibling(self, *, blobs: bool) -> dict[str, object]:
        """Return the line of a repo's `siblings`; with `blobs` its size and hashes too."""
        line: dict[str, object] = {"rfilename": self.path}
        if blobs:
            line |= {"size": self.size, "blobId": self.oid}
        if blobs and self.sha256:
            line["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": len(_pointer(self))}
        return line


class Snapshot(Protocol):
    """One commit of a repo."""

    @property
    def commit(self) -> str:
        """The commit id, 40 hex digits."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """All files and folders, in the order of the listing."""
        ...

    def find(self, path: str) -> Entry | None:
        """Return the entry of that path, if there is one."""
        ...

    def open(self, entry: Entry) -> BinaryIO:
        """Open a file's content."""
        ...


class FolderSnapshot:
    """A folder as one commit; read and hashed when it is first asked for, then taken as unchanging."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._commit = ""
        self._entries: tuple[Entry, ...] = ()
        self._by_path: dict[str, Entry] = {}

    @property
    def commit(self) -> str:
        """The commit id: a hash over all paths and contents."""
        self._load()
        return self._commit

    @property
    def entries(self) -> Sequence[Entry]:
        """All files and folders, sorted by path."""
        self._load()
        return self._entries

    def find(self, path: str) -> Entry | None:
        """Return the entry of that path, if there is one."""
        self._load()
        return self._by_path.get(path)

    def open(self, entry: Entry) -> BinaryIO:
        """Open a file's content; raises OSError."""
        return (self.folder / entry.path).open("rb")

    def _load(self) -> None:
        with self._lock:
            if not self._commit:
                files = [_hashed(self.folder, path) for path in _files(self.folder)]
                folders, self._commit = _fold(files)
                self._entries = tuple(sorted([*files, *folders], key=_path))
                self._by_path = {entry.path: entry for entry in self._entries}


class LocalRepo:
    """A repo: its revisions by name, and who may read it.

    `readers` are the tokens that may read a private repo, None means everybody; with `gated` everybody may
    look at the listing, and only readers download.
    """

    def __init__(
        self,
        main: Path | Snapshot,
        *,
        refs: Mapping[str, Path | Snapshot] | None = None,
        readers: Sequence[str] | None = None,
        gated: bool = False,
    ) -> None:
        self.readers = None if readers is None else frozenset(readers)
        self.gated = gated
        self._refs: dict[str, Snapshot] = {}
        self._history: list[Snapshot] = []
        for ref, source in {"main": main, **(refs or {})}.items():
            self.push(ref, source)

    def push(self, ref: str, source: Path | Snapshot) -> None:
        """Let a branch, tag or `refs/pr/N` name other content; the old commit can still be asked for."""
        snapshot = FolderSnapshot(source) if isinstance(source, Path) else source
        self._history.append(snapshot)
        self._refs[ref] = snapshot

    def at(self, revision: str) -> Snapshot | None:
        """Return what a branch, tag, PR ref, or (abbreviated) commit id names."""
        if revision in self._refs:
            return self._refs[revision]
        wanted = revision if len(revision) >= 7 else "-"
        return next((old for old in self._history if old.commit.startswith(wanted)), None)

    def lists_for(self, token: str) -> bool:
        """Whether this token, or "" for none, may see the repo."""
        return self.gated or self.serves(token)

    def serves(self, token: str) -> bool:
        """Whether this token, or "" for none, may download."""
        return self.readers is None or token in self.readers


def _files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _path(entry: Entry) -> str:
    return entry.path


def _hashed(folder: Path, path: str) -> Entry:
    """Hash a file in one pass, in constant memory."""
    size = (folder / path).stat().st_size
    lfs = size > LFS_SIZE or path.endswith(LFS_SUFFIXES)
    digest = hashlib.sha256() if lfs else hashlib.sha1(b"blob %d\0" % size)  # noqa: S324 git's own
    with (folder / path).open("rb") as file:
        while data := file.read(_READ):
            digest.update(data)
    if not lfs:
        return Entry(path, size, digest.hexdigest())
    entry = Entry(path, size, "", digest.hexdigest())
    return Entry(path, size, git_sha1(_pointer(entry)), entry.sha256)


def git_sha1(content: bytes) -> str:
    """Return the id that git gives this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 git's own


def _pointer(entry: Entry) -> bytes:
    """Return the small file that git keeps in place of an LFS file."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256}\nsize {entry.size}\n"
    return text.encode()


def _fold(files: list[Entry]) -> tuple[list[Entry], str]:
    """Return the folders that the files lie in, and the id of the whole tree."""
    digests = {".": hashlib.sha1(b"tree")}  # noqa: S324 git's own
    for file in sorted(files, key=_path):
        for parent in PurePosixPath(file.path).parents:
            digest = digests.setdefault(str(parent), hashlib.sha1(b"tree"))  # noqa: S324 git's own
            digest.update(f"{file.oid} {file.sha256} {file.path}\n".encode())
    commit = digests.pop(".").hexdigest()
    return [Entry(path, 0, digest.hexdigest(), folder=True) for path, digest in digests.items()], commit
