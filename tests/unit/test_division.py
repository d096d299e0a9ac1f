"""Which files are fetched in parts, and where these are put together, as each worker decides it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig, AppSection, HuggingFaceConfig, NASConfig
from distributed_downloader.errors import LocalError, PlaceUnseenError
from distributed_downloader.folders import Folders
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, Part, RepoFile, RepoType, Token
from distributed_downloader.outcome import ON_NAS, Divided, Finished, Range
from distributed_downloader.queue_terms import Member
from distributed_downloader.storage.nas import NasFolder
from distributed_downloader.storage.place import make_place
from distributed_downloader.transfer import downloader as downloads
from distributed_downloader.transfer.division import Fleet
from distributed_downloader.transfer.downloader import Downloader
from distributed_downloader.transfer.engine import Context

CONTENT = bytes(range(256)) * 8
FILE = RepoFile(path="big.bin", size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


class Engine:
    """Has the content at hand."""

    name = "http"

    def fetch(self, context: Context) -> None:
        context.write(CONTENT[context.position :][: context.left])

    def close(self) -> None:
        pass


class World:
    """One worker of two, which share nothing but the NAS."""

    def __init__(self, root: Path) -> None:
        self.own, self.nas = root / "own", root / "nas"
        self.own.mkdir()
        self.nas.mkdir()
        self.nas_id = make_place(self.nas, create_root=False)
        self.told: list[str] = []
        self.engine = "auto"
        self.deletes = False

    def spec(self, output_dir: str = "") -> JobSpec:
        return JobSpec(
            repo_type=RepoType.MODEL,
            repo_id="org/name",
            revision="main",
            commit="a" * 40,
            endpoint="https://hub.invalid",
            split_over=1000,
            part_size=1024,
            output_dir=output_dir,
        )

    def run(
        self,
        file: RepoFile = FILE,
        part: Part | None = None,
        place: str = "",
        output_dir: str = "",
    ) -> object:
        about = Descriptor(file=file, part=part, place=place)
        task = DownloadTask(token=Token(1, 1, 0), spec=self.spec(output_dir), about=about)
        worker = self.downloader()
        try:
            return worker.run(task, Cancel(), lambda _: None)
        finally:
            worker.close()

    def downloader(self) -> Downloader:
        config = AppConfig(
            app=AppSection(output_dir=str(self.own), disk_reserve=0),
            nas=NASConfig(enabled=True, path=str(self.nas), delete_after_copy=self.deletes),
            huggingface=HuggingFaceConfig.model_validate({"engine": self.engine}),
        )
        folders = Folders(config, self.seen)
        members = [Member("w1", 4, folders.own_id, self.nas_id), Member("w2", 4, "ab" * 16, self.nas_id)]
        fleet = Fleet(lambda: members, lambda _job, reason: self.told.append(reason))
        return Downloader(config, folders=folders, fleet=fleet, http_engine=Engine())

    def seen(self) -> str:
        return self.nas_id

    @property
    def published(self) -> Path:
        return self.own / "org/name/big.bin"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_only_the_nas_is_shared_by_is_put_together_there(world: World) -> None:
    divided = world.run()
    assert isinstance(divided, Divided)
    assert (divided.place, divided.parts) == (world.nas_id, (Range(0, 1024), Range(1024, 1024)))
    assert world.told == [""]
    (split,) = (world.nas / ".hf-downloader/partial").glob("*.split")
    assert split.stat().st_size == FILE.size


def test_a_file_without_a_hash_is_fetched_whole(world: World) -> None:
    """What was put together could not be proven."""
    assert isinstance(world.run(RepoFile(path="big.bin", size=len(CONTENT))), Finished)
    assert world.published.read_bytes() == CONTENT


def dataset_is_there(nas: Path) -> None:
    (nas / ".hf-downloader/repos").mkdir()
    (nas / ".hf-downloader/repos/org--name").write_text("dataset org/name\n")


def state_is_closed(nas: Path) -> None:
    (nas / ".hf-downloader/partial").write_text("no folder")


@pytest.mark.parametrize(
    ("trouble", "reason"), [(dataset_is_there, "already holds the dataset"), (state_is_closed, "partial")]
)
def test_a_nas_that_takes_no_parts_stops_no_download(
    world: World, trouble: Callable[[Path], None], reason: str
) -> None:
    trouble(world.nas)
    finished = world.run()
    assert isinstance(finished, Finished)
    assert finished.owes.endswith(str(world.own))
    assert world.published.read_bytes() == CONTENT
    assert reason in world.told[-1]


def test_a_nas_that_does_not_answer_is_not_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "seen", str)
    monkeypatch.setattr(NasFolder, "look", lambda *_: pytest.fail("it would hang"))
    assert isinstance(world.run(), Finished)
    assert world.published.exists()
    assert "no NAS that all see" in world.told[-1]


def test_a_nas_that_falls_silent_while_it_is_asked_stops_no_download(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_NAS_SILENT", 0.01)
    reader, writer = os.pipe()
    monkeypatch.setattr(NasFolder, "look", lambda *_: bool(os.read(reader, 1)))
    file = RepoFile(path="big.bin", size=len(CONTENT))
    assert isinstance(world.run(file), Finished)
    assert world.published.exists()
    os.write(writer, b"1")
    os.close(writer)


def test_what_is_on_the_nas_is_not_fetched(world: World) -> None:
    (world.nas / "org/name").mkdir(parents=True)
    (world.nas / "org/name/big.bin").write_bytes(CONTENT)
    assert world.run() == Finished(owes=ON_NAS)
    assert not world.published.exists()


@pytest.mark.parametrize("deletes", [True, False])
def test_a_named_folder_gets_what_is_on_the_nas_already_if_it_keeps_files(
    world: World, deletes: bool
) -> None:
    """Somebody has removed it there, for instance."""
    (world.nas / "org/name").mkdir(parents=True)
    (world.nas / "org/name/big.bin").write_bytes(CONTENT)
    world.deletes = deletes
    found = world.run(output_dir=str(world.own))
    assert (found == Finished(owes=ON_NAS)) == deletes


@pytest.mark.parametrize("deletes", [True, False])
def test_a_wrong_file_is_replaced_though_the_right_one_is_on_the_nas(world: World, deletes: bool) -> None:
    (world.nas / "org/name").mkdir(parents=True)
    (world.nas / "org/name/big.bin").write_bytes(CONTENT)
    world.published.parent.mkdir(parents=True)
    world.published.write_bytes(CONTENT[:-1] + b"?")
    world.deletes = deletes
    assert world.run() != Finished(owes=ON_NAS)


def test_a_trouble_of_the_nas_with_a_part_is_nobodys_fault(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part goes back, and costs no try, however long it lasts."""
    world.run()

    def full(_: object, context: Context) -> None:
        raise LocalError(f"{context.task.name}: no space left on device")

    monkeypatch.setattr(Engine, "fetch", full)
    with pytest.raises(
        PlaceUnseenError, match="no space left on device; its parts are put together on the NAS"
    ):
        world.run(part=Part(start=0, length=1024, seal=0), place=world.nas_id)


