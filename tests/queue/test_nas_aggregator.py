"""What is owed gets to the NAS, on a real Redis, whatever the NAS, the disk, Redis or the worker do."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import redis as redis_py

from distributed_downloader import completions, nas_aggregator, nas_copiers, nas_trouble
from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig
from distributed_downloader.errors import LocalError
from distributed_downloader.models import JobSpec, JobState, JobStatus, RepoFile, RepoType, WorkerStatus
from distributed_downloader.nas_aggregator import NASAggregator
from distributed_downloader.outage import Outage
from distributed_downloader.queue_terms import Owed
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_deliveries import RedisDeliveries
from distributed_downloader.redis_view import RedisView
from distributed_downloader.storage.copying import Copying
from distributed_downloader.storage.nas import NasFolder
from distributed_downloader.storage.place import make_place, read_place
from tests.queue.base import complete
from tests.servers import Binary, Server

T = TypeVar("T")


def until(what: Callable[[], T | None], seconds: float = 30) -> T:
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return result


def content_of(path: str) -> bytes:
    return path.encode() * 1000


def claimed_after_tick(client: RedisClient) -> str | None:
    client.tick()
    return client.claim("w", 0.1)


class Stage:
    """A Redis, an output folder, a NAS, and the aggregators that the test starts."""

    def __init__(self, client: RedisClient, folder: Path) -> None:
        self.client = client
        self.owed, self.view = RedisDeliveries(client), RedisView(client)
        self.out, self.root = folder / "out", folder / "nas"
        self.root.mkdir()
        self.nas = make_place(self.root, create_root=False)
        self.folder = make_place(self.out, create_root=True)
        self.running: list[NASAggregator] = []
        self.jobs = 0
        client.register(
            WorkerStatus(id="w", host="h", pid=1, version="1", slots=4, started_at=0, folder=self.folder)
        )

    def spec(self, *, flat: bool = False, nas: str = "") -> JobSpec:
        self.jobs += 1
        return JobSpec(
            repo_type=RepoType.MODEL,
            repo_id=f"org/name{self.jobs}",
            revision="main",
            commit="a" * 40,
            endpoint="https://hub.invalid",
            flat=flat,
            nas=nas,
        )

    def local(self, path: str) -> Path:
        """Where a file of the last job lies on this machine."""
        return self.out / f"org/name{self.jobs}" / path

    def file(self, path: str) -> RepoFile:
        content = content_of(path)
        return RepoFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())

    def put(self, path: str) -> RepoFile:
        where = self.local(path)
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(content_of(path))
        return self.file(path)

    def owe(
        self,
        *paths: str,
        spec: JobSpec | None = None,
        more: int = 0,
        folder: str = "",
        path: Path | None = None,
    ) -> int:
        """Download a job's files, `more` of them not yet, so that they are owed to the NAS."""
        job, _ = self.client.create_job(spec or self.spec(), 1)
        files = [self.put(path) for path in paths]
        unfinished = [RepoFile(path=f"more{number}", size=1) for number in range(more)]
        assert self.client.submit(job, 0, [*files, *unfinished], "d")
        self.client.seal(job, len(paths) + more)
        self.client.tick()
        for _ in range(len(paths) + more):
            token = self.client.claim("w", 1)
            task = self.client.begin("w", token) if token else None
            assert token
            assert task
            if not task.file.path.startswith("more"):
                owes = f"{folder or self.folder} {path or self.out}"
                complete(self.client, "w", token, task.file.size, "h", owes=owes)
        return job

    def start(self, *, own: bool = True, allowed: str = "", **settings: object) -> NASAggregator:
        nas = {"enabled": True, "path": str(self.root), **settings}
        output_dir = self.out if own else self.out.with_name("own")
        config = AppConfig.model_validate(
            {
                "nas": nas,
                "app": {"output_dir": str(output_dir)},
                "security": {"allowed_repos": allowed},
            }
        )
        aggregator = NASAggregator(config, self.owed, lambda: read_place(output_dir), Outage("redis"))
        self.running.append(aggregator)
        aggregator.start()
        return aggregator

    def job(self, job: int) -> JobStatus:
        return self.view.job(job)

    def ended(self, job: int) -> JobStatus:
        return until(lambda: found if (found := self.job(job)).state.ended else None)

    @property
    def files(self) -> set[str]:
        found = (
            path for path in self.root.rglob("*") if path.is_file() and ".hf-downloader" not in path.parts
        )
        return {str(path.relative_to(self.root)) for path in found}

    def spoil(self, path: str, trouble: str) -> None:
        """Remove or damage a file of the last job on this machine."""
        local = self.local(path)
        local.unlink() if trouble == "gone" else local.write_bytes(b"?" * local.stat().st_size)

    def never_again(self) -> None:
        """Let no damaged file be fetched again by itself."""
        self.client.limits = replace(self.client.limits, max_damages=1)

    def unmount(self) -> None:
        self.root.rename(self.root.with_name("unmounted"))
        self.root.mkdir()

    def mount(self) -> None:
        self.root.rmdir()
        self.root.with_name("unmounted").rename(self.root)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_aggregator, "_LOOK", 0.05)
    monkeypatch.setattr(nas_trouble, "SHORTEST", 0.05)
    monkeypatch.setattr(nas_trouble, "LONGEST", 1.0)
    monkeypatch.setattr(completions, "_AGAIN", 0.02)


