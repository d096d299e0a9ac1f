"""The id that tells whether two machines see the same folder."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_downloader.errors import LocalError, PlaceUnseenError, RefusedError
from distributed_downloader.storage.place import (
    is_unclaimed,
    make_place,
    open_within,
    read_place,
    require_place,
)
from tests.unit.test_storage import failing

ID = "0123456789abcdef" * 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "mount" / "out"


def marker(root: Path) -> Path:
    return root / ".hf-downloader" / "place"


def plant(root: Path, text: str) -> None:
    marker(root).parent.mkdir(parents=True)
    marker(root).write_text(text)


# -- making and reading ---------------------------------------------------------------------------


def test_a_place_keeps_its_id(root: Path) -> None:
    place = make_place(root, create_root=True)
    assert re.fullmatch("[0-9a-f]{32}", place)
    assert marker(root).read_text() == f"{place}\n"
    assert read_place(root) == place
    assert make_place(root, create_root=True) == place
    assert make_place(root, create_root=False) == place
    assert os.listdir(marker(root).parent) == ["place"]  # noqa: PTH208


def test_two_places_have_two_ids(tmp_path: Path) -> None:
    assert make_place(tmp_path / "a", create_root=True) != make_place(tmp_path / "b", create_root=True)


def test_one_place_may_have_two_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    place = make_place(tmp_path / "real", create_root=True)
    assert read_place(tmp_path / "link") == place


def test_a_folder_that_is_missing_may_stay_missing(root: Path) -> None:
    with pytest.raises(LocalError):
        make_place(root, create_root=False)
    assert not root.parent.exists()


def test_a_folder_that_is_there_gets_its_id_without_being_made(root: Path) -> None:
    root.mkdir(parents=True)
    assert make_place(root, create_root=False) == read_place(root) != ""


def test_a_mount_that_goes_away_while_it_is_marked_leaves_an_empty_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir(parents=True)
    mkdir = os.mkdir

    def unmounted(*args: object, **options: object) -> None:
        root.rename(root.parent / "elsewhere")
        mkdir(root)  # the mount point
        mkdir(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", unmounted)
    with pytest.raises(LocalError):
        make_place(root, create_root=False)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", ID, f"{ID[1:]}\n", f"{ID}0\n", f"{ID.upper()}\n", f"{ID}\n\n", "é" * 99]
)
def test_nonsense_is_no_id_and_is_not_overwritten(root: Path, text: str) -> None:
    plant(root, text)
    assert read_place(root) == ""
    with pytest.raises(RefusedError, match="does not hold an id"):
        make_place(root, create_root=True)
    assert marker(root).read_text() == text


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN])
def test_a_mount_that_fails_has_no_id(root: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make_place(root, create_root=True)
    with failing(monkeypatch, "open", number):
        assert read_place(root) == ""
        with pytest.raises(LocalError):
            make_place(root, create_root=True)


def test_reading_makes_nothing(root: Path) -> None:
    assert read_place(root) == ""
    assert not root.parent.exists()
    root.parent.mkdir()
    root.write_text("a file")
    assert read_place(root) == ""


def test_an_id_that_is_only_readable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_place(root, create_root=True)
    with failing(monkeypatch, "link", errno.EROFS), failing(monkeypatch, "rename", errno.EROFS):
        assert make_place(root, create_root=False) == place


# -- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo"])
def test_something_else_in_place_of_the_marker(root: Path, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text(f"{ID}\n")
    marker(root).parent.mkdir(parents=True)
    planted: dict[str, Callable[[], object]] = {
        "link": lambda: marker(root).symlink_to(victim),
        "dangling": lambda: marker(root).symlink_to(tmp_path / "nowhere"),
        "folder": marker(root).mkdir,
        "fifo": lambda: os.mkfifo(marker(root)),
    }
    planted[kind]()
    assert read_place(root) == ""
    with pytest.raises(RefusedError):
        make_place(root, create_root=True)
    assert victim.read_text() == f"{ID}\n"
    assert not (tmp_path / "nowhere").exists()


def test_a_linked_state_folder(root: Path, tmp_path: Path) -> None:
    plant(tmp_path / "other", f"{ID}\n")
    root.mkdir(parents=True)
    (root / ".hf-downloader").symlink_to(tmp_path / "other" / ".hf-downloader")
    assert read_place(root) == ""
    with pytest.raises(RefusedError, match="symbolic link"):
        make_place(root, create_root=True)


# -- many at once ---------------------------------------------------------------------------------

MAKER = """
import sys
from pathlib import Path
from distributed_downloader.storage.place import make_place
print("ready", flush=True)
sys.stdin.readline()
for number in range(50):
    print(make_place(Path(sys.argv[1], str(number)), create_root=True))
