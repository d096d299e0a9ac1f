"""What the files `_status.json` tell of jobs, and whose turn it is to write one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from distributed_downloader.imports import whole_imports
from distributed_downloader.models import JobSpec
from distributed_downloader.redis_client import RedisClient


class RedisStatus:
    """See `status_files.Board`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def turn(self, folder: str, seconds: float) -> bool:
        """See `status_files.Board`."""
        name = hashlib.sha256(folder.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return bool(self._client.scripts.run("turn", name, round(seconds * 1000)))

    def text(self, mine: Callable[[JobSpec], bool]) -> bytes:
        """See `status_files.Board`."""
        with whole_imports():  # only now: a worker's first task does not wait for these
            from distributed_downloader.display import as_json  # noqa: PLC0415
            from distributed_downloader.display.speed import Speedometer  # noqa: PLC0415
            from distributed_downloader.redis_view import RedisView  # noqa: PLC0415

        view = RedisView(self._client)
        jobs = [job for job in view.jobs() if mine(job.spec)]
        measured = Speedometer().measure(jobs, view.workers())
        return as_json.dump(as_json.folder(measured)).encode() + b"\n"
