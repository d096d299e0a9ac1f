"""Large files over all machines, end to end: parts, tails, seals, and folders that are not the same."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_downloader.models import JobState
from tests.e2e.fleet import Fleet, Worker, tree, until
from tests.hub.faults import Corrupt, IgnoreRange, Stall
from tests.hub.faulty import FaultyHub
from tests.servers import Server

BIG = "weights/model.safetensors"
MIB = 1 << 20
SIZE = 24 * MIB + 12345


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a repo with one large file and two small ones."""
    folder = tmp_path / "source"
    (folder / "weights").mkdir(parents=True)
    (folder / BIG).write_bytes(random.Random(7).randbytes(SIZE))
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# Sample\n")
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "shared"


@pytest.fixture
def hub(source: Path) -> Iterator[FaultyHub]:
    with FaultyHub({"models/org/model": source}) as hub:
        yield hub


def assert_complete(fleet: Fleet, source: Path, output: Path, job: int) -> None:
    """Every byte is there, the counters agree with reality, and nothing is left over."""
    status = fleet.until_ended(job)
    assert status.state is JobState.DONE, fleet.run("status", code=None).stdout
    assert tree(output / "org/model") == tree(source)
    assert (status.files, status.files_done, status.failed) == (3, 3, 0)
    assert status.parts == status.parts_done
    assert status.bytes_done == status.bytes_total == sum(map(len, tree(source).values()))
    assert list((output / ".hf-downloader/partial").iterdir()) == []


def queue(fleet: Fleet, output: Path, *words: str) -> int:
    return fleet.queue("org/model", "-o", str(output), "--split", "4MiB", *words)


def ranges(hub: FaultyHub) -> list[tuple[int, int]]:
    """Return the ranges of the large file that the storage was asked for, ends included."""
    asked = [record.request.headers.get("range", "") for record in hub.log.records("cdn", BIG)]
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", text) for text in asked]
    return [(int(match[1]), int(match[2])) for match in found if match]


def split_file(output: Path) -> Path:
    """Wait until the large file lies there unfinished, and return it."""
    folder = output / ".hf-downloader/partial"
    return until(lambda: next(folder.glob("*.split"), None), "a split file")


def records(output: Path) -> list[str]:
    return sorted(path.name for path in (output / ".hf-downloader/partial").glob("*.records/*"))


def test_all_workers_fetch_one_file(fleet: Fleet, source: Path, hub: FaultyHub, output: Path) -> None:
    for _ in range(3):
        fleet.worker("-j", "1", "--max-bandwidth", "8MB/s")
    until(lambda: len(fleet.live()) == 3)
    job = queue(fleet, output)
    assert_complete(fleet, source, output, job)
    assert all("split" in worker.log or "MiB]" in worker.log for worker in fleet.workers)
    assert len(hub.log.records("cdn", BIG)) == len(ranges(hub)) >= 7
    assert (0, 4 * MIB - 1) in ranges(hub)
    assert hub.leaks() == []


