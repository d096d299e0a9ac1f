"""What a seal reads is what it publishes, and nothing that goes on beside it changes that."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import HuggingFaceConfig
from distributed_downloader.errors import AccessError, EngineError, NetworkError, RangeError, TransferError
from distributed_downloader.hold import Hold, now
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, Part, RepoFile, RepoType, Token
from distributed_downloader.outage import Outage
from distributed_downloader.outcome import Finished, Range
from distributed_downloader.queue_terms import Limits
from distributed_downloader.slots import Slots
from distributed_downloader.storage.place import make_place
from distributed_downloader.storage.split import SplitFile
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.engine import Context
from distributed_downloader.transfer.engines import Engines
from distributed_downloader.transfer.seal import Reading, Seal

MIB = 1 << 20
DATA = random.Random(1).randbytes(4 * MIB)
FILE = RepoFile(path="big.bin", size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
SPEC = JobSpec(
    repo_type=RepoType.MODEL,
    repo_id="org/model",
    revision="main",
    commit="a" * 40,
    endpoint="http://localhost",
)
TASK = DownloadTask(token=Token(1, 0, 1), spec=SPEC, about=Descriptor(file=FILE, place="ab"))


@pytest.fixture
def split(tmp_path: Path) -> SplitFile:
    make_place(tmp_path, create_root=True)
    made = SplitFile(tmp_path, SPEC, FILE, Cancel())
    made.prepare()
    return made


def write(split: SplitFile, start: int, length: int) -> None:
    with split.part(Part(start=start, length=length, seal=0)) as sink:
        sink.write(DATA[start + sink.size : start + length])


def seal(split: SplitFile, reading: Reading) -> bool:
    def fetch(part: Part) -> None:
        write(split, part.start, part.length)

    return Seal(TASK, split, fetch=fetch, cancel=Cancel(), progress=lambda _: None).run(reading)


def test_what_was_read_of_another_file_of_that_name_does_not_count(split: SplitFile, tmp_path: Path) -> None:
    """Else a file of holes would be published over a good one."""
    write(split, 0, 2 * MIB)
    reading = Reading(split, FILE)
    reading.add([Range(0, 2 * MIB)])
    reading.advance(Cancel())
    assert reading.position == 2 * MIB
    write(split, 2 * MIB, 2 * MIB)
    assert seal(split, Reading(split, FILE))
    write(split, 2 * MIB, 2 * MIB)  # a late part makes the file anew
    assert seal(split, reading)
    assert (tmp_path / "org/model/big.bin").read_bytes() == DATA


def test_only_what_is_written_for_good_is_read_ahead(split: SplitFile) -> None:
    write(split, 0, 4 * MIB)
    reading = Reading(split, FILE)
    reading.add([Range(2 * MIB, MIB)])
    reading.advance(Cancel())
    assert reading.position == 0
    reading.add([Range(0, 2 * MIB)])
    reading.advance(Cancel())
    assert reading.position == 3 * MIB
    reading.close()


@pytest.mark.parametrize(
    "other",
    [NetworkError("blocked"), EngineError("no access"), AccessError("403")],
    ids=lambda e: type(e).__name__,
)
def test_that_there_are_no_ranges_counts_whatever_ails_the_other_engine(other: TransferError) -> None:
    class Engine:
        def __init__(self, name: str, error: TransferError) -> None:
            self.name, self._error = name, error

        def fetch(self, context: Context) -> None:
            raise self._error

        def close(self) -> None:
            pass

    class Sink:
        start, end, size, inherited, proves, unproven = 0, 10, 0, 0, True, False

    engines = Engines(HuggingFaceConfig(), http_engine=Engine("http", RangeError("none")))
    engines._made["xet"] = Engine("xet", other)
    context = Context(TASK, cast("Any", Sink()), Cancel(), Throttle(0), lambda _: None)
    with pytest.raises(RangeError):
        engines.fill(context)


def test_a_task_runs_once_in_a_worker_and_every_slot_comes_back() -> None:
    go, runs = threading.Event(), []

    class Runner:
        def run(
            self, task: DownloadTask, cancel: Cancel, progress: Callable[[int], None], hold: Hold
        ) -> Finished:
            runs.append(task)
            go.wait()
            return Finished()

        def close(self) -> None:
            pass

    class Reports:
        def success(self, *_: object) -> Callable[[], None]:
            return lambda: None

    reports = cast("Any", Reports())
    none = cast("Any", None)
    slots = Slots(1, Runner(), reports, none, outage=Outage("x"), limits=Limits(), pause_between=lambda: 0.0)
    slots.start_beside("w1", TASK, Cancel(), now())
    slots.start("w1", [TASK], Cancel(), now())
    assert slots.wait_room(1, ahead=False), "the second one takes no slot"
    go.set()
    assert slots.wait_idle(60)
    assert len(runs) == 1
