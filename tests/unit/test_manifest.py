"""The manifest of an output folder: what it adds up to, and what becomes of one that was damaged."""

from __future__ import annotations

import errno
import json
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from distributed_downloader.errors import PlaceError, RefusedError
from distributed_downloader.models import JobSpec, Layout, RepoFile, RepoType
from distributed_downloader.storage.leftovers import sweep
from distributed_downloader.storage.manifest import Entry, Head, Manifests
from distributed_downloader.verification import at_path
from tests.unit.test_storage import spec

SHA = "b" * 64
ODD = ["a 'b\" é.bin", "n" * 255, "x/" * 40 + "deep", "#%?&", "{}", "]}"]


def entry(path: str, at: float = 0.0) -> Entry:
    return Entry.of(RepoFile(path=path, size=3, sha256=SHA), at)


class Folder:
    """An output folder."""

    def __init__(self, root: Path) -> None:
        self.state, self.manifests = root / ".hf-downloader", Manifests(root)

    def write(self, *paths: str, job: JobSpec | None = None, whole: bool = False, at: float = 0.0) -> None:
        self.manifests.write(Head.of(job or spec(), whole=whole), (entry(path, at) for path in paths))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.state.glob("*.json"))

    def only(self) -> dict[str, str]:
        """Return what the only manifest lists: path -> when it was verified."""
        (found,) = self.manifests.find()
        return {each.path: each.verified for each in self.manifests.entries(found.name)}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


NAME = f"{'a' * 40}.json"


# -- what it says ---------------------------------------------------------------------------------


def test_it_is_json_that_tells_path_size_hash_and_when(folder: Folder) -> None:
    folder.write(*ODD, whole=True, at=1_700_000_000)
    found = json.loads((folder.state / NAME).read_text())
    assert (found["repo_id"], found["commit"], found["whole"]) == ("org/name", "a" * 40, True)
    assert found["files"] == [
        {"path": path, "size": 3, "sha256": SHA, "verified": "2023-11-14T22:13:20Z"} for path in ODD
    ]
    assert [*folder.only()] == ODD


def test_jobs_of_one_commit_add_up_and_the_newer_proof_counts(folder: Folder) -> None:
    folder.write("a", "b", whole=True)
    folder.write("b", "c", at=86400)
    assert {path: at[:10] for path, at in folder.only().items()} == {
        "b": "1970-01-02",
        "c": "1970-01-02",
        "a": "1970-01-01",
    }
    assert folder.manifests.find()[0].head.whole


@pytest.mark.parametrize(
    "changes",
    [
        {"repo_id": "copy/of-it"},
        {"layout": Layout.HF_CACHE},
        {"repo_type": RepoType.DATASET},
        {"repo_id": "org/name2", "repo_type": RepoType.SPACE},
    ],
)
def test_another_repo_of_the_same_commit_has_one_of_its_own(
    folder: Folder, changes: dict[str, object]
) -> None:
    other = spec().model_copy(update=changes)
    for _ in range(2):
        folder.write("a")
        folder.write("b", job=other)
    assert len(folder.names()) == len(folder.manifests.find()) == 2
    of = {each.head.spec.repo_id + each.head.layout: each.name for each in folder.manifests.find()}
    assert len(of) == 2 or changes.keys() == {"repo_type"}


def test_another_layout_in_the_same_folder_is_the_same_manifest(folder: Folder) -> None:
    folder.write("a")
    folder.write("b", job=spec().model_copy(update={"layout": Layout.LOCAL_DIR}))
    assert folder.only().keys() == {"a", "b"}


def test_a_check_of_an_older_commit_makes_it_none_that_was_fetched_last(folder: Folder) -> None:
    older, newer = spec(commit="0" * 40), spec(commit="1" * 40)
    for job, at in ((older, "2026-01-01T00:00:00Z"), (newer, "2026-01-02T00:00:00Z")):
        head = Head.of(job, whole=True).model_copy(update={"fetched": at})
        folder.manifests.write(head, [entry("a")])
    folder.write("a", job=older.model_copy(update={"check": "hash"}), at=5)
    (folder.state / f"{'1' * 40}.json").touch()
    os.utime(folder.state / f"{'1' * 40}.json", (0, 0))  # copied, say
    assert [each.head.commit[0] for each in folder.manifests.find()] == ["0", "1"]
    subjects = at_path(folder.state.parent)
    assert [subject.spec.commit for subject in subjects] == [newer.commit]


