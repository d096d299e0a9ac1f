"""`enable_hf_transfer`, as a user sets it: one machine, one file that is large enough, and a `kill -9`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from distributed_downloader.transfer.hf_transfer import PIECE, SMALLEST
from tests.e2e.fleet import Fleet, until
from tests.hub.faults import Stall
from tests.hub.faulty import FaultyHub
from tests.hub.proxy import ForwardProxy
from tests.hub.sample import write_files

TOKEN, PASSWORD = "hf_CanaryCanaryCanary0123456789", "proxyCanary0123456789"
BIG = "model.safetensors"
#: Our own look at the address, and the library's.
LOOKS = 2
#: Of the large file, the bit that is left among them.
PIECES = SMALLEST // PIECE + 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    content = random.Random(5).randbytes(1 << 20) * (SMALLEST // (1 << 20)) + b"and a bit"
    write_files(tmp_path / "source", {BIG: content, "config.json": b"{}"})
    return tmp_path / "source"


@pytest.fixture
def hub(source: Path) -> Iterator[FaultyHub]:
    with FaultyHub({"models/org/model": source}, tokens=[TOKEN]) as hub:
        yield hub


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with ForwardProxy(credentials=f"me:{PASSWORD}") as proxy:
        yield proxy


@pytest.fixture
def machine(tmp_path: Path, hub: FaultyHub, proxy: ForwardProxy) -> Fleet:
    folder = tmp_path / "machine"
    folder.mkdir()
    environ = {"HF_TOKEN": TOKEN, "HTTP_PROXY": proxy.url, "HF_HUB_ENABLE_HF_TRANSFER": "1"}
    return Fleet(folder, "", hub.endpoint, environ=environ)


def library_processes(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if "hf_transfer_child" in " ".join(child.cmdline())]


def test_a_worker_that_is_killed_takes_the_library_with_it(
    machine: Fleet, source: Path, hub: FaultyHub
) -> None:
    stall = Stall(after=1000)
    hub.on(stall, route="cdn", file=BIG, skip=LOOKS + 2)
    running = machine.start("download", "org/model", "-o", "out")
    assert stall.reached.wait(60)
    # All other pieces have come: the hub will note no more requests of what is killed now.
    assert hub.log.wait(lambda: sum(each.done for each in hub.log.records("cdn", BIG)) == LOOKS + PIECES - 1)
    (library,) = library_processes(running.pid)
    open_to_all = " ".join(library.cmdline()) + str(library.environ())
    running.kill()
    until(lambda: not library.is_running() or library.status() == psutil.STATUS_ZOMBIE)
    stall.release.set()
    running.communicate()
    assert TOKEN not in open_to_all
    assert PASSWORD not in open_to_all

    before = len(hub.log.records("cdn", BIG))
    done = machine.run("download", "org/model", "-o", "out", LOG_LEVEL="DEBUG", HTTP_PROXY="")
    assert "trying again" not in done.stderr
    out = machine.folder / "out/org/model"
    assert (out / BIG).read_bytes() == (source / BIG).read_bytes()
    assert len(hub.log.records("cdn", BIG)) - before == LOOKS + PIECES
    assert hub.leaks() == []
    assert TOKEN not in done.stdout + done.stderr
    assert not list((machine.folder / "out/.hf-downloader/partial").iterdir())
