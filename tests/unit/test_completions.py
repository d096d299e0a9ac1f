"""What is done is reported together, by whoever can, and never lost while somebody waits for it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from distributed_downloader import completions
from distributed_downloader.cancel import Cancel
from distributed_downloader.completions import Completion, Completions
from distributed_downloader.errors import LocalError, PlaceUnseenError, RedisUnavailableError, TransferError
from distributed_downloader.hold import Hold
from distributed_downloader.models import Descriptor, DownloadTask, RepoFile, Token
from distributed_downloader.outage import Outage
from distributed_downloader.outcome import Finished, Published
from distributed_downloader.queue_terms import Done, Settled
from distributed_downloader.running import Running
from distributed_downloader.storage.durable import make_durable
from distributed_downloader.storage.place import make_place
from tests.unit.looking_on import spec

PATIENCE = 60.0
TASK = DownloadTask(token=Token(1, 0, 1), spec=spec(), about=Descriptor(file=RepoFile(path="a", size=1)))


class Queue:
    """Takes reports while it is there; the first waits until the test lets it go."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.errors: list[Exception] = []
        self.entered, self.go = threading.Event(), threading.Event()

    def complete_all(self, worker: str, host: str, done: Sequence[Done]) -> list[Settled]:
        self.entered.set()
        assert self.go.wait(PATIENCE)
        self.calls.append((worker, [each.token for each in done]))
        if self.errors:
            raise self.errors.pop(0)
        return [Settled.DONE] * len(done)


