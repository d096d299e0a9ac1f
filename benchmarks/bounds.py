"""What shows the machine's own limits beside the ways that are compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.contestant import order
from benchmarks.racing import Fetch, Race, Sample

#: The least that a file and its hash cost; the second one fetches nothing.
BARE, HASH_ALONE = "http.client and a hash", "sha256 alone"


def bounds(size: int) -> Iterator[tuple[str, Fetch]]:
    """Yield them for a file of `size` bytes."""
    for way in (BARE, HASH_ALONE):
        yield way, _bound(way, size)


def _bound(way: str, size: int) -> Fetch:
    def fetch(race: Race) -> Sample:
        asked = order(way, endpoint=race.endpoint, url=race.url, output=race.output, size=size)
        process, result = race.here.contestant(asked)
        return Sample(result["wall"], result["cpu"], process, Path(result["got"]))

    return fetch
