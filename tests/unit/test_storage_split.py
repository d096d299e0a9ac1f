"""Split files: their journal, parts that many write at once, and what happens to both in the end."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    LocalError,
    PlaceError,
    PlaceUnseenError,
    RefusedError,
    RoomError,
    StoppedError,
    TransientError,
)
from distributed_downloader.models import Part, RepoFile
from distributed_downloader.outcome import Range, Record
from distributed_downloader.storage import RepoFolder, room
from distributed_downloader.storage import records as records_module
from distributed_downloader.storage import sink as sink_module
from distributed_downloader.storage import split as split_module
from distributed_downloader.storage.leftovers import sweep
from distributed_downloader.storage.place import make_place
from distributed_downloader.storage.records import (
    RECORD_SIZE,
    add_record,
    cut,
    gaps,
    reach,
    read_records,
    touching,
)
from distributed_downloader.storage.room import Room
from distributed_downloader.storage.split import SplitFile
from distributed_downloader.transfer.engine import Sink
from tests.unit.test_storage import age, failing, file, put, spec

SIZE = 1000
CONTENT = bytes(os.urandom(SIZE))
FILE = file("a/big.bin", CONTENT)
ZEROS = "0" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_place(tmp_path / "out", create_root=True)
    return tmp_path / "out"


@pytest.fixture
def split(root: Path) -> SplitFile:
    return SplitFile(root, spec(), FILE, Cancel())


@pytest.fixture(autouse=True)
def _small_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "RECORD_SIZE", 100)


@pytest.fixture(autouse=True)
def _unknown_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_module, "_OWNERS", {})


def part(start: int, end: int) -> Part:
    return Part(start=start, length=end - start, seal=0)


def record(start: int, end: int, content: bytes = CONTENT) -> Record:
    return Record(start, end - start, hashlib.sha256(content[start:end]).hexdigest())


def write(split: SplitFile, start: int, end: int) -> tuple[Record, ...]:
    with split.part(part(start, end)) as sink:
        sink.write(CONTENT[start + sink.size : end])
        return sink.finish()


def missing(split: SplitFile, size: int) -> list[Range]:
    return list(cut(gaps(split.records(), SIZE), size))


def partial(root: Path) -> Path:
    return root / ".hf-downloader" / "partial"


def journal(split: SplitFile) -> Path:
    return split.path.with_suffix(".records")


# -- the journal (pure) ---------------------------------------------------------------------------

LENGTH = 200


@st.composite
def record_lists(draw: st.DrawFn) -> list[Record]:
    starts = st.integers(0, LENGTH - 1)
    pairs = draw(st.lists(st.tuples(starts, st.integers(1, LENGTH)), max_size=12))
    return sorted(Record(start, min(length, LENGTH - start), ZEROS) for start, length in pairs)


def covered(ranges: list[Record] | list[Range]) -> set[int]:
    return {byte for found in ranges for byte in range(found.start, found.end)}


@settings(deadline=None)
@given(record_lists(), st.integers(1, LENGTH + 10))
def test_what_is_missing_is_exactly_what_no_record_covers(records: list[Record], size: int) -> None:
    ranges = list(cut(gaps(records, LENGTH), size))
    assert covered(ranges) == set(range(LENGTH)) - covered(records)
    assert sum(found.length for found in ranges) == len(covered(ranges))  # none twice
    assert ranges == sorted(ranges)
    for found in ranges:
        assert 0 < found.length <= size
        assert found.start // size == (found.end - 1) // size  # none lies across a multiple
        # It begins at a multiple, or where a record ends.
        assert found.start % size == 0 or found.start - 1 in covered(records)


@settings(deadline=None)
@given(record_lists(), st.integers(0, LENGTH - 1))
def test_reach_is_the_first_byte_that_is_missing(records: list[Record], start: int) -> None:
    there = covered(records)
    expected = next(byte for byte in range(start, LENGTH + 1) if byte not in there)
    assert reach(records, start) == expected


@settings(deadline=None)
@given(record_lists(), st.lists(st.tuples(st.integers(0, LENGTH), st.integers(1, 30)), max_size=5))
@example([Record(0, 10, ZEROS), Record(10, 10, ZEROS), Record(20, 10, ZEROS)], [(10, 10)])
def test_touching(records: list[Record], pairs: list[tuple[int, int]]) -> None:
    ranges = [Range(*pair) for pair in pairs]
    touches = touching(iter(ranges))
    for found in records:
        assert touches(found) is bool(covered([found]) & covered(ranges))


@pytest.mark.parametrize(
    "name",
    [
        "x",
        f"0+0.{ZEROS}",
        f"00+1.{ZEROS}",
        f"0+01.{ZEROS}",
        f"-1+1.{ZEROS}",
        f"0+{RECORD_SIZE + 1}.{ZEROS}",
        f"999+2.{ZEROS}",
        f"0+1.{ZEROS[1:]}",
        f"0+1.{ZEROS}0",
        f"0+1.{ZEROS}.tmp",
        f"0+1.{'A' * 64}",
        f"\u0661+1.{ZEROS}",
        f"{'9' * 30}+1.{ZEROS}",
        f".nfs0+1.{ZEROS}",
    ],
)
def test_names_that_are_no_records(split: SplitFile, name: str) -> None:
    split.prepare()
    journal(split).mkdir()
    (journal(split) / name).touch()
    assert split.records() == []


def test_records_that_are_no_files(split: SplitFile) -> None:
    split.prepare()
    journal(split).mkdir()
    (journal(split) / str(record(0, 10))).mkdir()
    (journal(split) / str(record(20, 30))).symlink_to(split.path)
    (journal(split) / str(record(40, 50))).touch()
    assert split.records() == [record(40, 50)]


def test_records_around_a_range(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked about the others, for a large file has very many."""
    monkeypatch.setattr(records_module, "RECORD_SIZE", 100)
    write(split, 0, SIZE)
    (journal(split) / "nonsense").touch()
    (journal(split) / str(record(160, 260))).touch()
    asked, real = list[str](), records_module._parse

    def parse(name: str) -> Record | None:
        asked.append(name)
        return real(name)

    monkeypatch.setattr(records_module, "_parse", parse)
    fd = os.open(journal(split), os.O_RDONLY)
    around = read_records(fd, SIZE, Range(250, 60))
    os.close(fd)
    assert around == [record(160, 260), record(200, 300), record(300, 400)]
    assert sorted(asked) == sorted(map(str, around))


