"""`python -m benchmarks.control_plane.listing`: a hub with one repo of any number of files.

Standard input is a line with that number; it serves until standard input ends.
"""

from __future__ import annotations

import sys

from distributed_downloader.local_hub import LocalHub
from distributed_downloader.local_hub.repo import LocalRepo
from tests.hub.synthetic import SyntheticSnapshot

REPO = "org/many"


def main() -> None:
    """Serve."""
    files = int(sys.stdin.readline())
    with LocalHub({f"models/{REPO}": LocalRepo(SyntheticSnapshot(files))}) as hub:
        print(hub.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
