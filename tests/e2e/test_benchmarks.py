"""The benchmarks as smokes: they say what they should, and leave nothing behind. No time is asserted."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from benchmarks.nginx import find_nginx
from benchmarks.report import quotient
from benchmarks.waiting import BenchmarkError
from benchmarks.workloads import check_equal
from tests.e2e.benchmark import PATIENCE, PROJECT, running
from tests.e2e.fleet import until

NUMBER = re.compile(r"\d+\.\d+")
#: A line of a limit: whether it is reached is not for a test.
LIMIT = re.compile(r"\| [<>]= \S+(?: \w+)? \| -?\d+\.\d+(?: \w+)? \| (?:not )?reached \|$", re.MULTILINE)

needs_programs = pytest.mark.skipif(
    not (find_nginx() and shutil.which("curl") and shutil.which("aria2c")),
    reason="needs nginx, curl and aria2c, as the system's packages have them",
)


def test_all_workloads_end_with_equal_trees_and_full_tables(tmp_path: Path) -> None:
    with running(tmp_path, "fleet", "--smoke") as benchmark:
        assert benchmark.process.wait(PATIENCE) == 0, benchmark.progress
        assert not benchmark.left_behind()
    rows = benchmark.rows()
    assert len(rows) == 5, benchmark.report
    for title, cells in rows.items():
        # One machine alone is not killed: it would never end.
        gaps = ["-"] if "killed" in title else []
        assert [cell for cell in cells if not NUMBER.fullmatch(cell)] == gaps, benchmark.report
    assert benchmark.progress.count("equal to its source") == 12


def test_without_namespaces_proxies_limit_the_rates(tmp_path: Path) -> None:
    with running(tmp_path, "fleet", "--smoke", "--network", "proxies", "--workload", "one") as benchmark:
        assert benchmark.process.wait(PATIENCE) == 0, benchmark.progress
        assert not benchmark.left_behind()
    assert "throttled HTTP proxy" in benchmark.report
    assert len(benchmark.rows()) == 1, benchmark.report
    assert benchmark.progress.count("equal to its source") == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "fleet", "--smoke", "--way", "never") as benchmark:
        until(lambda: "round 1" in benchmark.progress, "the first round", PATIENCE)
        assert benchmark.left_behind()
        benchmark.process.send_signal(number)
        assert benchmark.process.wait(PATIENCE) == 130, benchmark.progress
        assert not benchmark.left_behind()
    assert not benchmark.report


@pytest.mark.parametrize("wrong", ["changed", "missing", "more"])
def test_a_wrong_tree_is_an_error(tmp_path: Path, wrong: str) -> None:
    source, got = tmp_path / "source", tmp_path / "got"
    for folder in (source, got):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "file").write_bytes(b"content")
    (got / ".cache").mkdir()
    (got / ".cache" / "note").touch()
    check_equal(source, got)
    file = got / "sub" / "file"
    if wrong == "changed":
        file.write_bytes(b"Content")
    elif wrong == "missing":
        file.unlink()
    else:
        (got / "another").touch()
    with pytest.raises(BenchmarkError, match="1 of"):
        check_equal(source, got)


@needs_programs
@pytest.mark.parametrize(
    ("name", "options", "limits", "equal"),
    [
        ("data-plane", ["--only", "http", "--only", "tls"], 4, 14),
        ("data-plane", ["--only", "disk", "--only", "memory", "--disk", "{folder}"], 3, 3),
        ("small-files", [], 3, 7),
        ("small-files", ["--only", "ours", "--only", "aria2c"], 2, 2),
        ("startup", [], 2, 0),
        ("verifying", [], 0, 0),
        ("polite", ["--only", "requests"], 3, 0),
        ("polite", ["--only", "bandwidth"], 3, 6),
    ],
)
def test_a_measurement_on_one_machine_has_a_figure_for_each_limit(
    tmp_path: Path, name: str, options: list[str], limits: int, equal: int
) -> None:
    folder = os.path.relpath(tmp_path, PROJECT)
    with running(
        tmp_path, name, "--smoke", *(option.format(folder=folder) for option in options)
    ) as benchmark:
        assert benchmark.process.wait(PATIENCE) == 0, benchmark.progress
        assert not [*benchmark.left_behind(), *tmp_path.glob("hfd-*")]
    assert len(LIMIT.findall(benchmark.report)) == limits, benchmark.report
    assert re.search(r"other guests of the machine took \d+\.\d% of", benchmark.report)
    if "http" in options:
        assert {"http.client and a hash", "sha256 alone"} <= benchmark.rows().keys()
    if name == "small-files" and not options and not shutil.which("wget"):
        equal -= 1  # what this machine lacks is left out
    assert benchmark.progress.count("equal to its source") == equal, benchmark.progress


def test_a_ratio_is_one_of_neighbours() -> None:
    # The third round was a slow one; both medians would say 0.2.
    assert quotient([1, 10, 2], [2, 20, 10]) == 0.5
    assert quotient([1, 3], [4]) == 0.5
    assert quotient([], [4]) is None


def test_the_queue_is_measured_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    with running(tmp_path, "control-plane", "--smoke") as benchmark:
        assert benchmark.process.wait(PATIENCE) == 0, benchmark.progress
        assert not benchmark.left_behind()
    rows = benchmark.rows()
    for what in ("queue a repo", "memory", "finished tasks", "`status`", "forgotten", "worker", "idle"):
        assert any(what in title for title in rows), benchmark.report
    assert rows["the same: tasks lost or done twice"][0].startswith("none"), benchmark.report


def test_a_signal_ends_a_crowd_of_workers_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "control-plane", "--workers", "20", "--only", "crowd") as benchmark:
        until(lambda: "crowd" in benchmark.progress and benchmark.left_behind(), "its Redis", PATIENCE)
        benchmark.process.send_signal(signal.SIGTERM)
        assert benchmark.process.wait(PATIENCE) == 130, benchmark.progress
        assert not benchmark.left_behind()
    assert not benchmark.report


def test_fleets_are_simulated_and_none_is_faster_than_its_links(tmp_path: Path) -> None:
    with running(tmp_path, "scale", "--smoke") as benchmark:
        assert benchmark.process.wait(PATIENCE) == 0, benchmark.progress
        assert not benchmark.left_behind()
    cells = [line.strip("| ").split(" | ") for line in benchmark.report.splitlines()]
    lines = [line for line in cells if line[0].startswith("2 shards")]
    assert [line[1] for line in lines] == ["3", "30"], benchmark.report
    for line in lines:
        assert all(float(cell) >= 1 for cell in line[6:9]), benchmark.report
    assert "Where it stops scaling" in benchmark.report
