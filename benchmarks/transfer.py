"""Our own ways to fetch, as the product's parts do it: one transfer, or a worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.waiting import BenchmarkError
from distributed_downloader.assembly import make_worker
from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig
from distributed_downloader.hub import Hub
from distributed_downloader.master import JobRequest, prepare
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, RepoFile, RepoType, Token
from distributed_downloader.outcome import Finished
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.storage.durable import make_durable
from distributed_downloader.transfer.downloader import Downloader
from distributed_downloader.transfer.engine import Context

#: The slots of a worker whose memory is looked at.
SLOTS = 8


class _NotUsed:
    """Stands for the engine that must not have a part in it."""

    name = "http"

    def fetch(self, context: Context) -> None:
        """Raise BenchmarkError: a figure would be another engine's."""
        raise BenchmarkError(f"{context.task.file.path} did not come through hf_transfer")

    def close(self) -> None:
        """Nothing is open."""


def transfer(
    endpoint: str, repo: str, path: str, output: Path, *, by_hf_transfer: bool = False
) -> Callable[[], str]:
    """Return what fetches one file, verifies and publishes it, makes that durable, and returns its name.

    What a worker has long done by then is done before: its settings, and the task from the hub's listing.
    With `by_hf_transfer` no other engine is used; raises BenchmarkError then if that one does not manage.
    """
    config = AppConfig.model_validate(
        {
            "huggingface": {"endpoint": endpoint, "engine": "http", "enable_hf_transfer": by_hf_transfer},
            "app": {"output_dir": str(output), "disk_reserve": 0},
        }
    )
    http = HttpClient.of(config)
    hub = Hub(http, endpoint)
    spec = prepare(hub, JobRequest(repo, RepoType.MODEL))
    about = Descriptor(file=_listed(hub, spec, path))
    task = DownloadTask(token=Token(1, 0, 1), spec=spec, about=about)
    downloader = Downloader(config, http=http, http_engine=_NotUsed() if by_hf_transfer else None)

    def fetch() -> str:
        outcome = downloader.run(task, Cancel(), lambda _: None)
        assert isinstance(outcome, Finished)
        assert outcome.published
        make_durable(outcome.published)  # as a worker does before it reports
        return str(output / repo / path)

    return fetch


def _listed(hub: Hub, spec: JobSpec, path: str) -> RepoFile:
    pages = hub.pages(spec.repo_type, spec.repo_id, spec.commit)
    return next(file for page in pages for file in page if file.path == path)


def worker(endpoint: str, redis: str, output: Path) -> Callable[[], str]:
    """Return what works for the fleet of that Redis until its queue is empty."""
    config = AppConfig.model_validate(
        {
            "redis": {"url": redis},
            "huggingface": {"endpoint": endpoint},
            "app": {"output_dir": str(output), "disk_reserve": 0, "concurrency": SLOTS},
        }
    )
    node = make_worker(config, RedisClient(config.redis), drain_when_empty=True)

    def work() -> str:
        node.run()
        return str(output)

    return work
