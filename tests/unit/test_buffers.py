"""The memory of transfers."""

from __future__ import annotations

import mmap
from contextlib import ExitStack

import pytest

from distributed_downloader.transfer.buffers import SMALLEST, TOGETHER, Buffers

LARGE, HUGE = 4 << 20, 1 << 40


def test_what_rests_is_not_filled_until_the_next_turn() -> None:
    with Buffers(set()) as buffers:
        first = buffers.get(4, HUGE)
        first[:] = b"rest"
        buffers.turn()
        buffers.get(4, HUGE)[:] = b"fill"
        assert bytes(first) == b"rest"
        buffers.turn()
        assert buffers.get(4, HUGE).obj is first.obj  # no third one


@pytest.mark.parametrize(
    ("size", "left", "got"),
    [
        (LARGE, HUGE, LARGE),
        (LARGE, 32 << 20, 2 << 20),  # so that little is left to hash when the last byte has come
        (LARGE, 2 << 20, SMALLEST),
        (LARGE, 10, 10),
        (100, HUGE, 100),
    ],
)
def test_a_piece_is_no_larger_than_it_pays(size: int, left: int, got: int) -> None:
    with Buffers(set()) as buffers:
        assert len(buffers.get(size, left)) == got


def test_what_is_large_does_not_come_from_the_heap_which_would_keep_it() -> None:
    with Buffers(set()) as buffers:
        assert isinstance(buffers.get(SMALLEST, HUGE).obj, mmap.mmap)
        buffers.turn()
        assert isinstance(buffers.get(SMALLEST - 1, HUGE).obj, bytearray)


@pytest.mark.parametrize("transfers", [1, 4, 8, 16, 64])
def test_transfers_share_the_memory(transfers: int) -> None:
    together: set[Buffers] = set()
    with ExitStack() as stack:
        several = [stack.enter_context(Buffers(together)) for _ in range(transfers)]
        sizes = [len(buffers.get(LARGE, HUGE)) for buffers in several]
        assert sum(sizes) * 2 <= max(TOGETHER, 2 * SMALLEST * transfers)
        assert min(sizes) == max(sizes) >= SMALLEST
    assert together == set()


def test_a_large_buffer_gets_smaller_when_others_come() -> None:
    together: set[Buffers] = set()
    with ExitStack() as stack:
        first = stack.enter_context(Buffers(together))
        large = first.get(LARGE, HUGE)
        for _ in range(15):
            stack.enter_context(Buffers(together))
        small = first.get(LARGE, HUGE)
        assert len(memoryview(small.obj)) == SMALLEST < len(large)
