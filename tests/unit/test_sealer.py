"""How often a split file is looked at while its seal is prepared."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from distributed_downloader import sealer as sealers
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import PlaceUnseenError
from distributed_downloader.models import Descriptor, DownloadTask, JobState, Part, RepoFile, Token
from distributed_downloader.queue_terms import FileParts
from distributed_downloader.sealer import Sealer
from tests.unit.looking_on import spec

TASK = DownloadTask(
    token=Token(1, 2, 0),
    spec=spec(),
    about=Descriptor(file=RepoFile(path="a", size=9), part=Part(start=0, length=5, seal=0), place="ab12"),
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class World:
    """The queue, the file and the worker, as the sealer sees them."""

    def __init__(self) -> None:
        self.state = JobState.RUNNING
        self.cancel = Cancel()
        self.rounds = self.looks = 0
        self._changed = threading.Condition()

    def life(self) -> tuple[str, Cancel]:
        with self._changed:
            self.rounds += 1
            self._changed.notify_all()
        return "w1", self.cancel

    def of_file(self, *_: object) -> FileParts:
        self.looks += 1
        return FileParts(self.state, 3, "", [], 0)

    def reading(self, _: DownloadTask) -> World:
        return self

    def forget(self, _: DownloadTask) -> None:
        pass

    def add(self, _: object) -> None:
        pass

    def advance(self, _: Cancel) -> None:
        pass

    def wait_rounds(self, count: int) -> None:
        with self._changed:
            goal = self.rounds + count
            assert self._changed.wait_for(lambda: self.rounds >= goal, 60)


@pytest.mark.parametrize("state", [JobState.PAUSED, JobState.CANCELLED])
def test_the_file_of_a_job_that_does_not_run_is_looked_at_rarely(
    monkeypatch: pytest.MonkeyPatch, state: JobState
) -> None:
    clock, world = Clock(), World()
    monkeypatch.setattr(sealers, "time", clock)
    monkeypatch.setattr(sealers, "RedisParts", lambda _: world)
    sealer = Sealer(cast("Any", None), cast("Any", world), start=lambda *_: None, life=world.life)
    sealer.prepare("w1", TASK)
    world.wait_rounds(6)
    assert world.looks >= 3
    world.state = state
    world.wait_rounds(4)
    seen = world.looks
    world.wait_rounds(8)
    assert world.looks == seen
    clock.now += 5
    world.wait_rounds(8)
    assert world.looks == seen + 1
    world.state = JobState.RUNNING
    clock.now += 5
    world.wait_rounds(8)
    assert world.looks >= seen + 4
    world.cancel.set()


def test_a_file_that_cannot_be_read_ahead_is_sealed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder may be away for a moment; whoever reports a part must not hear of that."""
    world, started = World(), threading.Event()
    monkeypatch.setattr(sealers, "RedisParts", lambda _: world)
    monkeypatch.setattr(world, "reading", unseen)
    redis = cast("Any", type("Redis", (), {"begin": lambda *_: TASK}))
    sealer = Sealer(redis(), cast("Any", world), start=lambda *_: started.set(), life=world.life)
    sealer.prepare("w1", TASK)
    world.wait_rounds(3)
    assert world.looks >= 1
    monkeypatch.setattr(world, "of_file", lambda *_: FileParts(JobState.RUNNING, 0, "1.0.1", [], 0))
    assert started.wait(60)


def unseen(_: DownloadTask) -> World:
    raise PlaceUnseenError("/nas is not there")
