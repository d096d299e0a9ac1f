"""What is downloaded gets to the NAS by itself, end to end, whatever the NAS does meanwhile."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.models import JobState
from tests.e2e.fleet import Fleet, tree, until
from tests.hub.faults import Stall
from tests.hub.faulty import FaultyHub

BIG = "model.safetensors"


@pytest.fixture
def nas(tmp_path: Path, fleet: Fleet) -> Path:
    """Return a marked NAS that all commands of the fleet deliver to."""
    folder = tmp_path / "nas"
    folder.mkdir()
    fleet.environ |= {"NAS_ENABLED": "true", "NAS_PATH": str(folder)}
    fleet.run("init-nas", "--force")
    return folder


def config(fleet: Fleet, text: str) -> None:
    (fleet.folder / "config.ini").write_text(text)


def assert_delivered(fleet: Fleet, source: Path, nas: Path, job: int) -> None:
    status = fleet.until_ended(job)
    assert status.state is JobState.DONE, fleet.run("status", code=None).stdout
    files = tree(source)
    assert {name: data for name, data in tree(nas).items() if not name.startswith(".hf-downloader/")} == {
        f"org/model/{name}": data for name, data in files.items()
    }
    assert (status.owed, status.delivered, status.bytes_delivered) == (0, len(files), status.bytes_total)
    assert list((nas / ".hf-downloader/partial").iterdir()) == []


def test_files_of_several_disks_come_together(fleet: Fleet, source: Path, nas: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        fleet.worker("-j", "2", OUTPUT_DIR=str(tmp_path / name))
    assert_delivered(fleet, source, nas, fleet.queue("org/model"))


def test_a_nas_that_is_away_holds_up_no_download_and_loses_nothing(
    fleet: Fleet, source: Path, nas: Path, tmp_path: Path
) -> None:
    away = tmp_path / "elsewhere"
    nas.rename(away)
    nas.mkdir()  # what lies below a mount that is gone
    output = tmp_path / "out"
    job = fleet.queue("org/model", "-o", str(output))
    first = fleet.worker()
    until(lambda: fleet.job(job).state is JobState.DELIVERING)
    assert tree(output / "org/model") == tree(source)
    assert list(nas.iterdir()) == []
    assert str(nas) in until(lambda: fleet.live()[0].nas_trouble)
    told = fleet.run("status", code=None).stdout
    assert "deliver" in told
    first.signal(signal.SIGKILL)  # and what it still had to bring is found again
    first.wait()
    nas.rmdir()
    away.rename(nas)
    fleet.worker()
    assert_delivered(fleet, source, nas, job)


def test_the_local_file_goes_only_when_its_copy_is_there(
    fleet: Fleet, source: Path, nas: Path, tmp_path: Path
) -> None:
    config(fleet, "[nas]\ndelete_after_copy = true\n")
    fleet.worker(OUTPUT_DIR=str(tmp_path / "out"))
    job = fleet.queue("org/model")
    assert_delivered(fleet, source, nas, job)
    until(lambda: tree(tmp_path / "out/org/model") == {})
    fleet.run("forget", str(job), "--yes")
    again = fleet.queue("org/model")
    status = fleet.until_ended(again)
    assert (status.state, status.delivered) == (JobState.DONE, status.total)
    assert tree(tmp_path / "out/org/model") == {}  # nothing was downloaded twice


def test_what_is_there_already_is_left_alone_or_replaced(
    fleet: Fleet, source: Path, nas: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    there = nas / "org/model"
    there.mkdir(parents=True)
    (there / BIG).write_bytes((source / BIG).read_bytes())
    (there / "config.json").write_bytes(b"x" * (source / "config.json").stat().st_size)
    number = (there / BIG).stat().st_ino
    fleet.worker(OUTPUT_DIR=str(tmp_path / "out"))
    assert_delivered(fleet, source, nas, fleet.queue("org/model"))
    assert (there / BIG).stat().st_ino == number
    assert hub.log.records("cdn", BIG) == []


def test_a_flat_nas_keeps_files_of_one_name_apart(
    fleet: Fleet, source: Path, nas: Path, tmp_path: Path
) -> None:
    config(fleet, "[nas]\npreserve_structure = false\n")
    fleet.worker(OUTPUT_DIR=str(tmp_path / "out"))
    job = fleet.queue("org/model", "--include", "*config.json")
    assert fleet.until_ended(job).state is JobState.DONE
    found = tree(nas / "org")
    names = ("config.json", "1_Pooling/config.json")
    assert set(found.values()) == {(source / name).read_bytes() for name in names}
    assert "model_config.json" in found
    assert len(found) == 2


def test_a_large_file_is_put_together_on_the_nas_where_disks_are_not_shared(
    fleet: Fleet, source: Path, nas: Path, tmp_path: Path
) -> None:
    (source / BIG).write_bytes(random.Random(5).randbytes(20_000_000))
    with FaultyHub({"models/org/model": source}) as hub:
        fleet.endpoint = hub.endpoint
        for name in ("a", "b"):
            fleet.worker("-j", "1", "--max-bandwidth", "8MB/s", OUTPUT_DIR=str(tmp_path / name))
        until(lambda: len([status for status in fleet.live() if status.nas]) == 2)
        job = fleet.queue("org/model", "--split", "4MiB")
        assert_delivered(fleet, source, nas, job)
    assert fleet.job(job).parts >= 5
    assert not any((tmp_path / name / "org/model" / BIG).exists() for name in ("a", "b"))


def test_a_drained_worker_leaves_nothing_behind(
    fleet: Fleet, source: Path, nas: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    stall = Stall(after=100_000)
    hub.on(stall, file=BIG)
    worker = fleet.worker(OUTPUT_DIR=str(tmp_path / "out"))
    job = fleet.queue("org/model")
    assert stall.reached.wait(60)
    worker.signal(signal.SIGUSR1)
    stall.release.set()
    assert worker.wait() == 0
    status = fleet.job(job)
    assert (status.owed, status.delivered) == (0, status.done)


def test_download_delivers_too(fleet: Fleet, source: Path, nas: Path) -> None:
    fleet.run("download", "org/model", "-o", "out")
    delivered = tree(nas / "org/model")
    assert delivered == tree(source)


def away(nas: Path) -> Path:
    """Unmount the NAS; return where it is meanwhile."""
    elsewhere = nas.with_name("elsewhere")
    nas.rename(elsewhere)
    nas.mkdir()
    return elsewhere


def back(nas: Path, elsewhere: Path) -> None:
    """Mount it again."""
    nas.rmdir()
    elsewhere.rename(nas)


def damage(path: Path) -> None:
    """Change a published file's bytes, and not its size."""
    path.write_bytes(b"?" * path.stat().st_size)


