"""The last task of a job: what it leaves, where, and what must not keep it from its end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig
from distributed_downloader.descriptor import DoneFile, Extra
from distributed_downloader.errors import LocalError, PlaceUnseenError, RefusedError
from distributed_downloader.folders import Folders
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, Layout, RepoFile, Token
from distributed_downloader.storage.place import make_place
from distributed_downloader.transfer.closing import Closings
from tests.unit.test_hf_cache import CONTENT, listed
from tests.unit.test_storage import spec


@dataclass
class Files:
    """What a queue would tell of a job's files."""

    files: list[RepoFile] = field(default_factory=lambda: listed(CONTENT))
    failed: int = 0
    at_nas: int = 0
    extra: Extra | None = None

    def done(self) -> Iterator[DoneFile]:
        return (DoneFile(file, "h", 60.0) for file in self.files)

    def names(self) -> Iterator[str]:
        return (file.path for file in self.files)

    def tell_extra(self, extra: Extra) -> None:
        self.extra = Extra.model_validate_json(extra.model_dump_json())

    def delivered(self) -> int:
        return self.at_nas

    def flawed(self) -> int:
        return self.failed


class Worker:
    """A worker with an output folder, a NAS, and a job whose files are in the folder."""

    def __init__(self, home: Path) -> None:
        self.out, self.nas, self.files = home / "out", home / "nas", Files()
        settings = {"app": {"output_dir": str(self.out)}, "nas": {"enabled": True, "path": str(self.nas)}}
        self.folders = Folders(AppConfig.model_validate(settings))
        self.repo = self.out / "org" / "name"
        assert self.folders.own_id
        for path, data in CONTENT.items():
            (self.repo / path).parent.mkdir(parents=True, exist_ok=True)
            (self.repo / path).write_bytes(data)

    def close(self, **changes: object) -> None:
        about = Descriptor.of_closing(whole=True)
        job: JobSpec = spec().model_copy(update=changes)
        task = DownloadTask(token=Token(1, 9, 1), spec=job, about=about)
        Closings(self.folders, lambda _: self.files).run(task, Cancel())

    def check(self, **changes: object) -> Extra:
        self.close(check="hash", run="a" * 32, **changes)
        assert self.files.extra
        return self.files.extra


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def manifest_in(root: Path) -> dict[str, Any]:
    (path,) = (root / ".hf-downloader").glob("*.json")
    return dict(json.loads(path.read_text()))


def paths_in(root: Path) -> list[str]:
    return [each["path"] for each in manifest_in(root)["files"]]


# -- what is left where ---------------------------------------------------------------------------


def test_a_folder_of_its_own_lists_what_is_in_it(worker: Worker) -> None:
    """Other workers have the rest in theirs."""
    (worker.repo / "copy").unlink()
    worker.close()
    assert paths_in(worker.out) == [path for path in CONTENT if path != "copy"]


@pytest.mark.parametrize("layout", Layout)
def test_who_has_nothing_of_a_job_leaves_nothing_of_it(worker: Worker, layout: Layout) -> None:
    worker.files.files = [RepoFile(path="elsewhere", size=1, git_sha1="a" * 40)]
    worker.close(layout=layout)
    assert not list((worker.out / ".hf-downloader").glob("*.json"))
    assert not (worker.repo / ".cache").exists()
    assert not list(worker.out.glob("models--*"))


def test_a_named_folder_lists_all_of_the_job(worker: Worker) -> None:
    (worker.repo / "copy").unlink()
    worker.close(output_dir=str(worker.out))
    assert paths_in(worker.out) == [*CONTENT]


def test_what_was_delivered_has_a_manifest_on_the_nas(worker: Worker) -> None:
    place = make_place(worker.nas, create_root=True)
    worker.files.at_nas = 1
    worker.close(nas=place, layout=Layout.LOCAL_DIR)
    assert paths_in(worker.nas) == [*CONTENT]
    assert manifest_in(worker.nas)["layout"] == "tree"
    assert {path.name for path in worker.nas.iterdir()} == {".hf-downloader"}


def test_without_the_nas_others_close_the_job(worker: Worker) -> None:
    worker.files.at_nas = 1
    with pytest.raises(PlaceUnseenError):
        worker.close()
    make_place(worker.nas, create_root=True)
    with pytest.raises(PlaceUnseenError):
        worker.close(nas="f" * 32)


