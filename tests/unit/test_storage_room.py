"""Room on disks: what is free, what others still need, and how it is reserved."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import LocalError, PlaceError, RoomError, StoppedError
from distributed_downloader.models import RepoFile
from distributed_downloader.storage import RepoFolder, room
from distributed_downloader.storage.room import Room, preallocate
from tests.unit.test_storage import failing, spec

#: Bytes of a made-up disk.
WHOLE = 100_000


def disk_of(monkeypatch: pytest.MonkeyPatch, free: int, whole: int = WHOLE) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((1, 1, whole, free, free, *[0] * 5)))


# -- Room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("needed", "fits"), [(0, True), (1, True), (900, True), (901, False)])
def test_what_is_free_less_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int, fits: bool
) -> None:
    disk_of(monkeypatch, 1_000)
    if fits:
        with Room(100).take(tmp_path, needed):
            pass
    else:
        with pytest.raises(RoomError, match=r"901 B are needed and 1.0 kB are free"):
            Room(100).take(tmp_path, needed).__enter__()


def test_a_small_disk_has_a_small_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, WHOLE)
    with Room(1 << 40).take(tmp_path, WHOLE - WHOLE // 20):
        pass
    with pytest.raises(PlaceError, match=r"5.0 kB are kept free \(disk_reserve\)"):
        Room(1 << 40).take(tmp_path, WHOLE - WHOLE // 20 + 1).__enter__()


def test_what_others_still_need_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 1_000)
    shared = Room(0)
    with shared.take(tmp_path, 600):
        with pytest.raises(PlaceError, match="600 B are for transfers that run"):
            shared.take(tmp_path, 401).__enter__()
        with shared.take(tmp_path, 400):
            pass
        with shared.take(tmp_path, 400):
            pass
    with shared.take(tmp_path, 1_000):
        pass


def test_what_is_written_is_not_counted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 1_000)
    shared, written = Room(0), 0
    with shared.take(tmp_path, lambda: 900 - written):
        written = 800
        disk_of(monkeypatch, 1_000 - written)
        with shared.take(tmp_path, 100):
            pass
        written = 950  # more than was said
        with shared.take(tmp_path, 200):
            pass
        with pytest.raises(PlaceError):
            shared.take(tmp_path, 201).__enter__()


def test_an_error_in_the_block_gives_the_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 1_000)
    shared = Room(0)
    with pytest.raises(KeyError), shared.take(tmp_path, 1_000):
        raise KeyError
    with shared.take(tmp_path, 1_000):
        pass


def test_nothing_to_write_fits_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 0)
    with Room(1_000).take(tmp_path, 0), Room(1_000).take(tmp_path, -5):
        pass


def test_a_disk_that_does_not_know_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 0, whole=0)
    with Room(1_000).take(tmp_path, 1 << 60):
        pass


def test_each_disk_has_its_own_room(monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 1_000)
    shared = Room(0)
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "stat", lambda path: SimpleNamespace(st_dev={"/a": 1, "/a/b": 1, "/c": 2}[str(path)])
        )
        full = pytest.raises(PlaceError)
        with shared.take(Path("/a"), 1_000), shared.take(Path("/c"), 1_000), full:
            shared.take(Path("/a/b"), 1).__enter__()


def test_small_files_do_not_ask_the_disk_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[int]()

    def statvfs(_path: Path) -> os.statvfs_result:
        looks.append(1)
        return os.statvfs_result((1, 1, WHOLE, 1_000, 1_000, *[0] * 5))

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(room, "MOMENT", 1000)
    shared = Room(0)
    for _ in range(10):
        with shared.take(tmp_path, 100):
            pass
    assert len(looks) == 1
    with shared.take(tmp_path, 900), shared.take(tmp_path, 50):
        assert len(looks) == 2, "what was granted since the last look may have been written"
        with pytest.raises(RoomError):
            shared.take(tmp_path, 51).__enter__()
    assert len(looks) == 3
    monkeypatch.setattr(room, "MOMENT", -1)
    for _ in range(2):
        with Room(0).take(tmp_path, 1):
            pass
    assert len(looks) == 5


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no such file"):
        Room(0).take(tmp_path / "nowhere", 1).__enter__()


def test_no_room_is_told_from_a_folder_that_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, "statvfs", errno.EACCES), pytest.raises(LocalError) as caught:
        Room(0).take(tmp_path, 1).__enter__()
    assert not isinstance(caught.value, RoomError)
    assert issubclass(RoomError, PlaceError)


def test_threads_do_not_take_the_same_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 1_000)
    shared, taken = Room(0), list[bool]()
    start, end = threading.Barrier(8), threading.Barrier(8)

    def take() -> None:
        with ExitStack() as stack:
            start.wait(60)
            try:
                stack.enter_context(shared.take(tmp_path, 300))
            except PlaceError:
                taken.append(False)
            else:
                taken.append(True)
            end.wait(60)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 5 + [True] * 3


def test_partials_share_a_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_of(monkeypatch, 1_000)
    folder = RepoFolder(tmp_path, spec(), Room(0))
    big, small = RepoFile(path="big", size=800), RepoFile(path="small", size=500)
    with folder.partial(big, Cancel()) as partial:
        with pytest.raises(PlaceError), folder.partial(small, Cancel()):
            pytest.fail("both do not fit")
        partial.write(b"x" * 300)  # and the made-up disk stays as empty as it was
        with folder.partial(small, Cancel()):
            pass


# -- preallocate ----------------------------------------------------------------------------------

Fallocate = Callable[..., int]


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)


@pytest.fixture(autouse=True)
def _no_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: pytest.fail("it may write"), raising=False)


def answering(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> list[tuple[int, ...]]:
    """Let fallocate answer so, 0 for what goes well; return its calls."""
    calls, left = list[tuple[int, ...]](), list(numbers)

    def fallocate(*args: int) -> int:
        calls.append(args[1:])
        number = left.pop(0) if left else 0
        ctypes.set_errno(number)
        return -1 if number else 0

    monkeypatch.setattr(room, "_find_fallocate", lambda: fallocate)
    return calls


@pytest.mark.skipif(sys.platform != "linux", reason="fallocate is Linux's")
def test_bytes_are_reserved_and_none_changes(fd: int) -> None:
    content = bytes(range(256)) * 400
    os.pwrite(fd, content, 0)
    os.ftruncate(fd, 1 << 20)
    preallocate(fd, 1 << 20, Cancel())
    call = room._find_fallocate()
    assert call is not None
    if call(fd, 0, 0, 1) == 0:  # this disk can
        assert os.fstat(fd).st_blocks * 512 >= 1 << 20
    assert os.fstat(fd).st_size == 1 << 20
    assert os.pread(fd, 1 << 20, 0) == content + bytes((1 << 20) - len(content))


def test_it_goes_on_in_steps(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch)
    preallocate(fd, (2 << 30) + 5, Cancel())
    assert calls == [(0, 0, 1 << 30), (0, 1 << 30, 1 << 30), (0, 2 << 30, 5)]


def test_a_signal_in_between(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, errno.EINTR, errno.EINTR)
    preallocate(fd, 5, Cancel())
    assert calls == [(0, 0, 5)] * 3


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_a_disk_that_cannot(fd: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    calls = answering(monkeypatch, number)
    preallocate(fd, 5 << 30, Cancel())
    assert len(calls) == 1


def test_a_system_that_cannot(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    preallocate(fd, 5 << 30, Cancel())
    assert os.fstat(fd).st_size == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_does_not_want_to(fd: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    answering(monkeypatch, 0, number)
    with pytest.raises(OSError) as caught:
        preallocate(fd, 5 << 30, Cancel())
    assert caught.value.errno == number


def test_it_can_be_stopped(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch)
    cancel = Cancel()
    cancel.set()
    with pytest.raises(StoppedError):
        preallocate(fd, 5, cancel)
    assert calls == []
