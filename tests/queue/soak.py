"""`python -m tests.queue.soak --schedules 1000`: new random histories on every server of this machine."""

from __future__ import annotations

import argparse
import random
import sys
import time

import redis

from tests.queue.choices import Seeded
from tests.queue.world import run
from tests.servers import NO_SERVER, Binary, Server, binaries


def soak(binary: Binary, seeds: range, steps: int) -> int:
    """Run a schedule for each seed; returns how many broke an invariant."""
    violations, started = 0, time.monotonic()
    with Server(binary) as server:
        client = redis.Redis(
            unix_socket_path=str(server.socket),
            decode_responses=True,
            encoding_errors="surrogateescape",
            protocol=2,
        )
        for seed in seeds:
            try:
                run(client, Seeded(seed), steps)
            except Exception as error:  # noqa: BLE001 - whatever a history brings up, the next one runs
                violations += 1
                print(f"{binary.name}: seed {seed}: {type(error).__name__}: {error}"[:500], flush=True)
        client.close()
    seconds = time.monotonic() - started
    print(
        f"{binary.name}: {len(seeds)} schedules of {steps} steps in {seconds:.0f} s, {violations} violations"
    )
    return violations


def main() -> int:
    """Run as many schedules as asked on each server; exit code 1 if one broke an invariant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000, help="for each server")
    parser.add_argument("--steps", type=int, default=300, help="of each schedule")
    parser.add_argument("--seed", type=int, default=None, help="of the first schedule; random if not given")
    options = parser.parse_args()
    first = random.randrange(10**9) if options.seed is None else options.seed
    if not (servers := binaries()):
        sys.exit(NO_SERVER)
    seeds = range(first, first + options.schedules)
    print(f"seeds {seeds.start} to {seeds.stop - 1}", flush=True)
    return int(sum(soak(binary, seeds, options.steps) for binary in servers) > 0)


if __name__ == "__main__":
    sys.exit(main())
