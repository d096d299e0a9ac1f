"""`python -m benchmarks.control_plane.single`: one real worker, whose tasks are done when they begin.

Standard input is a line of JSON: the port of Redis and the number of slots. It works until no job runs, and
prints the seconds from its first task to its last, on the clock and of processor time, and their number.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from benchmarks.control_plane.idlers import Nothing
from benchmarks.control_plane.setting import config_of
from distributed_downloader.cancel import Cancel
from distributed_downloader.hold import Hold
from distributed_downloader.models import DownloadTask
from distributed_downloader.outcome import Outcome
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.worker import WorkerNode


class Noting(Nothing):
    """Notes when each task came."""

    def __init__(self) -> None:
        self.count = 0
        self.first = self.last = (0.0, 0.0)

    def run(self, task: DownloadTask, cancel: Cancel, progress: Callable[[int], None], hold: Hold) -> Outcome:
        """Do nothing else."""
        self.last = (time.monotonic(), time.process_time())
        self.first = self.first if self.count else self.last
        self.count += 1
        return super().run(task, cancel, progress, hold)


def main() -> None:
    """Work."""
    about = json.loads(sys.stdin.readline())
    runner = Noting()
    queue = RedisClient(config_of(about["port"]))
    WorkerNode(queue, runner, concurrency=about["slots"], drain_when_empty=True, check_redis=False).run()
    wall, cpu = (last - first for last, first in zip(runner.last, runner.first, strict=True))
    print(json.dumps({"wall": wall, "cpu": cpu, "tasks": runner.count}))


if __name__ == "__main__":
    main()