class Desk:
    """Puts reports, and notes what became of them."""

    def __init__(self, queue: Queue) -> None:
        self.completions = Completions(cast("Any", queue), Outage("r.example"))
        self.settled: list[str] = []
        self.ended: list[str] = []
        #: What was not done, by token, and how often that was reported.
        self.failed: dict[str, TransferError] = {}
        self.failures = 0
        self._changed = threading.Condition()

    def put(
        self,
        token: str,
        *,
        worker: str = "w",
        cancel: Cancel | None = None,
        published: Published | None = None,
    ) -> None:
        running = Running(worker, TASK, cancel or Cancel(), Hold.unlimited())
        running.token = token
        outcome = Finished(published=published)
        self.completions.put(Completion("h", running, outcome, self._settle, self._fail), self._note)

    def _settle(self, completion: Completion, settled: Settled) -> None:
        assert settled is Settled.DONE
        self.settled.append(completion.running.token)

    def _fail(self, running: Running, error: TransferError) -> Callable[[], None]:
        self.failed[running.token] = error
        return self._report_failure

    def _report_failure(self) -> None:
        self.failures += 1
        if self.failures == 1:
            raise RedisUnavailableError("away")

    def _note(self, running: Running) -> None:
        with self._changed:
            self.ended.append(running.token)
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ended) >= count, PATIENCE)
        assert len(self.ended) == count


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def desk(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(completions, "_AGAIN", 0.01)
    return Desk(queue)


def test_what_comes_while_a_report_is_on_its_way_goes_together(queue: Queue, desk: Desk) -> None:
    desk.put("1")
    assert queue.entered.wait(PATIENCE)
    for token in "234":
        desk.put(token)
    queue.go.set()
    desk.wait_for(4)
    assert queue.calls == [("w", ["1"]), ("w", ["2", "3", "4"])]
    assert desk.settled == desk.ended == ["1", "2", "3", "4"]


def test_reports_under_two_names_go_apart_and_in_order(queue: Queue, desk: Desk) -> None:
    desk.put("1")
    assert queue.entered.wait(PATIENCE)
    for token, worker in (("2", "w"), ("3", "w-2"), ("4", "w-2"), ("5", "w")):
        desk.put(token, worker=worker)
    queue.go.set()
    desk.wait_for(5)
    assert queue.calls[1:] == [("w", ["2"]), ("w-2", ["3", "4"]), ("w", ["5"])]


def test_a_call_has_its_bound(queue: Queue, desk: Desk) -> None:
    desk.put("first")
    assert queue.entered.wait(PATIENCE)
    for number in range(100):
        desk.put(str(number))
    queue.go.set()
    desk.wait_for(101)
    assert [len(tokens) for _, tokens in queue.calls] == [1, 64, 36]


def test_while_redis_is_away_it_is_tried_again(queue: Queue, desk: Desk) -> None:
    queue.errors = [RedisUnavailableError("away")] * 3
    queue.go.set()
    desk.put("1")
    desk.wait_for(1)
    assert [tokens for _, tokens in queue.calls] == [["1"]] * 4
    assert desk.settled == ["1"]


def test_who_is_stopped_meanwhile_is_given_up_and_the_others_are_not(queue: Queue, desk: Desk) -> None:
    stopped = Cancel()
    stopped.set("stop")
    queue.errors = [RedisUnavailableError("away")]
    desk.put("0")
    assert queue.entered.wait(PATIENCE)
    queue.errors.insert(0, RedisUnavailableError("away"))
    desk.put("1", cancel=stopped)
    desk.put("2")
    queue.go.set()
    desk.wait_for(3)
    assert sorted(desk.ended) == ["0", "1", "2"]
    assert desk.settled in (["0", "2"], ["0", "1", "2"])


@pytest.mark.parametrize("told", [True, False])
def test_an_error_that_nobody_expected_ends_nothing_but_its_batch(
    queue: Queue, desk: Desk, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    def speechless(*_: object) -> None:
        raise MemoryError

    if not told:
        monkeypatch.setattr(completions, "tell", speechless)
    queue.errors = [MemoryError()]
    queue.go.set()
    desk.put("1")
    desk.wait_for(1)
    desk.put("2")
    desk.wait_for(2)
    assert desk.settled == ["2"]


def test_without_memory_for_a_thread_the_slot_reports(
    queue: Queue, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    queue.go.set()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        desk.put("1")
    assert desk.settled == ["1"]
    desk.put("2")
    desk.wait_for(2)


def test_who_closes_leaves_nothing_unreported(queue: Queue, desk: Desk) -> None:
    desk.put("1")
    assert queue.entered.wait(PATIENCE)
    desk.put("2")
    desk.completions.close()
    queue.go.set()
    desk.wait_for(2)
    desk.put("3")
    assert desk.settled == ["1", "2", "3"]


# -- names that are not safe from a power cut yet -------------------------------------------------


@pytest.fixture
def synced(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the folders that are brought to disk, and the reports, in order."""
    real, order = os.fsync, list[str]()

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            name = Path(f"/proc/self/fd/{fd}").readlink().name
            order.append(name)
            if name == "broken":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    complete_all = queue.complete_all

    def noted(worker: str, host: str, done: Sequence[Done]) -> list[Settled]:
        answer = complete_all(worker, host, done)
        order.append(" ".join(each.token for each in done))
        return answer

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(queue, "complete_all", noted)
    return order


def folders(root: Path, *names: str) -> list[Published]:
    for name in names:
        (root / name).mkdir(parents=True)
    place = make_place(root, create_root=False)
    return [Published(root, place, (name.encode(),)) for name in names]


def together(queue: Queue, desk: Desk, *rest: tuple[str, Published | None]) -> None:
    """Have reports put while another one is on its way, so that they go together."""
    desk.put("0")
    assert queue.entered.wait(PATIENCE)
    for token, published in rest:
        desk.put(token, published=published)
    queue.go.set()
    desk.wait_for(1 + len(rest))


def test_a_folder_is_brought_to_disk_once_for_all_its_files_and_before_they_are_done(
    queue: Queue, desk: Desk, tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = folders(tmp_path, "a", "b")
    go, at_it, real = threading.Event(), threading.Event(), make_durable

    def slow(where: Published) -> None:
        at_it.set()
        assert go.wait(PATIENCE)
        real(where)

    monkeypatch.setattr(completions, "make_durable", slow)
    synced.clear()
    queue.go.set()
    desk.put("1", published=a)
    assert at_it.wait(PATIENCE)
    for token, where in (("2", b), ("3", a), ("4", a)):
        desk.put(token, published=where)
    go.set()
    desk.wait_for(4)
    assert [name for name in synced if name in "ab"] in (["a", "a", "b"], ["a", "b", "a"])
    reports = [each for each in synced if each not in "ab"]
    assert " ".join(reports) == "1 2 3 4"
    assert all(synced.index(name) < synced.index(each) for each in reports[-1:] for name in "ab")


def test_a_folder_that_does_not_get_to_disk_fails_its_files_and_no_others(
    queue: Queue, desk: Desk, tmp_path: Path, synced: list[str]
) -> None:
    good, broken = folders(tmp_path, "good", "broken")
    together(queue, desk, ("1", broken), ("2", good), ("3", broken), ("4", None))
    assert sorted(desk.settled) == ["0", "2", "4"]
    assert sorted(desk.failed) == ["1", "3"]
    assert {type(error) for error in desk.failed.values()} == {LocalError}
    assert "broken: input/output error; the disk fails" in str(desk.failed["1"])
    assert desk.failures == 3, "Redis was away at the first"


def test_a_folder_whose_disk_went_away_fails_its_files(
    queue: Queue, desk: Desk, tmp_path: Path, synced: list[str]
) -> None:
    root = tmp_path / "out"
    [where] = folders(root, "a")
    root.rename(tmp_path / "unmounted")
    (root / "a").mkdir(parents=True)
    together(queue, desk, ("1", where))
    assert desk.settled == ["0"]
    assert isinstance(desk.failed["1"], PlaceUnseenError)


def test_a_folder_that_somebody_has_removed_has_no_names_to_lose(
    queue: Queue, desk: Desk, tmp_path: Path, synced: list[str]
) -> None:
    [where] = folders(tmp_path, "a")
    (tmp_path / "a").rmdir()
    together(queue, desk, ("1", where))
    assert desk.settled == ["0", "1"]


def test_a_failure_that_cannot_be_told_holds_up_nobody(
    queue: Queue, desk: Desk, tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [broken] = folders(tmp_path, "broken")

    def fail() -> None:
        raise MemoryError

    monkeypatch.setattr(desk, "_report_failure", fail)
    together(queue, desk, ("1", broken), ("2", None))
    assert desk.settled == ["0", "2"]


def test_a_disk_that_hangs_holds_up_only_what_lies_there(
    queue: Queue, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, real = threading.Event(), make_durable

    def hanging(where: Published) -> None:
        if where.root.name == "dead":
            assert go.wait(PATIENCE)
        real(where)

    monkeypatch.setattr(completions, "make_durable", hanging)
    queue.go.set()
    for token, name in (("1", "dead"), ("2", "well"), ("3", "well")):
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        desk.put(token, published=Published(root, make_place(root, create_root=False), ()))
    desk.wait_for(2)
    assert sorted(desk.settled) == ["2", "3"]
    go.set()
    desk.wait_for(3)