def test_records_come_by_their_start(tmp_path: Path) -> None:
    added = [Record(start, 1, ZEROS) for start in (10, 9, 100, 0)]
    fd = os.open(tmp_path, os.O_RDONLY)
    for one in added:
        add_record(fd, one)
        add_record(fd, one)
    assert read_records(fd, SIZE) == sorted(added)
    os.close(fd)


# -- preparing ------------------------------------------------------------------------------------


def test_a_prepared_file_is_private_and_has_its_size(root: Path, split: SplitFile) -> None:
    split.prepare()
    info = split.path.stat()
    assert (info.st_size, stat.S_IMODE(info.st_mode), info.st_nlink) == (SIZE, 0o600, 1)
    assert list(partial(root).iterdir()) == [split.path]
    assert split.records() == []
    assert missing(split, 300) == [Range(0, 300), Range(300, 300), Range(600, 300), Range(900, 100)]


def test_a_file_exists_in_its_full_size_or_not_at_all(split: SplitFile) -> None:
    assert not split.exists()
    split.prepare()
    assert split.exists()
    os.truncate(split.path, SIZE - 1)
    assert not split.exists()


def test_preparing_again_changes_nothing(split: SplitFile) -> None:
    split.prepare()
    write(split, 0, SIZE)
    before = split.path.stat()
    split.prepare()
    after = split.path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert split.path.read_bytes() == CONTENT
    assert missing(split, 100) == []


@pytest.mark.parametrize("size", [None, 0, SIZE - 1, SIZE + 1])
def test_a_journal_without_its_file_is_removed(split: SplitFile, size: int | None) -> None:
    split.prepare()
    write(split, 0, SIZE)
    split.path.unlink() if size is None else os.truncate(split.path, size)
    assert split.records() == []
    assert missing(split, SIZE) == [Range(0, SIZE)]
    split.prepare()
    assert split.path.stat().st_size == SIZE
    assert list(journal(split).iterdir()) == []
    assert missing(split, SIZE) == [Range(0, SIZE)]


def test_who_has_the_file_open_still_writes_it_after_it_was_prepared_anew(split: SplitFile) -> None:
    with split.part(part(0, 100)) as sink:
        os.truncate(split.path, 0)
        split.prepare()
        sink.write(CONTENT[:100])
    assert split.records() == [record(0, 100)]
    assert split.path.read_bytes() == CONTENT[:100] + bytes(SIZE - 100)


def test_each_commit_has_its_own(root: Path, split: SplitFile) -> None:
    split.prepare()
    write(split, 0, 100)
    other = SplitFile(root, spec(commit="b" * 40), FILE, Cancel())
    other.prepare()
    assert other.records() == []
    assert other.path != split.path


