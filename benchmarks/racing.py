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
from distributed_downloader.transfer.hf_transfer import SMALLEST

CURL, HASHED, OURS, COMMAND = "curl", "hf_hub_download, then its hash", "ours", "ours, the whole command"
_ARIA2, _ARIA2_MANY = "aria2c -x4", "aria2c -x16"
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
    """Seconds, and seconds of processor time, of a call; the whole process' costs; the file that came.

    The call of a library, and ours, begins after its imports, that of a program after its bare start; the
    whole command is all one call.
    """

    wall: float
    cpu: float
    process: Cost
    got: Path


Fetch = Callable[[Race], Sample]


def ways(workload: str, size: int) -> Iterator[tuple[str, Fetch]]:
    """Yield the ways that a workload compares, curl first, for a file of `size` bytes.

    What is not installed here is left out, and our use of hf_transfer for a file that is too small for it.
    """
    for way in _WAYS[workload]:
        if not _lacks(way) and not (way == _OURS_TRANSFER and size < SMALLEST):
            fetch = _PROGRAMS.get(way) or _library(way)
            yield way, _synced(fetch) if workload == "disk" and way == CURL else fetch


def _lacks(way: str) -> bool:
    if way in (_TRANSFER, _OURS_TRANSFER):
        return importlib.util.find_spec(_TRANSFER) is None
    return way in _PROGRAMS and way != COMMAND and not shutil.which(way.partition(" ")[0])


def _program(words: Callable[[Race, Path], list[str]]) -> Fetch:
    def fetch(race: Race) -> Sample:
        got = race.output / "file"
        call, process = race.here.program(words(race, got))
        return Sample(call.wall, call.cpu, process, got)

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


def _aria2(connections: int) -> Callable[[Race, Path], list[str]]:
    def words(race: Race, got: Path) -> list[str]:
        split = [f"-x{connections}", f"-s{connections}", "-k1M", "--file-allocation=none", "--quiet"]
        trust = f"--ca-certificate={race.here.authority}"
        return ["aria2c", "--no-conf", *split, trust, f"--dir={got.parent}", f"--out={got.name}", race.url]

    return words


def _command(race: Race) -> Sample:
    words = [sys.executable, "-m", "distributed_downloader", "download", race.repo, "-o", str(race.output)]
    cost = race.here.measure(words, endpoint=race.endpoint)
    return Sample(cost.wall, cost.cpu, cost, race.output / race.repo / race.path)


def _synced(fetch: Fetch) -> Fetch:
    """Return a fetch that ends when its bytes and name are on the disk: what ours brings there, no more."""

    def both(race: Race) -> Sample:
        sample = fetch(race)
        sync, _ = race.here.program(["sync", str(sample.got), str(sample.got.parent)])
        return Sample(sample.wall + sync.wall, sample.cpu + sync.cpu, sample.process, sample.got)

    return both


_PROGRAMS: dict[str, Fetch] = {
    CURL: _program(_curl),
    _ARIA2: _program(_aria2(4)),
    _ARIA2_MANY: _program(_aria2(16)),
    COMMAND: _command,
}
#: What each workload compares. Large files take long: what another workload tells as well is left out there.
_WAYS: dict[str, tuple[str, ...]] = {
    "http": (CURL, _ARIA2, _ARIA2_MANY, COMMAND, _TRANSFER, _HUB, HASHED, OURS, _OURS_TRANSFER),
    "small": (CURL, _ARIA2, _ARIA2_MANY, COMMAND, _TRANSFER, _HUB, _SNAPSHOT, HASHED, OURS, _OURS_TRANSFER),
    "tls": (CURL, _ARIA2, _TRANSFER, OURS, _OURS_TRANSFER),
    "disk": (CURL, OURS),
}