def test_a_nas_that_went_away_a_moment_ago_is_not_written_on_our_own_disk(
    worker: Worker, tmp_path: Path
) -> None:
    place = make_place(worker.nas, create_root=True)
    settings = {"app": {"output_dir": str(worker.out)}, "nas": {"enabled": True, "path": str(worker.nas)}}
    worker.folders = Folders(AppConfig.model_validate(settings), lambda: place)  # as it was seen
    worker.folders.own_id  # noqa: B018 - made
    worker.nas.rename(tmp_path / "unmounted")
    worker.nas.mkdir()
    worker.files.at_nas = 1
    with pytest.raises(PlaceUnseenError):
        worker.close(nas=place)
    assert not list(worker.nas.iterdir())


def test_another_disk_at_the_output_folder_gets_nothing(worker: Worker) -> None:
    with pytest.raises(PlaceUnseenError):
        worker.close(output_dir=str(worker.out), place="f" * 32)


@pytest.mark.parametrize("layout", [Layout.LOCAL_DIR, Layout.HF_CACHE])
@pytest.mark.parametrize("path", ["../../../x", "/etc/x"])
def test_a_path_in_redis_leads_nowhere(worker: Worker, tmp_path: Path, layout: Layout, path: str) -> None:
    worker.files.files = [RepoFile(path=path, size=1, git_sha1="a" * 40)]
    before = {*tmp_path.rglob("*")}
    with pytest.raises(RefusedError):
        worker.close(output_dir=str(worker.out), layout=layout)
    new = {path.relative_to(worker.out).parts[0] for path in {*tmp_path.rglob("*")} - before}
    assert new <= {".hf-downloader", "models--org--name", "org"}


# -- a check --------------------------------------------------------------------------------------


def test_a_check_tells_what_is_none_of_the_repos(worker: Worker, tmp_path: Path) -> None:
    (worker.repo / "mine.txt").touch()
    (worker.repo / "deep" / "mine").mkdir()
    (worker.repo / "deep" / "mine" / "x").touch()
    (worker.repo / "away").symlink_to(tmp_path)
    (worker.repo / ".cache" / "huggingface").mkdir(parents=True)
    (worker.repo / ".cache" / "huggingface" / "note").touch()
    found = worker.check()
    assert sorted(found.first) == ["away", "deep/mine/x", "mine.txt"]
    assert worker.check(include=("deep/*",)).first == ("deep/mine/x",)


def test_names_that_are_no_text_are_told_all_the_same(worker: Worker) -> None:
    os.mkdir(os.fsencode(worker.repo) + b"/caf\xe9")  # noqa: PTH102 - bytes
    for name in (b"/caf\xe9/a", b"/b\xff", b"/line\nbreak"):
        with open(os.fsencode(worker.repo) + name, "w"):  # noqa: PTH123 - bytes
            pass
    assert sorted(worker.check().first) == ["b\\xff", "caf\\xe9/a", "line\nbreak"]


def test_many_are_counted_and_the_first_told(worker: Worker) -> None:
    for n in range(1100):
        (worker.repo / f"x{n}").touch()
    found = worker.check()
    assert (found.count, len(found.first)) == (1100, 1000)


def test_a_check_that_found_flaws_does_not_make_a_manifest_of_the_whole_repo(worker: Worker) -> None:
    worker.files.files.pop()
    worker.files.failed = 1
    worker.check()
    assert manifest_in(worker.out)["whole"] is False
    worker.files.failed = 0
    worker.check()
    assert manifest_in(worker.out)["whole"] is True


def test_a_check_shows_no_snapshot(worker: Worker) -> None:
    worker.check(layout=Layout.HF_CACHE, output_dir=str(worker.out))
    assert not list(worker.out.glob("models--*"))


@pytest.mark.parametrize("error", [LocalError, RefusedError])
def test_a_check_needs_to_write_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error("read-only")

    monkeypatch.setattr("distributed_downloader.transfer.closing.Manifests.write", refuse)
    assert worker.check() == Extra()
    with pytest.raises(error):
        worker.close()


def test_a_check_of_nothing_makes_nothing(worker: Worker, tmp_path: Path) -> None:
    worker.files.files = []
    assert worker.check(output_dir=str(tmp_path / "nowhere")) == Extra()
    assert not (tmp_path / "nowhere").exists()
