"""What is fetched, under which conditions, and how the result is compared with its source."""

from __future__ import annotations

import filecmp
import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.waiting import BenchmarkError

MB = 1_000_000
_CHUNK = 1 << 20
#: What the tools keep for themselves beside the files.
_NOTES = {".cache", ".hf-downloader"}


@dataclass(frozen=True)
class Workload:
    """Files and conditions; `target` is the ratio to the ideal that is to be reached."""

    name: str
    title: str
    repo: str
    target: float
    #: One machine has a tenth of the others' rate.
    slow: bool = False
    #: One machine is killed at half time.
    kill: bool = False
    #: Fetched with delivery to the NAS and without, and compared with each other.
    nas: bool = False


_ONE, _MIXED = "bench/one-file", "bench/many-files"
WORKLOADS = (
    Workload("one", "one large file", _ONE, 1.05),
    Workload("mixed", "8 large files, many small ones", _MIXED, 1.08),
    Workload("slow", "one large file, one machine at a tenth of the rate", _ONE, 1.10, slow=True),
    Workload("kill", "one large file, one machine killed at half time", _ONE, 1.15, kill=True),
    Workload("nas", "8 large files, many small ones, delivery to the NAS", _MIXED, 1.03, nas=True),
)


def sizes(*, smoke: bool) -> dict[str, dict[str, int]]:
    """Return the bytes of each file of each repo."""
    unit, small = (MB // 40, 10) if smoke else (MB, 300)
    large = {f"model-{n}-of-8.safetensors": n * unit for n in (1, 2, 4, 8, 12, 20, 30, 40)}
    several = {f"data/{n:03}.json": 500 + 61 * n for n in range(small)}
    return {
        _ONE: {"model.safetensors": 4 * MB if smoke else 64 * MB},
        _MIXED: {**large, **several},
    }


def write_repos(folder: Path, repos: Mapping[str, Mapping[str, int]]) -> dict[str, Path]:
    """Write files of noise, the same every time; return the folder of each repo."""
    folders = {}
    for repo, files in repos.items():
        folders[repo] = folder / repo
        for name, size in files.items():
            path = folders[repo] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = random.Random(f"{repo} {name}")
            with path.open("wb") as out:
                for start in range(0, size, _CHUNK):
                    out.write(noise.randbytes(min(_CHUNK, size - start)))
    return folders


def check_equal(source: Path, got: Path) -> None:
    """Raise BenchmarkError unless both folders have the same files, byte for byte."""
    names = _names(source) | _names(got)
    _, different, missing = filecmp.cmpfiles(source, got, sorted(names), shallow=False)
    filecmp.clear_cache()
    if wrong := sorted(different + missing):
        raise BenchmarkError(
            f"{len(wrong)} of {len(names)} files are not as their source: {wrong[:5]} in {got}"
        )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hashlib.file_digest computes it, which Python 3.10 lacks."""
    digest, buffer = hashlib.sha256(), bytearray(1 << 18)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
    return digest.hexdigest()


def _names(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in paths if path.parts[0] not in _NOTES}
