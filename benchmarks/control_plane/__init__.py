"""The queue and its users without any download: what Redis, master and workers do, each against its limit.

Every row starts a Redis of its own on this machine. Progress goes to standard error, the report (Markdown) to
standard output.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import report
from benchmarks.control_plane import crowd, idle, looking, memory, one_worker, people, queueing
from benchmarks.control_plane.setting import Line, Setting
from benchmarks.scratch import scratch
from benchmarks.servers import chosen
from benchmarks.waiting import check_interrupted
from tests.servers import binaries

_ROWS: dict[str, Callable[[Setting], Iterator[Line]]] = {
    "queue": queueing.measure,
    "memory": memory.measure,
    "crowd": crowd.measure,
    "status": looking.measure,
    "people": people.measure,
    "worker": one_worker.measure,
    "idle": idle.measure,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    add = parser.add_argument
    add("--tasks", type=int, metavar="N", help="tasks of the large rows (default 1000000)")
    add("--workers", type=int, metavar="N", help="workers of the fleet (default 1000)")
    add("--jobs", type=int, metavar="N", help="jobs that the tasks belong to (default 20)")
    add("--rounds", type=int, metavar="R", help="short rows are medians of so many rounds (default 5)")
    add(
        "--only",
        action="append",
        choices=list(_ROWS),
        metavar="ROW",
        help=f"only this row; may be repeated: {', '.join(_ROWS)}",
    )
    add(
        "--server",
        default="",
        metavar="NAME",
        help="a word in the name of the server to use (default: a Redis 7, else the first)",
    )
    add("--appendonly", action="store_true", help="let Redis write its log, as docs/queue.md recommends")
    add("--smoke", action="store_true", help="small sizes: only to see that all works")


def run(given: argparse.Namespace) -> None:
    """Run it; raises BenchmarkError, and InterruptedBenchmarkError."""
    rows = [name for name in _ROWS if not given.only or name in given.only]
    with scratch() as folder:
        setting = _setting(given, folder)
        lines: list[Line] = []
        for name in rows:
            check_interrupted()
            report.say(f"{name} ...")
            for line in _ROWS[name](setting):
                report.say(f"  {line.title}: {line.measured} {line.reached}")
                lines.append(line)
    print(_report(setting, lines), flush=True)


def _setting(given: argparse.Namespace, folder: Path) -> Setting:
    smoke: bool = given.smoke
    tasks = given.tasks or (3_000 if smoke else 1_000_000)
    return Setting(
        tasks=tasks,
        few_tasks=max(1, tasks // 100),
        workers=given.workers or (50 if smoke else 1000),
        jobs=given.jobs or (3 if smoke else 20),
        rounds=given.rounds or (2 if smoke else 5),
        job_tasks=2_000 if smoke else 100_000,
        worker_tasks=500 if smoke else 20_000,
        idle_seconds=1.0 if smoke else 30.0,
        server=chosen(given.server),
        servers=tuple(binaries()),
        appendonly=given.appendonly,
        folder=folder,
    )


def _report(setting: Setting, lines: list[Line]) -> str:
    about = (
        f"{setting.server.name} on the same machine over TCP, appendonly "
        f"{'yes' if setting.appendonly else 'no'}; short rows are medians of {setting.rounds}."
    )
    rows = [[line.title, line.measured, line.limit, line.reached] for line in lines]
    return "\n\n".join(
        [f"{report.versions()}.", about, report.table(("what", "measured", "limit", ""), rows)]
    )