def test_those_who_write_at_the_same_time_lose_nothing(folder: Folder) -> None:
    folder.write("first")
    threads = [threading.Thread(target=folder.write, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folder.only().keys() == {"first", *map(str, range(8))}


def test_many_files_are_not_held_in_memory(folder: Folder) -> None:
    tracemalloc.start()
    folder.manifests.write(Head.of(spec(), whole=True), (entry(f"folder/file-{n}") for n in range(10_000)))
    assert sum(1 for _ in folder.manifests.entries(NAME)) == 10_000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000, "which is what pydantic keeps of short texts"


# -- what was done to it --------------------------------------------------------------------------


def damaged(folder: Folder, how: str) -> None:
    """Do to a manifest of the files a, b and c what disks and people do."""
    folder.write("a", "b", "c", whole=True)
    path = folder.state / NAME
    text = path.read_text()
    changed = {
        "empty": "",
        "cut in its head": text[:40],
        "cut at a file": text[: text.index("\n", text.index('"b"')) + 1],
        "cut in a file": text[: text.index('"b"')],
        "pretty": json.dumps(json.loads(text), indent=2),
        "edited": text.replace('"size":3', '"size":-3', 2),
        "no name": text.replace('"b"', '""'),
        "long": text.replace('"b"', f'"{"b" * 100_000}"'),
        "newer": text.replace('"format_version": 1', '"format_version": 2'),
        "binary": "\0" * 5000,
    }[how]
    path.write_text(changed)


HOWS = (
    "empty",
    "cut in its head",
    "cut at a file",
    "cut in a file",
    "pretty",
    "edited",
    "no name",
    "long",
    "newer",
    "binary",
)


@pytest.mark.parametrize("how", HOWS)
def test_a_job_ends_whatever_became_of_the_manifest(folder: Folder, how: str) -> None:
    """It has all its files, so the manifest of others must not stand in its way."""
    damaged(folder, how)
    folder.write("d")
    newest = max(folder.manifests.find(), key=lambda each: each.at)
    paths = {each.path for each in folder.manifests.entries(newest.name)}
    assert "d" in paths <= {"a", "b", "c", "d"}
    assert newest.head.whole == (paths == {"a", "b", "c", "d"})


@pytest.mark.parametrize("how", HOWS)
def test_what_is_damaged_is_not_believed(folder: Folder, how: str) -> None:
    damaged(folder, how)
    for found in folder.manifests.find():
        with pytest.raises(RefusedError, match="remove it"):
            [each.file for each in folder.manifests.entries(found.name)]


@pytest.mark.parametrize("what", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_manifest_is_passed_over(folder: Folder, tmp_path: Path, what: str) -> None:
    folder.write("other", job=spec(commit="c" * 40))
    outside = tmp_path / "outside"
    planted = folder.state / NAME
    if what == "folder":
        (planted / "x").mkdir(parents=True)
    elif what == "pipe":
        os.mkfifo(planted)
    else:
        planted.symlink_to(outside)
        if what == "link":
            outside.write_text("mine")
    assert folder.only().keys() == {"other"}
    folder.write("a")
    paths = [{each.path for each in folder.manifests.entries(f.name)} for f in folder.manifests.find()]
    assert {"a"} in paths
    assert outside.exists() == (what == "link")
    assert what != "link" or outside.read_text() == "mine"


def test_one_that_may_not_be_read_hides_no_other(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write("a")
    folder.write("b", job=spec(commit="c" * 40))
    opened = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == NAME:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    assert folder.only().keys() == {"b"}


def test_our_own_folder_that_is_a_link_gets_nothing(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    folder.state.parent.mkdir()
    folder.state.symlink_to(tmp_path / "outside")
    with pytest.raises(RefusedError, match="symbolic link"):
        folder.write("a")
    assert not list((tmp_path / "outside").iterdir())


def test_a_lock_that_is_a_link_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    folder.write("a")
    lock = folder.state / "manifests.lock"
    lock.unlink()
    lock.symlink_to(tmp_path / "outside")
    with pytest.raises(RefusedError):
        folder.write("b")
    assert not (tmp_path / "outside").exists()


def test_who_is_killed_leaves_the_old_one_and_nothing_for_long(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("a")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", die)
        patch.setattr(os, "unlink", die)  # a killed process clears nothing
        with pytest.raises(KeyboardInterrupt):
            folder.write("b")
    assert folder.only().keys() == {"a"}
    (left,) = folder.state.glob("~*")
    os.utime(left, (0, 0))
    sweep(folder.state.parent)
    assert not left.exists()


def test_a_disk_that_refuses_is_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PlaceError, match="permission"):
        folder.write("a")
    assert folder.names() == []
