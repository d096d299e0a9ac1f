"""A snapshot in a cache of huggingface_hub: whole or not there, whoever dies, plants links or was there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import PlaceError, PlaceUnseenError, RefusedError, StoppedError
from distributed_downloader.models import JobSpec, Layout, RepoFile, RepoType
from distributed_downloader.storage import RepoFolder, hf_cache
from distributed_downloader.storage.hf_cache import HfCache
from distributed_downloader.storage.leftovers import sweep
from tests.hub.sample import tree
from tests.unit.test_storage import spec as plain_spec

COMMIT = "a" * 40
CONTENT = {"config.json": b"{}", "deep/er/a 'b\" é.bin": b"x" * 99, "n" * 255: b"long", "copy": b"{}"}


class Died(BaseException):
    """A worker that is killed here: nothing behind it runs."""


def spec(**changes: object) -> JobSpec:
    return plain_spec().model_copy(update={"layout": Layout.HF_CACHE} | changes)


def listed(content: dict[str, bytes]) -> list[RepoFile]:
    return [
        RepoFile(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in content.items()
    ]


class Cache:
    """One repo's folder in a cache, whose blobs are there."""

    def __init__(self, root: Path) -> None:
        self.root, self.repo = root, root / "models--org--name"
        self.snapshot, self.ref = self.repo / "snapshots" / COMMIT, self.repo / "refs" / "main"
        (self.repo / "blobs").mkdir(parents=True)
        for data in CONTENT.values():
            (self.repo / "blobs" / hashlib.sha256(data).hexdigest()).write_bytes(data)

    def show(self, content: dict[str, bytes] = CONTENT, *, whole: bool = True, **changes: object) -> None:
        files = listed(content)
        HfCache(self.root, "", spec(**changes), Cancel()).show(lambda: files, whole=whole)

    def assert_whole(self) -> None:
        assert tree(self.snapshot) == CONTENT
        assert self.ref.read_bytes() == COMMIT.encode()
        assert list(json.loads((self.repo / "trees" / f"{COMMIT}.json").read_text())["files"]) == [*CONTENT]
        left = [path for path in self.root.rglob("*") if "~" in path.name or "staging" in path.name]
        assert not left


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "hub")


