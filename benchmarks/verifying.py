"""How long it takes a fleet to verify what lies on disk, with one worker and with two.

2 GiB in 8 files are fetched once, and then verified by workers of one slot each, against hashlib in one
process that reads the same files one after the other. All of it is in memory by then: what is measured is
hashing, and how evenly the fleet shares it. Progress goes to standard error, the report (Markdown) to
standard output.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from contextlib import closing

from benchmarks import report, workloads
from benchmarks.here import Here
from benchmarks.scratch import scratch
from benchmarks.waiting import BenchmarkError, until
from distributed_downloader.redis_view import RedisView

_REPO = "bench/verified"
_MIB = 1 << 20
_FILES = 8
_SECONDS = 600.0
_ALONE, _ONE, _TWO = "hashlib alone, one process", "1 worker", "2 workers"
_HASH = """
import pathlib, sys
from benchmarks.workloads import sha256_of
for path in sys.argv[1:]:
    sha256_of(pathlib.Path(path))
"""
_HEADS = ("what", "s", "least", "most", "MB/s")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    add = parser.add_argument
    add("--rounds", type=int, metavar="R", help="the figures are the medians of so many rounds (default 5)")
    add("--smoke", action="store_true", help="1 round and 16 MiB: only to see that all works")


def run(given: argparse.Namespace) -> None:
    """Run it; raises BenchmarkError, and InterruptedBenchmarkError."""
    rounds = given.rounds or (1 if given.smoke else 5)
    size = (2 if given.smoke else 256) * _MIB
    seconds: dict[str, list[float]] = defaultdict(list)
    with scratch() as folder:
        files = {f"{n}.safetensors": size for n in range(_FILES)}
        repos = workloads.write_repos(folder / "source", {_REPO: files})
        with closing(_Verifier(folder, repos, workers=2, slots=1)) as here:
            output = folder / "output"
            here.work(_REPO, output)
            workloads.check_equal(repos[_REPO], output / _REPO)
            for number in range(rounds):
                report.say(f"round {number + 1} of {rounds}")
                paths = sorted(str(path) for path in (output / _REPO).iterdir())
                seconds[_ALONE].append(here.measure([sys.executable, "-c", _HASH, *paths]).wall)
                seconds[_ONE].append(here.verify(1))
                seconds[_TWO].append(here.verify(2))
    print(_report(rounds, _FILES * size, seconds), flush=True)


class _Verifier(Here):
    """A fleet of which some verify what all have fetched."""

    def verify(self, count: int) -> float:
        """Return the seconds by Redis' clock that so many workers take to verify the first job's files."""
        assert self._client
        view = RedisView(self._client)
        for machine in self.machines[:count]:
            self._workers[machine.name] = self._start_worker(machine, None)
        try:
            until(lambda: len(view.workers()) == count, "the workers", _SECONDS)
            self._result(self._start(self._network.head, "verify", self._command("verify", "1")), _SECONDS)
        finally:
            self._stop_workers()
        job = view.jobs()[-1]
        if not job.spec.check or job.state.value != "done" or job.ended_at is None:
            raise BenchmarkError(f"job {job.id} did not verify anything")
        return job.ended_at - job.created_at


def _report(rounds: int, size: int, seconds: dict[str, list[float]]) -> str:
    rows = [
        [name, *report.spread(each), f"{size / 1e6 / (report.middle(each) or 1):.0f}"]
        for name, each in seconds.items()
    ]
    return "\n\n".join(
        [
            f"{size / _MIB:.0f} MiB in {_FILES} files, one slot for each worker; medians of {rounds}.",
            f"{report.versions()}.",
            report.table(_HEADS, rows),
            f"2 workers take {report.ratio(seconds[_TWO], seconds[_ONE])} of the time of one; "
            f"1 worker takes {report.ratio(seconds[_ONE], seconds[_ALONE])} of that of hashlib alone.",
        ]
    )
