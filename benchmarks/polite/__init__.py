"""Whether a fleet keeps to what it may: the requests of one account at a hub, and limits of bandwidth.

Requests: a hub that tells what it allows counts what it serves and what it refuses, window by window, while
many workers with one token fetch many small files. The real hub's windows have 300 s; these are shorter.
Bandwidth: bytes over the time from the first request for a file's bytes to the end of the job, all verified,
with whole files and with parts, while one worker joins and one leaves, and while lines that bring less than
the limit begin to bring more. Progress goes to standard error, the report (Markdown) to standard output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import report, workloads
from benchmarks.polite import bandwidth, requests
from benchmarks.polite.rig import REPO
from benchmarks.scratch import scratch, size
from benchmarks.workloads import MB

_WHAT = ("requests", "bandwidth")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    add = parser.add_argument
    add("--only", choices=_WHAT, action="append", metavar="WHAT", help="|".join(_WHAT))
    add("--workers", type=int, metavar="N", help="workers that share the requests (default 20)")
    add("--files", type=int, metavar="N", help="files that they fetch (default 5,000)")
    add("--quota", type=int, metavar="N", help="requests that a window allows (default 500)")
    add("--window", type=int, metavar="S", help="seconds of a window (default 10)")
    add("--slots", type=int, metavar="N", default=4, help="slots of each worker (default 4)")
    add("--rate", type=size, metavar="RATE", default=20 * MB, help="the limit of bandwidth (default 20MB/s)")
    add("--seconds", type=int, metavar="S", help="what each way takes at that rate (default 30)")
    add(
        "--way", choices=[way.name for way in bandwidth.WAYS], metavar="WAY", help="one way of bandwidth only"
    )
    add("--smoke", action="store_true", help="little of everything: only to see that all works")


def run(given: argparse.Namespace) -> None:
    """Run it; raises BenchmarkError, and InterruptedBenchmarkError."""
    wanted = given.only or _WHAT
    limits, sections = list[report.Limit](), list[str]()
    if "requests" in wanted:
        answered = _requests(given)
        limits += answered.limits()
        sections.append(answered.section())
    if "bandwidth" in wanted:
        every = _bandwidth(given)
        limits += bandwidth.limits(every)
        sections.append(bandwidth.section(given.rate, _seconds(given), every))
    print("\n\n".join([f"{report.versions()}.", report.limits(limits), *sections]), flush=True)


def _requests(given: argparse.Namespace) -> requests.Answered:
    asked = requests.Asked(
        workers=given.workers or (2 if given.smoke else 20),
        slots=given.slots,
        files=given.files or (80 if given.smoke else 5_000),
        quota=given.quota or (30 if given.smoke else 500),
        window=given.window or (2 if given.smoke else 10),
    )
    report.say(f"{asked.workers} workers, {asked.files} files")
    with scratch() as folder:
        return requests.measure(folder, asked)


def _bandwidth(given: argparse.Namespace) -> list[bandwidth.Kept]:
    seconds = _seconds(given)
    every = [way for way in bandwidth.WAYS if given.way in (None, way.name)]
    with scratch(2 * seconds * given.rate) as folder:
        source = workloads.write_repos(folder / "source", {REPO: _sizes(seconds * given.rate)})[REPO]
        return [_keep(folder / str(number), source, way, given) for number, way in enumerate(every)]


def _seconds(given: argparse.Namespace) -> int:
    return int(given.seconds or (2 if given.smoke else 30))


def _keep(folder: Path, source: Path, way: bandwidth.Way, given: argparse.Namespace) -> bandwidth.Kept:
    report.say(way.name)
    with scratch(where=folder.parent) as place:
        kept = bandwidth.measure(place, source, way, given.rate, given.slots)
    report.say(f"  {kept.whole:.3f} of the limit, equal to its source")
    return kept


def _sizes(total: int) -> dict[str, int]:
    """Return the bytes of each file: many of one size, and one that has a quarter of all."""
    small = 4 * MB
    many = {f"model-{n:03}.safetensors": small for n in range(total * 3 // 4 // small)}
    return {"model.safetensors": total // 4, **many}
