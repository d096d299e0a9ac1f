"""The spool: parts come into it, and from there, piece by piece and in order, to where they belong."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig, AppSection
from distributed_downloader.errors import LocalError, NetworkError, SpoolError, StoppedError
from distributed_downloader.hold import Hold
from distributed_downloader.models import Descriptor, DownloadTask, Part, RepoFile, Token
from distributed_downloader.outcome import Finished, Record
from distributed_downloader.storage import lane as lane_module
from distributed_downloader.storage import sink as sink_module
from distributed_downloader.storage import spool as spool_module
from distributed_downloader.storage.lane import Lane, Pool
from distributed_downloader.storage.place import make_place
from distributed_downloader.storage.records import RECORD_SIZE
from distributed_downloader.storage.room import Room
from distributed_downloader.storage.split import SplitFile
from distributed_downloader.storage.spool import Spool, SpooledSink
from distributed_downloader.transfer.downloader import Downloader
from distributed_downloader.transfer.engine import Context, Sink
from tests.unit.test_storage import file, spec

SIZE = 1000
CONTENT = bytes(os.urandom(SIZE))
FILE = file("a/big.bin", CONTENT)
#: Bytes of a piece here.
PIECE = 100
#: Seconds after which a test that waits for an event has failed.
LONG = 60.0


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "RECORD_SIZE", PIECE)
    monkeypatch.setattr(spool_module, "RECORD_SIZE", PIECE)
    monkeypatch.setattr(spool_module, "_CHUNK", 30)


@pytest.fixture
def split(tmp_path: Path) -> SplitFile:
    return make_split(tmp_path / "out")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.fixture
def spool(folder: Path) -> Iterator[Spool]:
    spool = Spool(folder, threads=2)
    yield spool
    spool.close()


def make_split(root: Path, about: RepoFile = FILE) -> SplitFile:
    make_place(root, create_root=True)
    split = SplitFile(root, spec(), about, Cancel())
    split.prepare()
    return split


def part(start: int, end: int) -> Part:
    return Part(start=start, length=end - start, seal=0)


def record(start: int, end: int) -> Record:
    return Record(start, end - start, hashlib.sha256(CONTENT[start:end]).hexdigest())


def in_thread(work: Callable[[], object]) -> Future[object]:
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 handed over
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Gate:
    """A guard, or any call, that waits until somebody opens."""

    def __init__(self, after: int = 0) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self._after = after

    def __call__(self) -> None:
        self._after -= 1
        if self._after < 0:
            self.reached.set()
            assert self.open.wait(LONG)


def held_open(path: Path) -> int:
    """Return how many descriptors of this process are of that file."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += entry.readlink() == path
    return count