def test_a_killed_worker_s_part_is_fetched_by_another(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    stall = Stall(after=MIB)
    hub.on(stall, file=BIG, skip=2)
    for _ in range(2):
        fleet.worker("-j", "2", lease=3)
    job = queue(fleet, output)
    assert stall.reached.wait(60)
    victim = _stalled_owner(fleet)
    victim.signal(signal.SIGKILL)
    assert not (output / "org/model" / BIG).exists()
    assert_complete(fleet, source, output, job)


def _stalled_owner(fleet: Fleet) -> Worker:
    """Wait until nothing but the stalled part is left, and return its worker."""

    def look() -> Worker | None:
        busy = [status for status in fleet.live() if status.transfers]
        if len(busy) == 1 and len(busy[0].transfers) == 1:
            return next(each for each in fleet.workers if each.process.pid == busy[0].pid)
        return None

    return until(look, "one part that is left")


def test_the_seal_finds_the_one_damaged_part(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    stall = Stall(after=1000)
    hub.on(stall, file=BIG, skip=1)  # so that what comes behind is not read yet
    fleet.worker("-j", "2")
    job = queue(fleet, output)
    assert stall.reached.wait(60)
    until(lambda: any(record.startswith(f"{20 * MIB}+") for record in records(output)))
    with split_file(output).open("r+b") as file:
        file.seek(21 * MIB)
        file.write(b"damage")
    before = len(ranges(hub))
    stall.release.set()
    assert_complete(fleet, source, output, job)
    log = fleet.workers[0].log
    assert "its MiB 20.0 to 24.0; fetching them again" in log
    assert "whole file" not in log
    assert (20 * MIB, 24 * MIB - 1) in ranges(hub)[before:]


def test_bytes_that_came_wrong_are_fetched_again(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    hub.on(Corrupt(at=9 * MIB, length=100), file=BIG, skip=2, times=1)
    fleet.worker("-j", "1")
    job = queue(fleet, output)
    assert_complete(fleet, source, output, job)
    assert "fetching the whole file again" in fleet.workers[0].log


def test_a_hub_that_ignores_ranges_still_gives_the_file(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    hub.on(IgnoreRange(), file=BIG, times=None)
    for _ in range(2):
        fleet.worker("-j", "1")
    assert_complete(fleet, source, output, queue(fleet, output))


def test_a_frozen_worker_does_not_hold_up_the_others(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    stall = Stall(after=MIB)
    hub.on(stall, file=BIG, skip=2)
    for _ in range(2):
        fleet.worker("-j", "2", lease=9)
    job = queue(fleet, output)
    assert stall.reached.wait(60)
    zombie = _stalled_owner(fleet)
    zombie.signal(signal.SIGSTOP)
    assert_complete(fleet, source, output, job)
    before = tree(output / "org/model")
    zombie.signal(signal.SIGCONT)
    stall.release.set()
    until(lambda: "not this worker's any more" in zombie.log or "taken for dead" in zombie.log)
    zombie.signal(signal.SIGTERM)
    assert zombie.wait() == 0
    assert tree(output / "org/model") == before


def test_a_stalled_connection_does_not_hold_up_the_file(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    stall = Stall(after=MIB)
    hub.on(stall, file=BIG, skip=3)
    fleet.worker("-j", "2")
    job = queue(fleet, output)
    assert_complete(fleet, source, output, job)
    assert stall.reached.is_set()
    assert not stall.release.is_set()


def test_the_tail_of_a_slow_worker_is_taken_by_fast_ones(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    fleet.worker("-j", "1", "--max-bandwidth", "200kB/s")
    until(lambda: len(fleet.live()) == 1)
    job = queue(fleet, output)
    until(lambda: any(transfer.start is not None for status in fleet.live() for transfer in status.transfers))
    fleet.worker("-j", "2")
    assert_complete(fleet, source, output, job)
    assert fleet.job(job).parts > 7


def test_without_a_common_folder_the_file_is_fetched_whole_and_status_says_why(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        fleet.worker("-j", "1", OUTPUT_DIR=str(tmp_path / name))
    until(lambda: len(fleet.live()) == 2)
    job = fleet.queue("org/model", "--split", "4MiB")
    status = fleet.until_ended(job)
    assert (status.state, status.total, status.parts) == (JobState.DONE, 3, 0)
    found = tree(tmp_path / "a/org/model") if (tmp_path / "a/org/model").exists() else {}
    found |= tree(tmp_path / "b/org/model") if (tmp_path / "b/org/model").exists() else {}
    assert found == tree(source)
    assert "another output folder" in status.unsplit
    assert "another output folder" in fleet.run("status", "--json").stdout


def test_own_folders_that_are_one_are_found_out(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    for _ in range(2):
        fleet.worker("-j", "1", OUTPUT_DIR=str(tmp_path / "one"))
    until(lambda: len(fleet.live()) == 2)
    job = fleet.queue("org/model", "--split", "4MiB")
    assert_complete(fleet, source, tmp_path / "one", job)
    assert fleet.job(job).parts >= 7


def test_never_means_never(fleet: Fleet, source: Path, hub: FaultyHub, output: Path) -> None:
    fleet.worker()
    job = fleet.queue("org/model", "-o", str(output), "--split", "never")
    assert_complete(fleet, source, output, job)
    assert fleet.job(job).parts == 0


def test_a_job_whose_folder_nobody_sees_is_blocked_until_somebody_does(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    job = queue(fleet, output)
    marker = output / ".hf-downloader/place"
    place = marker.read_text()
    marker.write_text("0" * 32 + "\n")  # as where the mount is missing, and another folder lies below
    fleet.worker("-j", "2")
    until(lambda: fleet.job(job).blocked)
    assert str(output) in fleet.run("status", code=None).stdout
    assert not (output / "org").exists()
    assert sorted(path.name for path in output.iterdir()) == [".hf-downloader"]
    marker.write_text(place)
    assert_complete(fleet, source, output, job)


def test_a_download_that_is_interrupted_goes_on_from_its_parts(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path
) -> None:
    stall = Stall(after=1000)
    hub.on(stall, file=BIG, skip=5, times=None)
    running = fleet.start("download", "org/model", "-o", str(output), "--split", "4MiB", "-j", "2")
    assert stall.reached.wait(60)
    until(lambda: len(records(output)) >= 5)
    running.kill()
    running.communicate()
    hub.heal()
    before = len(ranges(hub))
    fleet.run("download", "org/model", "-o", str(output), "--split", "4MiB", "-j", "2")
    assert tree(output / "org/model") == tree(source)
    assert sum(end + 1 - start for start, end in ranges(hub)[before:]) <= SIZE - 5 * 4 * MIB


def test_a_forgotten_job_goes_on_from_what_is_on_disk(
    fleet: Fleet, source: Path, hub: FaultyHub, output: Path, redis_server: Server
) -> None:
    stall = Stall(after=1000)
    hub.on(stall, file=BIG, skip=5, times=None)
    first = fleet.worker("-j", "2")
    job = queue(fleet, output)
    until(lambda: fleet.job(job).parts_done >= 5)
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    fleet.run("forget", str(job), "--yes")
    hub.heal()
    before = len(ranges(hub))
    fleet.worker("-j", "2")
    assert_complete(fleet, source, output, queue(fleet, output))
    assert sum(end + 1 - start for start, end in ranges(hub)[before:]) <= SIZE - 5 * 4 * MIB
