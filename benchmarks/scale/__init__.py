"""Fleets that are too large to run: the real queue, with its scripts, under a simulated clock and network.

Each machine has a link of 1 MB/s that its slots share evenly, and the origin has no limit. What workers ask
of Redis, and when, is simulated; what Redis answers is real. The ideal is all bytes at the sum of all links.
The job is listed before the fleet begins. Progress goes to standard error, the report (Markdown) to standard
output.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import redis

from benchmarks import report
from benchmarks.scale.heartbeats import Heartbeats
from benchmarks.scale.machine import LATENCY, ROUND_TRIP
from benchmarks.scale.shapes import Shape, shapes
from benchmarks.scale.world import World
from benchmarks.servers import chosen, cpu_of
from distributed_downloader.config.sections import AppSection
from distributed_downloader.redis_client import Limits, RedisClient
from tests.servers import Server, free_port

_RATE = 1_000_000
#: The share of a core up to which Redis keeps up, and the ratio up to which a fleet is worth its size.
_BUSY, _FAR = 0.7, 1.25
#: Seconds of a lease: hearts are counted, not run, and nobody dies.
_FOR_EVER = 1e6


@dataclass(frozen=True)
class Run:
    """What came of one fleet and shape."""

    shape: Shape
    machines: int
    #: How many times fewer small files were run, and seconds that this took here.
    reduced: float
    took: float
    tasks: int
    seconds: float
    ideal: float
    #: Seconds of Redis' processor time until all machines had joined.
    joining: float
    #: Bytes over all links for each byte of the repos.
    fetched: float
    #: Commands a second that reach Redis, by what they are for, and the share of a core that they take.
    tasks_commands: float
    heart_commands: float
    core: float

    @property
    def ratio(self) -> float:
        """Makespan over the ideal."""
        return self.seconds / self.ideal

    @property
    def ratio_of_all(self) -> float:
        """The same if nothing were reduced: the beginning and the end take as long with more files."""
        return 1 + (self.seconds - self.ideal) / (self.ideal * self.reduced)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    parser.add_argument("--machines", type=_numbers, metavar="N,N", help="fleets (default 10,100,1000,10000)")
    parser.add_argument(
        "--smoke", action="store_true", help="small fleets and repos: only to see that all works"
    )


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 10,100") from None


def run(given: argparse.Namespace) -> None:
    """Run it; raises BenchmarkError, and InterruptedBenchmarkError."""
    fleets = given.machines or ([3, 30] if given.smoke else [10, 100, 1000, 10_000])
    runs = []
    for shape in shapes(smoke=given.smoke):
        for machines in fleets:
            report.say(f"{shape.title}, {machines:,} machines ...")
            runs.append(_simulate(shape, machines))
            report.say(f"  {' | '.join(_row(runs[-1])[2:])} (simulated in {runs[-1].took:.0f} s)")
    print(_report(runs), flush=True)


def _simulate(whole: Shape, machines: int) -> Run:
    settings = AppSection()
    shape = whole.enough(machines * settings.concurrency)
    began = time.monotonic()
    with Server(chosen(), port=free_port()) as server, closing(_connect(server)) as client:
        queue = RedisClient.over(client, limits=Limits(lease=_FOR_EVER, tick=0))
        world = World(
            queue, shape, slots=settings.concurrency, split_over=settings.split_threshold, rate=_RATE
        )
        joining = cpu_of(client)
        world.enter(machines)
        joining = cpu_of(client) - joining
        world.submit()
        hearts = Heartbeats(world, lambda: cpu_of(client))
        cpu = cpu_of(client)
        world.run(hearts.sample)
        cpu = cpu_of(client) - cpu - hearts.spent
    counted = hearts.counted()
    return Run(
        shape=whole,
        machines=machines,
        reduced=whole.size / shape.size,
        took=time.monotonic() - began,
        tasks=world.tasks,
        seconds=world.now,
        ideal=world.ideal,
        joining=joining,
        fetched=world.fetched / shape.size,
        tasks_commands=sum(world.calls.values()) / world.now,
        heart_commands=sum(counted.values()) / world.now,
        core=(cpu + sum(count * hearts.each[kind] for kind, count in counted.items())) / world.now,
    )


def _connect(server: Server) -> redis.Redis:
    """Connect over TCP, as workers do: through a unix socket a command costs Redis less."""
    return redis.Redis(host="127.0.0.1", port=server.port, decode_responses=True, protocol=2)


def _report(runs: Sequence[Run]) -> str:
    about = (
        f"{chosen().name} with the real scripts; machines of {_RATE / 1e6:g} MB/s with "
        f"{AppSection().concurrency} slots, {ROUND_TRIP * 1000:g} ms from Redis, {LATENCY * 1000:g} ms from "
        "the origin. `reduced`: so many times fewer bytes (of small files) were run, and all figures are of "
        "what was run, but `of all`, which is extrapolated. `core`: what Redis would need of one core, from "
        "the processor time that it took here for each command, asked one by one over TCP; above 100 % it "
        "could not keep up, and the makespan is what it were if it could. "
        "`joining`: its processor time until all machines had joined, which is before the makespan."
    )
    heads = (
        "repos",
        "machines",
        "reduced",
        "tasks",
        "makespan s",
        "ideal s",
        "makespan / ideal",
        "of all",
        "bytes over the wire / repo",
        "commands/s for tasks",
        "commands/s of hearts",
        "core",
        "joining s",
    )
    rows = [_row(each) for each in runs]
    return "\n\n".join([f"{report.versions()}.", about, report.table(heads, rows), *_ends(runs)])


def _row(run: Run) -> list[str]:
    return [
        run.shape.title,
        f"{run.machines:,}",
        f"{run.reduced:.1f}",
        f"{run.tasks:,}",
        f"{run.seconds:,.1f}",
        f"{run.ideal:,.1f}",
        f"{run.ratio:.3f}",
        f"{run.ratio_of_all:.3f}",
        f"{run.fetched:.4f}",
        f"{run.tasks_commands:,.0f}",
        f"{run.heart_commands:,.0f}",
        f"{run.core:.1%}",
        f"{run.joining:.1f}",
    ]


def _ends(runs: Sequence[Run]) -> list[str]:
    """Say of each shape where it stops to scale."""
    lines = []
    for title in dict.fromkeys(run.shape.title for run in runs):
        mine = [run for run in runs if run.shape.title == title]
        far = next((run for run in mine if run.ratio_of_all > _FAR), None)
        busy = next((run for run in mine if run.core > _BUSY), None)
        lines.append(f"- {title}: {_end(far, busy, mine[-1])}.")
    return ["Where it stops scaling:\n\n" + "\n".join(lines)]


def _end(far: Run | None, busy: Run | None, last: Run) -> str:
    room = f"at this pace one core of Redis is enough for about {last.machines / last.core:,.0f} machines"
    said = []
    if far:
        said.append(f"at {far.machines:,} machines the makespan is {far.ratio_of_all:.2f} x the ideal")
    if busy:
        said.append(f"at {busy.machines:,} machines Redis needs {busy.core:.0%} of a core")
    if not said:
        said = [
            f"not up to {last.machines:,} machines ({last.ratio_of_all:.2f} x, {last.core:.0%} of a core)"
        ]
    return "; ".join([*said, room])
