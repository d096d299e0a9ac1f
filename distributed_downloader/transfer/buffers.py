"""The memory of transfers: while one buffer is written and hashed, the other one is filled."""

from __future__ import annotations

import mmap

#: Bytes that the buffers of all transfers take together, as long as each may have the second.
TOGETHER, SMALLEST = 32 << 20, 1 << 20
#: A buffer is no larger than such a share of what is left, so that little is hashed when all has come.
_SHARE = 16


class Buffers:
    """Two buffers in turn, no larger than they are asked for; a context manager, whose end frees them."""

    def __init__(self, together: set[Buffers]) -> None:
        """All that are entered are in `together`: the more there are, the smaller they are."""
        self._together = together
        self._filling = self._resting = memoryview(b"")

    def __enter__(self) -> Buffers:
        self._together.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._together.discard(self)
        self._filling = self._resting = memoryview(b"")

    def get(self, size: int, left: int) -> memoryview:
        """Return up to `size` bytes to fill, of `left` that are to come."""
        most = max(SMALLEST, TOGETHER // (2 * len(self._together)))
        size = min(size, left, most, max(SMALLEST, left // _SHARE))
        if not size <= len(self._filling) <= most:
            self._filling = _memory(size)
        return self._filling[:size]

    def turn(self) -> None:
        """Let what `get` gave rest until the next call of this, and give the other one."""
        self._filling, self._resting = self._resting, self._filling


def _memory(size: int) -> memoryview:
    """Return so many bytes; what is large goes back to the system when it is freed, not into the heap."""
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return memoryview(mmap.mmap(-1, size, private) if size >= SMALLEST else bytearray(size))
