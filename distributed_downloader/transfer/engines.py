"""Chooses the engine: the first that manages to, in the order that suits the setting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

from distributed_downloader.config import HuggingFaceConfig
from distributed_downloader.errors import (
    CorruptError,
    EngineError,
    PermanentError,
    RangeError,
    StalledError,
    TransferError,
    TransientError,
    UnfitError,
)
from distributed_downloader.imports import whole_imports
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.storage.partial import Partial
from distributed_downloader.transfer import hf_transfer
from distributed_downloader.transfer.engine import Context, Engine
from distributed_downloader.transfer.http import HttpEngine

log = logging.getLogger(__name__)


class Engines:
    """The engines of one worker; for all its slots."""

    def __init__(
        self, settings: HuggingFaceConfig, http: HttpClient | None = None, http_engine: Engine | None = None
    ) -> None:
        self._settings = settings
        self._http = http or HttpClient(settings)
        self._lock = threading.Lock()
        self._made: dict[str, Engine] = {"http": http_engine or HttpEngine(self._http)}

    @property
    def gets_ranges(self) -> bool:
        """Whether any of the engines gets a part of a file."""
        return self._settings.engine != "hub"

    def fill(self, context: Context) -> None:
        """Fill the sink, and prove it if it is a whole file; raises what the last engine ran into."""
        failed: TransferError | None = None
        for name in self._order(context):
            engine = self._engine(name)
            if failed:
                log.info("%s; trying again with engine %s", failed, engine.name)
            try:
                error = _attempt(engine, context)
            except (TransientError, PermanentError) as other:
                if not isinstance(failed, RangeError) or not context.is_part:
                    raise
                error = other
            if error is None:
                return
            # That there are no ranges means that the file has to be fetched whole, whatever ails the others.
            ranges_refused = context.is_part and isinstance(failed, RangeError)
            if failed is None or not (ranges_refused or isinstance(error, UnfitError)):
                failed = error
        assert failed is not None  # there is always an engine
        raise failed

    def close(self) -> None:
        """Close all connections; nothing may be running."""
        for engine in self._made.values():
            engine.close()

    def _order(self, context: Context) -> Iterator[str]:
        """Yield the names of the engines to try, in order; engine `hub` knows whole files only."""
        choice, sink = self._settings.engine, context.sink
        if self._settings.enable_hf_transfer and self._suits_hf_transfer(context):
            yield "hf_transfer"
        if choice in ("http", "auto", "direct") or (choice == "xet" and not context.task.file.sha256):
            inherited = sink.inherited
            yield "http"
            if inherited and not sink.size:
                yield "http"  # what an earlier process left may have been the bad part
        if choice in ("xet", "auto", "direct") and context.task.file.sha256:
            yield "xet"  # which has large files only; what lies in git goes over HTTP
        if choice == "hub" or (choice == "auto" and not context.is_part):
            yield "hub"

    def _suits_hf_transfer(self, context: Context) -> bool:
        limited = context.throttle.limited
        return hf_transfer.suits(context) and not hf_transfer.objection(self._settings, limited=limited)

    def _engine(self, name: str) -> Engine:
        if engine := self._made.get(name):
            return engine
        with self._lock:
            if name not in self._made:
                self._made[name] = self._make(name)
            return self._made[name]

    def _make(self, name: str) -> Engine:
        """Import late, because both libraries are slow to import and most workers never need them."""
        if name == "hf_transfer":
            return hf_transfer.HfTransferEngine(self._http)
        with whole_imports():
            if name == "xet":
                from distributed_downloader.transfer.xet import XetEngine  # noqa: PLC0415

                return XetEngine(self._settings, self._http)
            from distributed_downloader.transfer.hub import HubEngine  # noqa: PLC0415

            return HubEngine(self._settings, self._http.inner, self._http.budgets)


def _attempt(engine: Engine, context: Context) -> TransferError | None:
    """Fetch and prove; return what went wrong if another engine may do better."""
    try:
        engine.fetch(context)
    except (EngineError, StalledError) as error:
        return error  # what is in the sink stays a good beginning
    if not isinstance(context.sink, Partial):
        return None  # a part is proven by its seal
    try:
        context.sink.check()
    except CorruptError as error:
        context.sink.reset()
        return error
    return None
