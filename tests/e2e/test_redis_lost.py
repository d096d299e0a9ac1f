"""A Redis that comes back empty: the same commands again, and no byte that is on disk is downloaded twice."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distributed_downloader.models import JobState
from distributed_downloader.storage.records import RECORD_SIZE
from tests.e2e.fleet import Fleet, tree, until
from tests.hub.faults import Stall
from tests.hub.faulty import FaultyHub
from tests.servers import NO_SERVER, Server, binaries, free_port

MIB = 1 << 20
BIG, WHOLE = "big.safetensors", "whole.bin"
#: Three parts of two pieces of the journal each, and a short one; the whole file is too small to be split.
TAIL, PARTS = 4321, 3
BIG_SIZE, WHOLE_SIZE = PARTS * 2 * RECORD_SIZE + TAIL, 8 * MIB
EARLY, LATE = 60, 30
#: What is sent before a connection hangs: of a part, more than a piece of the journal.
STALLED_PART, STALLED_WHOLE = 18 * MIB, 5 * MIB
WORKERS, SLOTS = 2, 3
#: What may have left the hub and not be written anywhere: the buffers of both sockets, and of one read.
BUFFERS = 16 * MIB


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a repo with a large file, a middle one, and many small ones."""
    folder, dice = tmp_path / "source", random.Random(11)
    folder.mkdir()
    (folder / BIG).write_bytes(dice.randbytes(BIG_SIZE))
    (folder / WHOLE).write_bytes(dice.randbytes(WHOLE_SIZE))
    for name, count, size in (("early", EARLY, 30_000), ("late", LATE, 20_000)):
        for number in range(count):
            (folder / f"{name}-{number}.bin").write_bytes(dice.randbytes(size + number))
    return folder


@pytest.fixture
def hub(source: Path) -> Iterator[FaultyHub]:
    with FaultyHub({"models/org/model": source}) as hub:
        yield hub


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a Redis of this test alone, which keeps what it has on its disk."""
    found = binaries()
    assert found, NO_SERVER
    with Server(found[0], port=free_port(), settings={"appendonly": "yes"}) as server:
        yield server


@pytest.fixture
def fleet(tmp_path: Path, hub: FaultyHub, server: Server) -> Iterator[Fleet]:
    folder = tmp_path / "machine"
    folder.mkdir()
    fleet = Fleet(folder, f"redis://127.0.0.1:{server.port}/0", hub.endpoint)
    yield fleet
    fleet.close()


def come_back_empty(server: Server) -> None:
    """Kill Redis without warning, remove what it has on its disk, and start it on the same port."""
    server.stop()
    for path in server.folder.iterdir():
        if path.name.startswith(("appendonly", "dump")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    server.start()


def sent(hub: FaultyHub) -> int:
    """Return the bytes of files that have left the hub."""
    return sum(record.reply.sent for route in ("cdn", "cache") for record in hub.log.records(route))


def journal(output: Path) -> int:
    """Return the bytes of split files that are synced, and said to be."""
    names = [path.name for path in (output / ".hf-downloader/partial").glob("*.records/*")]
    return sum(int(name.partition(".")[0].partition("+")[2]) for name in names)


def published(output: Path) -> dict[str, bytes]:
    return tree(output / "org/model")


def on_disk(output: Path) -> int:
    """Return the bytes that need not be fetched again: published, in the journal, or of a whole file."""
    files = [path for path in (output / ".hf-downloader/partial").iterdir() if path.is_file()]
    whole = sum(path.stat().st_size for path in files if path.suffix != ".split")
    return sum(map(len, published(output).values())) + journal(output) + whole


@dataclass
class Stage:
    """A fleet in the middle of a job, in which nothing moves until the hub is healed."""

    fleet: Fleet
    hub: FaultyHub
    output: Path

    def begin(self) -> None:
        """Let the parts and the whole file hang half-way, and most of the small files be there."""
        whole, late = Stall(after=STALLED_WHOLE), Stall(after=1000)
        self.hub.on(Stall(after=STALLED_PART), file=BIG, times=None)
        self.hub.on(whole, file=WHOLE)
        self.hub.on(late, file="late-*", times=None)
        for _ in range(WORKERS):
            self.fleet.worker("-j", str(SLOTS))
        until(lambda: len(self.fleet.live()) == WORKERS, "all workers")
        self.submit()
        assert whole.reached.wait(90)
        assert late.reached.wait(90)
        until(lambda: len(published(self.output)) == EARLY, "the early files")
        until(lambda: journal(self.output) == PARTS * RECORD_SIZE + TAIL, "the journal's pieces")

    def has_let_go(self, before: set[str]) -> bool:
        """Return whether all workers have a new name, and have stopped what they did under the old one."""
        workers = self.fleet.live()
        return len({each.id for each in workers} - before) == WORKERS and not any(
            each.transfers for each in workers
        )

    def submit(self) -> int:
        return self.fleet.queue("org/model", "-o", str(self.output), "--split", "32MiB")


@pytest.mark.parametrize("killed", [False, True], ids=["workers-live", "workers-killed"])
def test_what_is_on_disk_is_not_fetched_again(  # noqa: PLR0917 - fixtures
    fleet: Fleet, source: Path, hub: FaultyHub, server: Server, tmp_path: Path, killed: bool
) -> None:
    stage = Stage(fleet, hub, tmp_path / "shared")
    stage.begin()
    before, there = {worker.id for worker in fleet.live()}, on_disk(stage.output)
    lost = sent(hub) - there
    assert lost <= PARTS * (STALLED_PART - RECORD_SIZE) + BUFFERS
    if killed:
        for worker in fleet.workers:
            worker.signal(signal.SIGKILL)
    come_back_empty(server)
    if killed:
        for _ in range(WORKERS):
            fleet.worker("-j", str(SLOTS))
    until(lambda: stage.has_let_go(before), "the workers' return")
    shown = fleet.run("status").stdout
    assert ("without its data: run the same `master` commands again" in shown) is not killed
    logs = [worker.log for worker in fleet.workers[:WORKERS]]
    assert all("has lost data, this worker and its tasks among it" in log for log in logs) is not killed
    job = stage.submit()
    hub.heal()
    status = fleet.until_ended(job)
    files = tree(source)
    assert (status.state, status.files_done, status.failed) == (JobState.DONE, len(files), 0)
    assert published(stage.output) == files
    assert list((stage.output / ".hf-downloader/partial").iterdir()) == []
    size = sum(map(len, files.values()))
    assert status.bytes_done == size
    again = sent(hub) - size
    assert again <= lost + BUFFERS, f"{again:,} bytes were fetched twice, {lost:,} of them were on no disk"
