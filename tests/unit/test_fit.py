"""A job that cannot fit where it goes is refused before it is queued, and nothing else is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import fakeredis
import pytest

from distributed_downloader import fit
from distributed_downloader.config import NASConfig
from distributed_downloader.errors import NoSpaceError
from distributed_downloader.fit import fitting, goals_of, nas_goal, output_goal
from distributed_downloader.hub import Hub
from distributed_downloader.master import MasterNode, Submitted
from distributed_downloader.models import JobSpec, JobState, Layout, RepoFile
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from distributed_downloader.storage.place import make_place
from distributed_downloader.storage.room import Space
from tests.unit.test_master import SPEC, ListedHub

GB = 10**9


class Disk:
    """How much room there is, as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: Space | None = Space(10 * GB, 1000 * GB)
        self.looks = 0
        monkeypatch.setattr(fit, "space", self._look)

    def _look(self, folder: Path) -> Space | None:
        self.looks += 1
        return self.found

    def has(self, free: int) -> None:
        self.found = Space(free, 1000 * GB)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def to(folder: Path, **more: object) -> JobSpec:
    return SPEC.model_copy(update={"output_dir": str(folder), **more})


def pages(*sizes: int) -> list[list[RepoFile]]:
    return [[RepoFile(path=f"{number}.bin", size=size)] for number, size in enumerate(sizes)]