def test_the_room_is_reserved(root: Path, split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[tuple[int, ...]]()

    def fallocate(*args: int) -> int:
        calls.append(args[1:])
        return 0

    monkeypatch.setattr(room, "_find_fallocate", lambda: fallocate)
    split.prepare()
    assert calls == [(0, 0, SIZE)]
    os.pwrite(fd := os.open(split.path, os.O_RDWR), b"x" * SIZE, 0)
    os.fsync(fd)
    os.close(fd)
    split.prepare()
    assert len(calls) == 1  # all of it is there


def test_too_little_room(root: Path) -> None:
    huge = SplitFile(root, spec(), RepoFile(path="huge", size=1 << 52), Cancel())
    with pytest.raises(PlaceError, match=r"are needed and .* are free"):
        huge.prepare()
    with pytest.raises(PlaceError), huge.part(part(0, 10)):
        pytest.fail("nothing may be fetched")
    assert list(partial(root).iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_room_that_runs_out(split: SplitFile, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: int) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(room, "_find_fallocate", lambda: full)
    with pytest.raises(PlaceError, match=r"no room for 1.0 kB;") as caught:
        split.prepare()
    # A file that is too large for the disk would not fit into an empty one either.
    assert isinstance(caught.value, RoomError) is (number != errno.EFBIG)


def runs_out(monkeypatch: pytest.MonkeyPatch, during: Callable[[], object] = lambda: None) -> None:
    """Let the disk be full half way, with something that happens at the same time."""

    def fallocate(fd: int, _mode: int, _start: int, length: int) -> int:
        os.pwrite(fd, b"0", length // 2)
        during()
        ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(room, "_find_fallocate", lambda: fallocate)


def test_what_was_reserved_in_vain_is_given_back(
    root: Path, split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_out(monkeypatch)
    for _ in range(2):
        with pytest.raises(RoomError):
            split.prepare()
        assert list(partial(root).iterdir()) == []
    journal(split).mkdir()
    with pytest.raises(RoomError):
        split.prepare()
    assert list(partial(root).iterdir()) == []


def test_what_was_written_before_the_room_ran_out_stays(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(split, 0, 300)
    before = split.records()
    runs_out(monkeypatch)
    monkeypatch.setattr(split_module, "_room_of", lambda _info: 0)
    with pytest.raises(RoomError):
        split.prepare()
    assert split.records() == before
    assert split.path.read_bytes()[:300] == CONTENT[:300]


def test_nothing_is_given_back_that_somebody_else_made(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        split.path.unlink()
        split.path.write_bytes(CONTENT)

    runs_out(monkeypatch, replace)
    with pytest.raises(RoomError):
        split.prepare()
    assert split.path.read_bytes() == CONTENT


def test_a_disk_that_cannot_reserve_has_room_for_each_part(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_find_fallocate", lambda: None)
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((1, 1, 9000, SIZE, SIZE, *[0] * 5)))
    shared = Room(0)
    split = SplitFile(root, spec(), FILE, Cancel(), shared)
    split.prepare()
    with split.part(part(0, 700)) as sink, split.part(part(700, SIZE)):
        with pytest.raises(PlaceError, match=r"1.0 kB are for transfers"):
            shared.take(root, 1).__enter__()
        sink.write(CONTENT[:500])
        with shared.take(root, 500):
            pass
        sink.shorten(600)
        with shared.take(root, 600):
            pass
    with shared.take(root, SIZE):
        pass


def test_a_target_in_the_way_is_said_early(root: Path, split: SplitFile) -> None:
    (root / "org" / "name" / "a" / "big.bin").mkdir(parents=True)
    with pytest.raises(RefusedError, match="the repo has a file of that name"):
        split.prepare()


@pytest.mark.parametrize("gone", ["root", "state"])
def test_a_place_that_is_gone_is_not_made_again(root: Path, split: SplitFile, gone: str) -> None:
    shutil.rmtree(root if gone == "root" else root / ".hf-downloader")

    def use_part() -> None:
        with split.part(part(0, 10)):
            pytest.fail("there is no place")

    for use in (split.prepare, split.records, split.publish, split.discard, use_part):
        with pytest.raises(PlaceUnseenError, match="is it still mounted"):
            use()
    assert not root.exists() if gone == "root" else list(root.iterdir()) == []


# -- writing parts --------------------------------------------------------------------------------


def test_parts_make_the_file(split: SplitFile) -> None:
    split.prepare()
    for start, end in ((500, 777), (0, 500), (777, SIZE)):
        records = write(split, start, end)
        assert (records[0].start, records[-1].end) == (start, end)
    assert split.path.read_bytes() == CONTENT
    assert missing(split, 100) == []
    assert all(found == record(found.start, found.end) for found in split.records())


def test_records_end_at_multiples_of_their_size(split: SplitFile) -> None:
    assert write(split, 130, 430) == (record(130, 200), record(200, 300), record(300, 400), record(400, 430))


def test_a_sink_is_what_engines_write_to(split: SplitFile) -> None:
    with split.part(part(100, 200)) as sink:
        typed: Sink = sink
        assert (typed.start, typed.size, typed.end) == (100, 0, 200)
        assert (typed.proves, typed.unproven, typed.inherited) == (True, False, 0)
        typed.expect(FILE)
        typed.write(CONTENT[100:150])
        assert typed.size == 50
        typed.reset()
        assert typed.size == 0
        typed.write(CONTENT[100:200])
    assert split.records() == [record(100, 200)]


def test_a_whole_partial_is_one_too(root: Path) -> None:
    with RepoFolder(root, spec()).partial(FILE, Cancel()) as whole:
        typed: Sink = whole
        assert (typed.start, typed.size, typed.end) == (0, 0, SIZE)


@pytest.mark.parametrize("chunk", [1, 7, 100, 99, 250, SIZE])
def test_chunks_of_any_size(split: SplitFile, chunk: int) -> None:
    with split.part(part(50, 950)) as sink:
        for start in range(50, 950, chunk):
            sink.write(CONTENT[start : min(950, start + chunk)])
    assert [found.start for found in split.records()] == [50, *range(100, 1000, 100)]
    assert split.path.read_bytes() == bytes(50) + CONTENT[50:950] + bytes(50)


def test_nothing_is_written_behind_the_end(split: SplitFile) -> None:
    with split.part(part(0, 150)) as sink:
        sink.write(CONTENT)
        assert sink.size == 150
    assert split.path.read_bytes() == CONTENT[:150] + bytes(SIZE - 150)
    assert split.records() == [record(0, 100), record(100, 150)]


def test_half_written_pieces(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
    write(split, 0, 150)
    assert split.records() == [record(0, 100), record(100, 150)]


def test_a_record_comes_after_its_bytes_are_on_disk(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = list[str]()
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            order.append("fsync")
        real_fsync(fd)

    def add(folder: int, one: Record) -> None:
        order.append(f"{one.start}")
        add_record(folder, one)

    with split.part(part(0, 250)) as sink:
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(sink_module, "add_record", add)
        sink.write(CONTENT[:250])
        assert order == ["fsync", "0", "fsync", "100"]
        sink.finish()
    assert order == ["fsync", "0", "fsync", "100", "fsync", "200"]


def test_what_one_fsync_could_not_save_the_next_does_not_vouch_for(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use() -> None:
        with split.part(part(0, SIZE)) as sink:
            sink.write(CONTENT[:150])
            with failing(monkeypatch, "fsync", errno.EIO):
                sink.finish()

    with pytest.raises(LocalError, match="the disk fails"):
        use()
    assert split.records() == [record(0, 100)]


@pytest.mark.parametrize("error", [StoppedError, KeyError, KeyboardInterrupt])
def test_what_was_written_before_an_error_is_recorded(split: SplitFile, error: type[BaseException]) -> None:
    with pytest.raises(error), split.part(part(0, SIZE)) as sink:
        sink.write(CONTENT[:120])
        raise error
    assert split.records() == [record(0, 100), record(100, 120)]


def test_nothing_was_written(split: SplitFile) -> None:
    with split.part(part(0, SIZE)) as sink:
        assert sink.finish() == ()
    with pytest.raises(KeyError), split.part(part(0, SIZE)):
        raise KeyError
    assert split.records() == []


def test_a_full_disk(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LocalError, match="free some space"), split.part(part(0, SIZE)) as sink:
        sink.write(CONTENT[:120])
        with failing(monkeypatch, "pwrite", errno.ENOSPC):
            sink.write(CONTENT[120:])
    assert split.records() == [record(0, 100), record(100, 120)]


def test_the_blocks_own_errors_are_not_taken_for_the_disks(split: SplitFile) -> None:
    with pytest.raises(ConnectionResetError), split.part(part(0, SIZE)):
        raise ConnectionResetError
    split.prepare()
    with pytest.raises(ConnectionResetError), split.reader():
        raise ConnectionResetError


def test_memory_stays_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "RECORD_SIZE", RECORD_SIZE)
    chunk, count = bytes(1 << 20), 40
    big = SplitFile(root, spec(), RepoFile(path="big", size=count << 20), Cancel())
    big.prepare()
    tracemalloc.start()
    with big.part(part(0, count << 20)) as sink:
        for _ in range(count):
            sink.write(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert [found.length for found in big.records()] == [16 << 20, 16 << 20, 8 << 20]


# -- guard and shorten ----------------------------------------------------------------------------


def test_the_guard_is_asked_before_each_write(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    order, real = list[str](), os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        order.append("write")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with split.part(part(0, SIZE)) as sink:
        sink.guard = lambda: order.append("guard")
        sink.write(CONTENT[:250])
    assert order == ["guard", "write"] * 3


def test_a_guard_that_refuses(split: SplitFile) -> None:
    def lost() -> None:
        raise StoppedError("the part is somebody else's")

    with pytest.raises(StoppedError), split.part(part(0, SIZE)) as sink:
        sink.write(CONTENT[:100])
        sink.guard = lost
        sink.write(CONTENT[100:])
    assert split.path.read_bytes() == CONTENT[:100] + bytes(SIZE - 100)
    assert split.records() == [record(0, 100)]


def test_a_part_that_is_shortened_by_another_thread_while_it_is_written(split: SplitFile) -> None:
    with split.part(part(100, 900)) as sink:
        writes = list[int]()

        def guard() -> None:
            writes.append(sink.size)
            if len(writes) == 3:
                thread = threading.Thread(target=sink.shorten, args=(450,))
                thread.start()
                thread.join()

        sink.guard = guard
        sink.write(CONTENT[100:900])
        assert (sink.end, sink.size) == (450, 350)
        assert sink.finish() == tuple(record(at, min(at + 100, 450)) for at in (100, 200, 300, 400))
    assert split.path.read_bytes() == bytes(100) + CONTENT[100:450] + bytes(550)


def test_shortening_below_what_is_there(split: SplitFile) -> None:
    with split.part(part(100, 900)) as sink:
        sink.write(CONTENT[100:350])
        sink.shorten(250)
        assert (sink.end, sink.size) == (250, 250)
        sink.write(CONTENT[350:])
        assert sink.finish() == (record(100, 200), record(200, 300), record(300, 350))


def test_the_end_only_comes_nearer(split: SplitFile) -> None:
    with split.part(part(100, 900)) as sink:
        for end, expected in ((800, 800), (850, 800), (2000, 800), (50, 100), (0, 100)):
            sink.shorten(end)
            assert sink.end == expected
        sink.write(CONTENT)
    assert split.records() == []


# -- going on -------------------------------------------------------------------------------------


def test_a_prefix_is_skipped(split: SplitFile) -> None:
    with split.part(part(0, 500)) as sink:
        sink.write(CONTENT[:220])
    with split.part(part(0, 500)) as sink:
        assert sink.size == 220
        sink.write(CONTENT[220:500])
        expected = [(0, 100), (100, 200), (200, 220), (220, 300), (300, 400), (400, 500)]
        assert sink.finish() == tuple(record(*pair) for pair in expected)


def test_what_lies_behind_a_gap_is_fetched_again(split: SplitFile) -> None:
    write(split, 300, 400)
    with split.part(part(0, 500)) as sink:
        assert sink.size == 0
        sink.write(CONTENT[:150])
    with split.part(part(0, 500)) as sink:
        assert sink.size == 150


def test_records_of_other_cuts_count(split: SplitFile) -> None:
    write(split, 0, 1000)
    with split.part(part(250, 650)) as sink:
        assert sink.size == 400  # all there
        assert sink.finish() == tuple(record(at, at + 100) for at in range(200, 700, 100))
        sink.write(CONTENT)
    split.forget([Range(450, 1)])
    with split.part(part(250, 650)) as sink:
        assert sink.size == 150


def test_a_part_that_is_there_writes_nothing(split: SplitFile) -> None:
    write(split, 0, SIZE)
    before = split.path.stat().st_mtime_ns
    with split.part(part(100, 300)) as sink:
        assert sink.size == 200
    assert split.path.stat().st_mtime_ns == before


def test_what_is_forgotten_is_missing(split: SplitFile) -> None:
    write(split, 0, SIZE)
    split.forget([Range(250, 10), Range(790, 20)])
    assert missing(split, 1000) == [Range(200, 100), Range(700, 200)]
    split.forget([Range(0, SIZE)])
    assert missing(split, SIZE) == [Range(0, SIZE)]
    assert split.path.read_bytes() == CONTENT


def test_a_damaged_piece_is_repaired(split: SplitFile) -> None:
    write(split, 0, SIZE)
    os.pwrite(fd := os.open(split.path, os.O_RDWR), b"damage", 333)
    os.close(fd)
    with split.reader() as reader:
        read = ((one, reader.read(one.start, one.length)) for one in split.records())
        bad = [one for one, data in read if hashlib.sha256(data).hexdigest() != one.sha256]
    assert bad == [record(300, 400)]
    split.forget(Range(one.start, one.length) for one in bad)
    for found in missing(split, SIZE):
        write(split, found.start, found.end)
    assert split.path.read_bytes() == CONTENT


def test_a_part_prepares_what_is_gone(split: SplitFile) -> None:
    write(split, 0, SIZE)
    split.path.unlink()
    write(split, 500, 600)
    assert split.records() == [record(500, 600)]
    assert split.path.read_bytes() == bytes(500) + CONTENT[500:600] + bytes(400)


@pytest.mark.parametrize("end", ["published", "discarded", "replaced", "renewed"])
def test_nobody_vouches_for_bytes_in_a_file_that_is_gone(split: SplitFile, end: str) -> None:
    def use() -> None:
        with split.part(part(0, 300)) as sink:
            sink.write(CONTENT[:50])
            if end == "published":
                split.publish()
            elif end == "renewed":
                split.path.unlink()  # and its journal stays
            else:
                split.discard()
            if end in ("replaced", "renewed"):
                split.prepare()
                write(split, 900, SIZE)
            sink.write(CONTENT[50:300])

    with pytest.raises(TransientError, match="was removed while it was in use"):
        use()
    assert split.records() == ([record(900, SIZE)] if end in ("replaced", "renewed") else [])


def test_a_journal_that_is_gone(split: SplitFile) -> None:
    def use() -> None:
        with split.part(part(0, 300)) as sink:
            shutil.rmtree(journal(split))
            sink.write(CONTENT[:300])

    with pytest.raises(TransientError, match="was removed while it was in use"):
        use()


WRITER = """
import sys
from pathlib import Path
from distributed_downloader.storage import sink as sink_module
sink_module.RECORD_SIZE = 100
from tests.unit.test_storage import Cancel, RepoFile, spec
from distributed_downloader.models import Part
from distributed_downloader.storage.split import SplitFile
root, size, start, end = sys.argv[1], *map(int, sys.argv[2:])
split = SplitFile(Path(root), spec(), RepoFile(path="a/big.bin", size=size), Cancel())
def say(text):
    print(text, flush=True)
    sys.stdin.readline()
"""

KILLED = f"""{WRITER}
with split.part(Part(start=start, length=end - start, seal=0)) as sink:
    sink.write(b"x" * 250)
    say("written")
"""

MANY = f"""{WRITER}
say("ready")
for _ in range(20):
    split.prepare()
with split.part(Part(start=start, length=end - start, seal=0)) as sink:
    sink.write(bytes([1 + start // (end - start)]) * (end - start))
say("written")
"""


def start_writer(script: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hear(child: subprocess.Popen[str], text: str) -> None:
    assert child.stdout
    assert child.stdout.readline() == f"{text}\n"


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin
    child.stdin.write("\n")
    child.stdin.flush()


def test_a_killed_writer_loses_only_what_it_had_not_recorded(root: Path, split: SplitFile) -> None:
    child = start_writer(KILLED, root, SIZE, 0, 500)
    hear(child, "written")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with split.part(part(0, 500)) as sink:
        assert sink.size == 200


def test_processes_that_prepare_at_once_have_one_file(root: Path) -> None:
    """Each writes its part as soon as it can, while the others still prepare."""
    count, length = 5, 5000
    children = [
        start_writer(MANY, root, count * length, at * length, (at + 1) * length) for at in range(count)
    ]
    for child in children:
        hear(child, "ready")
    for child in children:
        tell(child)
    for child in children:
        hear(child, "written")
        child.communicate("\n")
    [path] = partial(root).glob("*.split")
    assert path.read_bytes() == b"".join(bytes([1 + at]) * length for at in range(count))


def test_threads_write_parts_of_one_file(split: SplitFile) -> None:
    threads = [
        threading.Thread(target=write, args=(split, start, start + 125)) for start in range(0, SIZE, 125)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert split.path.read_bytes() == CONTENT
    with split.reader() as reader:
        for one in split.records():
            assert hashlib.sha256(reader.read(one.start, one.length)).hexdigest() == one.sha256


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400), st.integers(0, 400)), max_size=8))
def test_whatever_was_interrupted_the_rest_makes_the_file(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int, int]]
) -> None:
    root = tmp_path_factory.mktemp("split")
    make_place(root, create_root=True)
    split = SplitFile(root, spec(), FILE, Cancel())
    for tenth, length, came in pieces:
        start = tenth * 100
        with split.part(part(start, min(SIZE, start + length))) as sink:
            at = sink.start + sink.size
            sink.write(CONTENT[at : at + came])
    split.prepare()
    for found in missing(split, 128):
        with split.part(part(found.start, found.end)) as sink:
            assert sink.size == 0
            sink.write(CONTENT[found.start : found.end])
    assert missing(split, 128) == []
    assert split.path.read_bytes() == CONTENT


# -- reading --------------------------------------------------------------------------------------


def test_reading(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    write(split, 0, SIZE)
    with split.reader() as reader:
        assert reader.read(0, SIZE) == CONTENT
        assert reader.read(990, 100) == CONTENT[990:]
        assert reader.read(SIZE, 10) == b""
        real = os.pread
        monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(7, length), offset))
        assert reader.read(5, 100) == CONTENT[5:105]


def test_what_others_write_is_read(split: SplitFile) -> None:
    split.prepare()
    with split.reader() as reader:
        assert reader.read(0, 10) == bytes(10)
    write(split, 0, 100)
    with split.reader() as reader:
        assert reader.read(0, 10) == CONTENT[:10]


def test_a_file_that_is_gone_reads_as_empty(split: SplitFile) -> None:
    with split.reader() as reader:
        assert reader.read(0, 10) == b""


def test_a_disk_that_fails_to_read(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    split.prepare()
    fails = pytest.raises(LocalError, match="the disk fails")
    with split.reader() as reader, failing(monkeypatch, "pread", errno.EIO), fails:
        reader.read(0, 10)


# -- the end --------------------------------------------------------------------------------------


def test_publishing_replaces_what_is_wrong_and_removes_the_journal(root: Path, split: SplitFile) -> None:
    folder = RepoFolder(root, spec())
    put(folder, file("a/big.bin", b"something else"), b"something else")
    write(split, 0, SIZE)
    split.publish()
    assert folder.has(FILE, Cancel())
    assert list(partial(root).iterdir()) == []
    assert stat.S_IMODE((root / "org/name/a/big.bin").stat().st_mode) & 0o400
    assert split.records() == []


def test_a_published_file_has_the_mode_of_any_other(root: Path, split: SplitFile) -> None:
    put(RepoFolder(root, spec()), file("other"))
    write(split, 0, SIZE)
    split.publish()
    assert (root / "org/name/a/big.bin").stat().st_mode == (root / "org/name/other").stat().st_mode


def test_publishing_goes_on_where_it_was_killed(root: Path, split: SplitFile) -> None:
    write(split, 0, SIZE)
    split.path.chmod(0o644)  # the step before the rename
    split.publish()
    assert RepoFolder(root, spec()).has(FILE, Cancel())


PUBLISHING = f"""{WRITER}
import os
def killed(*_args, **_where):
    os._exit(9)
os.rename = killed
split.publish()
"""


def test_who_is_killed_while_publishing_loses_nothing(root: Path, split: SplitFile) -> None:
    write(split, 0, SIZE)
    before = split.records()
    child = start_writer(PUBLISHING, root, SIZE, 0, SIZE)
    child.communicate()
    assert child.returncode == 9
    assert split.exists()
    assert split.records() == before
    split.publish()
    assert RepoFolder(root, spec()).has(FILE, Cancel())
    assert list(partial(root).iterdir()) == []


def test_publishing_what_is_gone(split: SplitFile) -> None:
    with pytest.raises(TransientError, match="was removed"):
        split.publish()


def test_a_journal_that_stays_does_not_undo_the_publishing(
    root: Path, split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(split, 0, SIZE)
    with failing(monkeypatch, "rmdir", errno.EIO):
        split.publish()
    assert RepoFolder(root, spec()).has(FILE, Cancel())
    assert split.records() == []


def test_a_record_that_comes_while_the_journal_is_removed(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(split, 0, SIZE)
    real, calls = os.rmdir, list[object]()

    def late(name: bytes, *, dir_fd: int) -> None:
        if not calls:
            (journal(split) / str(record(0, 1))).touch()
        calls.append(name)
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", late)
    split.publish()
    assert len(calls) == 2
    assert not journal(split).exists()


def test_discarding(root: Path, split: SplitFile) -> None:
    write(split, 0, SIZE)
    for _ in range(2):
        split.discard()
        assert list(partial(root).iterdir()) == []


def test_no_descriptor_is_left_open(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = count()
    write(split, 0, SIZE)
    with failing(monkeypatch, "fsync", errno.EIO), pytest.raises(LocalError), split.part(part(0, 10)):
        pass
    with split.reader() as reader:
        reader.read(0, 1)
    with failing(monkeypatch, "fchmod", errno.EIO), pytest.raises(LocalError):
        split.publish()
    with failing(monkeypatch, "scandir", errno.EIO), pytest.raises(LocalError), split.part(part(0, 10)):
        pass
    split.publish()
    split.prepare()
    split.discard()
    assert count() == before


def test_what_is_published_is_what_was_proven(
    root: Path, split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts another file in its place after the last look, however late."""
    write(split, 0, SIZE)
    real = os.fsync
    replaced = list[int]()

    def fsync(fd: int) -> None:
        real(fd)
        if not replaced and stat.S_ISREG(os.fstat(fd).st_mode):
            replaced.append(fd)
            split.path.unlink()
            SplitFile(root, spec(), FILE, Cancel()).prepare()

    monkeypatch.setattr(os, "fsync", fsync)
    with split.reader() as proven, pytest.raises(TransientError, match="was removed"):
        split.publish(proven)
    assert replaced
    assert not (root / "org" / "name" / "a" / "big.bin").exists()
    assert split.exists()  # it is whoever's it was


def test_publishing_syncs_the_file_once_and_before_it_has_its_name(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(split, 0, SIZE)
    order, real_fsync, real_rename = list[str](), os.fsync, os.rename

    def fsync(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            order.append("fsync")
        real_fsync(fd)

    def rename(source: str, goal: bytes, **where: int) -> None:
        order.append(source)
        real_rename(source, goal, **where)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    split.publish()
    assert order == ["fsync", split.path.name]


def test_publishing_that_fails_leaves_all_as_it_was(root: Path, split: SplitFile) -> None:
    write(split, 0, SIZE)
    before = split.records()
    (root / "org" / "name" / "a" / "big.bin").mkdir(parents=True)
    with pytest.raises(RefusedError):
        split.publish()
    assert split.records() == before
    (root / "org" / "name" / "a" / "big.bin").rmdir()
    split.publish()
    assert RepoFolder(root, spec()).has(FILE, Cancel())
    assert list(partial(root).iterdir()) == []


def test_writers_cannot_read_and_readers_cannot_write(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS, who can read fills up a page before writing a piece of it, with bytes that age."""
    split.prepare()
    ways, real = list[int](), os.open

    def opened(path: str, flags: int, *args: int, **options: int) -> int:
        if path == split.path.name:
            ways.append(flags & os.O_ACCMODE)
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", opened)
    write(split, 0, SIZE)
    with split.reader():
        pass
    assert ways == [os.O_WRONLY, os.O_RDONLY]


@pytest.mark.parametrize(("number", "error"), [(errno.ESTALE, None), (errno.EIO, LocalError)])
def test_comparing_with_a_file_that_another_machine_removed(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch, number: int, error: type[LocalError] | None
) -> None:
    split.prepare()
    with split.reader() as one, split.reader() as other, ExitStack() as stack:
        if error:
            stack.enter_context(pytest.raises(error))
        with failing(monkeypatch, "fstat", number):
            assert not one.is_same(other)


def test_writing_to_a_file_that_another_machine_removed(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = pytest.raises(TransientError, match="was removed")
    with gone, split.part(part(0, SIZE)) as sink, failing(monkeypatch, "fstat", errno.ESTALE):
        sink.write(CONTENT)


# -- two owners -----------------------------------------------------------------------------------


def test_a_fleet_and_a_download_beside_it_have_two_files(root: Path, split: SplitFile) -> None:
    alone = SplitFile(root, spec(), FILE, Cancel(), alone=True)
    write(split, 0, 200)
    write(alone, 500, 700)
    assert [found.start for found in split.records()] == [0, 100]
    assert [found.start for found in alone.records()] == [500, 600]
    write(split, 200, SIZE)
    with alone.part(part(0, 500)) as sink:
        split.publish()
        sink.write(CONTENT[:500])
    assert (root / "org" / "name" / "a" / "big.bin").read_bytes() == CONTENT
    age(alone.path)
    age(journal(alone))
    assert sweep(root) == 2


# -- what is not ours -----------------------------------------------------------------------------


def plant(path: Path, kind: str, victim: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    planted: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(victim),
        "dangling": lambda: path.symlink_to(victim.with_name("nowhere")),
        "hard link": lambda: path.hardlink_to(victim),
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
    }
    planted[kind]()


def refusals(split: SplitFile) -> Iterator[Callable[[], object]]:
    yield split.prepare
    yield split.publish
    yield lambda: write(split, 0, SIZE)
    yield lambda: ExitStack().enter_context(split.reader())


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "folder", "fifo"])
def test_a_planted_file_is_neither_written_nor_read_nor_published(
    split: SplitFile, tmp_path: Path, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"p" * SIZE)
    write(split, 0, 100)
    plant(split.path, kind, victim)
    for use in refusals(split):
        with pytest.raises(PlaceError if kind == "hard link" else RefusedError):
            use()
    assert split.records() == []
    assert victim.read_bytes() == b"p" * SIZE
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", [".hf-downloader", "partial", "records"])
def test_a_linked_folder_is_refused(root: Path, split: SplitFile, tmp_path: Path, name: str) -> None:
    split.prepare()
    paths = {".hf-downloader": root / ".hf-downloader", "partial": partial(root), "records": journal(split)}
    elsewhere = tmp_path / "elsewhere"
    shutil.rmtree(paths[name], ignore_errors=True)
    (elsewhere / "partial").mkdir(parents=True)
    paths[name].symlink_to(elsewhere)
    with pytest.raises(RefusedError, match="symbolic link"):
        write(split, 0, SIZE)
    with pytest.raises(RefusedError, match="symbolic link"):
        split.records()
    assert [path.name for path in elsewhere.rglob("*")] == ["partial"]


def test_a_link_that_appears_after_the_look_is_not_followed(
    split: SplitFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"p" * SIZE)
    split.prepare()

    def late(*_args: object) -> None:
        plant(split.path, "link", victim)

    monkeypatch.setattr(split_module, "refuse_other", late)
    for use in (split.prepare, lambda: write(split, 0, SIZE), split.publish):
        with pytest.raises(RefusedError, match="too many levels"):
            use()
    assert victim.read_bytes() == b"p" * SIZE


def test_a_linked_target_is_refused(root: Path, split: SplitFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    write(split, 0, SIZE)
    target = root / "org" / "name" / "a" / "big.bin"
    target.symlink_to(victim)
    with pytest.raises(RefusedError, match="symbolic link"):
        split.publish()
    assert victim.read_bytes() == b"precious"


def test_a_file_of_another_user(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    split.prepare()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    split.prepare()  # this disk gives our new files to that user too, as some network disks do
    monkeypatch.setattr(split_module, "_OWNERS", {split.path.stat().st_dev: 6789})
    split.prepare()  # what was mounted here before is not believed
    monkeypatch.setattr(split_module, "_OWNERS", {})
    monkeypatch.setattr(split_module, "_ask_owner", lambda _: 12345)
    said = rf"{split.path} belongs to uid {owner} and this worker runs as uid 12345; run all workers"
    for use in refusals(split):
        with pytest.raises(PlaceUnseenError, match=said):
            use()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_is_closed_to_us(split: SplitFile, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where it is another user's, others of the fleet may use it; else this machine's disk is at fault."""
    split.prepare()
    owner = os.geteuid()
    real = os.open

    def closed(path: str, *args: int, **options: int) -> int:
        if path == split.path.name:
            raise OSError(number, os.strerror(number), path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", closed)
    for use in refusals(split):
        with pytest.raises(LocalError, match="needs write permission") as caught:
            use()
        assert type(caught.value) is LocalError
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    for use in refusals(split):
        with pytest.raises(PlaceUnseenError, match=f"belongs to uid {owner} .* runs as uid 12345"):
            use()


def test_a_journal_of_another_user(split: SplitFile, monkeypatch: pytest.MonkeyPatch) -> None:
    write(split, 0, 100)
    real = os.fstat

    def foreign(fd: int) -> os.stat_result:
        info = real(fd)
        return os.stat_result((*info[:4], 4242, *info[5:])) if stat.S_ISDIR(info.st_mode) else info

    monkeypatch.setattr(os, "fstat", foreign)
    with pytest.raises(PlaceUnseenError, match=r"\.records belongs to uid 4242"):
        write(split, 100, 200)


FOREIGN = """
import os, sys
from tests.unit.test_storage_split import FILE, Cancel, Path, PlaceUnseenError, SplitFile, part, spec
os.chdir(sys.argv[1])  # what is above is closed to others
os.setgroups([])
os.setuid(12345)
split = SplitFile(Path("."), spec(), FILE, Cancel())
uses = (split.prepare, split.records, split.part(part(0, 10)).__enter__, split.reader().__enter__,
        split.publish)
for use in uses:
    try:
        use()
    except PlaceUnseenError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_worker_of_another_user(root: Path, split: SplitFile) -> None:
    (root / "org" / "name" / "a").mkdir(parents=True)
    write(split, 0, 100)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir() and path != journal(split))):
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", FOREIGN, root], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == 5
    assert all("belongs to uid 0 and this worker runs as uid 12345" in line for line in said)
    assert split.records() == [record(0, 100)]


def test_a_second_name_may_go_away_again(split: SplitFile, tmp_path: Path) -> None:
    write(split, 0, 100)
    (tmp_path / "backup").hardlink_to(split.path)
    for use in refusals(split):
        with pytest.raises(PlaceError, match="has a second name"):
            use()
    (tmp_path / "backup").unlink()
    write(split, 0, SIZE)
    assert split.path.read_bytes() == CONTENT


def test_nobody_else_may_add_records(split: SplitFile) -> None:
    write(split, 0, 100)
    assert stat.S_IMODE(journal(split).stat().st_mode) == 0o700


def test_looking_for_the_owner_leaves_nothing(
    root: Path, split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    split.prepare()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    split.prepare()
    assert list(partial(root).iterdir()) == [split.path]


def test_a_disk_is_asked_once_whom_it_gives_our_files(
    split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, real = list[int](), split_module._ask_owner

    def ask(folder: int) -> int:
        asked.append(folder)
        return real(folder)

    monkeypatch.setattr(split_module, "_ask_owner", ask)
    split.prepare()
    assert not asked  # for it is ours
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    write(split, 0, SIZE)
    split.publish()
    assert len(asked) == 1


# -- leftovers ------------------------------------------------------------------------------------


def test_an_old_split_file_is_swept_with_its_journal(root: Path, split: SplitFile) -> None:
    write(split, 0, 200)
    assert sweep(root) == 0
    age(split.path)
    age(journal(split))
    assert sweep(root) == 2
    assert list(partial(root).iterdir()) == []


@pytest.mark.parametrize("newer", ["file", "journal"])
def test_the_newer_of_the_two_counts(root: Path, split: SplitFile, newer: str) -> None:
    write(split, 0, 200)
    age(journal(split) if newer == "file" else split.path)
    assert sweep(root) == 0
    assert split.records() == [record(0, 100), record(100, 200)]


@pytest.mark.parametrize("left", ["file", "journal"])
def test_one_that_lost_the_other_is_swept_too(root: Path, split: SplitFile, left: str) -> None:
    write(split, 0, 200)
    if left == "file":
        shutil.rmtree(journal(split))
        age(split.path)
    else:
        split.path.unlink()
        age(journal(split))
    assert sweep(root) == 1
    assert list(partial(root).iterdir()) == []


def test_sweeping_follows_no_links(root: Path, split: SplitFile, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_bytes(b"precious")
    split.prepare()
    journal(split).symlink_to(victim)
    age(journal(split))
    age(split.path)
    sweep(root)
    assert (victim / "f").read_bytes() == b"precious"
    assert list(partial(root).iterdir()) == []


def test_a_linked_state_folder_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "partial").mkdir(parents=True)
    old = tmp_path / "elsewhere" / "partial" / "old"
    old.write_bytes(b"precious")
    age(old)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".hf-downloader").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="symbolic link"):
        sweep(tmp_path / "out")
    assert old.exists()


def test_another_machine_may_sweep_at_the_same_time(
    root: Path, split: SplitFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(split, 0, 200)
    age(split.path)
    age(journal(split))
    real = os.listdir

    def overtaken(folder: int) -> list[str]:
        found = real(folder)
        monkeypatch.setattr(os, "listdir", real)
        assert sweep(root) == 2
        return found

    monkeypatch.setattr(os, "listdir", overtaken)
    assert sweep(root) == 0
