"""One machine with a worker in this process, and what its disk looks like around the folders it may use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from distributed_downloader.assembly import make_worker
from distributed_downloader.config import AppConfig, RedisConfig
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.models import JobSpec, JobState, JobStatus, RepoFile, RepoType
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from distributed_downloader.worker import WorkerNode
from tests.hub.faulty import FaultyHub

T = TypeVar("T")

#: Recognizable wherever it turns up.
TOKEN = "hf_CanaryCanaryCanary0123456789"
FILES = {"a.txt": b"content\n", "folder/b.bin": bytes(range(256)) * 40, "c.json": b"{}"}
#: Seconds after which a test that waits for an event has failed.
LONG = 60.0


def until(what: Callable[[], T | None]) -> T:
    """Wait until `what()` is true, and return it."""
    deadline = time.monotonic() + LONG
    while not (result := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return result


def tree(folder: Path) -> dict[str, bytes]:
    """Return all below a folder: files with their content, and folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"/"
        for path in sorted(folder.rglob("*"))
    }


class Machine:
    """Settings, queue and workers of one machine; `outside` is what no job may touch."""

    def __init__(self, folder: Path, hub: FaultyHub, redis: RedisConfig) -> None:
        self.folder, self.hub, self._redis = folder, hub, redis
        self.out, self.outside = folder / "out", folder / "outside"
        self.outside.mkdir()
        (self.outside / "treasure").write_text("untouched")
        self.queue = RedisClient(redis)
        self._looker = RedisClient(redis)  # another one, for what is written over is not what we made
        self.view = RedisView(self._looker)
        self._workers: list[tuple[WorkerNode, threading.Thread]] = []

    def config(self, **sections: Mapping[str, object]) -> AppConfig:
        """Return settings; those given win."""
        base: dict[str, dict[str, object]] = {
            "app": {"output_dir": str(self.out), "concurrency": 4, "disk_reserve": 0},
            "huggingface": {"endpoint": self.hub.endpoint, "token": TOKEN},
        }
        for section, values in sections.items():
            base.setdefault(section, {}).update(values)
        return AppConfig.model_validate(base)

    def worker(self, config: AppConfig | None = None, name: str | None = None) -> WorkerNode:
        """Start a worker in this process."""
        node = make_worker(
            config or self.config(), RedisClient(self._redis), worker_id=name, check_redis=False
        )
        thread = threading.Thread(target=node.run, daemon=True)
        thread.start()
        self._workers.append((node, thread))
        until(lambda: any(each.id == node.id for each in self.view.workers()))
        return node

    def spec(self, **changes: object) -> JobSpec:
        """Return a job of the sample repo."""
        snapshot = self.hub.repos["models/org/name"].at("main")
        assert snapshot
        about: dict[str, object] = {
            "repo_type": RepoType.MODEL,
            "repo_id": "org/name",
            "revision": "main",
            "commit": snapshot.commit,
            "endpoint": self.hub.endpoint,
        }
        return JobSpec.model_validate(about | changes)

    def files(self) -> list[RepoFile]:
        """Return what the sample repo has, as the hub lists it."""
        snapshot = self.hub.repos["models/org/name"].at("main")
        assert snapshot
        return [
            RepoFile(path=e.path, size=e.size, sha256=e.sha256, git_sha1=None if e.sha256 else e.oid)
            for e in snapshot.entries
            if e.path in FILES
        ]

    def job(self, spec: JobSpec | None = None) -> int:
        """Queue the sample repo."""
        files = self.files()
        job, created = self.queue.create_job(spec or self.spec(), 1)
        assert created
        assert self.queue.submit(job, 0, files, "digest")
        assert self.queue.seal(job, len(files))
        return job

    def ends(self, job: int) -> JobStatus:
        """Wait until a job has ended."""

        def look() -> JobStatus | None:
            with suppress(RedisUnavailableError):  # it answers late while a script reads what is huge
                status = self.view.job(job)
                return status if status.state.ended else None
            return None

        return until(look)

    def assert_done(self, job: int, folder: Path) -> None:
        """Wait for a job, and see that all its files are there and right."""
        assert self.ends(job).state is JobState.DONE, self.view.failures(job)
        found = {name: data for name, data in tree(folder).items() if data != b"/"}
        assert found == FILES

    def close(self) -> None:
        """Stop all workers."""
        for node, _ in self._workers:
            node.stop()
        for _, thread in self._workers:
            thread.join(LONG)
            assert not thread.is_alive()
        self.queue.close()
        self._looker.close()
