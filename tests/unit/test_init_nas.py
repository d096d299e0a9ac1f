"""`init-nas`: marks the NAS, and nothing that only looks like it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from distributed_downloader.cli import init_nas
from distributed_downloader.cli.app import App
from distributed_downloader.cli.init_nas import command
from distributed_downloader.errors import DownloaderError, LocalError, UsageError
from distributed_downloader.storage import mounts
from distributed_downloader.storage.place import read_place
from tests.mounts import mounted as real_mount
from tests.mounts import needs_mount


def run(monkeypatch: pytest.MonkeyPatch, nas: Path | None, *words: str) -> Result:
    """Run the command; raises what it raises."""
    for name in ("NAS_ENABLED", "NAS_PATH"):
        monkeypatch.delenv(name, raising=False)
    if nas:
        monkeypatch.setenv("NAS_PATH", str(nas))
    result = CliRunner().invoke(command, words, obj=App(None, {}))
    if isinstance(result.exception, DownloaderError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # away from any configuration file
    monkeypatch.setenv("HOME", str(tmp_path))
    nas = tmp_path / "nas"
    nas.mkdir()
    return nas


def test_a_folder_is_marked_once(nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(monkeypatch, nas, "--force").output
    place = read_place(nas)
    assert f"{nas} is marked as the NAS; its id is {place}." in first
    assert "are free." in first
    assert "NAS_ENABLED=1" in first
    again = run(monkeypatch, nas).output
    assert f"{nas} is already marked as the NAS; its id is {place}." in again
    assert read_place(nas) == place


def mounted(monkeypatch: pytest.MonkeyPatch, kind: str, *, point: bool, on_root: bool = False) -> None:
    """Let the NAS's folder be on a file system of a kind, and a mount point or not."""
    monkeypatch.setattr(mounts, "file_system", lambda _: kind)
    monkeypatch.setattr(mounts, "is_mount_point", lambda _: point)
    monkeypatch.setattr(mounts, "is_on_root", lambda _: on_root)


@pytest.mark.parametrize(
    ("kind", "point", "on_root"),
    [
        ("ext4", False, True),
        ("xfs", False, False),  # as /home often is
        ("fuseblk", False, False),
        ("", False, False),
        ("nfs4", False, True),  # a machine without a disk
        ("virtiofs", False, True),
    ],
)
def test_a_folder_on_our_own_disk_is_refused(
    nas: Path, monkeypatch: pytest.MonkeyPatch, kind: str, point: bool, on_root: bool
) -> None:
    mounted(monkeypatch, kind, point=point, on_root=on_root)
    with pytest.raises(UsageError, match=r"own disk.* --force"):
        run(monkeypatch, nas)
    assert read_place(nas) == ""
    run(monkeypatch, nas, "--force")
    run(monkeypatch, nas)
    assert read_place(nas)


@pytest.mark.parametrize(
    ("kind", "point"),
    [("nfs4", False), ("cifs", True), ("fuse.sshfs", False), ("9p", False), ("ext4", True), ("", True)],
)
def test_a_mounted_folder_is_taken(
    nas: Path, monkeypatch: pytest.MonkeyPatch, kind: str, point: bool
) -> None:
    mounted(monkeypatch, kind, point=point)
    run(monkeypatch, nas)
    assert read_place(nas)


@needs_mount
def test_what_is_mounted_is_found_out(nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with real_mount(nas, "-t", "tmpfs", "tmpfs"):
        assert mounts.file_system(nas) == "tmpfs"
        assert mounts.is_mount_point(nas)
        inner = nas / "a folder"
        inner.mkdir()
        assert mounts.file_system(inner) == "tmpfs"
        assert not mounts.is_mount_point(inner)
        assert not mounts.is_on_root(inner)
        with pytest.raises(UsageError, match="own disk \\(tmpfs\\)"):
            run(monkeypatch, inner)
        run(monkeypatch, nas)
    assert read_place(nas) == ""


@needs_mount
def test_a_folder_of_the_same_disk_that_is_mounted_there_counts(nas: Path) -> None:
    other = nas.with_name("other")
    other.mkdir()
    with real_mount(nas, "--bind", str(other)):
        assert mounts.is_mount_point(nas)
    assert not mounts.is_mount_point(nas)


def test_the_root_is_no_mount_point() -> None:
    assert not mounts.is_mount_point(Path("/"))
    assert mounts.is_on_root(Path("/"))


def test_where_nobody_tells_of_mounts(nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""

    def refuse(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert mounts.mount_number(nas) == ""
    assert mounts.file_system(nas) == ""
    assert not mounts.is_mount_point(nas)
    assert not mounts.is_mount_point(Path("/"))


# -- what else may lie there ----------------------------------------------------------------------


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_file_is_no_folder(nas: Path, monkeypatch: pytest.MonkeyPatch, force: list[str]) -> None:
    nas.rmdir()
    nas.touch()
    with pytest.raises(UsageError, match="nas is no folder"):
        run(monkeypatch, nas, *force)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_a_folder_that_cannot_be_opened_is_said_so(
    nas: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match=r"(?i)permission denied|stale"):
        init_nas.require_folder(nas)


def test_a_copied_id_is_refused(nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = nas.with_name("out")
    monkeypatch.setenv("OUTPUT_DIR", str(output))
    run(monkeypatch, nas, "--force")
    shutil.copytree(nas, output)
    with pytest.raises(UsageError, match=r"Remove \.hf-downloader/place in the copy"):
        run(monkeypatch, nas)
    assert [path.name for path in (nas / ".hf-downloader").iterdir()] == ["place"]
    (output / ".hf-downloader/place").unlink()
    run(monkeypatch, nas)


def test_an_output_folder_that_is_the_nas_is_welcome(nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = nas.with_name("out")
    output.symlink_to(nas)
    monkeypatch.setenv("OUTPUT_DIR", str(output))
    run(monkeypatch, nas, "--force")
    run(monkeypatch, nas)
    assert [path.name for path in (nas / ".hf-downloader").iterdir()] == ["place"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_missing_folder_is_not_made(nas: Path, monkeypatch: pytest.MonkeyPatch, force: list[str]) -> None:
    nas.rmdir()
    with pytest.raises((UsageError, LocalError)):
        run(monkeypatch, nas, *force)
    assert not nas.exists()


@pytest.mark.usefixtures("nas")
def test_the_path_has_to_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="NAS_PATH"):
        run(monkeypatch, None)
