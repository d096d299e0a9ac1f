"""`init-nas`: marks the NAS, and nothing that only looks like it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from distributed_downloader.cli.app import App
from distributed_downloader.cli.init_nas import command
from distributed_downloader.errors import DownloaderError, LocalError, UsageError
from distributed_downloader.storage.place import read_place


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


def on_device(monkeypatch: pytest.MonkeyPatch, folder: Path, device: int) -> None:
    """Let a folder seem to lie on a device; that of `/` is 1."""
    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> object:
        if path in (folder, Path("/")):
            return SimpleNamespace(st_dev=device if path == folder else 1)
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)


def test_a_folder_on_our_own_disk_is_refused(nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_device(monkeypatch, nas, 1)
    with pytest.raises(UsageError, match="own disk"):
        run(monkeypatch, nas)
    assert read_place(nas) == ""
    run(monkeypatch, nas, "--force")
    run(monkeypatch, nas)
    assert read_place(nas)


def test_a_folder_on_another_disk_is_taken(nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_device(monkeypatch, nas, 2)
    run(monkeypatch, nas)
    assert read_place(nas)


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