# -- what goes right ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, SIZE - 1),
    st.integers(1, SIZE),
    st.lists(st.integers(1, 350), min_size=1, max_size=12),
    st.dictionaries(st.integers(0, 12), st.integers(0, SIZE), max_size=2),
)
def test_what_is_written_is_there_and_recorded(
    start: int, length: int, writes: list[int], nearer: dict[int, int]
) -> None:
    end = min(SIZE, start + length)
    with tempfile.TemporaryDirectory() as name:
        split = make_split(Path(name) / "out")
        spool = Spool(Path(name), threads=2)
        with spool.sink(split.part(part(start, end)), Cancel()) as sink:
            number = 0
            while start + sink.size < sink.end:
                if number in nearer:
                    sink.shorten(nearer[number])
                position, count = start + sink.size, writes[number % len(writes)]
                sink.write(CONTENT[position : position + count])  # at times more than belongs here
                assert sink.start + sink.size <= end
                number += 1
            records = sink.finish()
            last = sink.end
        spool.close()
        assert list(Path(name).iterdir()) == [Path(name) / "out"]
        there = records[-1].end if records else start
        assert list(records) == split.records()
        assert last <= there <= end
        begins = [start, *range((start // PIECE + 1) * PIECE, there, PIECE)] if there > start else []
        assert records == tuple(map(record, begins, [*begins[1:], there]))
        assert split.path.read_bytes() == bytes(start) + CONTENT[start:there] + bytes(SIZE - there)


def test_a_real_file_with_real_sizes(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    content = os.urandom(41 << 20)
    split = make_split(tmp_path / "out", file("big", content))
    spool = Spool(folder, threads=2)
    start, chunk = 5 << 20, (1 << 20) + 7
    tracemalloc.start()
    with spool.sink(split.part(part(start, len(content))), Cancel()) as sink:
        for at in range(start, len(content), chunk):
            sink.write(content[at : at + chunk])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    spool.close()
    assert peak < 6 << 20
    assert split.path.read_bytes()[start:] == content[start:]
    assert [found.end for found in split.records()] == [RECORD_SIZE, 2 * RECORD_SIZE, len(content)]
    for found in split.records():
        assert hashlib.sha256(content[found.start : found.end]).hexdigest() == found.sha256


def test_it_is_what_engines_write_to(split: SplitFile, spool: Spool) -> None:
    with spool.sink(split.part(part(100, 300)), Cancel()) as sink:
        typed: Sink = sink
        assert (typed.start, typed.size, typed.end) == (100, 0, 300)
        assert (typed.proves, typed.unproven, typed.inherited) == (True, False, 0)
        typed.expect(FILE)
        typed.write(CONTENT[100:250])
        typed.reset()
        assert typed.size == 0
        typed.write(CONTENT[100:300])
        assert typed.size == 200
    assert split.records() == [record(100, 200), record(200, 300)]


def test_what_is_there_is_not_written_again(split: SplitFile, spool: Spool) -> None:
    with split.part(part(0, 500)) as plain:
        plain.write(CONTENT[:220])
    with spool.sink(split.part(part(0, 500)), Cancel()) as sink:
        assert sink.size == 220
        sink.write(CONTENT[220:500])
        assert sink.finish()[2:4] == (record(200, 220), record(220, 300))
    with spool.sink(split.part(part(0, 500)), Cancel()) as sink:
        assert sink.size == 500
        assert len(sink.finish()) == 6


def test_writing_goes_on_after_a_finish(split: SplitFile, spool: Spool) -> None:
    with spool.sink(split.part(part(0, SIZE)), Cancel()) as sink:
        sink.write(CONTENT[:150])
        assert sink.finish() == sink.finish() == (record(0, 100), record(100, 150))
        sink.write(CONTENT[150:])
    assert split.path.read_bytes() == CONTENT
    assert record(150, 200) in split.records()


def test_half_written_pieces(split: SplitFile, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
    with spool.sink(split.part(part(0, 150)), Cancel()) as sink:
        sink.write(CONTENT[:150])
    assert split.records() == [record(0, 100), record(100, 150)]


def test_the_next_piece_comes_in_while_one_is_copied(split: SplitFile, spool: Spool) -> None:
    gate = Gate()
    with spool.sink(split.part(part(0, SIZE)), Cancel()) as sink:
        sink.guard = gate
        assert sink.guard is gate
        sink.write(CONTENT[:100])
        assert gate.reached.wait(LONG)
        sink.write(CONTENT[100:200])  # the copier stands still
        assert (sink.size, split.records()) == (200, [])
        gate.open.set()
        sink.write(CONTENT[200:])
    assert split.path.read_bytes() == CONTENT


def test_two_pieces_at_most_lie_in_the_spool(split: SplitFile, spool: Spool) -> None:
    lying = list[int]()
    with spool.sink(split.part(part(30, SIZE)), Cancel()) as sink:

        def guard() -> None:
            time.sleep(0.001)  # so that the network is ahead
            lying.append(sink.size - sink._inner.size)

        sink.guard = guard
        for at in range(30, SIZE, 10):
            sink.write(CONTENT[at : at + 10])
    assert 0 < max(lying) <= 2 * PIECE
    assert sink.room_needed() >= 0
    assert split.path.read_bytes()[30:] == CONTENT[30:]


def test_each_part_is_written_by_one_thread_at_a_time(split: SplitFile, folder: Path) -> None:
    spool, busy = Spool(folder, threads=8), [threading.Lock() for _ in range(5)]

    def fetch(number: int) -> None:
        def guard() -> None:
            assert busy[number].acquire(blocking=False)
            time.sleep(0.0005)
            busy[number].release()

        start = number * 200
        with spool.sink(split.part(part(start, start + 200)), Cancel()) as sink:
            sink.guard = guard
            for at in range(start, start + 200, 25):
                sink.write(CONTENT[at : at + 25])

    for future in [in_thread(lambda number=number: fetch(number)) for number in range(5)]:  # type: ignore[misc]
        future.result(LONG)
    spool.close()
    assert split.path.read_bytes() == CONTENT


# -- stopping -------------------------------------------------------------------------------------


def test_a_stop_records_what_was_copied_and_drops_the_rest(split: SplitFile, spool: Spool) -> None:
    cancel, gate = Cancel(), Gate(after=6)

    def guard() -> None:
        gate()
        cancel.check()

    def fetch() -> None:
        with spool.sink(split.part(part(0, SIZE)), cancel) as sink:
            sink.guard = guard
            sink.write(CONTENT)

    fetching = in_thread(fetch)
    assert gate.reached.wait(LONG)  # 100 bytes are recorded, and 60 more written
    cancel.set("enough")
    gate.open.set()
    with pytest.raises(StoppedError, match="enough"):
        fetching.result(LONG)
    assert split.records() == [record(0, 100), record(100, 160)]
    assert split.path.read_bytes() == CONTENT[:160] + bytes(SIZE - 160)
    assert held_open(split.path) == 0


@pytest.mark.parametrize("call", ["write", "finish", "leave"])
def test_a_folder_that_hangs_does_not_hang_the_stop(
    split: SplitFile, spool: Spool, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "_GRACE", 0.01)
    cancel, gate, real = Cancel(), Gate(after=2), os.pwrite
    inode = split.path.stat().st_ino

    def hanging(fd: int, data: bytes, offset: int) -> int:
        if os.fstat(fd).st_ino == inode:
            gate()
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", hanging)

    def fetch() -> None:
        with spool.sink(split.part(part(0, SIZE)), cancel) as sink:
            sink.write(CONTENT if call == "write" else CONTENT[:200])
            if call == "finish":
                sink.finish()

    fetching = in_thread(fetch)
    assert gate.reached.wait(LONG)
    cancel.set("the worker stops")
    with pytest.raises(StoppedError, match="the worker stops"):
        fetching.result(LONG)
    assert not gate.open.is_set()
    assert held_open(split.path) == 1  # what hangs there still writes to the right file
    gate.open.set()
    wait_until(lambda: held_open(split.path) == 0)
    assert split.records() == [record(0, 90)]
    assert split.path.read_bytes() == CONTENT[:90] + bytes(SIZE - 90)


def test_other_parts_go_on_while_one_folder_hangs(tmp_path: Path, split: SplitFile, spool: Spool) -> None:
    gate = Gate()
    with spool.sink(split.part(part(0, SIZE)), Cancel()) as stuck:
        stuck.guard = gate
        stuck.write(CONTENT[:100])
        assert gate.reached.wait(LONG)
        other = make_split(tmp_path / "other")
        with spool.sink(other.part(part(0, SIZE)), Cancel()) as sink:
            sink.write(CONTENT)
        assert other.path.read_bytes() == CONTENT
        gate.open.set()


def test_a_stop_before_anything_came(split: SplitFile, spool: Spool) -> None:
    cancel = Cancel()
    cancel.set("too late")
    with pytest.raises(StoppedError), spool.sink(split.part(part(0, SIZE)), cancel):
        raise StoppedError("too late")
    assert (split.records(), held_open(split.path)) == ([], 0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_killed_process_leaves_nothing_in_the_spool(split: SplitFile, folder: Path) -> None:
    script = f"""
import threading
from pathlib import Path
from distributed_downloader.cancel import Cancel
from distributed_downloader.storage.spool import Spool
from tests.unit.test_storage_spool import make_split, part
split = make_split(Path({str(split.path.parents[2])!r}))
with Spool(Path({str(folder)!r}), 1).sink(split.part(part(0, 1000)), Cancel()) as sink:
    sink.write(b"x" * 500)
    print("there", flush=True)
    threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        names = [entry.readlink() for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert any(name.is_relative_to(folder) for name in names)
        process.send_signal(signal.SIGKILL)
    assert list(folder.iterdir()) == []
    assert split.records() == []


# -- what goes wrong ------------------------------------------------------------------------------


@contextmanager
def refusing(split: SplitFile, monkeypatch: pytest.MonkeyPatch, number: int, after: int) -> Iterator[None]:
    """Let the shared folder refuse the write at that byte."""
    inode, real = split.path.stat().st_ino, os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if os.fstat(fd).st_ino == inode and offset >= after:
            raise OSError(number, os.strerror(number))
        return real(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        yield


@pytest.mark.parametrize("call", ["write", "leave"])
def test_what_the_shared_folder_refuses_is_raised_where_the_part_is_fetched(
    split: SplitFile, spool: Spool, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        refusing(split, monkeypatch, errno.ESTALE, 150),
        pytest.raises(LocalError, match=r"the network mount is gone"),
        spool.sink(split.part(part(0, SIZE)), Cancel()) as sink,
    ):
        sink.write(CONTENT[: SIZE if call == "write" else 170])
        assert call == "leave"
    assert split.records() == [record(0, 100), record(100, 160)]
    assert held_open(split.path) == 0


def test_an_error_of_the_guard_is_raised_too(split: SplitFile, spool: Spool) -> None:
    def lost() -> None:
        raise StoppedError("the part is somebody else's")

    with (
        pytest.raises(StoppedError, match="somebody else's"),
        spool.sink(split.part(part(0, SIZE)), Cancel()) as sink,
    ):
        sink.guard = lost
        sink.write(CONTENT)
    assert split.records() == []


def test_an_unexpected_error_is_raised_and_closes_the_part(split: SplitFile, spool: Spool) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), spool.sink(split.part(part(0, SIZE)), Cancel()) as sink:
        sink.guard = broken
        sink.write(CONTENT)
    assert held_open(split.path) == 0


def test_what_came_before_a_network_error_is_copied(split: SplitFile, spool: Spool) -> None:
    with pytest.raises(NetworkError), spool.sink(split.part(part(0, SIZE)), Cancel()) as sink:
        sink.write(CONTENT[:250])
        raise NetworkError("the line is dead")
    assert split.records() == [record(0, 100), record(100, 200), record(200, 250)]


def test_an_error_on_closing(split: SplitFile, spool: Spool) -> None:
    @contextmanager
    def opened() -> Iterator[sink_module.PartSink]:
        with split.part(part(0, SIZE)) as inner:
            yield inner
        raise LocalError("it could not be closed")

    with pytest.raises(LocalError, match="could not be closed"), spool.sink(opened(), Cancel()) as sink:
        sink.write(CONTENT)
    assert split.path.read_bytes() == CONTENT


@pytest.mark.parametrize("at", [0, 1])
def test_a_damaged_spool_damages_no_file(
    split: SplitFile, spool: Spool, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, real = Gate(), os.pread
    seen = list[int]()

    def pread(fd: int, count: int, offset: int) -> bytes:
        seen.append(offset)
        data = real(fd, count, offset)
        if len(seen) != 3:
            return data
        damaged.reached.set()
        return bytes([data[0] ^ 1]) + data[1:] if at else data[:-1]

    monkeypatch.setattr(os, "pread", pread)
    with (
        pytest.raises(SpoolError, match=r"spool_dir: .*what is read back is not what was written"),
        spool.sink(split.part(part(0, SIZE)), Cancel()) as sink,
    ):
        sink.write(CONTENT)
    assert damaged.reached.is_set()
    assert split.records() == [record(0, 60)]
    assert split.path.read_bytes() == CONTENT[:60] + bytes(SIZE - 60)
    with spool.sink(split.part(part(0, SIZE)), Cancel()) as sink:
        assert sink.size == 60
        sink.write(CONTENT[60:])
    assert split.path.read_bytes() == CONTENT


def test_a_spool_that_is_not_there(split: SplitFile, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "no" / "spool", threads=1)
    before = split.path.parent.stat().st_mtime_ns
    with (
        pytest.raises(SpoolError, match=r"spool_dir: .*/no/spool: no such file .*make the folder"),
        spool.sink(split.part(part(0, SIZE)), Cancel()),
    ):
        pytest.fail("there is no spool")
    spool.close()
    assert split.path.parent.stat().st_mtime_ns == before
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "write permission"),
        (errno.EDQUOT, "quota"),
        (errno.EMFILE, "another folder"),
    ],
)
def test_a_spool_that_refuses(
    split: SplitFile, spool: Spool, number: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with (
        pytest.raises(SpoolError, match=f"spool_dir: .*{advice}"),
        spool.sink(split.part(part(0, SIZE)), Cancel()),
    ):
        pytest.fail("there is no spool")


def test_a_spool_that_fills_up(split: SplitFile, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    inode, real = split.path.stat().st_ino, os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if os.fstat(fd).st_ino != inode and offset >= PIECE + 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with (
        pytest.raises(SpoolError, match=r"spool_dir: .*no space left on device; free some space there"),
        spool.sink(split.part(part(0, SIZE)), Cancel()) as sink,
    ):
        for at in range(0, SIZE, 20):
            sink.write(CONTENT[at : at + 20])
    assert split.records() == [record(0, 100), record(100, 120)]  # what it took is not lost


def test_a_part_takes_room_for_two_pieces(
    split: SplitFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((1, 1, 9000, 450, 450, *[0] * 5)))
    room = Room(0)
    spool = Spool(folder, threads=1, room=room)
    with spool.sink(split.part(part(0, 400)), Cancel()) as sink:
        with (
            spool.sink(split.part(part(400, 800)), Cancel()) as second,
            pytest.raises(SpoolError, match=r"spool_dir: .* has no room for 200 B more"),
            spool.sink(split.part(part(800, SIZE)), Cancel()),
        ):
            pytest.fail("there is no room")
        assert second.room_needed() == sink.room_needed() == 200
        sink.write(CONTENT[:150])
        assert sink.room_needed() == 50
        sink.write(CONTENT[150:400])
        assert sink.room_needed() == 0
    with room.take(folder, 450):  # all of it was given back
        pass
    spool.close()
    assert held_open(split.path) == 0


def test_a_spool_that_does_not_tell_its_room(
    split: SplitFile, spool: Spool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        if path == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    with (
        pytest.raises(SpoolError, match=r"spool_dir: .*the disk fails"),
        spool.sink(split.part(part(0, SIZE)), Cancel()),
    ):
        pytest.fail("there is no spool")
    assert held_open(split.path) == 0


def test_a_short_part_takes_little_room(split: SplitFile, spool: Spool) -> None:
    with spool.sink(split.part(part(50, 170)), Cancel()) as sink:
        assert sink.room_needed() == 120
        sink.write(CONTENT[50:170])
        assert sink.room_needed() == 0


# -- threads and lanes ----------------------------------------------------------------------------


def test_the_threads_end_after_what_is_left_to_do(folder: Path) -> None:
    before = set(threading.enumerate())
    spool = Spool(folder, threads=3)
    threads = set(threading.enumerate()) - before
    assert [thread.daemon for thread in threads] == [True] * 3
    spool.close()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_steps_behind_one_that_failed_are_not_done() -> None:
    pool, done = Pool(1, "test"), list[int]()
    lane, gate = Lane(pool, Cancel()), Gate()

    def fail() -> None:
        gate()
        raise KeyError

    lane.add(fail)
    lane.add(lambda: done.append(1))
    gate.open.set()
    for _ in range(2):
        with pytest.raises(KeyError):
            lane.wait(0)
        lane.add(lambda: done.append(2))
    assert lane.close(lambda: done.append(3)) is None
    pool.close()
    assert done == [3]


def test_closing_drops_what_was_not_begun() -> None:
    pool, done, gate = Pool(1, "test"), list[int](), Gate()
    lane = Lane(pool, Cancel())
    lane.add(gate)
    lane.add(lambda: done.append(1))
    assert gate.reached.wait(LONG)
    closing = in_thread(lambda: lane.close(lambda: done.append(2)))
    wait_until(lambda: lane._closing)
    gate.open.set()
    assert closing.result(LONG) is None
    pool.close()
    assert done == [2]


def test_what_is_done_counts_even_if_the_stop_came() -> None:
    pool, cancel = Pool(1, "test"), Cancel()
    lane = Lane(pool, cancel)
    lane.add(lambda: None)
    lane.wait(0)
    cancel.set()
    lane.wait(0)
    with pytest.raises(StoppedError):
        lane.check()
    pool.close()


# -- with what fetches parts ----------------------------------------------------------------------


class Source:
    """An engine that has the bytes already; `paused` is called before each of its writes."""

    name = "http"

    def __init__(self, paused: Callable[[Context], None] = lambda _: None) -> None:
        self._paused = paused
        self.sinks = list[Sink]()

    def fetch(self, context: Context) -> None:
        self.sinks.append(context.sink)
        while context.left:
            self._paused(context)
            context.cancel.check()
            context.write(CONTENT[context.position :][: min(40, context.left)])

    def close(self) -> None:
        pass


@pytest.fixture
def task(tmp_path: Path) -> DownloadTask:
    place = make_place(tmp_path / "out", create_root=True)
    about = Descriptor(file=FILE, part=Part(start=0, length=SIZE, seal=0), place=place)
    return DownloadTask(token=Token(1, 1, 0), spec=spec(), about=about)


def downloader(tmp_path: Path, engine: Source, spool_dir: Path | str) -> Downloader:
    app = AppSection(output_dir=str(tmp_path / "out"), spool_dir=str(spool_dir), disk_reserve=0)
    return Downloader(AppConfig(app=app), http_engine=engine)


@pytest.mark.parametrize("spooled", [True, False])
def test_a_worker_fetches_a_part(
    tmp_path: Path, split: SplitFile, folder: Path, task: DownloadTask, spooled: bool
) -> None:
    source, progress = Source(), list[int]()
    worker = downloader(tmp_path, source, folder if spooled else "")
    assert isinstance(worker.run(task, Cancel(), progress.append), Finished)
    worker.close()
    assert split.records() == [record(at, at + PIECE) for at in range(0, SIZE, PIECE)]
    assert split.path.read_bytes() == CONTENT
    assert progress[-1] == SIZE
    assert [isinstance(sink, SpooledSink) for sink in source.sinks] == [spooled]


def test_a_worker_without_its_spool_says_so(tmp_path: Path, task: DownloadTask) -> None:
    worker = downloader(tmp_path, Source(), tmp_path / "gone")
    with pytest.raises(SpoolError, match="spool_dir"):
        worker.run(task, Cancel(), lambda _: None)
    worker.close()


def test_a_tail_that_is_taken_over_while_the_part_is_spooled(
    tmp_path: Path, split: SplitFile, folder: Path, task: DownloadTask
) -> None:
    hold = Hold.unlimited()

    def taken_over(context: Context) -> None:
        if context.sink.size >= 400:
            hold.renew(time.monotonic(), 350)

    worker = downloader(tmp_path, Source(taken_over), folder)
    assert isinstance(worker.run(task, Cancel(), lambda _: None, hold), Finished)
    worker.close()
    there = split.records()
    assert 350 <= there[-1].end <= 400
    assert there == [record(found.start, found.end) for found in there]
    assert [found.start for found in there] == [0, 100, 200, 300]


def test_a_worker_that_is_stopped_in_the_middle(
    tmp_path: Path, split: SplitFile, folder: Path, task: DownloadTask
) -> None:
    cancel = Cancel()

    def stop(context: Context) -> None:
        if context.sink.size >= 400:
            wait_until(lambda: len(split.records()) >= 3)
            cancel.set("the worker stops")

    worker = downloader(tmp_path, Source(stop), folder)
    with pytest.raises(StoppedError, match="the worker stops"):
        worker.run(task, cancel, lambda _: None)
    worker.close()
    there = split.records()
    assert len(there) >= 3
    assert there == [record(found.start, found.end) for found in there]
    assert split.path.read_bytes() == CONTENT[: there[-1].end] + bytes(SIZE - there[-1].end)