@pytest.fixture
def stage(client: RedisClient, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(client, tmp_path)
    yield stage
    for aggregator in stage.running:
        aggregator.stop()
        assert aggregator.join(10)
    # What looks around may be at its last look, and what it says then would be the next test's.
    for thread in [each for each in threading.enumerate() if each.name == "nas"]:
        thread.join(10)


# -- the way there --------------------------------------------------------------------------------


def test_what_is_owed_gets_there_and_the_job_is_done(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    job = stage.owe("a", "b/c", "d")
    assert stage.job(job).state is JobState.DELIVERING
    aggregator = stage.start()
    found = stage.ended(job)
    assert (found.state, found.owed, found.delivered) == (JobState.DONE, 0, 3)
    assert found.bytes_delivered == found.bytes_total
    assert stage.files == {"org/name1/a", "org/name1/b/c", "org/name1/d"}
    assert (stage.root / "org/name1/b/c").read_bytes() == content_of("b/c")
    assert stage.local("a").exists()
    assert aggregator.wait_done(10)
    assert aggregator.idle
    assert aggregator.busy_copies == 0
    assert aggregator.trouble == ""
    assert aggregator.nas == stage.nas
    assert sorted(line for line in caplog.messages if line.startswith("nas ")) == [
        "nas     a",
        "nas     b/c",
        "nas     d",
    ]


def test_the_bell_saves_the_wait(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_aggregator, "_LOOK", 3600)
    aggregator = stage.start()
    assert aggregator.wait_done(10)
    job = stage.owe("a")
    aggregator.bell()
    stage.ended(job)


def test_many_files_from_several_jobs(stage: Stage) -> None:
    jobs = [stage.owe(*(f"{number}" for number in range(20))) for _ in range(3)]
    stage.start(copy_threads=3)
    stage.start(copy_threads=1)
    for job in jobs:
        assert stage.ended(job).delivered == 20
    assert len(stage.files) == 60


@pytest.mark.parametrize("verify", ["size", "hash"])
@pytest.mark.parametrize("read_back", [False, True])
def test_each_way_to_copy(stage: Stage, verify: str, read_back: bool) -> None:
    job = stage.owe("a/b", spec=stage.spec(flat=True))
    stage.start(verify=verify, read_back=read_back)
    stage.ended(job)
    assert stage.files == {"org/name1_b"}


def test_files_can_wait_for_their_job(stage: Stage) -> None:
    job = stage.owe("a", more=1)
    other = stage.owe("b")
    aggregator = stage.start(copy_after_download=False)
    stage.ended(other)
    assert stage.files == {"org/name2/b"}
    assert aggregator.wait_done(10)  # for nobody knows when that job ends
    assert stage.job(job).owed == 1


def test_another_workers_folder_is_served_where_it_is_seen(stage: Stage, tmp_path: Path) -> None:
    job = stage.owe("a")
    stage.start(own=False)
    stage.ended(job)


def test_what_the_rules_forbid_is_left_to_others(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """However much lies before what they allow; and nobody else has to wait for it."""
    forbidden = stage.owe(*map(str, range(30)))
    allowed = stage.owe("a", "b")
    strict = stage.start(allowed="org/name2")
    stage.ended(allowed)
    assert strict.wait_done(30), "there is nothing left for this one"
    assert strict.trouble == ""
    strict.stop()
    assert strict.join(10)
    assert stage.files == {"org/name2/a", "org/name2/b"}
    assert stage.job(forbidden).owed == 30
    said = [record.getMessage() for record in caplog.records if "left to others" in record.getMessage()]
    assert said == [
        "NAS: [security] allowed_repos has no models/org/name1 on this machine, "
        "so the job's files are left to others"
    ]
    found = stage.owed.take_owed(stage.folder, 99, 0, ended_only=False)
    assert len(found) == 30, "none of them is hidden from others"
    stage.start(allowed="org/name1")
    stage.ended(forbidden)
    assert len(stage.files) == 32


def test_more_than_one_look_passes_over(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_aggregator, "_PASSED_OVER", 5)
    stage.owe(*map(str, range(30)))
    allowed = stage.owe("a")
    stage.start(allowed="org/name2")
    stage.ended(allowed)
    assert stage.files == {"org/name2/a"}


def test_what_lies_behind_more_than_one_look_passes_over_is_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas_aggregator, "_PASSED_OVER", 5)
    monkeypatch.setattr(nas_aggregator, "_LOOKED_AT", 2)
    stage.owe(*map(str, range(30)))
    allowed = stage.owe("a")
    aggregator = stage.start(allowed="org/name2", copy_threads=1)
    until(lambda: aggregator.wait_done(0.1) or not stage.job(allowed).owed)
    assert stage.job(allowed).state is JobState.DONE


def test_nobody_waits_for_what_is_for_others_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_aggregator, "_PASSED_OVER", 5)
    stage.owe(*map(str, range(30)))
    aggregator = stage.start(allowed="org/name2")
    assert aggregator.wait_done(30)


def test_our_own_folder_is_found_wherever_others_have_mounted_it(stage: Stage) -> None:
    job = stage.owe("a", path=Path("/mnt/elsewhere"))
    stage.start()
    stage.ended(job)


@pytest.mark.parametrize("path", ["/nowhere", "relative", "/nul\0", "{root}"])
def test_a_folder_that_is_not_seen_here_is_left_to_others(stage: Stage, path: str) -> None:
    job = stage.owe("a", folder="0" * 32, path=Path(path.format(root=stage.root)))
    aggregator = stage.start()
    assert aggregator.wait_done(10)
    assert stage.job(job).owed == 1
    assert [owed.token.job for owed in stage.owed.take_owed("0" * 32, 9, 1, ended_only=False)] == [job]


def test_a_relative_path_means_nothing_here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stage.out.parent)
    job = stage.owe("a", path=Path("out"))
    aggregator = stage.start(own=False)
    assert aggregator.wait_done(10)
    assert stage.job(job).owed == 1


