"""The benchmarks as smokes: they say what they should, and leave nothing behind. No time is asserted."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from benchmarks.waiting import BenchmarkError
from benchmarks.workloads import check_equal
from tests.e2e.benchmark import PATIENCE, running
from tests.e2e.fleet import until

NUMBER = re.compile(r"\d+\.\d+")


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
