"""`_status.json` in an output folder tells how its jobs are, and whatever lies in its way stops nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, until


def jobs(folder: Path) -> list[dict[str, Any]]:
    """Return what the file tells; nothing if there is none yet."""
    path = folder / "_status.json"
    return list(json.loads(path.read_text())["jobs"]) if path.exists() else []


def states(folder: Path) -> list[str]:
    return [job["state"] for job in jobs(folder)]


def test_it_tells_what_goes_on_and_how_it_ended(fleet: Fleet, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    worker = fleet.worker("--max-bandwidth", "600kB/s")
    job = fleet.queue("org/model", "-o", str(one))
    until(lambda: states(one) == ["running"], "the file while the job runs")
    (told,) = jobs(one)
    assert (told["id"], told["repo"]) == (job, "org/model")
    assert 0 <= told["bytes"]["now"] <= told["bytes"]["total"]
    fleet.queue("org/model", "-o", str(other))
    until(lambda: states(one) == ["done"], "the file of a job that is done")
    assert jobs(one)[0]["files"]["done"] == jobs(one)[0]["files"]["total"]
    until(lambda: states(other) == ["done"], "the file of the other folder")
    assert len(jobs(other)) == 1, "it tells of another folder's job"
    worker.process.terminate()
    assert worker.wait() == 0


def test_it_is_written_before_a_worker_leaves_and_a_lone_machine_writes_it_too(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.queue("org/model", "-o", str(tmp_path / "fleet"))
    fleet.run("worker", "--drain-when-empty")
    assert states(tmp_path / "fleet") == ["done"]
    fleet.run("download", "org/model", "-o", str(tmp_path / "alone"))
    assert states(tmp_path / "alone") == ["done"]
    before = (tmp_path / "alone" / "_status.json").stat()
    fleet.run("verify", str(tmp_path / "alone"), "--local")
    assert (tmp_path / "alone" / "_status.json").stat().st_ino == before.st_ino, "a check wrote it"


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_has_its_name_stops_nothing(fleet: Fleet, tmp_path: Path, kind: str) -> None:
    folder, precious = tmp_path / "out", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("mine")
    if kind == "folder":
        (folder / "_status.json").mkdir()
    else:
        (folder / "_status.json").symlink_to(precious)
    fleet.run("download", "org/model", "-o", str(folder))
    assert precious.read_text() == "mine"
    assert (folder / "_status.json").is_dir() == (kind == "folder")
    assert not [path for path in folder.iterdir() if path.name.startswith("~")]
