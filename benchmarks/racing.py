"""The ways to fetch one file that are compared: programs, Python libraries, and ours."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestant import order
from benchmarks.costs import Cost
from benchmarks.here import Here
from distributed_downloader.download.hf_transfer import SMALLEST

CURL, HASHED, OURS, COMMAND = "curl", "hf_hub_download, then its hash", "ours", "ours, the whole command"
_OURS_TRANSFER = "ours through hf_transfer"
_TRANSFER, _HUB, _SNAPSHOT = "hf_transfer", "hf_hub_download", "snapshot_download"


@dataclass(frozen=True)
class Race:
    """What is fetched from where, into an empty folder."""

    here: Here
    repo: str
    path: str
    output: Path
    tls: bool = False

    @property
    def endpoint(self) -> str:
        """The hub, which redirects to nginx."""
        return self.here.tls_hub if self.tls else self.here.hub

    @property
    def commit(self) -> str:
        """The repo's commit."""
        return self.here.commits[self.repo]

    @property
    def url(self) -> str:
        """The file's address."""
        return f"{self.endpoint}/{self.repo}/resolve/{self.commit}/{self.path}"


@dataclass(frozen=True)
class Sample:
    """Seconds, and seconds of processor time, of a call; the whole process' costs; the file that came."""

    wall: float
    cpu: float
    process: Cost
    got: Path


Fetch = Callable[[Race], Sample]


def ways(workload: str, size: int) -> Iterator[tuple[str, Fetch]]:
    """Yield the ways that a workload compares, curl first, for a file of `size` bytes.

    What is not installed here is left out, and our use of hf_transfer for a file that is too small for it.
    """
    every = _DISK if workload == "disk" else {**_PROGRAMS, **dict.fromkeys(_LIBRARIES[workload])}
    for way, fetch in every.items():
        if not _lacks(way) and not (way == _OURS_TRANSFER and size < SMALLEST):
            yield way, fetch or _library(way)


def _lacks(way: str) -> bool:
    if way in (_TRANSFER, _OURS_TRANSFER):
        return importlib.util.find_spec(_TRANSFER) is None
    return way in _PROGRAMS and way != COMMAND and not shutil.which(way.partition(" ")[0])


def _program(words: Callable[[Race, Path], list[str]]) -> Fetch:
    def fetch(race: Race) -> Sample:
        got = race.output / "file"
        cost = race.here.measure(words(race, got))
        return Sample(cost.wall, cost.cpu, cost, got)

    return fetch


def _library(way: str) -> Fetch:
    def fetch(race: Race) -> Sample:
        asked = order(
            way,
            endpoint=race.endpoint,
            repo=race.repo,
            commit=race.commit,
            path=race.path,
            output=race.output,
        )
        process, result = race.here.contestant(asked)
        got = Path(result["got"])
        return Sample(result["wall"], result["cpu"], process, got / race.path if got.is_dir() else got)

    return fetch


def _curl(race: Race, got: Path) -> list[str]:
    return ["curl", "-sSfL", "--cacert", str(race.here.authority), "-o", str(got), race.url]


def _aria2(connections: int) -> Fetch:
    def words(race: Race, got: Path) -> list[str]:
        split = [f"-x{connections}", f"-s{connections}", "-k1M", "--file-allocation=none", "--quiet"]
        trust = f"--ca-certificate={race.here.authority}"
        return ["aria2c", "--no-conf", *split, trust, f"--dir={got.parent}", f"--out={got.name}", race.url]

    return _program(words)


def _command(race: Race) -> Sample:
    words = [sys.executable, "-m", "distributed_downloader", "download", race.repo, "-o", str(race.output)]
    cost = race.here.measure(words, endpoint=race.endpoint)
    return Sample(cost.wall, cost.cpu, cost, race.output / race.repo / race.path)


def _synced(fetch: Fetch) -> Fetch:
    """Return a fetch that ends when its bytes are on the disk."""

    def both(race: Race) -> Sample:
        sample = fetch(race)
        sync = race.here.measure(["sync", "-f", str(sample.got)])
        return Sample(sample.wall + sync.wall, sample.cpu + sync.cpu, sample.process, sample.got)

    return both


_PROGRAMS: dict[str, Fetch | None] = {
    CURL: _program(_curl),
    "aria2c -x4": _aria2(4),
    "aria2c -x16": _aria2(16),
    COMMAND: _command,
}
_DISK: dict[str, Fetch | None] = {CURL: _synced(_program(_curl)), OURS: None, COMMAND: _command}
_EVERY = (_TRANSFER, _HUB, _SNAPSHOT, HASHED, OURS, _OURS_TRANSFER)
_LIBRARIES = {"http": _EVERY, "small": _EVERY, "tls": (_TRANSFER, _HUB, OURS, _OURS_TRANSFER)}
