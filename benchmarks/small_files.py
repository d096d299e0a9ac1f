"""Many small files on one machine: the whole product against other programs and libraries.

The hub is an nginx on loopback; source and results lie in memory. Ours is Redis and worker processes, timed
by Redis' clock to the end of the job, when all is verified, published and counted: once from the moment that
waiting workers may claim the first file, once from the start of master and workers beside each other. Every
tree is compared with its source, byte for byte, before its time counts. Progress goes to standard error, the
report (Markdown) to standard output.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import report, workloads
from benchmarks.contestant import order
from benchmarks.here import SLOTS, Here, Work
from benchmarks.interleaved import add_rest, turns
from benchmarks.scratch import scratch, size
from benchmarks.waiting import BenchmarkError
from benchmarks.workloads import MB

_REPO = "bench/small-files"
_FOLDER = 100
#: Unix time of the first file.
_LONG_AGO = 1_000_000_000
#: Bytes that a file takes on a disk, above its own.
_BLOCK = 8192
_SNAPSHOT, _LOCAL = "snapshot_download", "snapshot_download to local_dir"
_ARIA2, _WGET, _CURL, _OURS = "aria2c -j16", "wget -i", "curl -Z", "ours"
_WHOLE = "ours, with listing and start"
#: What is compared, by the names that `--only` takes.
_WAYS = {
    "snapshot_download": _SNAPSHOT,
    "local_dir": _LOCAL,
    "aria2c": _ARIA2,
    "wget": _WGET,
    "curl": _CURL,
    "ours": _OURS,
    "whole": _WHOLE,
}
_HEADS = ("way", "files/s", "least", "most", "to snapshot_download", "to aria2c", "CPU ms/file")


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    files: int
    bytes: int
    rounds: int
    rest: float
    workers: int
    slots: int
    ways: tuple[str, ...]

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file; a hundred files lie in each folder."""
        return {f"data/{n // _FOLDER:04}/{n % _FOLDER:02}.json": self.bytes for n in range(self.files)}


@dataclass(frozen=True)
class Sample:
    """Seconds, and seconds of processor time: of the way itself, and of the Redis that it uses."""

    wall: float
    cpu: float
    redis: float = 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    add = parser.add_argument
    add("--files", type=int, metavar="N", help="files of the repo (default 10,000)")
    add("--bytes", type=size, metavar="SIZE", default=10_000, help="bytes of each (default 10,000)")
    add("--rounds", type=int, metavar="R", help="the figures are the medians of so many rounds (default 5)")
    add_rest(parser)
    add("--workers", type=int, metavar="N", default=2, help="our worker processes (default 2)")
    add("--slots", type=int, metavar="N", default=SLOTS, help="slots of each (default: the product's own)")
    add(
        "--only",
        action="append",
        choices=list(_WAYS),
        metavar="WAY",
        help=f"only this way; may be repeated: {', '.join(_WAYS)}",
    )
    add("--smoke", action="store_true", help="few files, 1 round: only to see that all works")


def run(given: argparse.Namespace) -> None:
    """Run it; raises BenchmarkError, and InterruptedBenchmarkError."""
    options = Options(
        files=given.files or (120 if given.smoke else 10_000),
        bytes=given.bytes,
        rounds=given.rounds or (1 if given.smoke else 5),
        rest=given.rest,
        workers=given.workers,
        slots=given.slots,
        ways=tuple(way for name, way in _WAYS.items() if name in (given.only or _WAYS) and not _lacks(way)),
    )
    if not options.ways:
        raise BenchmarkError("nothing is left to measure: what --only names is not installed here")
    with scratch(3 * options.files * (options.bytes + _BLOCK)) as folder:
        repos = workloads.write_repos(folder / "source", {_REPO: options.sizes()})
        _tell_apart(repos[_REPO], options)
        rig = Here(folder, repos, workers=options.workers, slots=options.slots, small=True)
        with closing(rig) as here:
            bench = Bench(options, here, folder, repos[_REPO])
            bench.measure()
            print(_report(bench), flush=True)


def _tell_apart(source: Path, options: Options) -> None:
    """Give each file another time: nginx makes ETags of time and size, and huggingface_hub names by ETags."""
    for number, path in enumerate(options.sizes()):
        os.utime(source / path, (_LONG_AGO + number, _LONG_AGO + number))


