"""One large file, through the hub's redirect: our transfer against other programs and libraries.

Origin is an nginx on loopback behind the local hub; source and result lie in memory, but for the workload
`disk`. Each result is compared with its source by sha256 before its time counts. Progress goes to standard
error, the report (Markdown) to standard output.
"""

from __future__ import annotations

import argparse
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import report, workloads
from benchmarks.bounds import BARE, HASH_ALONE, bounds
from benchmarks.contestant import order
from benchmarks.here import Here
from benchmarks.interleaved import add_rest, turns
from benchmarks.racing import COMMAND, CURL, HASHED, OURS, Race, Sample, ways
from benchmarks.scratch import scratch, size
from benchmarks.transfer import SLOTS
from benchmarks.waiting import BenchmarkError
from benchmarks.workloads import MB

_GIB, _MIB = 1 << 30, 1 << 20
_LARGE, _SMALL, _MANY = "bench/large", "bench/small", "bench/many"
_FILE = "model.safetensors"
#: Files for each slot of the worker whose memory is looked at, so that what each task leaves behind adds up.
_FOR_EACH_SLOT = 4
_FILES = tuple(f"model-{n}.safetensors" for n in range(SLOTS * _FOR_EACH_SLOT))
#: Workloads by name: what they are about, and the repo.
WORKLOADS = {
    "http": ("the large file, http", _LARGE),
    "small": ("the small file, http", _SMALL),
    "tls": ("the large file, TLS 1.3", _LARGE),
    "disk": ("the large file, to a disk: the file and its folder are synced", _LARGE),
    "memory": (f"a worker with {SLOTS} slots and {len(_FILES)} files", _MANY),
}
#: The machine's limits that stand beside a workload: hashing alone takes as long with TLS as without.
_BOUNDS = {"http": (BARE, HASH_ALONE), "small": (BARE, HASH_ALONE), "tls": (BARE,), "disk": ()}
_HEADS = ("way", "s", "least", "most", "to curl", "CPU s/GiB", "process s", "its CPU s", "its MiB")


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    rounds: int
    rest: float
    size: int
    small: int
    disk: Path | None
    names: tuple[str, ...]

    @property
    def repos(self) -> dict[str, dict[str, int]]:
        """Bytes of each file of each repo that is needed."""
        every = {
            _LARGE: {_FILE: self.size},
            _SMALL: {_FILE: self.small},
            _MANY: dict.fromkeys(_FILES, self.small // _FOR_EACH_SLOT),
        }
        needed = {WORKLOADS[name][1] for name in self.names}
        return {repo: files for repo, files in every.items() if repo in needed}


@dataclass(frozen=True)
class Memory:
    """Bytes of memory of a worker, and of a process with its libraries only."""

    #: At most: at all; in the first eighth, when each slot has its first file; and in the second half.
    most: int
    first: int
    second: int
    #: When its work is over.
    rest: int
    libraries: int

    @property
    def above(self) -> float:
        """MiB that the work took at most."""
        return (self.most - self.libraries) / _MIB

    @property
    def growth(self) -> float:
        """MiB that the second half took more than the first files: what each file leaves behind adds up."""
        return (self.second - self.first) / _MIB


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    add = parser.add_argument
    add("--rounds", type=int, metavar="R", help="the figures are the medians of so many rounds (default 5)")
    add_rest(parser)
    add("--size", type=size, metavar="SIZE", help="bytes of the large file (default 2GiB)")
    add("--small", type=size, metavar="SIZE", help="bytes of the small file (default 200MB)")
    add("--tls", action=argparse.BooleanOptionalAction, default=True, help="measure workload `tls` too")
    add("--disk", type=Path, metavar="DIR", help="a folder on the disk for workload `disk` (default: none)")
    add("--only", action="append", choices=WORKLOADS, help="only this workload; may be repeated")
    add("--smoke", action="store_true", help="tiny files, 1 round: only to see that all works")


def _options(given: argparse.Namespace) -> Options:
    left_out = {"tls": not given.tls, "disk": not given.disk, "small": given.smoke and not given.only}
    return Options(
        rounds=given.rounds or (1 if given.smoke else 5),
        rest=given.rest,
        size=given.size or (4 * _MIB if given.smoke else 2 * _GIB),
        small=given.small or (MB if given.smoke else 200 * MB),
        disk=given.disk.resolve() if given.disk else None,  # each program has a folder of its own
        names=tuple(
            name for name in WORKLOADS if name in (given.only or WORKLOADS) and not left_out.get(name)
        ),
    )


def run(given: argparse.Namespace) -> None:
    """Run it; raises BenchmarkError, and InterruptedBenchmarkError."""
    options = _options(given)
    if not options.names:
        raise BenchmarkError("nothing is left to measure: see --only, --disk and --no-tls")
    amounts = [sum(files.values()) for files in options.repos.values()]
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(sum(amounts) + max(amounts) + options.size))
        disk = stack.enter_context(scratch(where=options.disk)) if options.disk else folder
        repos = workloads.write_repos(folder / "source", options.repos)
        here = stack.enter_context(closing(Here(folder, repos, slots=SLOTS)))
        bench = Bench(options, here, folder, disk, repos)
        bench.measure()
        print(_report(bench), flush=True)


