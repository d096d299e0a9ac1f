"""How soon a command answers, and how soon a new worker has its first file.

`hf-downloader --help` against the interpreter alone, and against click alone; and the time from the start of
a worker's process to its first claim, as Redis tells it. Progress goes to standard error, the report
(Markdown) to standard output.
"""

from __future__ import annotations

import argparse
import compileall
import sys
from collections import defaultdict
from contextlib import closing

from benchmarks import report, workloads
from benchmarks.costs import Cost
from benchmarks.here import Here
from benchmarks.scratch import scratch
from benchmarks.waiting import PROJECT

_REPO = "bench/waiting"
_HELP, _CLAIM = "hf-downloader --help", "a worker's first claim"
_COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "python -c 'import click'": ("-c", "import click"),
    _HELP: ("-m", "distributed_downloader", "--help"),
}
_HEADS = ("what", "ms", "least", "most", "CPU ms", "least", "most")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    add = parser.add_argument
    add("--rounds", type=int, metavar="R", help="the figures are the medians of so many rounds (default 7)")
    add("--smoke", action="store_true", help="1 round: only to see that all works")


def run(given: argparse.Namespace) -> None:
    """Run it; raises BenchmarkError, and InterruptedBenchmarkError."""
    rounds = given.rounds or (1 if given.smoke else 7)
    compileall.compile_dir(PROJECT / "distributed_downloader", quiet=2)  # as whoever installs it does
    costs: dict[str, list[Cost]] = defaultdict(list)
    with scratch() as folder:
        files = {f"{n}.json": 100 for n in range(10)}
        repos = workloads.write_repos(folder / "source", {_REPO: files})
        with closing(Here(folder, repos, small=True)) as here:
            for number in range(rounds):
                report.say(f"round {number + 1} of {rounds}")
                for name, words in _COMMANDS.items():
                    costs[name].append(here.measure([sys.executable, *words]))
                here.queue(_REPO, folder / f"output-{number}")
                costs[_CLAIM].append(here.first_claim())
    print(_report(rounds, costs), flush=True)


def _report(rounds: int, costs: dict[str, list[Cost]]) -> str:
    rows = [
        [
            name,
            *report.spread([cost.wall * 1000 for cost in each], 1),
            *report.spread([cost.cpu * 1000 for cost in each], 1),
        ]
        for name, each in costs.items()
    ]
    walls = {name: report.middle([cost.wall for cost in each]) for name, each in costs.items()}
    limits = [
        report.Limit(_HELP, 0.15, walls[_HELP], unit=" s"),
        report.Limit(_CLAIM, 0.7, walls[_CLAIM], unit=" s"),
    ]
    return "\n\n".join(
        [
            f"From the start of a process to its end, or to its first claim; medians of {rounds}.",
            f"{report.versions()}.",
            report.limits(limits),
            report.table(_HEADS, rows),
        ]
    )
