"""A repo of any number of files that exists nowhere: names, sizes and bytes are computed when asked for."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import BinaryIO, overload

from distributed_downloader.local_hub.repo import Entry, git_sha1


class SyntheticSnapshot(Sequence[Entry]):
    """`count` small files `part-NNN/file-NNNNNNN.txt`; use as `LocalRepo(SyntheticSnapshot(1_000_000))`."""

    def __init__(self, count: int, size: int = 64) -> None:
        self._count, self._size = count, size
        self.commit = hashlib.sha1(f"{count} {size}".encode()).hexdigest()

    @property
    def entries(self) -> Sequence[Entry]:
        return self

    def find(self, path: str) -> Entry | None:
        found = re.fullmatch(r"part-\d+/file-(\d+)\.txt", path)
        entry = self[int(found[1])] if found and int(found[1]) < self._count else None
        return entry if entry and entry.path == path else None

    def open(self, entry: Entry) -> BinaryIO:
        return io.BytesIO(self.content(entry.path))

    def content(self, path: str) -> bytes:
        """Return a file's bytes."""
        line = f"{path}\n".encode()
        return (line * (self._size // len(line) + 1))[: self._size]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        path = f"part-{index // 1000:03}/file-{index:07}.txt"
        return Entry(path, self._size, git_sha1(self.content(path)))