def test_a_worker_that_gets_no_ranges_leaves_parts_to_others(world: World) -> None:
    """It would pass for one that has fetched them, and much faster than those that do."""
    world.run()
    world.engine = "hub"
    with pytest.raises(PlaceUnseenError, match="`hub` gets no parts"):
        world.run(part=Part(start=0, length=1024, seal=0), place=world.nas_id)


@pytest.mark.parametrize(
    ("has_own", "sees_nas", "said"),
    [
        (True, True, "own is another one, and the NAS at .*nas is another one"),
        (False, False, "own is not mounted, or has no id, and the NAS at .*nas is not there"),
    ],
)
def test_a_folder_that_is_not_seen_is_told_apart(
    world: World, monkeypatch: pytest.MonkeyPatch, has_own: bool, sees_nas: bool, said: str
) -> None:
    if not sees_nas:
        monkeypatch.setattr(world, "seen", str)
    worker = world.downloader()
    if not has_own:
        (world.own / ".hf-downloader/place").unlink()
    about = Descriptor(file=FILE, part=Part(start=0, length=1024, seal=0), place="cd" * 16)
    task = DownloadTask(token=Token(1, 1, 0), spec=world.spec(), about=about)
    with pytest.raises(PlaceUnseenError, match=said):
        worker.run(task, Cancel(), lambda _: None)
    worker.close()
