"""How a worker publishes: which folders stay open for a task, what is brought to disk, and when."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig
from distributed_downloader.errors import LocalError, PlaceUnseenError, RefusedError
from distributed_downloader.folders import Folders
from distributed_downloader.models import Descriptor, DownloadTask, RepoFile, Token
from distributed_downloader.outcome import Finished
from distributed_downloader.storage import RepoFolder, root
from distributed_downloader.storage.durable import make_durable
from distributed_downloader.storage.place import make_place, read_place
from distributed_downloader.transfer.downloader import Downloader
from distributed_downloader.transfer.engine import Context
from tests.unit.test_storage import CONTENT, file, spec


class Engine:
    """Writes the content, after whatever a test does meanwhile."""

    name = "http"

    def __init__(self) -> None:
        self.meanwhile: Callable[[], object] = lambda: None

    def fetch(self, context: Context) -> None:
        self.meanwhile()
        context.write(CONTENT)

    def close(self) -> None:
        pass


class Worker:
    """A downloader with a folder of its own, in which repo `org/name` is put."""

    def __init__(self, own: Path) -> None:
        self.own, self.engine = own, Engine()
        config = AppConfig.model_validate({"app": {"output_dir": str(own)}})
        self.folders = Folders(config)
        self.downloader = Downloader(config, folders=self.folders, http_engine=self.engine)
        assert self.folders.own_id

    def run(self, path: str) -> Finished:
        task = DownloadTask(token=Token(1, 1, 0), spec=spec(), about=Descriptor(file=file(path)))
        outcome = self.downloader.run(task, Cancel(), lambda _: None)
        assert isinstance(outcome, Finished)
        return outcome

    def published(self, path: str) -> Path:
        return self.own / "org" / "name" / path


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path / "own")


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is brought to disk, and what gets its name, in order."""
    sync, rename, noted = os.fsync, os.rename, list[str]()

    def fsync(fd: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        noted.append(Path(f"/proc/self/fd/{fd}").readlink().name if is_folder else "bytes")
        sync(fd)

    def renamed(old: str, new: bytes, **options: int) -> None:
        noted.append(f"name {os.fsdecode(new)}")
        rename(old, new, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    return noted


# -- what is brought to disk ----------------------------------------------------------------------


def test_each_file_is_on_disk_before_it_has_its_name_and_their_folder_once_after_all(
    worker: Worker, order: list[str]
) -> None:
    worker.run("sub/first")
    order.clear()
    finished = [worker.run(f"sub/{name}") for name in "abc"]
    assert order == ["bytes", "name a", "bytes", "name b", "bytes", "name c"]
    [where] = {each.published for each in finished}
    assert where
    order.clear()
    make_durable(where)
    assert order == ["sub"]


def test_what_is_there_already_is_not_taken_for_durable(worker: Worker, order: list[str]) -> None:
    """Whoever gave it its name may have died before the folder was on disk."""
    first = worker.run("sub/a")
    order.clear()
    again = worker.run("sub/a")
    assert order == []
    assert again.published == first.published is not None


def test_a_folder_that_became_a_link_is_not_made_durable_elsewhere(worker: Worker, tmp_path: Path) -> None:
    where = worker.run("sub/a").published
    assert where
    worker.published("sub").rename(tmp_path / "moved")
    worker.published("sub").symlink_to(tmp_path / "moved")
    with pytest.raises(RefusedError, match="symbolic link"):
        make_durable(where)


# -- folders that change while a task uses them ---------------------------------------------------


def test_a_folder_that_is_a_link_for_the_next_file_is_refused(worker: Worker, tmp_path: Path) -> None:
    worker.run("sub/a")
    worker.published("sub").rename(tmp_path / "victim")
    worker.published("sub").symlink_to(tmp_path / "victim")
    with pytest.raises(RefusedError, match="symbolic link"):
        worker.run("sub/b")
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["a"]


def test_a_folder_that_becomes_a_link_during_a_transfer_is_refused(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root, "MOMENT", 0)  # as if the transfer lasted
    worker.run("sub/a")

    def swap() -> None:
        worker.published("sub").rename(tmp_path / "victim")
        worker.published("sub").symlink_to(tmp_path / "victim")

    worker.engine.meanwhile = swap
    with pytest.raises(RefusedError, match="symbolic link"):
        worker.run("sub/b")
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["a"]


@pytest.mark.parametrize("moment", [0, 1000])
def test_a_folder_that_is_removed_during_a_transfer_is_made_again(
    worker: Worker, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root, "MOMENT", moment)
    worker.run("sub/a")

    def remove() -> None:
        worker.published("sub/a").unlink()
        worker.published("sub").rmdir()

    worker.engine.meanwhile = remove
    worker.run("sub/b")
    assert worker.published("sub/b").read_bytes() == CONTENT


def test_a_folder_that_is_moved_during_a_long_transfer_does_not_take_the_file_along(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root, "MOMENT", 0)
    worker.run("sub/a")
    worker.engine.meanwhile = lambda: worker.published("sub").rename(tmp_path / "moved")
    worker.run("sub/b")
    assert worker.published("sub/b").read_bytes() == CONTENT


# -- the disk that the folder lies on -------------------------------------------------------------


def unmount(folder: Path) -> Path:
    """Take a folder's disk away, as far as its path tells; return where it is then."""
    away = folder.with_name("unmounted")
    folder.rename(away)
    folder.mkdir()
    return away


@pytest.mark.parametrize("moment", [0, 1000])
def test_nothing_is_written_where_the_disk_was_mounted(
    worker: Worker, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root, "MOMENT", moment)
    worker.run("sub/a")
    away = unmount(worker.own)
    with pytest.raises(LocalError, match="mount its disk again"):
        worker.run("sub/b")
    assert list(worker.own.iterdir()) == []
    worker.own.rmdir()
    away.rename(worker.own)
    worker.run("sub/b")
    assert worker.published("sub/b").exists()


def test_nor_where_it_goes_away_during_a_transfer(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "MOMENT", 0)
    worker.run("sub/a")
    worker.engine.meanwhile = lambda: unmount(worker.own)
    with pytest.raises(PlaceUnseenError, match="not the folder any more"):
        worker.run("sub/b")
    assert list(worker.own.iterdir()) == []


def test_it_may_be_another_disk_for_the_next_file(worker: Worker) -> None:
    worker.run("a")
    before = worker.folders.own_id
    unmount(worker.own)
    mounted = make_place(worker.own, create_root=False)
    where = worker.run("b").published
    assert where
    assert where.place == mounted != before
    assert worker.published("b").exists()


def test_a_marker_that_was_written_to_is_read_again(worker: Worker) -> None:
    worker.run("a")
    marker = worker.own / ".hf-downloader" / "place"
    marker.write_text("f" * 32 + "\n")
    assert read_place(worker.own) == "f" * 32
    assert worker.run("b").published == (worker.own, "f" * 32, (b"org", b"name"))


def test_a_folder_stays_open_as_long_as_somebody_uses_it(tmp_path: Path) -> None:
    def count() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = count()
    with RepoFolder(tmp_path, spec()) as folder:
        folder.claim_folder()
        inside = count()
        assert inside > before
        assert not folder.has(file("a"), Cancel())
        with folder.partial(RepoFile(path="a", size=1), Cancel()):
            pass
        assert count() > inside, "the folder of partials is kept, too"
    assert count() == before
