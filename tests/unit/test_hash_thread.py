"""Hashes that are computed in a thread of their own: alone, in a partial and in a part."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_downloader import verify
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import CorruptError
from distributed_downloader.models import Part
from distributed_downloader.storage import RepoFolder
from distributed_downloader.storage.place import make_place
from distributed_downloader.storage.records import RECORD_SIZE
from distributed_downloader.storage.split import SplitFile
from distributed_downloader.verify import Data, HashThread
from tests.unit.test_storage import file, spec

MIB = 1 << 20
BIG = os.urandom(5 * MIB + 17)
PIECES = [BIG[start : start + MIB] for start in range(0, len(BIG), MIB)]
LONG = 60.0


def hash_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hash"]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert hash_threads() == []


@pytest.fixture
def aside() -> Iterator[HashThread]:
    thread = HashThread()
    yield thread
    thread.close()


def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


class NoMemory:
    """A queue that takes nothing."""

    def put(self, _: object) -> None:
        raise MemoryError


# -- the thread alone -----------------------------------------------------------------------------


def test_large_pieces_are_taken_in_the_thread_and_small_ones_are_not(aside: HashThread) -> None:
    taken = list[tuple[int, bool]]()

    def take(data: Data) -> None:
        taken.append((len(data), threading.current_thread() is threading.main_thread()))

    for piece in (b"small", PIECES[0], PIECES[1], b"small", PIECES[2]):
        aside.feed(take, piece)
    aside.wait()
    # The first large one may be the only one, and is not worth a thread.
    assert taken == [(5, True), (MIB, True), (MIB, False), (5, True), (MIB, False)]


def test_a_file_of_small_pieces_has_no_thread(aside: HashThread) -> None:
    for _ in range(10):
        aside.feed(len, b"small")
    assert hash_threads() == []


def test_feeding_does_not_wait_for_the_piece_itself(aside: HashThread) -> None:
    go = threading.Event()
    aside.feed(len, PIECES[0])
    aside.feed(lambda _: go.wait(LONG), PIECES[1])
    go.set()
    aside.wait()


def test_the_next_feed_waits_for_the_piece_before(aside: HashThread) -> None:
    done = list[str]()
    aside.feed(len, PIECES[0])
    for name in "abcdef":
        aside.feed(lambda _, name=name: done.append(name), PIECES[1])  # type: ignore[misc]
        assert done == list("abcdef"[: len(done)])
        assert len(done) >= "abcdef".index(name)
    aside.wait()
    assert done == list("abcdef")


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=30))
def test_two_buffers_in_turn_give_the_right_hash(sizes: list[int]) -> None:
    aside, digest, whole = HashThread(), hashlib.sha256(), hashlib.sha256()
    buffers = [bytearray(60), bytearray(60)]
    before, verify._WORTH_IT = verify._WORTH_IT, 20
    try:
        for number, size in enumerate(sizes):
            view = memoryview(buffers[number % 2])[:size]
            view[:] = os.urandom(size)
            whole.update(view)
            aside.feed(digest.update, view)
        aside.wait()
    finally:
        verify._WORTH_IT = before
        aside.close()
    assert digest.digest() == whole.digest()


def test_what_goes_wrong_is_raised_by_every_call_from_then_on(aside: HashThread) -> None:
    def fail(_: Data) -> None:
        raise MemoryError("none left")

    aside.feed(len, PIECES[0])
    aside.feed(fail, PIECES[1])
    for again in (
        aside.wait,
        lambda: aside.feed(len, PIECES[1]),
        lambda: aside.feed(len, b"small"),
        aside.wait,
    ):
        with pytest.raises(MemoryError, match="none left"):
            again()


class Buffer(bytearray):
    """A buffer that can be seen to go."""


def test_an_error_keeps_no_buffer_once_the_thread_is_closed() -> None:
    def fail(_: Data) -> None:
        raise MemoryError

    def fill() -> None:
        buffer = Buffer(PIECES[0])
        buffers.append(weakref.ref(buffer))
        for take in (len, fail, len):
            aside.feed(take, memoryview(buffer))

    aside, buffers = HashThread(), list[weakref.ref[Buffer]]()
    gc.disable()
    try:
        with suppress(MemoryError):
            fill()
        aside.close()
        assert [buffer() for buffer in buffers] == [None]
    finally:
        gc.enable()


def test_without_a_thread_everything_is_taken_at_once(
    aside: HashThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_threads(monkeypatch)
    digest = hashlib.sha256()
    for piece in PIECES:
        aside.feed(digest.update, piece)
    assert digest.digest() == hashlib.sha256(BIG).digest()


def test_a_piece_that_no_memory_is_left_to_hand_over_is_not_waited_for(
    aside: HashThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256()
    for piece in PIECES[:2]:
        aside.feed(digest.update, piece)
    aside.wait()
    with monkeypatch.context() as dry:
        dry.setattr(aside, "_pieces", NoMemory())
        with pytest.raises(MemoryError):
            aside.feed(digest.update, PIECES[2])
    waiting = threading.Thread(target=aside.wait, daemon=True)
    waiting.start()
    waiting.join(LONG)
    assert not waiting.is_alive()
    for piece in PIECES[2:]:
        aside.feed(digest.update, piece)
    aside.wait()
    assert digest.digest() == hashlib.sha256(BIG).digest()


def test_a_thread_whose_start_failed_late_is_not_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    aside, digest, begun = HashThread(), hashlib.sha256(), list[threading.Thread]()
    start = threading.Thread.start

    def begin_and_fail(thread: threading.Thread) -> None:
        start(thread)
        begun.append(thread)
        raise RuntimeError("can't allocate lock")

    aside.feed(digest.update, PIECES[0])
    with monkeypatch.context() as dry:
        dry.setattr(threading.Thread, "start", begin_and_fail)
        aside.feed(digest.update, PIECES[1])
    for piece in PIECES[2:]:
        aside.feed(digest.update, piece)
    closing = threading.Thread(target=aside.close, daemon=True)
    closing.start()
    closing.join(LONG)
    assert not closing.is_alive()
    assert digest.digest() == hashlib.sha256(BIG).digest()
    begun[0].join(LONG)
    assert not begun[0].is_alive()


def test_closing_again_or_before_anything_is_harmless() -> None:
    thread = HashThread()
    thread.close()
    thread.feed(len, PIECES[0])
    thread.feed(len, PIECES[1])
    thread.close()
    thread.close()
    assert hash_threads() == []


def test_closing_takes_what_was_fed() -> None:
    digest, thread = hashlib.sha256(), HashThread()
    for piece in PIECES:
        thread.feed(digest.update, piece)
    thread.close()
    assert digest.digest() == hashlib.sha256(BIG).digest()


# -- a partial ------------------------------------------------------------------------------------


def write(root: Path, pieces: list[bytes]) -> None:
    """Write and publish a file through two buffers in turn."""
    repo_file, folder = file(content=BIG), RepoFolder(root, spec())
    buffers = [bytearray(MIB), bytearray(MIB)]
    with folder.partial(repo_file, Cancel()) as partial:
        for number, piece in enumerate(pieces):
            view = memoryview(buffers[number % 2])[: len(piece)]
            view[:] = piece
            partial.write(view)
        partial.check()
        folder.publish(partial, repo_file)


def test_a_large_file(tmp_path: Path) -> None:
    write(tmp_path, PIECES)
    assert (tmp_path / "org/name/f.bin").read_bytes() == BIG


def test_a_large_file_where_no_thread_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_threads(monkeypatch)
    write(tmp_path, PIECES)
    assert (tmp_path / "org/name/f.bin").read_bytes() == BIG


@pytest.mark.parametrize("number", range(len(PIECES)))
def test_one_wrong_bit_in_any_piece(tmp_path: Path, number: int) -> None:
    wrong = list(PIECES)
    wrong[number] = wrong[number][:-1] + bytes([wrong[number][-1] ^ 1])
    with pytest.raises(CorruptError, match="sha256"):
        write(tmp_path, wrong)
    assert not (tmp_path / "org/name/f.bin").exists()


def test_a_hash_that_becomes_known_in_the_middle(tmp_path: Path) -> None:
    masked, known = file(content=BIG, masked=True), file(content=BIG)
    with RepoFolder(tmp_path, spec()).partial(masked, Cancel()) as partial:
        for piece in PIECES[:3]:
            partial.write(piece)
        partial.expect(known)
        for piece in PIECES[3:]:
            partial.write(piece)
        partial.check()


def test_reset_in_the_middle(tmp_path: Path) -> None:
    with RepoFolder(tmp_path, spec()).partial(file(content=BIG), Cancel()) as partial:
        for piece in reversed(PIECES):
            partial.write(piece)
        partial.reset()
        for piece in PIECES:
            partial.write(piece)
        partial.check()


# -- a part ---------------------------------------------------------------------------------------


def test_the_records_of_a_part(tmp_path: Path) -> None:
    content = os.urandom(RECORD_SIZE + 5 * MIB + 3)
    make_place(tmp_path, create_root=True)
    split = SplitFile(tmp_path, spec(), file(content=content), Cancel())
    split.prepare()
    start = MIB + 5
    with split.part(Part(start=start, length=len(content) - start, seal=0)) as sink:
        buffers = [bytearray(MIB), bytearray(MIB)]
        for number, offset in enumerate(range(start, len(content), MIB)):
            piece = content[offset : offset + MIB]
            view = memoryview(buffers[number % 2])[: len(piece)]
            view[:] = piece
            sink.write(view)
        records = sink.finish()
    assert [(record.start, record.end) for record in records] == [
        (start, RECORD_SIZE),
        (RECORD_SIZE, len(content)),
    ]
    for record in records:
        assert record.sha256 == hashlib.sha256(content[record.start : record.end]).hexdigest()


def test_what_lies_behind_the_end_may_change_at_once(tmp_path: Path) -> None:
    make_place(tmp_path, create_root=True)
    split = SplitFile(tmp_path, spec(), file(content=BIG), Cancel())
    split.prepare()
    with split.part(Part(start=0, length=len(BIG), seal=0)) as sink:
        sink.write(PIECES[0])
        buffer = bytearray(PIECES[1])
        sink.write(buffer)  # type: ignore[arg-type]
        sink.shorten(2 * MIB)
        sink.write(PIECES[2])
        buffer[:] = bytes(MIB)
        (record,) = sink.finish()
    assert record.sha256 == hashlib.sha256(BIG[: 2 * MIB]).hexdigest()


class Failing:
    """A hash that fails to take its second piece."""

    def __init__(self) -> None:
        self._hash, self._count = hashlib.sha256(), 0

    def update(self, data: Data) -> None:
        self._count += 1
        if self._count == 2:
            raise MemoryError
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def test_nothing_is_recorded_over_a_piece_that_was_not_hashed(tmp_path: Path) -> None:
    make_place(tmp_path, create_root=True)
    split = SplitFile(tmp_path, spec(), file(content=BIG), Cancel())
    split.prepare()
    part = Part(start=0, length=len(BIG), seal=0)
    with pytest.raises(MemoryError), split.part(part) as sink:
        sink._hash = Failing()  # type: ignore[assignment]
        for piece in PIECES:
            sink.write(piece)
    with split.part(part) as sink:
        assert sink.size == 0
