"""An output folder, open: what is done through it is done in that folder, whatever has its path by then."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

from distributed_downloader.lately import MOMENT
from distributed_downloader.storage.disk import open_below, open_root
from distributed_downloader.storage.place import other_place, require_same_place

_NEVER = -math.inf


class Root:
    """The folders below an output folder, each opened once for a block: `with root: root.enter(parts)`.

    Blocks may lie in one another: all is closed at the end of the outermost. For one thread. With a `place`,
    nothing is made nor found in a folder that has another id: PlaceUnseenError. What was opened more than a
    moment ago is opened again when it is asked for, because folders are moved while a transfer lasts.
    """

    def __init__(self, path: Path, place: str = "") -> None:
        self._path, self._place = path, place
        self._depth, self._since, self._top = 0, _NEVER, -1
        self._inner: dict[tuple[bytes, ...], int] = {}
        #: All that the block has opened, whoever still uses it.
        self._open: list[int] = []

    def __enter__(self) -> Root:
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._since = _NEVER
            while self._open:
                os.close(self._open.pop())

    def enter(self, parts: tuple[bytes, ...], *, create: bool = True) -> int:
        """Return the descriptor of `root/part/part...`, good in this block; raises as `open_folder`."""
        if time.monotonic() - self._since > MOMENT:
            self.look(create=create)
        fd = self._inner.get(parts)
        if fd is None:
            fd = self._inner[parts] = open_below(self._top, parts, self._path, create=create)
            self._open.append(fd)
        return fd

    def forget(self) -> None:
        """Open everything again when it is asked for."""
        self._since = _NEVER

    def look(self, *, create: bool = False) -> None:
        """Open what has the folder's path now, if it is the place; that is good for a moment."""
        try:
            top = open_root(self._path, create=create and not self._place)
        except FileNotFoundError:
            if self._place:
                raise other_place(self._path) from None
            raise
        self._open.append(top)
        if self._place:
            require_same_place(top, self._path, self._place)
        self._top, self._since, self._inner = top, time.monotonic(), {}
