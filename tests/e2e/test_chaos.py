"""Two minutes of faults at random, the same in each run; and that the judge would find what must not be."""

from __future__ import annotations

import signal
from pathlib import Path

from benchmarks.chaos import KINDS
from benchmarks.chaos.schedule import schedule
from tests.e2e.benchmark import PATIENCE, running
from tests.e2e.fleet import until

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
