"""The judge of the chaos runs finds what must not be, and blames nobody for another's damage."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.chaos.judge import Judge, truth_of
from benchmarks.chaos.world import World
from distributed_downloader.models import JobSpec, JobState, JobStatus, RepoType

REPO, NAME = "models/org/name", "org/name"
FILES = {"a.txt": b"a" * 10, "sub/b.txt": b"b" * 20}


class Scene:
    """A round that went well, as far as the judge sees it."""

    def __init__(self, folder: Path) -> None:
        self.source, self.output, self.nas = folder / "source", folder / "output", folder / "nas"
        for top in (self.source, self.output / NAME, self.nas / NAME):
            for name, content in FILES.items():
                path = top / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        self.notes: list[str] = []
        self.world = SimpleNamespace(
            folder=folder,
            sources={REPO: self.source},
            outputs=[self.output],
            real_nas=self.nas,
            roots=[self.nas, self.output],
            mounted=[],
            forbidden=[folder / "unused"],
            changed=set(),
            spoiled=set(),
            note=self.notes.append,
        )
        self.judge = Judge(cast(World, self.world), truth_of({REPO: self.source}))

    def job(self, **changes: object) -> JobStatus:
        size, count = sum(map(len, FILES.values())), len(FILES)
        about = {
            "id": 1,
            "state": JobState.DONE,
            "listed": True,
            "weight": 1,
            "created_at": 0.0,
            "total": count,
            "done": count,
            "delivered": count,
            "owed": 0,
            **dict.fromkeys(("pending", "active", "delayed", "held", "failed"), 0),
            **dict.fromkeys(("bytes_total", "bytes_done", "bytes_delivered"), size),
            "spec": JobSpec(
                repo_type=RepoType.MODEL, repo_id=NAME, revision="main", commit="a" * 40, endpoint="http://x"
            ),
        }
        return JobStatus.model_validate(about | changes)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_nothing_is_found_where_all_is_well(scene: Scene) -> None:
    scene.judge.look()
    scene.judge.conclude({REPO: scene.job()})
    assert scene.judge.verdict.clean


@pytest.mark.parametrize("where", ["output", "nas"])
def test_a_missing_file_is_lost(scene: Scene, where: str) -> None:
    (getattr(scene, where) / NAME / "a.txt").unlink()
    scene.judge.conclude({REPO: scene.job()})
    assert len(scene.judge.verdict.lost) == 1


@pytest.mark.parametrize("where", ["output", "nas"])
@pytest.mark.parametrize("wrong", [b"", b"a" * 9, b"a" * 9 + b"?", b"a" * 11])
def test_a_wrong_file_is_found_at_once(scene: Scene, where: str, wrong: bytes) -> None:
    (getattr(scene, where) / NAME / "a.txt").write_bytes(wrong)
    scene.judge.look()
    assert len(scene.judge.verdict.wrong) == 1
    assert not scene.world.spoiled


def test_a_file_that_is_none_of_the_repos_is_wrong(scene: Scene) -> None:
    (scene.output / NAME / "c.txt").touch()
    scene.judge.look()
    assert len(scene.judge.verdict.wrong) == 1


def test_what_somebody_else_damaged_is_asked_for_again_and_must_be_right_in_the_end(scene: Scene) -> None:
    path = scene.output / NAME / "a.txt"
    path.write_bytes(b"?" * 10)
    scene.world.changed.add((path.stat().st_dev, path.stat().st_ino))
    scene.judge.look()
    assert scene.world.spoiled == {REPO}
    assert scene.judge.verdict.clean
    scene.judge.conclude({REPO: scene.job()})
    assert len(scene.judge.verdict.wrong) == 1


@pytest.mark.parametrize(
    "change", [{"done": 1}, {"bytes_done": 29}, {"delivered": 1}, {"owed": 1}, {"held": 1}, {"failed": 1}]
)
def test_a_counter_that_lies_is_found(scene: Scene, change: dict[str, int]) -> None:
    scene.judge.conclude({REPO: scene.job(**change)})
    assert len(scene.judge.verdict.counters) == 1


def test_a_job_that_is_gone_is_found(scene: Scene) -> None:
    scene.judge.conclude({})
    assert scene.judge.verdict.counters == {f"{REPO}: there is no job"}


@pytest.mark.parametrize(
    "log", ["Traceback (most recent call last):\n", "12:00:00 ERROR x: internal error, please"]
)
def test_a_trace_is_found_in_the_log_of_a_worker_and_of_a_command(scene: Scene, log: str) -> None:
    (scene.world.folder / "worker-1.err").write_text(log)
    (scene.world.folder / "master-1.err").write_text(log)
    scene.judge.conclude({REPO: scene.job()})
    assert len(scene.judge.verdict.traces) == 2


def test_a_file_where_no_disk_is_mounted_is_found_and_a_mark_is_none(scene: Scene) -> None:
    ours = scene.world.forbidden[0] / ".hf-downloader"
    for name in ("place", "repos/org--name", "partial/half", "partial/half.staging/x", "../org/name/a.txt"):
        (ours / name).parent.mkdir(parents=True, exist_ok=True)
        (ours / name).touch()
    scene.judge.conclude({REPO: scene.job()})
    assert {Path(each).name for each in scene.judge.verdict.wrong} == {"half", "a.txt"}


def test_what_somebody_damages_where_nobody_needs_it_stays_so_and_is_counted(scene: Scene) -> None:
    scene.world.roots = [scene.nas]  # each worker has a folder of its own, and any may have got the file
    path = scene.output / NAME / "a.txt"
    path.write_bytes(b"?" * 10)
    scene.world.changed.add((path.stat().st_dev, path.stat().st_ino))
    scene.judge.conclude({REPO: scene.job()})
    assert scene.judge.verdict.clean
    assert scene.judge.verdict.excused == {str(path)}