def test_what_is_damaged_or_removed_before_it_got_there_is_fetched_again(
    fleet: Fleet, source: Path, nas: Path, tmp_path: Path
) -> None:
    (source / BIG).write_bytes(random.Random(5).randbytes(20_000_000))
    elsewhere, output = away(nas), tmp_path / "out"
    with FaultyHub({"models/org/model": source}) as hub:
        fleet.endpoint = hub.endpoint
        workers = [fleet.worker("-j", "2") for _ in range(2)]
        job = fleet.queue("org/model", "-o", str(output), "--split", "4MiB")
        until(lambda: fleet.job(job).state is JobState.DELIVERING)
        damage(output / "org/model" / BIG)
        (output / "org/model/config.json").unlink()
        back(nas, elsewhere)
        assert_delivered(fleet, source, nas, job)
    assert fleet.job(job).parts >= 5
    assert tree(output / "org/model") == tree(source)
    told = "".join(worker.log for worker in workers)
    assert f"again   {BIG}: damaged before it got to the NAS: fetched again" in told
    assert "again   config.json: removed before it got to the NAS: fetched again" in told


def test_an_older_commit_s_file_does_not_come_back(
    fleet: Fleet, source: Path, nas: Path, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    for name in ("config.json", "README.md"):
        (newer / name).write_text(f"a newer {name}")
    elsewhere, output = away(nas), tmp_path / "out"
    with FaultyHub({"models/org/model": LocalRepo(source, refs={"v2": newer})}) as hub:
        fleet.endpoint = hub.endpoint
        fleet.worker()
        words = ("org/model", "-o", str(output), "--include", "config.json")
        old = fleet.queue(*words)
        until(lambda: fleet.job(old).state is JobState.DELIVERING)
        new = fleet.queue(*words, "--revision", "v2")
        until(lambda: fleet.job(new).state is JobState.DELIVERING)
        back(nas, elsewhere)
        assert fleet.until_ended(new).state is JobState.DONE
        until(lambda: f"forget {old}`" in fleet.live()[0].nas_trouble)
    assert fleet.job(old).state is JobState.DELIVERING
    for folder in (nas, output):
        assert (folder / "org/model/config.json").read_text() == "a newer config.json"
