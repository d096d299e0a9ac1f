"""From a task to a published, verified file: chooses the engine, checks, publishes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig
from distributed_downloader.download.engine import Context, Engine, Progress
from distributed_downloader.download.http import HttpEngine
from distributed_downloader.errors import (
    AccessError,
    CorruptError,
    EngineError,
    NotFoundError,
    StalledError,
    TransferError,
)
from distributed_downloader.models import DownloadTask
from distributed_downloader.ssl_config import HttpClient, origin, trusted_origins
from distributed_downloader.storage import RepoFolder, sweep
from distributed_downloader.throttle import Throttle

log = logging.getLogger(__name__)


class Downloader:
    """Runs tasks for all slots of a worker; they share its connections and its bandwidth."""

    def __init__(
        self, config: AppConfig, *, http: HttpClient | None = None, http_engine: Engine | None = None
    ) -> None:
        self._settings = config.huggingface
        self._output_dir = Path(config.app.output_dir)
        self._throttle = Throttle(config.app.max_bandwidth)
        self._http_engine = http_engine or HttpEngine(http or HttpClient(self._settings))
        self._hub_engine: Engine | None = None
        self._lock = threading.Lock()
        self._swept: set[Path] = set()

    def run(self, task: DownloadTask, cancel: Cancel, progress: Progress) -> None:
        """Return when the file is published and verified; raises TransferError."""
        cancel.check()
        root = Path(task.spec.output_dir or self._output_dir).expanduser().absolute()
        self._sweep(root)
        folder = RepoFolder(root, task.spec)
        folder.claim_folder()
        if folder.has(task.file, cancel):
            progress(task.file.size)
            return
        with folder.partial(task.file, cancel) as partial, self._explained(task.spec.endpoint):
            self._fetch(Context(task, partial, cancel, self._throttle, progress))
            cancel.check()
            folder.publish(partial, task.file)

    def close(self) -> None:
        """Close all connections; nothing may be running."""
        self._http_engine.close()
        if self._hub_engine:
            self._hub_engine.close()

    @contextmanager
    def _explained(self, endpoint: str) -> Iterator[None]:
        """Tell of a token that this worker has and does not give away, where that may be the cause."""
        try:
            yield
        except (AccessError, NotFoundError) as error:
            if not self._settings.token.get_secret_value() or origin(endpoint) in trusted_origins(
                self._settings
            ):
                raise
            raise type(error)(
                f"{error}; this worker's token was not sent, because {endpoint} is not its endpoint: "
                "set HF_ENDPOINT on the worker too"
            ) from error

    def _fetch(self, context: Context) -> None:
        """Fill and prove the partial with the first engine that manages to."""
        failed: TransferError | None = None
        for engine in self._engines(context):
            if failed:
                log.info("%s; trying again with engine %s", failed, engine.name)
            failed = _attempt(engine, context)
            if failed is None:
                return
        assert failed is not None  # there is always an engine
        raise failed

    def _engines(self, context: Context) -> Iterator[Engine]:
        """Yield the engines to try, in order."""
        choice = self._settings.engine
        if choice != "hub":
            inherited = context.partial.inherited
            yield self._http_engine
            if inherited and not context.partial.size:
                yield self._http_engine  # what an earlier process left may have been the bad part
        if choice != "http":
            yield self._hub()

    def _hub(self) -> Engine:
        with self._lock:
            if self._hub_engine is None:
                # Late, because huggingface_hub is slow to import and most workers never need it.
                from distributed_downloader.download.hub import HubEngine  # noqa: PLC0415

                self._hub_engine = HubEngine(self._settings)
            return self._hub_engine

    def _sweep(self, root: Path) -> None:
        """Clear old leftovers, once for each output folder."""
        with self._lock:
            if root in self._swept:
                return
            self._swept.add(root)
        try:
            sweep(root)
        except TransferError as error:
            log.warning("old partial data stays: %s", error)


def _attempt(engine: Engine, context: Context) -> TransferError | None:
    """Fetch and prove; return what went wrong if another engine may do better."""
    try:
        engine.fetch(context)
    except (EngineError, StalledError) as error:
        return error  # what is in the partial stays a good beginning
    try:
        context.partial.check()
    except CorruptError as error:
        context.partial.reset()
        return error
    return None