def test_what_comes_while_we_look_is_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, go = threading.Event(), threading.Event()
    real = RedisDeliveries.folders

    def slow(self: RedisDeliveries) -> dict[str, str]:
        found = real(self)
        looking.set()
        assert go.wait(30)
        return found

    monkeypatch.setattr(RedisDeliveries, "folders", slow)
    aggregator = stage.start()
    assert looking.wait(10)
    job = stage.owe("a")
    done = list[bool]()
    waiter = threading.Thread(target=lambda: done.append(aggregator.wait_done(30)))
    waiter.start()
    until(aggregator._bell.is_set)
    go.set()
    waiter.join(30)
    assert done == [True]
    assert stage.job(job).delivered == 1


def test_a_job_that_was_forgotten_is_owed_no_more(stage: Stage) -> None:
    job = stage.owe("a")
    stage.client.forget(job)
    aggregator = stage.start()
    assert aggregator.wait_done(10)
    assert stage.files == set()


# -- what is there already, and what may go -------------------------------------------------------


def test_a_file_that_is_there_is_only_counted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = stage.spec()
    job = stage.owe("a", spec=spec)
    NasFolder(stage.root, spec).deliver(stage.out, stage.file("a"), Cancel())
    monkeypatch.setattr(Copying, "with_hash", lambda *_: pytest.fail("copied again"))
    stage.start()
    assert stage.ended(job).delivered == 1


def test_an_output_folder_that_is_the_nas_is_only_counted(stage: Stage) -> None:
    stage.out, stage.folder = stage.root, stage.nas
    job = stage.owe("a")
    before = stage.local("a").stat()
    stage.start(delete_after_copy=True)
    assert stage.ended(job).delivered == 1
    assert stage.local("a").stat() == before


def test_a_nas_with_a_copied_id_is_not_taken_for_our_folder(stage: Stage) -> None:
    """The output folder was copied to the NAS, our own folder and an old file included."""
    shutil.copytree(stage.root / ".hf-downloader", stage.out / ".hf-downloader", dirs_exist_ok=True)
    stage.folder = stage.nas
    job = stage.owe("a")
    old = stage.root / "org/name1/a"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"?" * len(content_of("a")))
    stage.start(delete_after_copy=True)
    assert stage.ended(job).delivered == 1
    assert old.read_bytes() == content_of("a")
    assert stage.local("a").exists()