def write(path: Path, size: int) -> None:
    """Make a file that takes no room and has that size, or has both if it is small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if size < 1 << 20:
            file.write(os.urandom(size))
        file.truncate(size)


def test_what_fits_passes_page_by_page(tmp_path: Path, disk: Disk) -> None:
    listing = pages(4 * GB, 4 * GB)
    goals = goals_of(to(tmp_path), NASConfig(), GB)
    assert list(fitting(listing, to(tmp_path), goals)) == listing


def test_the_page_that_is_too_much_is_not_passed_on(tmp_path: Path, disk: Disk) -> None:
    passed = fitting(pages(4 * GB, 4 * GB, 2 * GB, 1), to(tmp_path), goals_of(to(tmp_path), NASConfig(), GB))
    assert next(passed)[0].path == "0.bin"
    assert next(passed)[0].path == "1.bin"
    with pytest.raises(NoSpaceError) as refused:
        next(passed)
    assert str(refused.value) == (
        f"org/name needs 10.0 GB, and {tmp_path} has 10.0 GB free (1.0 GB of it are kept free: "
        "disk_reserve): free some space, use another --output-dir, or take less with --include; "
        "--no-space-check queues it all the same"
    )
    assert refused.value.exit_code == 2


def test_what_lies_there_needs_no_more_room(tmp_path: Path, disk: Disk) -> None:
    goal = output_goal(to(tmp_path), tmp_path, 0)
    assert goal.shortage(SPEC, 11 * GB)
    write(tmp_path / "org/name/sub/0.bin", 2 * GB)
    assert goal.shortage(SPEC, 12 * GB) == ""
    assert ", of which 2.0 GB are there, and " in goal.shortage(SPEC, 12 * GB + 1)


def test_a_long_listing_does_not_look_through_the_folder_again_and_again(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, walk = list[object](), os.walk

    def count(folder: Path) -> Iterator[tuple[object, list[str], list[str]]]:
        looked.append(folder)
        return walk(folder)

    monkeypatch.setattr(os, "walk", count)
    goal = output_goal(to(tmp_path), tmp_path, 0)
    write(tmp_path / "org/name/0.bin", 100 * GB)
    listing = pages(*[GB] * 100)
    assert list(fitting(listing, to(tmp_path), [goal])) == listing
    assert looked == [goal.repo, goal.partial]


def test_what_comes_while_it_is_listed_counts(tmp_path: Path, disk: Disk) -> None:
    passed = fitting(pages(11 * GB, GB), to(tmp_path), [output_goal(to(tmp_path), tmp_path, 0)])
    write(tmp_path / "org/name/0.bin", GB)
    next(passed)
    write(tmp_path / "org/name/1.bin", 5 * GB)
    disk.has(6 * GB)
    next(passed)


def test_so_in_a_cache_of_the_hubs_library(tmp_path: Path, disk: Disk) -> None:
    spec = to(tmp_path, layout=Layout.HF_CACHE)
    write(tmp_path / "models--org--name/blobs/abc", 2 * GB)
    assert output_goal(spec, tmp_path, 0).shortage(spec, 12 * GB) == ""
    assert output_goal(to(tmp_path), tmp_path, 0).shortage(SPEC, 12 * GB)


def test_nor_do_unfinished_files_for_what_they_take(tmp_path: Path, disk: Disk) -> None:
    goal = output_goal(to(tmp_path), tmp_path, 0)
    write(tmp_path / ".hf-downloader/partial/sparse", 5 * GB)
    assert goal.shortage(SPEC, 10 * GB + 100_000)
    write(tmp_path / ".hf-downloader/partial/written", 200_000)
    assert goal.shortage(SPEC, 10 * GB + 100_000) == ""


def test_a_link_counts_as_itself(tmp_path: Path, disk: Disk) -> None:
    write(tmp_path / "elsewhere", 5 * GB)
    (tmp_path / "org/name").mkdir(parents=True)
    (tmp_path / "org/name/0.bin").symlink_to(tmp_path / "elsewhere")
    assert output_goal(to(tmp_path), tmp_path, 0).shortage(SPEC, 11 * GB)


def test_a_disk_that_does_not_tell_refuses_nothing(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.found = None
    assert output_goal(to(tmp_path), tmp_path, 0).shortage(SPEC, 1 << 60) == ""

    def fail(folder: Path) -> Space:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(fit, "space", fail)
    goals = [output_goal(to(tmp_path), tmp_path, 0)]
    assert list(fitting(pages(1 << 52), to(tmp_path), goals)) == pages(1 << 52)


# -- where it goes --------------------------------------------------------------------------------


def folders(spec: JobSpec, nas: NASConfig) -> list[Path]:
    return [goal.folder for goal in goals_of(spec, nas, 0)]


def test_the_folders_that_count(tmp_path: Path) -> None:
    output, nas = tmp_path / "output", tmp_path / "nas"
    nas.mkdir()
    settings = NASConfig(enabled=True, path=str(nas))
    assert folders(SPEC, NASConfig()) == []  # each worker's own
    assert folders(to(output), NASConfig()) == [output]
    assert folders(to(output), settings) == [output]  # no NAS is seen there
    make_place(nas, create_root=False)
    assert folders(to(output), settings) == [output, nas]
    passing = settings.model_copy(update={"delete_after_copy": True})
    assert folders(to(output), passing) == [nas]


def test_a_folder_that_cannot_be_made_here_is_not_seen_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert folders(to(tmp_path / "not" / "mounted"), NASConfig()) == []
    assert folders(to(tmp_path), NASConfig()) == [tmp_path]


def test_where_files_lie_flat_all_of_the_organisation_are_there(tmp_path: Path, disk: Disk) -> None:
    write(tmp_path / "org/name_0.bin", 5 * GB)
    assert nas_goal(SPEC, tmp_path).shortage(SPEC, 11 * GB)
    flat = SPEC.model_copy(update={"flat": True})
    assert nas_goal(flat, tmp_path).shortage(flat, 11 * GB) == ""


# -- the master -----------------------------------------------------------------------------------


@pytest.fixture
def redis() -> Iterator[RedisClient]:
    server = fakeredis.FakeRedis(decode_responses=True)
    yield RedisClient.over(server)
    server.close()


def submit(redis: RedisClient, spec: JobSpec, *sizes: int, reserve: int | None = 0) -> Submitted:
    hub = cast(Hub, ListedHub(pages(*sizes)))
    return MasterNode(hub, redis, reserve=reserve).submit(spec, 1)


def test_nothing_is_made_of_a_job_whose_first_page_is_too_much(
    redis: RedisClient, tmp_path: Path, disk: Disk
) -> None:
    with pytest.raises(NoSpaceError):
        submit(redis, to(tmp_path / "new"), 11 * GB)
    assert RedisView(redis).jobs() == []
    assert not (tmp_path / "new").exists()


def test_a_job_that_turns_out_too_large_is_paused_and_goes_on_with_more_room(
    redis: RedisClient, tmp_path: Path, disk: Disk
) -> None:
    with pytest.raises(NoSpaceError, match="job 1 is paused until this command is run again"):
        submit(redis, to(tmp_path), 6 * GB, 6 * GB)
    (job,) = RedisView(redis).jobs()
    assert (job.state, job.files, job.listed) == (JobState.PAUSED, 1, False)
    disk.has(20 * GB)
    assert submit(redis, to(tmp_path), 6 * GB, 6 * GB).after.state is JobState.RUNNING
    (job,) = RedisView(redis).jobs()
    assert (job.files, job.listed) == (2, True)


def test_who_knows_better_may_insist(redis: RedisClient, tmp_path: Path, disk: Disk) -> None:
    assert submit(redis, to(tmp_path), 11 * GB, reserve=None).created
    assert disk.looks == 0