@dataclass
class Bench:
    """Measures, round by round and interleaved, each round in another order."""

    options: Options
    here: Here
    folder: Path
    source: Path
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def measure(self) -> None:
        """Fetch the repo in all ways that are asked for."""
        ways = [(way, fetch) for way, fetch in self._ways().items() if way in self.options.ways]
        for number in range(self.options.rounds):
            report.say(f"round {number + 1} of {self.options.rounds}")
            for way, fetch in turns(ways, number, self.options.rest):
                with self._output() as output:
                    sample, tree = fetch(output)
                    workloads.check_equal(self.source, tree)
                self.samples[way].append(sample)
                report.say(f"  {way}: {sample.wall:.3f} s, equal to its source")

    def _ways(self) -> dict[str, Callable[[Path], tuple[Sample, Path]]]:
        return {
            _SNAPSHOT: lambda output: self._library(_SNAPSHOT, output),
            _LOCAL: lambda output: self._library(_LOCAL, output),
            _ARIA2: lambda output: self._program(self._aria2(output), output),
            _WGET: lambda output: self._program(self._wget(output), output),
            _CURL: lambda output: self._program(self._curl(output), output),
            _OURS: lambda output: self._ours(self.here.work(_REPO, output), output),
            _WHOLE: lambda output: self._ours(self.here.from_start(_REPO, output), output),
        }

    def _library(self, way: str, output: Path) -> tuple[Sample, Path]:
        commit = self.here.commits[_REPO]
        asked = order(way, endpoint=self.here.small_hub, repo=_REPO, commit=commit, output=output)
        _, result = self.here.contestant(asked)
        return Sample(result["wall"], result["cpu"]), Path(result["got"])

    def _program(self, words: list[str], output: Path) -> tuple[Sample, Path]:
        call, _ = self.here.program(words)
        return Sample(call.wall, call.cpu), output

    def _ours(self, work: Work, output: Path) -> tuple[Sample, Path]:
        return Sample(work.seconds, work.workers_cpu, work.redis_cpu), output / _REPO

    # -- programs that take a list ----------------------------------------------------------------

    def _aria2(self, output: Path) -> list[str]:
        entries = self._list("{url}\n out={path}\n")
        quiet = ["--no-conf", "--quiet", "--file-allocation=none", f"--dir={output}"]
        return ["aria2c", *quiet, "-j16", "-x1", "-i", str(entries)]

    def _wget(self, output: Path) -> list[str]:
        cut = len(urlsplit(self._url("")).path.strip("/").split("/"))
        shape = ["-x", "-nH", f"--cut-dirs={cut}", "-P", str(output)]
        return ["wget", "--no-config", "-q", *shape, "-i", str(self._list("{url}\n"))]

    def _curl(self, output: Path) -> list[str]:
        entries = self._list(f'url = "{{url}}"\noutput = "{output}/{{path}}"\n')
        parallel = ["-Z", "--parallel-max", "16"]
        return ["curl", "-q", "-sSf", "--create-dirs", *parallel, "-K", str(entries)]

    def _list(self, entry: str) -> Path:
        path = self.folder / "list"
        names = self.options.sizes()
        path.write_text("".join(entry.format(url=self._url(name), path=name) for name in names))
        return path

    def _url(self, path: str) -> str:
        return f"{self.here.small_hub}/{_REPO}/resolve/{self.here.commits[_REPO]}/{path}"

    @contextmanager
    def _output(self) -> Iterator[Path]:
        output = self.folder / "output"
        output.mkdir()
        try:
            yield output
        finally:
            shutil.rmtree(output, ignore_errors=True)

    def rates(self, way: str) -> list[float]:
        """Return the files a second of all rounds."""
        return [self.options.files / sample.wall for sample in self.samples.get(way, [])]


def _lacks(way: str) -> bool:
    return way in (_ARIA2, _WGET, _CURL) and not shutil.which(way.partition(" ")[0])


def _report(bench: Bench) -> str:
    options = bench.options
    redis = [sample.redis * 1000 / options.files for sample in bench.samples.get(_OURS, [])]
    return "\n\n".join(
        [
            f"{options.files:,} files of {options.bytes / MB:g} MB from nginx on loopback, keep-alive; ours: "
            f"{options.workers} workers of {options.slots} slots; medians of {options.rounds}; every tree "
            "equal to its source, byte for byte. Ratios are medians of those of each round.\n\n"
            f"What the figures begin with: `{_SNAPSHOT}` with its call, in which it lists, after its "
            f"imports. `{_WHOLE}` with the start of the master, which lists, and of the workers at once "
            "beside it, imports included. aria2c, wget and curl have a ready list, and begin after what "
            "their bare start takes (the median of `--version`, measured beside each run). "
            f"`{_OURS}` begins when waiting workers may claim the first file of a ready queue.",
            f"{report.versions()}.",
            report.limits(_limits(bench)),
            report.table(_HEADS, [_row(bench, way) for way in bench.samples]),
            "`CPU ms/file` is that of the way's own processes from where the figures begin, without what "
            f"nginx takes to serve it: for `{_OURS}` the workers' alone, for `{_WHOLE}` the master's as "
            "well, and the workers' start and end. "
            f"For `{_OURS}`, Redis takes {report.median(redis, 3)} ms/file more.",
        ]
    )


def _row(bench: Bench, way: str) -> list[str]:
    rates = bench.rates(way)
    cpu = [sample.cpu * 1000 / bench.options.files for sample in bench.samples[way]]
    ratios = (report.ratio(rates, bench.rates(other)) for other in (_SNAPSHOT, _ARIA2))
    return [way, *report.spread(rates, 0), *ratios, report.median(cpu, 3)]


def _limits(bench: Bench) -> list[report.Limit]:
    to_snapshot = report.quotient(bench.rates(_WHOLE), bench.rates(_SNAPSHOT))
    to_aria2 = report.quotient(bench.rates(_OURS), bench.rates(_ARIA2))
    return [
        report.Limit("files/s, with listing and start, to snapshot_download", 4, to_snapshot, at_least=True),
        report.Limit("files/s to aria2c -j16, both with a ready list", 0.5, to_aria2, at_least=True),
        report.Limit("files/s to aria2c -j16, the aim", 0.8, to_aria2, at_least=True),
    ]
