"""`verify` finds what somebody did to the files, and mends it; `--force` fetches all of them again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, until
from tests.hub import sample
from tests.hub.faulty import FaultyHub
from tests.mounts import mounted, needs_mount

NO_REDIS = {"REDIS_URL": "redis://127.0.0.1:1/0"}


def wreck(repo: Path) -> None:
    """Do to a tree what time, people and disks do."""
    (repo / "config.json").unlink()
    (repo / "README.md").write_bytes(b"longer than it was")
    weights = repo / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[1000] ^= 1
    weights.write_bytes(data)
    (repo / "docs" / "mine.txt").write_text("not the hub's")


FLAWS: dict[str, Any] = {
    "missing": ["config.json"],
    "wrong": ["README.md", "model.safetensors"],
    "extra": ["docs/mine.txt"],
}


def verify(fleet: Fleet, *words: str, code: int, **environ: str) -> dict[str, Any]:
    """Run `verify --json` and return what it says of the one repo."""
    (report,) = json.loads(fleet.run("verify", *words, "--json", code=code, **environ).stdout)
    assert report["ok"] == (code == 0)
    return dict(report)


def flaws(report: dict[str, Any]) -> dict[str, Any]:
    wrong = sorted(each["path"] for each in report["wrong"])
    return {"missing": report["missing"], "wrong": wrong, "extra": report["extra"]}


@pytest.fixture
def folder(fleet: Fleet, tmp_path: Path) -> Path:
    """Return an output folder that a fleet of two has filled."""
    fleet.worker()
    fleet.worker()
    until(lambda: len(fleet.live()) == 2, "two workers")
    fleet.run("master", "org/model", "-o", str(tmp_path / "out"), "--wait")
    return tmp_path / "out"


def test_a_fleet_finds_and_mends_it(fleet: Fleet, folder: Path, source: Path) -> None:
    repo = folder / "org" / "model"
    assert flaws(verify(fleet, "1", code=0)) == {"missing": [], "wrong": [], "extra": []}
    wreck(repo)
    assert flaws(verify(fleet, "1", code=1)) == FLAWS
    quick = verify(fleet, "org/model", "--quick", code=1)
    assert flaws(quick) == FLAWS | {"wrong": ["README.md"]}
    repaired = verify(fleet, str(repo), "--repair", code=0)
    assert flaws(repaired) == FLAWS
    assert sorted(repaired["repaired"]) == ["README.md", "config.json", "model.safetensors"]
    (repo / "docs" / "mine.txt").unlink()
    assert sample.tree(repo) == sample.tree(source)
    said = fleet.run("verify", "1").stdout
    assert said.startswith(f"org/model ({repaired['commit'][:8]}) in {folder}: ")
    assert said.endswith("all right\n")


def test_the_manifest_is_enough_years_later(
    fleet: Fleet, folder: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    manifest = next((folder / ".hf-downloader").glob("*.json"))
    before = json.loads(manifest.read_text())
    assert {each["path"] for each in before["files"]} == set(sample.model_files())
    assert all(each["verified"].endswith("Z") for each in before["files"])
    fleet.close()
    hub.close()
    moved = tmp_path / "archive"
    shutil.move(folder, moved)
    wreck(moved / "org" / "model")
    report = verify(fleet, str(moved), code=1, **NO_REDIS)
    assert flaws(report) == FLAWS
    assert report["commit"] == before["commit"]
    after = json.loads(manifest_of(moved, manifest).read_text())
    assert [each["path"] for each in after["files"]] != []


def manifest_of(folder: Path, like: Path) -> Path:
    return folder / ".hf-downloader" / like.name


@needs_mount
def test_a_folder_that_cannot_be_written_is_verified(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    fleet.close()
    wreck(folder / "org" / "model")
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    with mounted(sealed, "--bind", "-o", "ro", str(folder)):
        assert flaws(verify(fleet, str(sealed), "--local", code=1)) == FLAWS
        said = fleet.run("verify", str(sealed), "--local", "--repair", code=1).stderr
        assert "read-only" in said


def test_the_workers_own_folders_are_verified_where_they_are(fleet: Fleet) -> None:
    fleet.worker()
    until(fleet.live, "a worker")
    fleet.run("master", "org/model", "--wait")
    assert verify(fleet, "1", code=0)["files"] == len(sample.model_files())
    wreck(fleet.folder / "downloads" / "org" / "model")
    assert flaws(verify(fleet, "1", code=1)) == FLAWS
    assert flaws(verify(fleet, "1", "--repair", code=0)) == FLAWS
    assert flaws(verify(fleet, "1", code=0)) == FLAWS | {"missing": [], "wrong": []}


def test_a_cache_is_mended(fleet: Fleet, tmp_path: Path) -> None:
    words = ("-o", str(tmp_path / "hub"), "--layout", "hf-cache")
    fleet.run("download", "org/model", *words)
    repo = tmp_path / "hub" / "models--org--model"
    (snapshot,) = (repo / "snapshots").iterdir()
    (snapshot / "config.json").unlink()
    (snapshot / "README.md").resolve().unlink()
    report = verify(fleet, str(tmp_path / "hub"), "--repair", code=0, **NO_REDIS)
    assert sorted(report["missing"]) == sorted(report["repaired"]) == ["README.md", "config.json"]
    assert sample.tree(snapshot) == sample.model_files()
    assert not (fleet.folder / "downloads").exists(), "it made a folder that nobody asked for"
    (tree,) = (repo / "trees").iterdir()
    assert set(json.loads(tree.read_text())["files"]) == set(sample.model_files()), "the listing stays whole"


def test_without_a_manifest_it_says_what_to_do(fleet: Fleet, tmp_path: Path) -> None:
    said = fleet.run("verify", str(tmp_path), code=1, **NO_REDIS)
    assert "has no manifest" in said.stderr
    assert "verify org/name -o FOLDER" in said.stderr
    report = verify(fleet, "org/model", "-o", str(tmp_path / "empty"), code=1, **NO_REDIS)
    assert len(report["missing"]) == len(sample.model_files())
    assert not (tmp_path / "empty").exists(), "a check made a folder"


def test_force_fetches_everything_again(fleet: Fleet, hub: FaultyHub, folder: Path) -> None:
    before = len(hub.log.records())
    fleet.run("master", "org/model", "-o", str(folder), "--wait")
    assert not _fetched(hub, before)
    fleet.run("master", "org/model", "-o", str(folder), "--wait", "--force")
    assert _fetched(hub, before) == set(sample.model_files()) - {"empty.txt", "empty.bin"}


def _fetched(hub: FaultyHub, before: int) -> set[str]:
    """Return the files of which bytes were sent since so many answers."""
    sent = (record.request for record in hub.log.records()[before:] if record.reply.status in (200, 206))
    return {request.file for request in sent if request.file and request.method == "GET"}