@dataclass
class Bench:
    """Measures, round by round and interleaved, each round in another order."""

    options: Options
    here: Here
    folder: Path
    disk: Path
    repos: Mapping[str, Path]
    #: By workload and way.
    samples: dict[str, dict[str, list[Sample]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    memory: list[Memory] = field(default_factory=list)
    _hashes: dict[str, str] = field(default_factory=dict)

    def measure(self) -> None:
        """Run all workloads in all ways."""
        for number in range(self.options.rounds):
            for name in self.options.names:
                title, repo = WORKLOADS[name]
                report.say(f"round {number + 1} of {self.options.rounds}: {title}")
                if name == "memory":
                    self._look_at_memory(repo)
                else:
                    self._race(name, repo, number)

    def _race(self, name: str, repo: str, number: int) -> None:
        amount = self.options.repos[repo][_FILE]
        limits = [bound for bound in bounds(amount) if bound[0] in _BOUNDS[name]]
        contestants = [*ways(name, amount), *limits]
        for way, fetch in turns(contestants, number, self.options.rest):
            with self._output(self.disk if name == "disk" else self.folder) as output:
                sample = fetch(Race(self.here, repo, _FILE, output, tls=name == "tls"))
                if way != HASH_ALONE:
                    self._prove(repo, sample.got)
            self.samples[name][way].append(sample)
            report.say(f"  {way}: {sample.wall:.3f} s{', equal to its source' * (way != HASH_ALONE)}")

    def _prove(self, repo: str, got: Path) -> None:
        """Raise BenchmarkError unless a file is as its source is."""
        if repo not in self._hashes:
            self._hashes[repo] = workloads.sha256_of(self.repos[repo] / _FILE)
        if workloads.sha256_of(got) != self._hashes[repo]:
            raise BenchmarkError(f"{got} is not as its source")

    def _look_at_memory(self, repo: str) -> None:
        with self._output(self.folder) as output:
            self.here.queue(repo, output)
            asked = order("worker", endpoint=self.here.hub, output=output, redis=self.here.redis_url)
            _, worker = self.here.contestant(asked)
            workloads.check_equal(self.repos[repo], output / repo)
        _, libraries = self.here.contestant(order("imports", modules=worker["modules"]))
        seen = worker["most"], worker["first"], worker["second"], worker["rss"]
        self.memory.append(Memory(*seen, libraries["rss"]))
        report.say(f"  a worker: {self.memory[-1].above:.1f} MiB above its libraries, equal to its source")

    @contextmanager
    def _output(self, folder: Path) -> Iterator[Path]:
        output = folder / "output"
        output.mkdir()
        try:
            yield output
        finally:
            shutil.rmtree(output, ignore_errors=True)

    def figures(self, name: str, way: str, what: Callable[[Sample], float] | None = None) -> list[float]:
        """Return one figure of all rounds: the seconds, unless `what` tells another one."""
        return [(what or _wall)(sample) for sample in self.samples[name].get(way, [])]


def _wall(sample: Sample) -> float:
    return sample.wall


def _cpu(sample: Sample) -> float:
    return sample.cpu


def _report(bench: Bench) -> str:
    options = bench.options
    parts = [
        f"One file of {options.size / _GIB:.3f} GiB (large) or {options.small / MB:g} MB (small), from nginx "
        f"on loopback behind the local hub's redirect; medians of {options.rounds}; every result equal to "
        "its source by sha256. `s`, `to curl` and `CPU s/GiB` are of the call: that of a library, and of "
        f"`{OURS}`, begins after its imports, with the file's size and hash known; that of a program after "
        "what its bare start takes (the median of `--version`, measured beside each run of it); that of "
        f"`{COMMAND}` with the start of its process. `process s` and what follows are of the whole process. "
        "What nginx and the hub take is in no figure. Ratios are medians of those of each round. "
        f"`{BARE}` checks nothing, and `{HASH_ALONE}` fetches nothing: they show this machine's limits.",
        f"{report.versions()}.",
        report.limits(_limits(bench)),
    ]
    for name in options.names:
        if name in bench.samples:
            title, repo = WORKLOADS[name]
            amount = options.small if repo == _SMALL else options.size
            rows = [_row(bench, name, way, amount / _GIB) for way in bench.samples[name]]
            parts.append(f"{title[0].upper()}{title[1:]}:\n\n{report.table(_HEADS, rows)}")
            if BARE in bench.samples[name]:
                parts.append(_left(bench, name))
    if bench.memory:
        parts.append(_memory_table(bench.memory))
    return "\n\n".join(parts)


def _left(bench: Bench, name: str) -> str:
    """Return what stands between us and the least that a Python program pays."""

    def to(what: Callable[[Sample], float]) -> str:
        return report.ratio(bench.figures(name, OURS, what), bench.figures(name, BARE, what))

    return f"`{OURS}` to `{BARE}`: {to(_wall)} in seconds, {to(_cpu)} in processor time."


def _row(bench: Bench, name: str, way: str, gib: float) -> list[str]:
    walls = bench.figures(name, way)
    return [
        way,
        *report.spread(walls, 3),
        report.ratio(walls, bench.figures(name, CURL)),
        report.median(bench.figures(name, way, lambda sample: sample.cpu / gib)),
        report.median(bench.figures(name, way, lambda sample: sample.process.wall), 3),
        report.median(bench.figures(name, way, lambda sample: sample.process.cpu)),
        report.median(bench.figures(name, way, lambda sample: sample.process.rss / _MIB), 0),
    ]


def _memory_table(memory: list[Memory]) -> str:
    def row(title: str, values: list[int]) -> list[str]:
        return [title, *report.spread([value / _MIB for value in values], 1)]

    rows = [
        row("a worker at its work", [each.most for each in memory]),
        row("a worker with its first files (the first eighth of the time)", [each.first for each in memory]),
        row("a worker in the second half of the time", [each.second for each in memory]),
        row("a worker, when its work is over", [each.rest for each in memory]),
        row("a process that only imported the same", [each.libraries for each in memory]),
    ]
    return "Resident memory:\n\n" + report.table(("process", "MiB at most", "least", "most"), rows)


def _limits(bench: Bench) -> list[report.Limit]:
    def to(name: str, other: str) -> float | None:
        return report.quotient(bench.figures(name, OURS), bench.figures(name, other))

    gib = bench.options.size / _GIB
    cpu = bench.figures("http", OURS, lambda sample: sample.cpu / gib)
    above = [each.above for each in bench.memory]
    growth = [each.growth for each in bench.memory]
    return [
        report.Limit("ours, verified and published, to curl", 1.0, to("http", CURL)),
        report.Limit(f"ours to {HASHED}", 0.35, to("http", HASHED)),
        report.Limit("CPU seconds per GiB, verified", 1.5, report.middle(cpu)),
        report.Limit("over TLS, to curl over TLS", 1.3, to("tls", CURL)),
        report.Limit("to a disk, to `curl; sync FILE FOLDER`", 1.1, to("disk", CURL)),
        report.Limit("memory of a worker above its libraries", 90, report.middle(above), unit=" MiB"),
        report.Limit("its second half above its first files", 5, report.middle(growth), unit=" MiB"),
    ]
