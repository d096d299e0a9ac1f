"""What `--layout local-dir` leaves, read by the library that is installed; whoever moves files meanwhile."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from huggingface_hub._local_folder import read_download_metadata

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RefusedError, StoppedError
from distributed_downloader.models import Layout, RepoFile
from distributed_downloader.storage.local_dir import leave_metadata
from tests.unit.test_hf_cache import CONTENT, listed
from tests.unit.test_storage import spec as plain_spec

SPEC = plain_spec().model_copy(update={"layout": Layout.LOCAL_DIR})


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    for path, data in CONTENT.items():
        file = tmp_path / "out" / "org" / "name" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "out" / "org" / "name"


def leave(repo: Path, files: list[RepoFile] | None = None, *, whole: bool = True) -> None:
    files = listed(CONTENT) if files is None else files
    leave_metadata(repo.parents[1], "", SPEC, lambda: files, Cancel(), whole=whole)


def test_the_library_takes_each_file_for_fresh(repo: Path) -> None:
    os.utime(repo / "copy", (time.time() + 3600,) * 2)  # the clock of a file server is ahead
    leave(repo)
    for file in listed(CONTENT):
        if len(file.path) < 240:
            found = read_download_metadata(repo, file.path)
            assert found
            assert (found.commit_hash, found.etag) == (SPEC.commit, file.sha256)
    notes = repo / ".cache" / "huggingface"
    assert list(json.loads((notes / "trees" / f"{SPEC.commit}.json").read_text())["files"]) == [*CONTENT]
    assert (notes / ".gitignore").read_text() == "*"
    assert not list(notes.rglob("*~*"))


def test_a_file_that_somebody_has_moved_on_gets_none(repo: Path) -> None:
    """Who eats files as they come, or `delete_after_copy`: the job is done all the same."""
    (repo / "copy").unlink()
    (repo / "deep" / "er" / "a 'b\" é.bin").unlink()
    (repo / "deep" / "er").rmdir()
    leave(repo)
    assert read_download_metadata(repo, "config.json")
    assert not (repo / ".cache" / "huggingface" / "download" / "copy.metadata").exists()
    assert not (repo / "deep" / "er").exists()


def test_a_file_without_a_hash_gets_none(repo: Path) -> None:
    leave(repo, [RepoFile(path="copy", size=2)], whole=False)
    assert not list((repo / ".cache" / "huggingface").rglob("*.metadata"))
    assert not (repo / ".cache" / "huggingface" / "trees").exists()


@pytest.mark.parametrize("path", ["../../../x", "a/../../x", "/etc/x"])
def test_a_path_leads_nowhere_else(repo: Path, tmp_path: Path, path: str) -> None:
    before = {*tmp_path.iterdir()}
    with pytest.raises(RefusedError):
        leave(repo, [RepoFile(path=path, size=1, git_sha1="a" * 40)])
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize("planted", [".cache", ".cache/huggingface/download", ".cache/huggingface/trees"])
def test_nothing_is_written_through_a_link(repo: Path, tmp_path: Path, planted: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (repo / planted).parent.mkdir(parents=True, exist_ok=True)
    (repo / planted).symlink_to(outside)
    with pytest.raises(RefusedError):
        leave(repo)
    assert not list(outside.iterdir())


def test_a_folder_in_the_place_of_a_note_is_told(repo: Path) -> None:
    (repo / ".cache" / "huggingface" / "download" / "copy.metadata").mkdir(parents=True)
    with pytest.raises(RefusedError, match=r"copy\.metadata is in the way"):
        leave(repo)


def test_a_stop_is_heard(repo: Path) -> None:
    cancel = Cancel()
    cancel.set("stop")
    with pytest.raises(StoppedError):
        leave_metadata(repo.parents[1], "", SPEC, lambda: listed(CONTENT), cancel, whole=True)
