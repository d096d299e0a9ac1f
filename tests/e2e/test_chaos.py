"""Two minutes of faults at random, the same in each run; and that the judge would find what must not be."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import cast

import pytest

from benchmarks import member
from benchmarks.chaos import KINDS
from benchmarks.chaos.clock import may_move
from benchmarks.chaos.judge import Judge
from benchmarks.chaos.schedule import schedule
from benchmarks.chaos.stores import Single
from benchmarks.chaos.world import World
from tests.e2e.benchmark import PATIENCE, running
from tests.e2e.fleet import until
from tests.hub.faulty import FaultyHub
from tests.servers import binaries

ZEROS = (
    "files lost",
    "files wrong under their final name",
    "counters that disagree with reality",
    "processes and jobs that hang",
    "logs with a stack trace",
)


def test_two_minutes_of_faults_lose_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "chaos", "--minutes", "2", "--seed", "4", "--first", "3") as benchmark:
        assert benchmark.process.wait(2 * PATIENCE) == 0, benchmark.progress
        assert not benchmark.left_behind()
    rows = benchmark.rows()
    assert {name: rows[name] for name in ZEROS} == {name: ["0"] for name in ZEROS}
    struck = {kind.name: int(rows[kind.name][1]) for kind in KINDS if kind.name in rows}
    assert sum(struck.values()) == int(rows["all"][1])
    assert sum(count for name, count in struck.items() if name.startswith("Sentinel")) > 0, benchmark.report
    assert len([count for count in struck.values() if count]) > 30, benchmark.report


def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "chaos", "--seed", "1") as benchmark:
        until(lambda: "round 0" in benchmark.progress, "the first round", PATIENCE)
        benchmark.process.send_signal(signal.SIGTERM)
        assert benchmark.process.wait(PATIENCE) == 130, benchmark.progress
        assert not benchmark.left_behind()


def test_a_seed_always_means_the_same_faults() -> None:
    names = [kind.name for kind in KINDS]
    assert schedule(names, 3, 7, 60) == schedule(names, 3, 7, 60)
    assert schedule(names, 3, 7, 60) != schedule(names, 4, 7, 60)
    assert {strike.kind for strike in schedule(names, 3, 7, 60)} == set(names)


def test_no_two_kinds_have_one_name() -> None:
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)


def test_a_hub_that_refuses_is_found_again() -> None:
    with FaultyHub({}) as hub:
        address = hub.endpoint.removeprefix("http://").split(":")
        before = socket.create_connection((address[0], int(address[1])))
        hub.refuse()
        with before, suppress(ConnectionResetError):
            assert before.recv(1) == b""
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address[0], int(address[1])))
        hub.listen()
        assert not hub.refuses
        with socket.create_connection((address[0], int(address[1]))) as there:
            there.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert there.recv(1024).startswith(b"HTTP/1.1 404")


def test_a_hub_may_end_while_it_refuses() -> None:
    with FaultyHub({}) as hub:
        hub.refuse()


def test_a_machine_without_names_finds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
    switch = tmp_path / member.NAMELESS
    member.lose_names(str(switch))
    assert socket.getaddrinfo("127.0.0.1", 80)
    switch.touch()
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("127.0.0.1", 80)


@pytest.mark.skipif(not may_move(), reason="moving the clock of a Redis takes Linux and a C compiler")
def test_the_clock_of_a_redis_can_be_moved() -> None:
    with Single(binaries()[0]) as store, closing(store.administrator()) as client:
        assert store.clock
        for ahead in (1000, -1000, 0):
            store.clock.move(ahead)
            client.ping()  # some servers look at their clock between commands only
            assert abs(client.time()[0] - time.time() - ahead) < 500


def test_the_judge_finds_what_is_wrong_in_redis(tmp_path: Path) -> None:
    judge = Judge(cast(World, None), {})
    with Single(binaries()[0]) as store, closing(store.administrator()) as client:
        judge.look_into(client, "{hfd}:")
        assert judge.verdict.clean
        client.zadd("{hfd}:jobs", {"7": 1})
        judge.look_into(client, "{hfd}:")
    assert len(judge.verdict.counters) == 1