"""


def test_processes_that_mark_a_folder_at_once_agree(root: Path) -> None:
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for maker in makers:
        assert maker.stdout
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin
        maker.stdin.write("go\n")
        maker.stdin.flush()
    said = [maker.communicate()[0].split() for maker in makers]
    assert said == [[read_place(root / str(number)) for number in range(50)]] * 4
    assert len(set(said[0])) == 50


@pytest.mark.parametrize("links", [True, False])
def test_who_is_overtaken_takes_what_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    link = os.link
    faster = list[str]()

    def overtaken(*args: object, **options: object) -> None:
        monkeypatch.setattr(os, "link", link)
        faster.append(make_place(root, create_root=True))
        if not links:
            raise OSError(errno.EPERM, "no hard links")
        link(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", overtaken)
    assert make_place(root, create_root=True) == faster[0] == read_place(root)
    assert os.listdir(marker(root).parent) == ["place"]  # noqa: PTH208


def test_a_disk_without_hard_links(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "link", errno.EPERM):
        place = make_place(root, create_root=True)
    assert read_place(root) == place != ""
    assert os.listdir(marker(root).parent) == ["place"]  # noqa: PTH208


KILLED = """
import os, sys
from pathlib import Path
from distributed_downloader.storage.place import make_place
os.link = lambda *_args, **_options: os._exit(9)
make_place(Path(sys.argv[1]), create_root=True)
"""


def test_who_is_killed_while_marking_leaves_what_can_be_told_from_a_marker(root: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, root], check=False).returncode == 9
    [left] = marker(root).parent.iterdir()
    assert is_unclaimed(left.name)
    assert not is_unclaimed(marker(root).name)
    make_place(root, create_root=True)


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_marker_that_cannot_be_written_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    marker(root).parent.mkdir(parents=True)
    no_links = failing(monkeypatch, "link", errno.EPERM)
    with no_links, failing(monkeypatch, call, errno.ENOSPC), pytest.raises(LocalError):
        make_place(root, create_root=True)
    assert list(marker(root).parent.iterdir()) == []


# -- require --------------------------------------------------------------------------------------


def test_the_right_place(root: Path) -> None:
    require_place(root, make_place(root, create_root=True))


def test_a_place_that_is_not_there(root: Path) -> None:
    with pytest.raises(PlaceUnseenError, match="is not there; mount it"):
        require_place(root, ID)
    assert not root.parent.exists()


def test_a_place_whose_mount_point_is_empty(root: Path) -> None:
    root.mkdir(parents=True)
    with pytest.raises(PlaceUnseenError, match="not the folder that the job's other machines see"):
        require_place(root, ID)
    assert list(root.iterdir()) == []


def test_another_place(root: Path) -> None:
    place = make_place(root, create_root=True)
    with pytest.raises(PlaceUnseenError, match=f"holds {place[:8]}… instead of 01234567…"):
        require_place(root, ID)


# -- open_within ----------------------------------------------------------------------------------


def test_what_must_be_there_is_not_made(root: Path) -> None:
    root.mkdir(parents=True)
    with pytest.raises(FileNotFoundError), open_within(root, [b"a"], [b"b"]):
        pytest.fail("there is none")
    assert list(root.iterdir()) == []
    (root / "a").mkdir()
    for _ in range(2):
        with open_within(root, [b"a"], [b"b", b"c"]) as fd:
            assert os.path.samestat(os.fstat(fd), (root / "a/b/c").stat())


def test_the_callers_own_errors_pass(root: Path) -> None:
    root.mkdir(parents=True)
    with pytest.raises(FileExistsError), open_within(root, [], [b"a"]):
        raise FileExistsError


def test_no_descriptor_is_left_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    make_place(root, create_root=True)
    marker(root).unlink()
    marker(root).mkdir()
    read_place(root)
    with pytest.raises(RefusedError):
        make_place(root, create_root=True)
    with failing(monkeypatch, "fsync", errno.EIO), pytest.raises(LocalError):
        make_place(root / "other", create_root=True)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
