"""`python -m benchmarks.control_plane.idlers`: real workers in one process, with nothing to fetch.

Standard input is a line of JSON: the port of Redis, the number of the first worker, and how many. They work
until the process is ended.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable

from benchmarks.control_plane.setting import config_of
from distributed_downloader.cancel import Cancel
from distributed_downloader.hold import Hold
from distributed_downloader.models import DownloadTask
from distributed_downloader.outcome import Finished, Outcome
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.worker import WorkerNode

#: Bytes of a thread's stack, for there are many.
_STACK = 512 * 1024


class Nothing:
    """A runner whose tasks are done when they begin."""

    def run(
        self, _task: DownloadTask, _cancel: Cancel, _progress: Callable[[int], None], _hold: Hold
    ) -> Outcome:
        """Do nothing."""
        return Finished()

    def close(self) -> None:
        """Let go of nothing."""


def main() -> None:
    """Work."""
    about = json.loads(sys.stdin.readline())
    threading.stack_size(_STACK)
    for number in range(about["first"], about["first"] + about["count"]):
        queue = RedisClient(config_of(about["port"]))
        node = WorkerNode(queue, Nothing(), concurrency=4, worker_id=f"idle-{number}", check_redis=False)
        threading.Thread(target=node.run, name=f"worker-{number}", daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
