"""What `verify` checks and says: folders, jobs and own folders; checks that somebody stops; many flaws."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig
from distributed_downloader.descriptor import DoneFile
from distributed_downloader.display import report as shown
from distributed_downloader.errors import FilesFailedError, FlawError, NotFoundError
from distributed_downloader.folders import Folders
from distributed_downloader.master import plan_of
from distributed_downloader.models import (
    Descriptor,
    DownloadTask,
    Failure,
    JobSpec,
    JobState,
    JobStatus,
    RepoFile,
    Token,
)
from distributed_downloader.redis_closing import RedisClosing
from distributed_downloader.storage import RepoFolder
from distributed_downloader.storage.manifest import Entry, Head, Manifests
from distributed_downloader.storage.nas import NasFolder
from distributed_downloader.storage.place import make_place
from distributed_downloader.transfer.checking import Checks
from distributed_downloader.verification import Report, Subject, at_path, in_own_folders, verify
from tests.unit.test_hf_cache import CONTENT, Cache, listed
from tests.unit.test_hf_cache import spec as cache_spec
from tests.unit.test_storage import spec


def status(job: int, job_spec: JobSpec, state: JobState, *, total: int, failed: int = 0) -> JobStatus:
    counts = {"pending": 0, "active": 0, "delayed": 0, "held": 0, "done": total - failed, "failed": failed}
    about = {"state": state, "listed": True, "weight": 1, "total": total, "bytes_total": 0, "bytes_done": 0}
    return JobStatus.model_validate({"id": job, "spec": job_spec, **about, **counts, "created_at": 0})


class Crew:
    """A crew that finds so many files missing, and ends jobs as told."""

    def __init__(self, missing: int = 0, state: JobState = JobState.DONE) -> None:
        self.flawed = [RepoFile(path=f"f{n}", size=1, git_sha1="a" * 40) for n in range(missing)]
        self.state, self.jobs = state, list[JobSpec]()

    def work(self, job_spec: JobSpec, listing: Iterator[list[RepoFile]] | None) -> JobStatus:
        self.jobs.append(job_spec)
        files = [file for page in listing or () for file in page]
        failed = len(self.flawed) if job_spec.check else 0
        assert job_spec.check or files == self.flawed, "a repair fetches what was flawed, and nothing else"
        return status(len(self.jobs), job_spec, self.state, total=10 + failed, failed=failed)

    def files(self, _: int) -> RedisClosing:
        done = [DoneFile(file, "h", 0) for file in self.flawed]
        return cast(
            "RedisClosing", SimpleNamespace(failed=lambda: iter(self.flawed), done=lambda: iter(done))
        )

    def failures(self, job: JobStatus) -> list[Failure]:
        failure = {"error": "missing", "host": "h", "tries": 1, "at": 0, "found": "missing"}
        flawed = self.flawed if job.spec.check else []
        return [Failure.model_validate({"path": file.path, **failure}) for file in flawed]


def test_a_check_that_was_cancelled_says_nothing_is_right() -> None:
    with pytest.raises(FilesFailedError, match="was cancelled after 10 of 10 files"):
        verify(cast("Any", Crew(state=JobState.CANCELLED)), Subject(spec()), quick=False, repair=False)


def test_a_check_never_finds_an_earlier_one_and_a_repair_never_the_job_that_fetched() -> None:
    crew = Crew(missing=3)
    for _ in range(2):
        assert verify(cast("Any", crew), Subject(spec()), quick=False, repair=True).is_well
    assert len({job.identity() for job in [*crew.jobs, spec()]}) == 5


@pytest.mark.parametrize("count", [0, 50_000])
def test_many_flaws_are_told_in_time(count: int) -> None:
    """A list that is searched for each of them took minutes."""
    names = [f"folder/file-{n}" for n in range(count)]
    report = Report(spec(), files=count, missing=names, repaired=[*reversed(names)])
    lines = list(shown.lines(report))
    assert len(lines) == count + 1
    assert all(line.endswith(": repaired") for line in lines[:-1])
    assert report.is_well


# -- what a path means ----------------------------------------------------------------------------


def filled(root: Path, job: JobSpec | None = None) -> None:
    head = Head.of(job or spec(), whole=True)
    Manifests(root).write(head, [Entry.of(file, 0) for file in listed(CONTENT)])
    (root / "org" / "name" / "deep").mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize("path", [".", "..", "../..", "../../../out", "deep", "deep/.."])
def test_a_path_is_one_that_each_machine_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    filled(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out" / "org" / "name")
    (subject,) = at_path(Path(path))
    assert JobSpec.model_validate_json(subject.spec.model_dump_json()).output_dir == str(tmp_path / "out")


def test_of_many_repos_a_path_means_those_below_or_around_it(tmp_path: Path) -> None:
    filled(tmp_path)
    filled(tmp_path, spec(repo_id="org/name2", commit="b" * 40))
    (tmp_path / "org" / "name2").mkdir(parents=True)
    assert len(at_path(tmp_path)) == len(at_path(tmp_path / "org")) == 2
    assert [s.spec.repo_id for s in at_path(tmp_path / "org" / "name2")] == ["org/name2"]
    assert at_path(tmp_path / "elsewhere") == []


# -- own folders ----------------------------------------------------------------------------------


def own(folders: dict[str, set[str]], hosts: str = "ab") -> list[Subject]:
    done = [DoneFile(file, host, 0) for file, host in zip(listed(CONTENT), hosts, strict=False)]
    job = status(7, spec(), JobState.DONE, total=len(done))
    return in_own_folders(job, cast("RedisClosing", SimpleNamespace(done=lambda: iter(done))), folders)


def test_each_folder_is_checked_where_it_is() -> None:
    subjects = own({"a": {"1" * 32}, "b": {"2" * 32}})
    assert [subject.spec.place for subject in subjects] == ["1" * 32, "2" * 32]
    assert not any(subject.unchecked for subject in subjects)


@pytest.mark.parametrize("known", [{"2" * 32, "3" * 32}, set(), {""}])
def test_what_lies_nobody_knows_where_is_unchecked(known: set[str]) -> None:
    """Two workers with folders of their own on one host, none, or one that has no folder yet."""
    (subject,) = own({"a": {"1" * 32}, "b": known})
    assert len(subject.unchecked) == 1


@pytest.mark.parametrize("hosts", ["", "ab"])
def test_where_nobody_lives_it_says_what_to_do(hosts: str) -> None:
    with pytest.raises(NotFoundError, match="no host yet" if not hosts else "on a, b"):
        own({}, hosts)


# -- one file -------------------------------------------------------------------------------------


def check(root: Path, job: JobSpec, file: RepoFile, *, on_nas: bool = False) -> None:
    folders = Folders(AppConfig.model_validate({"app": {"output_dir": str(root)}}))
    task = DownloadTask(
        token=Token(1, 1, 1), spec=job.model_copy(update={"check": "hash"}), about=Descriptor(file=file)
    )
    Checks(folders, lambda *_: on_nas).run(task, Cancel(), lambda _: None)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b"[]"), "wrong"),
        (lambda path: path.write_bytes(b""), "wrong"),
        (lambda path: (path.unlink(), path.mkdir()), "wrong"),
        (pipe, "wrong"),
        (lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")), "wrong"),
    ],
    ids=["missing", "changed", "empty", "folder", "pipe", "link"],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, damage: Any, found: str) -> None:  # noqa: ANN401
    file, path = listed({"a": b"{}"})[0], tmp_path / "org" / "name" / "a"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    check(tmp_path, spec(), file)
    damage(path)
    with pytest.raises(FlawError) as caught:
        check(tmp_path, spec(), file)
    assert caught.value.found == found
    assert RepoFolder(tmp_path, spec()).has(file, Cancel()) is False


def test_a_file_that_went_to_the_nas_is_not_missing(tmp_path: Path) -> None:
    check(tmp_path, spec(), listed({"a": b"{}"})[0], on_nas=True)


def test_a_nas_without_folders_is_verified_by_its_manifest_alone(tmp_path: Path) -> None:
    make_place(tmp_path, create_root=True)
    job = spec().model_copy(update={"flat": True})
    files = [
        listed({"a/config.json": b"{}"})[0],
        listed({"b/config.json": b"[]"})[0].model_copy(update={"clash": True}),
    ]
    for file, data in zip(files, (b"{}", b"[]"), strict=True):
        path = NasFolder(tmp_path, job).path_of(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    # Not in the order of the listing, which gave them their names.
    Manifests(tmp_path).write(Head.of(job, whole=True), [Entry.of(file, 0) for file in reversed(files)])
    (subject,) = at_path(tmp_path)
    assert subject.listing
    pages = [*plan_of(subject.spec).pages(subject.listing())]
    assert pages == [[*reversed(files)]]
    for file in files:
        check(tmp_path, subject.spec, file)
        NasFolder(tmp_path, job).path_of(file).write_bytes(b"()")
        with pytest.raises(FlawError):
            check(tmp_path, subject.spec, file)


@pytest.mark.parametrize("hard", [False, True])
def test_a_name_in_a_cache_leads_to_its_blob(tmp_path: Path, *, hard: bool) -> None:
    cache, file = Cache(tmp_path), listed({"config.json": b"{}"})[0]
    cache.show()
    name, blob = cache.snapshot / "config.json", cache.repo / "blobs" / str(file.sha256)
    if hard:
        name.unlink()
        name.hardlink_to(blob)
    check(tmp_path, cache_spec(), file)
    name.unlink()
    with pytest.raises(FlawError, match="missing"):
        check(tmp_path, cache_spec(), file)
    name.write_bytes(b"[]")  # of the same size, by an editor that replaces links
    with pytest.raises(FlawError, match="wrong"):
        check(tmp_path, cache_spec(), file)
