"""The local hub's repos: hashes that git and sha256sum agree with, commits that follow the content."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from distributed_downloader.local_hub.demo_repo import safetensors, write_demo_repo
from distributed_downloader.local_hub.repo import LFS_SIZE, Entry, FolderSnapshot, LocalRepo, git_sha1
from tests.hub import sample
from tests.hub.synthetic import SyntheticSnapshot


def snapshot(folder: Path, files: dict[str, bytes]) -> FolderSnapshot:
    sample.write_files(folder, files)
    return FolderSnapshot(folder)


def test_known_hashes(tmp_path: Path) -> None:
    found = snapshot(tmp_path, {"empty": b"", "hello": b"hello world\n", "hello.bin": b"hello world\n"})
    assert {entry.path: entry.oid for entry in found.entries if not entry.sha256} == {
        "empty": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        "hello": "3b18e512dba79e4c8300dd08aeb37f8e728b8dad",
    }
    lfs = found.find("hello.bin")
    assert lfs
    assert lfs.sha256 == hashlib.sha256(b"hello world\n").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{lfs.sha256}\nsize 12\n"
    assert lfs.oid == git_sha1(pointer.encode())


@pytest.mark.parametrize(
    ("name", "size", "lfs"),
    [
        ("a.txt", LFS_SIZE, False),
        ("a.txt", LFS_SIZE + 1, True),
        ("a.safetensors", 0, True),
        ("a.bin", 1, True),
    ],
)
def test_size_and_suffix_decide_what_is_lfs(tmp_path: Path, name: str, size: int, *, lfs: bool) -> None:
    entry = snapshot(tmp_path, {name: b"x" * size}).find(name)
    assert entry
    assert entry.size == size
    assert bool(entry.sha256) == lfs


def test_the_commit_follows_paths_and_content_only(tmp_path: Path) -> None:
    files = {"a.txt": b"a", "sub/b.bin": b"b"}
    same = [snapshot(tmp_path / name, files).commit for name in ("one", "two")]
    assert same[0] == same[1]
    assert len(same[0]) == 40
    others = [{**files, "a.txt": b"A"}, {**files, "sub/b.bin": b"B"}, {"a.txt": b"a", "b.bin": b"b"}, {}]
    commits = {snapshot(tmp_path / f"other{n}", each).commit for n, each in enumerate(others[:3])}
    assert len(commits | {same[0]}) == 4


def test_entries_are_sorted_and_have_their_folders(tmp_path: Path) -> None:
    found = snapshot(tmp_path, {"b/c/d.txt": b"1", "a.txt": b"2"})
    assert [(entry.path, entry.folder) for entry in found.entries] == [
        ("a.txt", False),
        ("b", True),
        ("b/c", True),
        ("b/c/d.txt", False),
    ]
    assert found.find("b/c/nothing") is None
    entry = found.find("b/c/d.txt")
    assert entry
    with found.open(entry) as file:
        assert file.read() == b"1"


def test_a_snapshot_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    found = FolderSnapshot(tmp_path / "later")
    sample.write_files(tmp_path / "later", {"a": b""})
    assert len(found.entries) == 1
    sample.write_files(tmp_path / "later", {"b": b""})
    assert len(found.entries) == 1


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    repo = LocalRepo(tmp_path / "later", refs={"v1": tmp_path / "never"})
    repo.push("v2", tmp_path / "never")
    found = snapshot(tmp_path / "later", {"a": b""})
    main = repo.at("main")
    assert main
    assert main.commit == found.commit


def test_lines_of_a_listing() -> None:
    git, lfs = Entry("a", 3, "1" * 40), Entry("b", 9, "2" * 40, "3" * 64)
    assert git.to_json() == {"type": "file", "oid": "1" * 40, "size": 3, "path": "a"}
    assert lfs.to_json()["lfs"] == {"oid": "3" * 64, "size": 9, "pointerSize": 126}
    assert lfs.to_json(masked=True)["lfs"] == {"oid": "*" * 64, "size": 9, "pointerSize": 126}
    assert "lastCommit" in git.to_json(commit="4" * 40)
    assert Entry("d", 0, "1" * 40, folder=True).to_json()["type"] == "directory"
    assert git.to_sibling(blobs=False) == lfs.to_sibling(blobs=False) | {"rfilename": "a"}
    assert lfs.to_sibling(blobs=True)["blobId"] == "2" * 40


def test_revisions(tmp_path: Path) -> None:
    old, new = (snapshot(tmp_path / name, {"a": name.encode()}) for name in ("old", "new"))
    repo = LocalRepo(old, refs={"v1": tmp_path / "old", "refs/pr/1": new})
    assert repo.at("main") is old
    assert repo.at("refs/pr/1") is new
    repo.push("main", new)
    assert repo.at("main") is new
    assert repo.at(old.commit) is old
    assert repo.at(old.commit[:7]) is old
    assert [repo.at(unknown) for unknown in ("", old.commit[:6], "v2", "0" * 40)] == [None] * 4


@pytest.mark.parametrize(
    ("readers", "gated", "token", "lists", "serves"),
    [
        (None, False, "", True, True),
        (["me"], False, "", False, False),
        (["me"], False, "me", True, True),
        (["me"], True, "", True, False),
        (["me"], True, "you", True, False),
        (["me"], True, "me", True, True),
    ],
)
def test_who_may_do_what(
    tmp_path: Path, *, readers: list[str] | None, gated: bool, token: str, lists: bool, serves: bool
) -> None:
    repo = LocalRepo(tmp_path, readers=readers, gated=gated)
    assert (repo.lists_for(token), repo.serves(token)) == (lists, serves)


def test_synthetic_repos_cost_nothing_until_they_are_read() -> None:
    found = SyntheticSnapshot(1_000_000, size=100)
    last = found[len(found) - 1]
    assert last.path == "part-999/file-0999999.txt"
    assert found.find(last.path) == last
    assert found.find("part-000/file-0999999.txt") is None
    assert found.find("part-999/file-1000000.txt") is None
    with found.open(last) as file:
        assert git_sha1(file.read()) == last.oid
    assert last.size == 100
    with pytest.raises(IndexError):
        found[1_000_000]


def test_the_demo_repo_is_the_same_every_time(tmp_path: Path) -> None:
    for name, seed in ("one", 0), ("two", 0), ("three", 1):
        write_demo_repo(tmp_path / name, seed)
    one, two, three = (sample.tree(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one.keys() == three.keys()
    assert one != three
    assert 14e6 < sum(map(len, one.values())) < 28e6
    assert 10 <= len(one) <= 30


def test_the_index_of_the_demo_repo_tells_the_truth(tmp_path: Path) -> None:
    write_demo_repo(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    for tensor, name in index["weight_map"].items():
        assert tensor in tensors((tmp_path / name).read_bytes())


def test_safetensors() -> None:
    data = safetensors({"a": b"12345", "b": b"", "c": b"678"})
    assert tensors(data) == {"a": b"12345", "b": b"", "c": b"678"}
    assert struct.unpack_from("<Q", data)[0] % 8 == 0


def tensors(data: bytes) -> dict[str, bytes]:
    """Read the safetensors format, as its specification says."""
    (size,) = struct.unpack_from("<Q", data)
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items()}


def test_sample_files_have_all_that_is_awkward() -> None:
    files = sample.model_files()
    assert files == sample.model_files()
    assert any(len(name.encode()) == 255 for name in files)
    assert all(any(sign in name for name in files) for sign in " #%?+&日")
    assert b"" in files.values()
    assert tensors(files["model.safetensors"])
    assert sample.dataset_files() != files


def test_trees_leave_the_librarys_own_folder_out(tmp_path: Path) -> None:
    sample.write_files(tmp_path, {".cache/huggingface/x": b"", ".gitattributes": b"1"})
    assert sample.tree(tmp_path) == {".gitattributes": b"1"}