def test_the_local_file_goes_after_the_rename(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[tuple[bool, int]]()
    real = NasFolder.remove_source

    def look(self: NasFolder, *args: object, **options: object) -> bool:
        there = (stage.root / "org/name1/a").read_bytes() == content_of("a")
        seen.append((there and stage.local("a").exists(), stage.job(job).delivered))
        return bool(real(self, *args, **options))  # type: ignore[arg-type]

    monkeypatch.setattr(NasFolder, "remove_source", look)
    job = stage.owe("a")
    aggregator = stage.start(delete_after_copy=True)
    until(lambda: not stage.local("a").exists())
    assert aggregator.wait_done(10)
    assert seen == [(True, 1)]


def test_the_local_file_stays_while_the_nas_has_none(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch)
    stage.owe("a")
    aggregator = stage.start(delete_after_copy=True)
    until(lambda: aggregator.trouble)
    assert stage.local("a").exists()


def test_a_local_file_that_cannot_be_removed_is_only_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise LocalError("no")

    monkeypatch.setattr(NasFolder, "remove_source", refuse)
    job = stage.owe("a")
    aggregator = stage.start(delete_after_copy=True)
    stage.ended(job)
    assert aggregator.wait_done(10)
    assert "a stays here, though it is on the NAS: no" in caplog.messages


# -- troubles of the NAS --------------------------------------------------------------------------


def full(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the NAS refuse what is written, until the patch is undone; returns what it refused."""
    refused = list[str]()

    def refuse(self: Copying, *_: object) -> None:
        refused.append(self.file.path)
        raise LocalError(f"{self.target}: no space left on device")

    monkeypatch.setattr(Copying, "with_hash", refuse)
    return refused


def lines(caplog: pytest.LogCaptureFixture, start: str) -> list[str]:
    return [line for line in caplog.messages if line.startswith(start)]


def test_a_nas_that_is_not_mounted_is_waited_for(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    job = stage.owe("a", "b")
    stage.unmount()
    aggregator = stage.start()
    assert "mount it" in until(lambda: aggregator.trouble)
    assert aggregator.wait_done(10)
    assert aggregator.nas == ""
    assert list(stage.root.iterdir()) == []
    assert stage.job(job).owed == 2
    stage.mount()
    assert stage.ended(job).delivered == 2
    assert aggregator.trouble == ""
    assert len(lines(caplog, "NAS: ")) == 2
    assert lines(caplog, "NAS: well again")


def test_a_nas_that_goes_away_on_the_way(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = NasFolder.deliver
    gone = threading.Event()

    def vanish(self: NasFolder, *args: object, **options: object) -> object:
        if not gone.is_set():
            stage.unmount()
            gone.set()
        return real(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(NasFolder, "deliver", vanish)
    job = stage.owe("a")
    aggregator = stage.start()
    assert gone.wait(10)
    until(lambda: aggregator.trouble)
    assert list(stage.root.iterdir()) == []
    stage.mount()
    stage.ended(job)


def test_a_full_nas_is_tried_with_one_file_at_a_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = stage.owe(*"abcdefgh")
    limits = list[int]()
    real = RedisDeliveries.take_owed

    def take(self: RedisDeliveries, folder: str, limit: int, busy: float, *, ended_only: bool) -> list[Owed]:
        if stage.running[0].trouble:
            limits.append(limit)
        return real(self, folder, limit, busy, ended_only=ended_only)

    monkeypatch.setattr(RedisDeliveries, "take_owed", take)
    with monkeypatch.context() as patch:
        refused = full(patch)
        aggregator = stage.start(copy_threads=2)
        until(lambda: len(refused) > 6)
        assert "no space left" in aggregator.trouble
        assert aggregator.wait_done(10)
        assert set(limits[1:]) == {1}  # the first may just have been on its way
    assert stage.ended(job).delivered == 8
    assert until(lambda: not aggregator.trouble)
    assert len(lines(caplog, "NAS: ")) == 2


def test_a_trouble_ends_when_nothing_is_owed_any_more(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch)
    job = stage.owe("a")
    aggregator = stage.start()
    until(lambda: aggregator.trouble)
    stage.client.forget(job)
    until(lambda: not aggregator.trouble)


def test_a_job_that_wants_another_nas_is_left_to_others(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    job = stage.owe("a", spec=stage.spec(nas="0" * 32))
    other = stage.owe("b", spec=stage.spec(nas=stage.nas))
    aggregator = stage.start()
    stage.ended(other)
    assert "another folder" in until(lambda: aggregator.trouble)
    assert aggregator.wait_done(10)
    assert lines(caplog, "NAS: ") == []  # it is not the NAS's fault
    assert stage.files == {"org/name2/b"}
    assert stage.job(job).owed == 1


def test_a_nas_that_hangs_holds_nobody_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_copiers, "_SILENT", 0.05)
    hanging, go = threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        hanging.set()
        go.wait(30)
        raise LocalError("the mount is gone")

    monkeypatch.setattr(Copying, "with_hash", hang)
    stage.owe("a")
    aggregator = stage.start(copy_threads=1)
    assert hanging.wait(10)
    assert aggregator.busy_copies == 1
    assert "no byte got to the NAS" in until(lambda: aggregator.trouble)
    assert aggregator.wait_done(10)
    aggregator.stop()
    assert not aggregator.join(0)
    go.set()


def test_a_nas_that_hangs_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_aggregator, "_SILENT", 0.05)
    go = threading.Event()

    def hang(_: Path) -> str:
        go.wait(30)
        return ""

    monkeypatch.setattr(nas_aggregator, "read_place", hang)
    aggregator = stage.start()
    assert "no answer for" in until(lambda: aggregator.trouble)
    go.set()


def hang_at(monkeypatch: pytest.MonkeyPatch, *roots: Path) -> tuple[threading.Event, list[Path]]:
    """Let folders hang until the event is set; the list tells of the looks at them."""
    go, looks = threading.Event(), list[Path]()

    def look(path: Path) -> str:
        if path in roots:
            looks.append(path)
            go.wait(300)
        return read_place(path)

    monkeypatch.setattr(nas_aggregator, "read_place", look)
    return go, looks


def test_a_folder_that_hangs_holds_no_other_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(nas_aggregator, "_MOMENT", 0.1)
    monkeypatch.setattr(nas_aggregator, "_KEEP", 0.05)
    dead, other = tmp_path / "dead", tmp_path / "dead too"
    go, looks = hang_at(monkeypatch, dead, other)
    stuck = stage.owe("x", folder="0" * 32, path=dead)
    stage.owe("y", folder="1" * 32, path=other)
    aggregator = stage.start()
    first = stage.owe("a")
    assert stage.ended(first).delivered == 1
    assert aggregator.trouble == ""  # not yet
    assert not aggregator.wait_done(0.3)  # it may be slow only
    monkeypatch.setattr(nas_aggregator, "_SLOW", 0.1)
    told = until(lambda: aggregator.trouble)
    assert "dead" in told
    assert "from which files are copied: no answer for" in told
    assert told.endswith(", nor for 1 more")
    assert aggregator.answers
    assert aggregator.wait_done(10)
    until(lambda: lines(caplog, f"NAS: {tmp_path}"))
    second = stage.owe("b", "c")
    assert stage.ended(second).delivered == 2
    assert sorted(looks) == [dead, other]
    assert stage.job(stuck).owed == 1
    go.set()
    until(lambda: not aggregator.trouble)
    until(lambda: "NAS: it answers again" in caplog.messages)


def test_a_folder_that_is_slow_is_served_when_it_answers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas_aggregator, "_MOMENT", 0.0)

    def slow(path: Path) -> str:
        if path == stage.out:
            time.sleep(0.2)
        return read_place(path)

    monkeypatch.setattr(nas_aggregator, "read_place", slow)
    job = stage.owe("a")
    aggregator = stage.start()
    assert aggregator.wait_done(30)
    assert stage.job(job).delivered == 1


def test_a_folder_that_hangs_and_owes_nothing_any_more_is_no_trouble(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nas_aggregator, "_MOMENT", 0.05)
    monkeypatch.setattr(nas_aggregator, "_SLOW", 0.1)
    go, _ = hang_at(monkeypatch, tmp_path / "dead")
    job = stage.owe("x", folder="0" * 32, path=tmp_path / "dead")
    aggregator = stage.start()
    until(lambda: aggregator.trouble)
    stage.client.forget(job)
    assert stage.owed.take_owed("0" * 32, 9, 1, ended_only=False) == []  # by a worker that sees the folder
    until(lambda: not aggregator.trouble)
    go.set()


def test_a_copy_that_hangs_at_its_source_is_not_held_against_the_nas(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other threads go on meanwhile."""
    monkeypatch.setattr(nas_aggregator, "_MOMENT", 0.05)
    monkeypatch.setattr(nas_aggregator, "_SLOW", 0.1)
    monkeypatch.setattr(nas_copiers, "_SILENT", 0.5)
    reading, go = threading.Event(), threading.Event()
    real = NasFolder.deliver

    def hang(self: NasFolder, source: Path, *args: object, **options: object) -> object:
        if source != stage.out:
            reading.set()
            go.wait(30)
        return real(self, source, *args, **options)  # type: ignore[arg-type]

    def look(path: Path) -> str:
        if path == dead and reading.is_set():
            go.wait(30)
        return read_place(path)

    dead = stage.out.with_name("dead")
    place = make_place(dead, create_root=True)
    monkeypatch.setattr(NasFolder, "deliver", hang)
    monkeypatch.setattr(nas_aggregator, "read_place", look)
    stuck = stage.owe("x", folder=place, path=dead)
    aggregator = stage.start(copy_threads=2)
    assert reading.wait(10)
    assert str(dead) in until(lambda: aggregator.trouble)
    (copy,) = until(lambda: aggregator._copiers.held)
    assert copy.moved is not None
    copy.moved -= 1
    assert aggregator._copiers.standstill(())
    assert aggregator.answers
    assert stage.ended(stage.owe("a", "b")).delivered == 2
    assert aggregator.wait_done(10)
    assert not aggregator.idle
    assert stage.job(stuck).owed == 1
    go.set()


def test_a_nas_answers_or_not(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_aggregator, "_SLOW", 0.2)
    aggregator = stage.start()
    until(lambda: aggregator.answers)
    stage.unmount()
    until(lambda: not aggregator.answers)
    stage.mount()
    until(lambda: aggregator.answers)
    go = threading.Event()

    def hang(path: Path) -> str:
        assert go.wait(30)
        return read_place(path)

    monkeypatch.setattr(nas_aggregator, "read_place", hang)
    until(lambda: not aggregator.answers)
    assert aggregator.nas  # as it was last seen
    assert aggregator.trouble == ""
    go.set()
    until(lambda: aggregator.answers)


def test_a_nas_that_nobody_looked_at_does_not_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NASAggregator, "_feed", lambda _: None)
    assert not stage.start().answers


def test_a_nas_on_which_a_copy_stands_still_does_not_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas_copiers, "_SILENT", 0.05)
    go = threading.Event()

    def hang(*_: object) -> None:
        go.wait(30)
        raise LocalError("the mount is gone")

    stage.owe("a")
    monkeypatch.setattr(Copying, "with_hash", hang)
    aggregator = stage.start()
    until(lambda: aggregator._copiers.standstill(()))
    assert not aggregator.answers
    go.set()


