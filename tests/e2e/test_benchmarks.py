"""The benchmarks as smokes: they say what they should, and leave nothing behind. No time is asserted."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.waiting import BenchmarkError
from benchmarks.workloads import check_equal
from tests.e2e.fleet import until

PROJECT = Path(__file__).parents[2]
#: A machine with two cores and other tests on them takes its time.
PATIENCE = 300.0
NUMBER = re.compile(r"\d+\.\d+")


class Benchmark:
    """One run in a process, with what it prints in files."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.mark = f"mark-{secrets.token_hex(8)}"
        # Not below `folder`: the path of a socket has 107 bytes at most.
        self.temporary = Path(tempfile.mkdtemp(prefix="hfdt-"))
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks", *words],
                cwd=PROJECT,
                env={**os.environ, "TMPDIR": str(self.temporary), "BENCHMARK_TEST": self.mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def report(self) -> str:
        return self._out.read_text()

    @property
    def progress(self) -> str:
        return self._err.read_text()

    def rows(self) -> dict[str, list[str]]:
        """Return the cells of the tables' lines by their first one, without the heads."""
        lines = [line.strip("| ").split(" | ") for line in self.report.splitlines() if line.startswith("| ")]
        return {first: rest for first, *rest in lines if first not in ("---", "workload")}

    def left_behind(self) -> list[str]:
        """Return what the run has made and not removed."""
        pid = self.process.pid
        names = [path.name for path in Path("/sys/class/net").glob(f"hfd{pid}-*")]
        for folder in (Path("/dev/shm"), self.temporary):
            names += [str(path) for path in folder.glob(f"hfd-{pid}-*")]
        if shutil.which("ip"):
            namespaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=False).stdout
            names += re.findall(rf"^hfd-{pid}-\S+", namespaces, re.MULTILINE)
        return names + [process.name() for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("BENCHMARK_TEST") == self.mark
        except psutil.Error:
            return False


@contextmanager
def running(folder: Path, *words: str) -> Iterator[Benchmark]:
    benchmark = Benchmark(folder, *words)
    try:
        yield benchmark
    finally:
        benchmark.process.terminate()
        benchmark.process.wait(PATIENCE)
        shutil.rmtree(benchmark.temporary)


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
