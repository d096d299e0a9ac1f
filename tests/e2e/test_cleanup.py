"""`cleanup` removes what nobody needs, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from distributed_downloader.layout import digest_of
from distributed_downloader.models import RepoFile
from tests.e2e.fleet import Fleet, until
from tests.hub import sample

DAY = 24 * 3600.0


def leave(path: Path, age: float, text: str = "left") -> Path:
    """Write a file that was last touched so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def out(fleet: Fleet, tmp_path: Path) -> Path:
    """Return a folder that a job has filled, whose worker is gone."""
    fleet.run("master", "org/model", "-o", str(tmp_path / "out"))
    fleet.run("worker", "--drain-when-empty")
    return tmp_path / "out"


def partial(fleet: Fleet, out: Path, path: str, age: float) -> Path:
    """Leave partial data of one of the job's files."""
    digest = digest_of(fleet.job(1).spec, RepoFile(path=path, size=1))
    return leave(out / ".hf-downloader" / "partial" / f"{digest}.host.part", age)


def test_it_removes_what_nobody_needs_and_nothing_else(fleet: Fleet, out: Path) -> None:
    repo = out / "org" / "model"
    before = sample.tree(repo)
    doomed = [
        partial(fleet, out, "config.json", 10),
        leave(out / ".hf-downloader" / "partial" / f"{'0' * 32}.host.part", 2 * DAY),
        leave(repo / ".cache" / "huggingface" / "download" / "sub" / "x.abcd1234.incomplete", 2 * DAY),
        leave(out / "models--org--other" / "blobs" / "0123.abcd1234.incomplete", 2 * DAY),
    ]
    kept = [
        leave(out / ".hf-downloader" / "partial" / f"{'1' * 32}.host.part", DAY / 2),
        leave(out / "models--org--other" / "blobs" / "4567.abcd1234.incomplete", DAY / 2),
        leave(out / "models--org--other" / "blobs" / "0123", 2 * DAY),
        leave(out / "notes.incomplete", 2 * DAY),
    ]
    told = fleet.run("cleanup", "--dry-run", "-o", str(out)).stdout
    assert all(f"would remove {path} (" in told for path in doomed)
    assert len(told.splitlines()) == len(doomed)
    assert all(path.exists() for path in (*doomed, *kept))
    assert len(fleet.run("cleanup", "-o", str(out)).stdout.splitlines()) == len(doomed)
    assert not any(path.exists() for path in doomed)
    assert all(path.exists() for path in kept)
    assert sample.tree(repo) == before
    assert fleet.run("cleanup", "-o", str(out)).stdout == ""


def test_what_a_job_may_go_on_with_stays(fleet: Fleet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = fleet.queue("org/model", "-o", str(out))
    mine = partial(fleet, out, "model.safetensors", 5 * DAY)
    for verb in ("pause", "cancel"):
        fleet.run(verb, str(job))
        fleet.run("cleanup")
        assert mine.exists()
    fleet.run("cleanup", "--older-than", "0s")
    assert not mine.exists(), "the job is forgotten"
    assert "org/model" not in fleet.run("status").stdout


def test_jobs_are_forgotten_when_they_are_old(fleet: Fleet, out: Path) -> None:
    fleet.run("cleanup", "--older-than", "1h")
    assert fleet.job(1)
    assert "job 1" in fleet.run("cleanup", "--older-than", "0s", "--dry-run").stdout
    assert fleet.job(1)
    fleet.run("cleanup", "--older-than", "0s")
    assert "org/model" not in fleet.run("status").stdout
    assert (out / "org" / "model" / "config.json").exists()


def test_workers_whose_lease_is_over_are_declared_dead(fleet: Fleet, out: Path) -> None:
    worker = fleet.worker(lease=2)
    until(fleet.live, "the worker")
    worker.process.kill()
    worker.wait()
    until(lambda: not fleet.live(), "the end of its lease")
    assert "whose lease is over" in fleet.run("cleanup", "--dry-run").stdout
    assert "whose lease is over" in fleet.run("cleanup").stdout
    assert fleet.run("cleanup").stdout == ""


def test_without_redis_folders_are_looked_at_all_the_same(fleet: Fleet, out: Path, tmp_path: Path) -> None:
    fleet.redis_url = "redis://127.0.0.1:1/0"
    old = leave(out / ".hf-downloader" / "partial" / f"{'0' * 32}.host.part", 2 * DAY)
    done = fleet.run("cleanup", "-o", str(out))
    assert "note: only folders are looked at" in done.stderr
    assert not old.exists()
    assert fleet.run("cleanup", "--older-than", "1d", code=3).stdout == ""
    assert "no time such as" in fleet.run("cleanup", "--older-than", "soon", code=2).stderr
    link = tmp_path / "link"
    precious = leave(tmp_path / "elsewhere" / "blobs" / "x.incomplete", 2 * DAY)
    link.mkdir()
    (link / "models--a--b").symlink_to(precious.parent.parent)
    fleet.run("cleanup", "-o", str(link))
    assert precious.exists(), "a link was followed"