def no_links(*kinds: str, code: int = errno.EPERM) -> Callable[[pytest.MonkeyPatch], None]:
    """Let the disk know no links of these kinds."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for kind in kinds:
            monkeypatch.setattr(os, kind, refuse)

    return patch


# -- what there is in the end ---------------------------------------------------------------------


def test_a_snapshot_is_links_that_move_with_the_cache(cache: Cache, tmp_path: Path) -> None:
    cache.show()
    cache.assert_whole()
    cache.root.rename(tmp_path / "moved")
    assert tree(tmp_path / "moved" / "models--org--name" / "snapshots" / COMMIT) == CONTENT


@pytest.mark.parametrize(
    ("changes", "folder"),
    [
        ({"repo_type": RepoType.DATASET}, "datasets--org--name"),
        ({"repo_type": RepoType.SPACE}, "spaces--org--name"),
        ({"repo_id": "gpt2"}, "models--gpt2"),
    ],
)
def test_folders_have_the_librarys_names(tmp_path: Path, changes: dict[str, object], folder: str) -> None:
    HfCache(tmp_path, "", spec(**changes), Cancel()).show(lambda: listed(CONTENT), whole=True)
    assert len(list((tmp_path / folder / "snapshots" / COMMIT).iterdir())) == len(CONTENT)


@pytest.mark.parametrize("revision", ["refs/pr/1", "v1.0", "feature/x"])
def test_a_revision_is_found_by_its_name(cache: Cache, revision: str) -> None:
    cache.show(revision=revision)
    assert (cache.repo / "refs" / revision).read_text() == COMMIT


def test_a_commit_by_its_id_has_no_ref(cache: Cache) -> None:
    cache.show(revision=COMMIT)
    assert not (cache.repo / "refs").exists()


def test_a_ref_follows_the_branch(cache: Cache) -> None:
    cache.show()
    cache.show(commit="b" * 40)
    assert cache.ref.read_text() == "b" * 40
    assert tree(cache.snapshot) == tree(cache.snapshot.with_name("b" * 40)) == CONTENT


def test_of_some_files_there_is_no_listing(cache: Cache) -> None:
    cache.show({"config.json": b"{}"}, whole=False)
    assert tree(cache.snapshot) == {"config.json": b"{}"}
    assert not (cache.repo / "trees").exists()


def test_a_file_without_a_hash_has_a_blob_of_its_own(cache: Cache) -> None:
    file = RepoFile(path="a", size=3)
    HfCache(cache.root, "", spec(), Cancel()).show(lambda: [file], whole=False)
    assert cache.snapshot.joinpath("a").readlink().parent == Path("../../blobs")


# -- who dies, and who comes after ----------------------------------------------------------------


@pytest.mark.parametrize("moment", ["listing", "links", "rename", "ref"])
def test_whoever_is_killed_another_one_goes_on(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(HfCache, "_remove", lambda *_: None)  # a killed process clears nothing
        patch.setattr(*_at(moment), die)
        with pytest.raises(Died):
            cache.show()
    assert cache.snapshot.exists() == (moment == "ref")
    assert not cache.ref.exists()
    cache.show()
    for stage in (cache.root / ".hf-downloader" / "partial").glob("*.staging"):
        os.utime(stage, (0, 0))
    sweep(cache.root)
    cache.assert_whole()


def _at(moment: str) -> tuple[object, str]:
    """Return the function that is called at a moment."""
    return {
        "listing": (hf_cache, "write_tree"),
        "links": (hf_cache, "sync_folder"),
        "rename": (HfCache, "_move"),
        "ref": (HfCache, "_refer"),
    }[moment]


@pytest.mark.parametrize("last", [1, 3, 4])
def test_who_is_killed_while_it_links_into_a_snapshot_leaves_no_names_there(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    cache.show({"config.json": b"{}"}, whole=False)

    (cache.snapshot / "copy").write_bytes(b"wrong")
    calls, symlink = count(), os.symlink

    def die(text: bytes, name: bytes, *, dir_fd: int) -> None:
        if next(calls) == last:
            raise Died
        symlink(text, name, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", die)
        with pytest.raises(Died):
            cache.show(whole=False)
    assert tree(cache.snapshot).keys() <= CONTENT.keys()
    cache.show()
    cache.assert_whole()


def test_two_jobs_of_one_commit_close_at_the_same_time(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    halves = [dict([*CONTENT.items()][:2]), dict([*CONTENT.items()][2:])]
    both, move = threading.Barrier(2, timeout=30), HfCache._move

    def meet(self: HfCache, stage: bytes) -> bool:
        both.wait()
        return move(self, stage)

    monkeypatch.setattr(HfCache, "_move", meet)
    threads = [threading.Thread(target=cache.show, args=(h,), kwargs={"whole": False}) for h in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.show(whole=True)
    cache.assert_whole()


def test_a_stop_leaves_nothing_to_be_found(cache: Cache) -> None:
    cancel = Cancel()
    cancel.set("stop")
    with pytest.raises(StoppedError):
        HfCache(cache.root, "", spec(), cancel).show(lambda: listed(CONTENT), whole=True)
    assert not cache.snapshot.exists()
    assert not cache.ref.exists()


# -- what was there before ------------------------------------------------------------------------


def test_a_snapshot_of_the_library_is_completed(cache: Cache) -> None:
    """It has links of the same text, copies where the disk knew no links, and links to a shared store."""
    store = cache.root / "blobs" / "xx"
    store.mkdir(parents=True)
    digest = {path: hashlib.sha256(data).hexdigest() for path, data in CONTENT.items()}
    blob = cache.repo / "blobs" / digest["n" * 255]
    blob.rename(store / "shared")
    blob.symlink_to("../../blobs/xx/shared")
    cache.snapshot.mkdir(parents=True)
    (cache.snapshot / "config.json").symlink_to(f"../../blobs/{digest['config.json']}")
    (cache.snapshot / "copy").write_bytes(b"not a link")
    (cache.snapshot / ("n" * 255)).symlink_to(blob)  # by its whole path
    before = (cache.snapshot / "config.json").lstat().st_ino
    cache.show()
    cache.assert_whole()
    assert (cache.snapshot / "config.json").lstat().st_ino == before, "it was right"
    links = [path.readlink() for path in cache.snapshot.glob("[cn]*")]
    assert not any(link.is_absolute() for link in links)


def test_a_blob_that_leads_to_the_librarys_shared_store_is_replaced(cache: Cache, tmp_path: Path) -> None:
    data = CONTENT["config.json"]
    file = listed({"config.json": data})[0]
    blob = cache.repo / "blobs" / str(file.sha256)
    blob.rename(tmp_path / "shared")
    blob.symlink_to(tmp_path / "shared")
    folder = RepoFolder(cache.root, spec())
    assert not folder.has(file, Cancel())
    with folder.partial(file, Cancel()) as partial:
        partial.write(data)
        folder.publish(partial, file)
    assert not blob.is_symlink()
    assert (tmp_path / "shared").read_bytes() == blob.read_bytes() == data


# -- disks without links --------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_symbolic_links_it_has_hard_ones(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    no_links("symlink", code=code)(monkeypatch)
    cache.show()
    cache.show()  # and again, as after a death
    cache.assert_whole()
    digest = hashlib.sha256(b"{}").hexdigest()
    assert (cache.snapshot / "copy").samefile(cache.repo / "blobs" / digest)


def test_without_any_links_it_says_what_to_do(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    no_links("symlink", "link")(monkeypatch)
    with pytest.raises(PlaceError, match="use --layout local-dir"):
        cache.show()
    assert not cache.snapshot.exists()
    assert not cache.ref.exists()


# -- who means harm -------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["../../../x", "a/../../../x", "", "a//b", "/etc/x", "x" * 300])
def test_a_revision_leads_nowhere_else(cache: Cache, tmp_path: Path, revision: str) -> None:
    before = {path for path in tmp_path.rglob("*") if cache.root not in path.parents}
    with pytest.raises(RefusedError):
        cache.show(revision=revision)
    assert {path for path in tmp_path.rglob("*") if cache.root not in path.parents} == before


@pytest.mark.parametrize("path", ["../../../x", "a/../../x", "/etc/x", "a//b", "."])
def test_a_path_leads_nowhere_else(cache: Cache, path: str) -> None:
    with pytest.raises(RefusedError):
        cache.show({path: b"{}"})
    assert not cache.snapshot.exists()
    assert not cache.ref.exists()


@pytest.mark.parametrize(
    "planted",
    [
        "snapshots",
        f"snapshots/{COMMIT}",
        f"snapshots/{COMMIT}/deep",
        "refs",
        "trees",
        "",
        "../.hf-downloader",
    ],
)
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_written_through_a_link(
    cache: Cache, tmp_path: Path, planted: str, *, dangling: bool
) -> None:
    outside = tmp_path / "outside"
    if not dangling:
        outside.mkdir()
    link = Path(os.path.normpath(cache.repo / planted))
    if not planted:
        cache.repo.rename(tmp_path / "away")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(RefusedError):
        cache.show()
    assert not outside.exists() if dangling else not list(outside.iterdir())


@pytest.mark.parametrize("planted", ["refs/main", f"trees/{COMMIT}.json", f"snapshots/{COMMIT}/copy"])
def test_a_link_in_a_files_place_is_replaced(cache: Cache, tmp_path: Path, planted: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    link = cache.repo / planted
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    cache.show()
    cache.assert_whole()
    assert outside.read_text() == "mine"


@pytest.mark.parametrize(
    "planted", ["refs/main/x", f"trees/{COMMIT}.json/x", f"snapshots/{COMMIT}/copy/x", f"snapshots/{COMMIT}"]
)
def test_what_is_in_the_way_is_told(cache: Cache, planted: str) -> None:
    """And no worker rests for it, as if its disk were at fault."""
    thing = cache.repo / planted
    thing.parent.mkdir(parents=True, exist_ok=True)
    thing.write_text("mine")
    with pytest.raises(RefusedError, match="in the way"):
        cache.show()
    assert thing.read_text() == "mine"


def test_another_disk_at_the_folders_path_gets_nothing(cache: Cache) -> None:
    with pytest.raises(PlaceUnseenError):
        HfCache(cache.root, "f" * 32, spec(), Cancel()).show(lambda: listed(CONTENT), whole=True)
    assert [path.name for path in cache.repo.iterdir()] == ["blobs"]
