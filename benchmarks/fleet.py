"""One machine against a fleet of them, each behind a slow link of its own.

Compares the time that huggingface_hub's snapshot_download takes on one machine with that of our fleet, with
and without splitting large files, and with the ideal: all bytes at the sum of what each machine gets alone.
Every result is compared with its source, byte for byte, before its time counts. Progress goes to standard
error, the report (Markdown) to standard output.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import report, workloads
from benchmarks.machines import Machine, NoNamespacesError, network
from benchmarks.rig import Rig, Run, Setup
from benchmarks.scratch import scratch, size
from benchmarks.waiting import BenchmarkError
from benchmarks.workloads import WORKLOADS, Workload
from distributed_downloader.storage.place import make_place

SNAPSHOT, NEVER, FLEET = "snapshot", "never", "fleet"
WAYS = (SNAPSHOT, NEVER, FLEET)
_NAS_OFF, _NAS_ON = "nas-off", "nas-on"


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    machines: int
    rounds: int
    rate: int
    slots: int
    split: str
    lease: float
    network: str
    workloads: tuple[Workload, ...]
    ways: tuple[str, ...]
    smoke: bool


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    names = [workload.name for workload in WORKLOADS]
    add = parser.add_argument
    add("--machines", type=int, metavar="N", help="machines in the fleet (default 8)")
    add("--rounds", type=int, metavar="R", help="the figures are the medians of so many rounds (default 3)")
    add("--rate", type=size, metavar="RATE", help="each machine's link, such as 1MB/s (the default)")
    add("--slots", type=int, metavar="N", help="files or parts that one worker fetches at a time (default 2)")
    add("--split", metavar="SIZE", help="bytes of a part in column `fleet` (default 1MiB)")
    add("--lease", type=float, metavar="S", help="lease of the workers where one is killed (default 5)")
    add("--workload", action="append", choices=names, help="only this one; may be repeated")
    add("--way", action="append", choices=WAYS, help="only this column; may be repeated")
    add(
        "--network",
        choices=("auto", "namespaces", "proxies"),
        default="auto",
        help="how links are slowed down; namespaces need root (default: they, else proxies)",
    )
    add("--smoke", action="store_true", help="tiny files, 2 machines, 1 round: only to see that all works")


def _options(given: argparse.Namespace) -> Options:
    smoke: bool = given.smoke
    return Options(
        machines=given.machines or (2 if smoke else 8),
        rounds=given.rounds or (1 if smoke else 3),
        rate=given.rate or (2 if smoke else 1) * workloads.MB,
        slots=given.slots or 2,  # more connections only fill the queue of so slow a line
        split=given.split or "1MiB",
        lease=given.lease or (2.0 if smoke else 5.0),
        network=given.network,
        workloads=tuple(each for each in WORKLOADS if not given.workload or each.name in given.workload),
        ways=tuple(way for way in WAYS if not given.way or way in given.way),
        smoke=smoke,
    )


def run(given: argparse.Namespace) -> None:
    """Run it; raises BenchmarkError, and InterruptedBenchmarkError."""
    options = _options(given)
    files = workloads.sizes(smoke=options.smoke)
    amounts = {repo: sum(each.values()) for repo, each in files.items()}
    try:
        with (
            scratch(2 * sum(amounts.values()) + 2 * max(amounts.values())) as folder,
            network(options.network, options.machines, options.rate) as (machines, why),
        ):
            if why:
                report.say(f"cannot make network namespaces ({why}): local proxies limit the rates instead")
            repos = workloads.write_repos(folder / "source", files)
            with closing(Rig(machines, folder, repos)) as rig:
                bench = Bench(options, rig, machines.shape, folder, repos, amounts)
                bench.measure()
            print(_report(options, machines.about, bench), flush=True)
    except NoNamespacesError as error:
        raise BenchmarkError(f"cannot make network namespaces: {error}") from None


@dataclass
class Bench:
    """Measures, round by round and interleaved, for all columns alike suffer from a busy machine."""

    options: Options
    rig: Rig
    shape: Callable[[Machine, int], None]
    folder: Path
    repos: Mapping[str, Path]
    amounts: Mapping[str, int]
    #: Seconds by workload and way.
    figures: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    ideals: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    #: Bytes a second of each machine alone, at its full rate and at a tenth of it.
    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _outputs: int = 0

    def measure(self) -> None:
        """Run all workloads in all ways."""
        rate, slow = self.options.rate, max(1, self.options.rate // 10)
        machines = self.rig.machines
        self.rates["full"] = [self._rate(n, rate) for n in range(len(machines))]
        last = len(machines) - 1
        for number in range(self.options.rounds):
            for workload in self.options.workloads:
                report.say(f"round {number + 1} of {self.options.rounds}: {workload.title}")
                if not workload.slow:
                    self._one_round(workload, number, self.rates["full"])
                    continue
                self.shape(machines[last], slow)
                if not self.rates["slow"]:
                    self.rates["slow"] = [*self.rates["full"][:-1], self._rate(last, slow)]
                self._one_round(workload, number, self.rates["slow"])
                self.shape(machines[last], rate)

    def _rate(self, number: int, nominal: int) -> float:
        repo, amount = next(iter(self.amounts.items()))
        seconds = 1 if self.options.smoke else 4
        rate = self.rig.rate(
            self.rig.machines[number], repo, min(amount, nominal * seconds), 10 * seconds + 30
        )
        report.say(f"  {self.rig.machines[number].name}: {rate / 1e6:.4f} MB/s")
        return rate

    def _one_round(self, workload: Workload, number: int, rates: list[float]) -> None:
        if workload.nas:
            self._nas_round(workload, number, rates)
            return
        ideal = self.amounts[workload.repo] / sum(rates)
        for way in self.options.ways:
            if way == SNAPSHOT:
                self._snapshot(workload, number, rates)
                continue
            setup = Setup(self.options.slots, lease=self.options.lease if workload.kill else None)
            alone = self.amounts[workload.repo] / rates[0]
            half = (ideal if way == FLEET else alone) / 2 if workload.kill else 0
            done = self._fetch(workload, way, setup, rates, kill_after=half)
            self._note(workload, way, done.seconds)
            if way == FLEET:
                self.ideals[workload.name].append(_ideal(self.amounts[workload.repo], rates, done))
        if FLEET not in self.options.ways and not workload.kill:
            self.ideals[workload.name].append(ideal)

    def _snapshot(self, workload: Workload, number: int, rates: list[float]) -> None:
        """One machine alone, once for all workloads that fetch the same; none where it would be killed."""
        if workload.kill:
            return
        for same in WORKLOADS:
            known = self.figures[same.name, SNAPSHOT]
            if same.repo == workload.repo and len(known) > number:
                self.figures[workload.name, SNAPSHOT].append(known[number])
                return
        with self._output() as output:
            limit = self._limit(workload, rates)
            seconds = self.rig.snapshot(self.rig.machines[0], workload.repo, output, limit)
            workloads.check_equal(self.repos[workload.repo], output)
        self._note(workload, SNAPSHOT, seconds)

    def _nas_round(self, workload: Workload, number: int, rates: list[float]) -> None:
        """Deliver or not, in turns that begin with the other one in each round."""
        for way in (_NAS_OFF, _NAS_ON) if number % 2 == 0 else (_NAS_ON, _NAS_OFF):
            with self._output() as nas:
                make_place(nas, create_root=False)
                setup = Setup(self.options.slots, nas=nas if way == _NAS_ON else None)
                done = self._fetch(workload, FLEET, setup, rates)
                if way == _NAS_ON:
                    workloads.check_equal(self.repos[workload.repo], nas / workload.repo)
            self._note(workload, way, done.seconds)
        self.ideals[workload.name].append(self.amounts[workload.repo] / sum(rates))

    def _fetch(
        self, workload: Workload, way: str, setup: Setup, rates: list[float], kill_after: float = 0
    ) -> Run:
        split = self.options.split if way == FLEET else "never"
        with self._output() as output:
            done = self.rig.fetch(
                setup,
                workload.repo,
                output,
                split=split,
                kill_after=kill_after,
                seconds=self._limit(workload, rates),
            )
            workloads.check_equal(self.repos[workload.repo], output / workload.repo)
        return done

    def _limit(self, workload: Workload, rates: list[float]) -> float:
        """Return after how many seconds it is hopeless: the slowest machine may have it all, twice."""
        return 60 + 2 * self.amounts[workload.repo] / min(rates)

    @contextmanager
    def _output(self) -> Iterator[Path]:
        self._outputs += 1
        output = self.folder / f"output-{self._outputs}"
        output.mkdir()
        try:
            yield output
        finally:
            shutil.rmtree(output, ignore_errors=True)

    def _note(self, workload: Workload, way: str, seconds: float) -> None:
        self.figures[workload.name, way].append(seconds)
        report.say(f"  {way}: {seconds:.2f} s, equal to its source")


def _ideal(amount: int, rates: list[float], done: Run) -> float:
    """Return the seconds that all bytes take at the sum of all rates, of those that are left after a kill."""
    before = done.killed_at * sum(rates)
    if not done.killed_at or before >= amount:
        return amount / sum(rates)
    alive = sum(rates) * (1 - 1 / len(rates))
    return done.killed_at + (amount - before) / alive


def _report(options: Options, about: str, bench: Bench) -> str:
    size = f"{options.machines} machines of {options.rate / 1e6:g} MB/s ({about}), {options.slots} slots each"
    parts = [f"{size}; medians of {options.rounds}; every tree equal to its source, byte for byte."]
    parts += [f"{report.versions()}."]
    full = statistics.median(bench.rates["full"])
    parts += [
        f"Measured alone: {full / 1e6:.4f} MB/s a machine (median), "
        f"{sum(bench.rates['full']) / 1e6:.3f} MB/s in sum."
    ]
    if rows := [_row(bench, each, WAYS) for each in options.workloads if not each.nas]:
        heads = ("workload", "target", "ideal s", "snapshot_download s", "fleet --split never s", "fleet s")
        parts.append(report.table((*heads, "ratio to ideal"), rows))
    if rows := [_row(bench, each, (_NAS_OFF, _NAS_ON)) for each in options.workloads if each.nas]:
        heads = ("workload", "target", "ideal s", "off s", "on s", "ratio on to off")
        parts.append(report.table(heads, rows))
    singles = [
        f"- {name}, {way}: {report.each(figures)}"
        for (name, way), figures in bench.figures.items()
        if figures
    ]
    parts.append("Each round:\n\n" + "\n".join(singles))
    return "\n\n".join(parts)


def _row(bench: Bench, workload: Workload, ways: Sequence[str]) -> list[str]:
    """Return a line that ends with the last way's ratio to the ideal, or to delivery off."""
    ideals = bench.ideals[workload.name]
    figures = [bench.figures[workload.name, way] for way in ways]
    return [
        f"{workload.title} ({bench.amounts[workload.repo] / 1e6:.0f} MB)",
        f"{workload.target:.2f}",
        report.median(ideals),
        *map(report.median, figures),
        report.ratio(figures[-1], figures[0] if workload.nas else ideals),
    ]