def test_what_hangs_is_ours_for_a_while_and_then_anybodys(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(nas_aggregator, "_BUSY", 1.0)
    monkeypatch.setattr(nas_aggregator, "_KEEP", 0.02)
    hanging, go = threading.Event(), threading.Event()
    real = Copying.with_hash

    def hang(self: Copying, source: int, target: int) -> None:
        hanging.set()
        assert go.wait(30)
        real(self, source, target)

    monkeypatch.setattr(Copying, "with_hash", hang)
    job = stage.owe("a", "b")
    stage.start(copy_threads=1)
    assert hanging.wait(10)
    kept = time.monotonic() + 2.5  # longer than it would be ours if nobody kept it
    while time.monotonic() < kept:
        assert stage.owed.take_owed(stage.folder, 9, 0, ended_only=False) == []
        time.sleep(0.02)
    monkeypatch.setattr(nas_copiers, "_SILENT", 0.0)
    monkeypatch.setattr(nas_copiers, "_GIVEN_UP", 0.0)
    until(lambda: len(stage.owed.take_owed(stage.folder, 9, 0, ended_only=False)) == 2)
    assert until(lambda: lines(caplog, "NAS: a: no byte") or lines(caplog, "NAS: b: no byte"))
    go.set()
    monkeypatch.setattr(nas_copiers, "_SILENT", 60.0)
    assert stage.ended(job).delivered == 2
    until(lambda: "NAS: it answers again" in caplog.messages)


def test_what_waits_for_a_thread_lives_as_long_as_something_moves(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    copying, go = threading.Event(), threading.Event()

    def move(self: Copying, *_: object) -> None:
        copying.set()
        while not go.wait(0.01):
            self.progress(0)
        raise LocalError("enough")

    monkeypatch.setattr(Copying, "with_hash", move)
    stage.owe("a", "b")
    aggregator = stage.start(copy_threads=1)
    assert copying.wait(10)
    until(lambda: len(aggregator._copiers.held) == 2)
    for copy in aggregator._copiers.held:
        copy.began -= 3600
    assert len(aggregator._copiers.living()) == 2
    go.set()


# -- troubles with one file -----------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["gone", "damaged", "link", "in the way"])
def test_one_bad_file_holds_up_no_other(stage: Stage, caplog: pytest.LogCaptureFixture, trouble: str) -> None:
    job = stage.owe("bad", *"abcdef")
    stage.never_again()
    local, there = stage.local("bad"), stage.root / "org/name1/bad"
    if trouble == "gone":
        local.unlink()
    elif trouble == "damaged":
        local.write_bytes(b"?" * local.stat().st_size)
    else:
        there.parent.mkdir(parents=True)
        there.symlink_to(local) if trouble == "link" else there.mkdir()
    aggregator = stage.start(delete_after_copy=True)
    until(lambda: stage.job(job).delivered == 6)
    assert "bad" in until(lambda: aggregator.trouble)
    assert aggregator.wait_done(10)
    found = stage.job(job)
    assert (found.state, found.owed) == (JobState.DELIVERING, 1)
    assert len(lines(caplog, "not on the NAS yet: bad: ")) == 1

    if trouble in ("gone", "damaged"):
        local.write_bytes(content_of("bad"))
    else:
        there.unlink() if trouble == "link" else there.rmdir()
    stage.ended(job)
    until(lambda: not aggregator.trouble)


@pytest.mark.parametrize("verify", ["size", "hash"])
def test_a_damaged_file_is_copied_once_and_then_only_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, verify: str
) -> None:
    monkeypatch.setattr(nas_trouble, "LONGEST", 0.1)
    copied, tried = list[str](), list[bool]()
    real, copies = NasFolder.deliver, (Copying.with_hash, Copying.by_kernel)

    def deliver(self: NasFolder, *args: object, **options: object) -> object:
        tried.append(bool(options["suspect"]))
        return real(self, *args, **options)  # type: ignore[arg-type]

    def count(self: Copying, source: int, target: int) -> None:
        copied.append(self.file.path)
        copies[verify == "size"](self, source, target)

    monkeypatch.setattr(NasFolder, "deliver", deliver)
    monkeypatch.setattr(Copying, "by_kernel" if verify == "size" else "with_hash", count)
    job = stage.owe("bad")
    stage.never_again()
    stage.local("bad").write_bytes(b"?" * len(content_of("bad")))
    stage.start(verify=verify)
    until(lambda: len(tried) > 3)
    assert copied == ["bad"]
    assert tried[:4] == [False, True, True, True]
    stage.put("bad")
    assert stage.ended(job).delivered == 1


@pytest.mark.parametrize("trouble", ["gone", "damaged"])
def test_what_is_damaged_or_removed_too_often_says_how_it_comes_back(stage: Stage, trouble: str) -> None:
    job = stage.owe("bad")
    stage.never_again()
    stage.spoil("bad", trouble)
    aggregator = stage.start()
    assert f"`hf-downloader forget {job}`" in until(lambda: aggregator.trouble)


@pytest.mark.parametrize("trouble", ["gone", "damaged"])
def test_what_somebody_has_damaged_or_removed_is_fetched_again(
    stage: Stage, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    job = stage.owe("bad", "good")
    stage.spoil("bad", trouble)
    aggregator = stage.start()
    until(lambda: stage.job(job).delayed)
    ((_, shown),) = stage.view.next_tries([job], 5)
    word = "removed" if trouble == "gone" else "damaged"
    assert (shown.path, shown.error) == ("bad", f"{word} before it got to the NAS: fetched again")
    assert until(lambda: lines(caplog, f"again   bad: {word} before it got to the NAS"))
    assert aggregator.trouble == ""
    stage.put("bad")
    token = until(lambda: claimed_after_tick(stage.client))
    assert stage.client.begin("w", token)
    complete(stage.client, "w", token, len(content_of("bad")), "h", owes=f"{stage.folder} {stage.out}")
    aggregator.bell()
    assert stage.ended(job).delivered == 2
    assert (stage.root / "org/name1/bad").read_bytes() == content_of("bad")


def test_a_folder_that_is_unmounted_meanwhile_has_no_damaged_files(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, away = NasFolder.deliver, stage.out.with_name("away")

    def unmount_first(*args: object, **options: object) -> object:
        if stage.out.exists():
            stage.out.rename(away)
            stage.out.mkdir()
        return real(*args, **options)  # type: ignore[arg-type]

    job = stage.owe("a")
    with monkeypatch.context() as patch:
        patch.setattr(NasFolder, "deliver", unmount_first)
        aggregator = stage.start(own=False)
        trouble = until(lambda: aggregator.trouble)
    assert str(stage.out) in trouble
    assert "forget" not in trouble
    assert (stage.job(job).state, stage.job(job).owed) == (JobState.DELIVERING, 1)
    stage.out.rmdir()
    away.rename(stage.out)
    assert stage.ended(job).delivered == 1


def test_an_error_of_ours_holds_up_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = NasFolder.deliver

    def fail(self: NasFolder, source: Path, file: RepoFile, *args: object, **options: object) -> object:
        if file.path == "bad":
            raise RuntimeError("oops")
        return real(self, source, file, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(NasFolder, "deliver", fail)
    job = stage.owe("bad", *"abc")
    aggregator = stage.start()
    until(lambda: stage.job(job).delivered == 3)
    assert "RuntimeError: oops" in until(lambda: aggregator.trouble)
    assert any("internal error, please report it: RuntimeError: oops" in text for text in caplog.messages)


def test_an_error_of_ours_does_not_end_the_looking(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RedisDeliveries, "folders", lambda _: 1 / 0)
        job = stage.owe("a")
        stage.start()
        until(lambda: lines(caplog, "NAS: internal error, please report it"))
    stage.ended(job)


# -- the end of a worker, and of Redis ------------------------------------------------------------


def test_a_worker_that_stops_gives_back_what_it_copies(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    copying = threading.Event()

    def slow(self: Copying, *_: object) -> None:
        copying.set()
        while not self.cancel.wait(0.01):
            self.progress(0)
        self.cancel.check()

    job = stage.owe("a", "b", "c")
    with monkeypatch.context() as patch:
        patch.setattr(Copying, "with_hash", slow)
        first = stage.start(copy_threads=1)
        assert copying.wait(10)
        until(lambda: len(first._copiers.held) == 2)
        first.stop()
        assert first.join(10)
    assert first.idle
    assert stage.files == set()
    assert list((stage.root / ".hf-downloader/partial").iterdir()) == []
    assert stage.job(job).owed == 3
    stage.start()
    assert stage.ended(job).delivered == 3


def test_what_a_killed_worker_had_is_found_again(stage: Stage) -> None:
    job = stage.owe("a")
    taken = stage.owed.take_owed(stage.folder, 9, 0.3, ended_only=False)  # and then it was killed
    assert [owed.about.file.path for owed in taken] == ["a"]
    stage.start()
    stage.ended(job)


def test_a_lost_report_is_made_up_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is on the NAS and not here any more, and Redis does not know: it is not taken for lost."""
    spec = stage.spec()
    job = stage.owe("a", spec=spec)
    NasFolder(stage.root, spec).deliver(stage.out, stage.file("a"), Cancel())
    stage.local("a").unlink()
    stage.start(delete_after_copy=True)
    assert stage.ended(job).delivered == 1


def sweeping() -> bool:
    return any(thread.name == "nas-sweep" for thread in threading.enumerate())


def test_old_copies_are_swept_once(stage: Stage) -> None:
    name = stage.root / ".hf-downloader/partial" / f"{'0' * 32}.{'1' * 12}.copy"
    name.parent.mkdir()
    name.touch()
    os.utime(name, (0, 0))
    aggregator = stage.start()
    until(lambda: not name.exists())
    until(lambda: not sweeping())
    name.touch()
    os.utime(name, (0, 0))
    for _ in range(3):
        assert aggregator.wait_done(10)
    assert name.exists()


def test_a_sweep_that_fails_is_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path) -> int:
        raise LocalError("no")

    monkeypatch.setattr(nas_aggregator, "sweep_copies", refuse)
    job = stage.owe("a")
    stage.start()
    stage.ended(job)
    until(lambda: "old leftovers stay on the NAS: no" in caplog.messages)


def test_a_sweep_that_goes_wrong_is_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nas_aggregator, "sweep_copies", lambda _: 1 / 0)
    stage.start()
    until(lambda: lines(caplog, "NAS: internal error, please report it"))


def test_a_sweep_that_takes_long_holds_nobody_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas_aggregator, "_SLOW", 0.2)
    monkeypatch.setattr(nas_aggregator, "_SWEEP", 0.0)
    began, go = list[Path](), threading.Event()

    def hang(root: Path) -> int:
        began.append(root)
        assert go.wait(30)
        return 0

    monkeypatch.setattr(nas_aggregator, "sweep", hang)
    job = stage.owe("a")
    aggregator = stage.start()
    stage.ended(job)
    until(lambda: began)
    time.sleep(0.3)
    assert aggregator.answers
    assert aggregator.wait_done(10)
    assert len(began) == 1  # one at a time
    go.set()
    until(lambda: len(began) > 1)


def test_what_is_left_of_split_files_is_swept(stage: Stage) -> None:
    partial = stage.root / ".hf-downloader/partial"
    split, records, young = partial / "1.split", partial / "1.records", partial / "2.split"
    records.mkdir(parents=True)
    split.touch()
    young.touch()
    for path in (split, records):
        os.utime(path, (0, 0))
    stage.start()
    until(lambda: not split.exists() and not records.exists())
    assert young.exists()


def test_redis_may_go_and_come_back(
    binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes while a file is being copied: the report waits, and the local file with it."""
    caplog.set_level(logging.INFO)
    copied, go = threading.Event(), threading.Event()
    real = NasFolder.deliver

    def wait(self: NasFolder, *args: object, **options: object) -> object:
        delivery = real(self, *args, **options)  # type: ignore[arg-type]
        copied.set()
        assert go.wait(30)
        return delivery

    with Server(binary, settings={"appendonly": "yes", "appendfsync": "always"}) as server:
        client = RedisClient(server.config)
        stage = Stage(client, tmp_path)
        job = stage.owe("a")
        monkeypatch.setattr(NasFolder, "deliver", wait)
        aggregator = stage.start(delete_after_copy=True)
        assert copied.wait(10)
        server.stop()
        go.set()
        until(
            lambda: lines(caplog, "Redis") or [line for line in caplog.messages if "waiting for it" in line]
        )
        assert not aggregator.wait_done(0.2)
        assert stage.local("a").exists()
        server.start()
        until(lambda: not stage.local("a").exists())
        assert stage.job(job).state is JobState.DONE
        assert aggregator.wait_done(10)
        aggregator.stop()
        assert aggregator.join(10)
        client.close()


def test_a_worker_can_stop_while_redis_is_away(binary: Binary, tmp_path: Path) -> None:
    with Server(binary) as server:
        client = RedisClient(server.config)
        stage = Stage(client, tmp_path)
        aggregator = stage.start()
        assert aggregator.wait_done(10)
        server.stop()
        aggregator.stop()
        assert aggregator.join(10)
        client.close()


def test_the_nas_is_known_without_redis(binary: Binary, tmp_path: Path) -> None:
    with Server(binary) as server:
        client = RedisClient(server.config)
        stage = Stage(client, tmp_path)
        server.stop()
        aggregator = stage.start()
        assert until(lambda: aggregator.nas) == stage.nas
        aggregator.stop()
        assert aggregator.join(10)
        client.close()


def test_the_world_is_not_held_up_by_foreign_words(stage: Stage, redis: redis_py.Redis) -> None:
    redis.hset("{hfd}:folders", "junk", "\udcff\udcfe")
    redis.hset("{hfd}:folders", "", "")
    job = stage.owe("a")
    stage.start()
    stage.ended(job)
