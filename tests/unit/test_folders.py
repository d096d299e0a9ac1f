"""A worker's own output folder, whose disk may come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distributed_downloader.config import AppConfig
from distributed_downloader.errors import LocalError
from distributed_downloader.folders import Folders
from distributed_downloader.models import JobSpec, RepoType
from distributed_downloader.storage.place import make_place, read_place

SPEC = JobSpec(
    endpoint="https://hub.example",
    repo_type=RepoType.MODEL,
    repo_id="org/model",
    revision="main",
    commit="a" * 40,
)


def folders_in(own: Path) -> Folders:
    return Folders(AppConfig.model_validate({"app": {"output_dir": str(own)}}))


@contextmanager
def unmounted(folder: Path, *, mount_point: bool = True) -> Iterator[None]:
    """Take away the disk that is mounted there; nothing may be written meanwhile where it was."""
    folder.rename(folder.with_name("unmounted"))
    if mount_point:
        folder.mkdir()
    yield
    assert folder.exists() == mount_point
    if mount_point:
        assert list(folder.iterdir()) == []
        folder.rmdir()
    folder.with_name("unmounted").rename(folder)


def test_it_is_made_at_first(tmp_path: Path) -> None:
    folders = folders_in(tmp_path / "own")
    assert folders.own_id
    assert folders.output(SPEC) == tmp_path / "own"
    assert folders.place(SPEC) == folders.own_id


def test_nothing_is_written_where_its_disk_was_mounted(tmp_path: Path) -> None:
    own = tmp_path / "own"
    folders = folders_in(own)
    known = folders.own_id
    with unmounted(own), pytest.raises(LocalError, match="mount its disk again"):
        folders.output(SPEC)
    assert folders.output(SPEC) == own
    assert folders.own_id == known


def test_it_may_be_another_disk_from_now_on(tmp_path: Path) -> None:
    """A worker that started before its disk was mounted has made a folder below it."""
    own = tmp_path / "own"
    folders = folders_in(own)
    before = folders.own_id
    own.rename(tmp_path / "below")
    own.mkdir()
    mounted = make_place(own, create_root=False)
    assert folders.output(SPEC) == own
    assert folders.own_id == folders.place(SPEC) == mounted != before


def test_a_folder_that_the_master_could_not_mark_is_known_once_it_was_seen(tmp_path: Path) -> None:
    """Its disk was full, say: then nobody has told which folder it is."""
    there = tmp_path / "there"
    spec = SPEC.model_copy(update={"output_dir": str(there)})
    folders = folders_in(tmp_path / "own")
    assert folders.output(spec) == there
    known = folders.place(spec)
    assert known == read_place(there) != ""
    for mount_point in (False, True):
        away = unmounted(there, mount_point=mount_point)
        with away, pytest.raises(LocalError, match="mount its disk again"):
            folders.output(spec)
    assert folders.output(spec) == there
    assert folders.place(spec) == known


def test_a_folder_that_cannot_be_marked_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="a file is where a folder should be"):
        folders_in(tmp_path / "own").output(SPEC.model_copy(update={"output_dir": str(tmp_path / "file/x")}))
