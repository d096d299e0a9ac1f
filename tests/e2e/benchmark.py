"""A benchmark in a process of its own: what it prints, and what it leaves behind."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PROJECT = Path(__file__).parents[2]
#: A machine with two cores and other tests on them takes its time.
PATIENCE = 300.0


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
        names += map(str, [*Path("/dev/shm").glob(f"hfd-{pid}-*"), *self.temporary.iterdir()])
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
        for logs in benchmark.temporary.glob("hfd-chaos-*"):  # what a run keeps where something was found
            shutil.move(logs, folder)
        shutil.rmtree(benchmark.temporary)
