"""`python -m tests.e2e.short_lease SECONDS worker …`: the command line with a shorter lease."""

from __future__ import annotations

import sys

from distributed_downloader import redis_client
from distributed_downloader.cli import run


def main() -> int:
    seconds, *words = sys.argv[1:]
    original = redis_client.Limits
    redis_client.Limits = lambda **given: original(**{"lease": float(seconds), **given})  # type: ignore[assignment,misc]
    return run(words)


if __name__ == "__main__":
    sys.exit(main())
