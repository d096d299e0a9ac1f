"""The engine `hf_transfer`: whole large files over many connections at once, by the library of that name.

The library holds the interpreter, has no timeout and hears no signal, so it works in a process of its own,
and we watch that. It writes into a private folder; what comes of it is proven like every other file. It is
for the storage behind a hub only: what the hub itself serves needs the token, and counts against its budget.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from distributed_downloader.connection import proxy_for
from distributed_downloader.errors import (
    CorruptError,
    EngineError,
    NetworkError,
    RangeError,
    ServerError,
    StalledError,
    UnfitError,
)
from distributed_downloader.hub import file_url, problem
from distributed_downloader.reach import refuse_connected, resolved_depth
from distributed_downloader.storage.disk import disk
from distributed_downloader.storage.partial import Partial
from distributed_downloader.transfer.answer import accept, check_commit
from distributed_downloader.transfer.engine import Context
from distributed_downloader.transfer.hf_transfer_process import Process, Wanted
from distributed_downloader.transfer.watch import Patience, Watch

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig, HuggingFaceConfig
    from distributed_downloader.models import RepoFile
    from distributed_downloader.response import Response
    from distributed_downloader.ssl_config import HttpClient

#: Bytes of the smallest file that is worth a process of its own.
SMALLEST = 64 << 20
#: Bytes that a connection asks for: the library shows progress, and a stall, no finer than that.
PIECE = 1 << 20
#: Pieces of a file at most, for the library keeps a record of each; those of a huge file are larger.
MOST_PIECES = 1 << 14
#: Bytes of a piece for which the usual patience does: 8 of these in a minute are 1 MB/s.
EASY_PIECE = 7 << 20
#: Seconds between two looks at how far it is.
_LOOK = 1.0
_NAME = "file"


def objection(settings: HuggingFaceConfig, *, limited: bool) -> str:
    """Return why this machine cannot use hf_transfer, whatever the file; "" if it can."""
    if settings.engine not in ("auto", "direct", "http"):
        return f"[huggingface] engine = {settings.engine} leaves no room for it"
    if settings.disable_ssl_verify:
        return "hf_transfer cannot skip certificate checks, as disable_ssl_verify wants"
    if limited:
        return "hf_transfer cannot be held to a limit of bandwidth"
    if sys.platform != "linux":
        return "it is used on Linux only, where its process ends with ours"
    if importlib.util.find_spec("hf_transfer") is None:
        return "hf_transfer is not installed (pip install 'distributed-downloader[hf_transfer]')"
    return ""


def idle(config: AppConfig) -> str:
    """Return why nothing comes of enable_hf_transfer on this machine, "" if something does."""
    limited = bool(config.app.max_bandwidth or config.limits.fleet_bandwidth)
    return objection(config.huggingface, limited=limited)


def suits(context: Context) -> bool:
    """Return whether a transfer is one for hf_transfer: of a large file, whole, anew, and with a hash."""
    sink, size = context.sink, context.task.file.size
    return isinstance(sink, Partial) and not sink.size and sink.proves and size >= SMALLEST


def patient(patience: Patience, piece: int) -> Patience:
    """Return the patience with pieces of that many bytes: 1 MB/s is enough for the largest."""
    return replace(patience, window=patience.window * max(1.0, piece / EASY_PIECE))


class _ExpiredLinkError(EngineError):
    """The storage refuses the signed address; the hub may give a new one."""


class HfTransferEngine:
    """Gets whole files through the library hf_transfer, each in a process of its own; for all slots."""

    name = "hf_transfer"

    def __init__(self, http: HttpClient, patience: Patience | None = None, *, piece: int = PIECE) -> None:
        self._http, self._patience, self._piece = http, patience or Patience(), piece

    def fetch(self, context: Context) -> None:
        """See `Engine`; what it does not manage leaves the sink as it was.

        Raises UnfitError for a file that the hub serves itself.
        """
        file, partial = context.task.file, context.sink
        if context.is_part or not isinstance(partial, Partial):
            raise RangeError(f"{file.path}: hf_transfer fetches whole files only, not parts of one")
        context.progress(0)
        staging = partial.make_staging()
        try:
            self._download(context, staging)
            _require_size(staging / _NAME, file)
            partial.adopt(staging / _NAME)
        finally:
            partial.remove_staging()
        context.progress(partial.size)

    def close(self) -> None:
        """Close the connections to the hub that are not in use."""
        self._http.close()

    def _download(self, context: Context, folder: Path) -> None:
        """Let the library fetch the file; once more with a new address if the storage refuses the first."""
        try:
            self._run(self._find(context), context, folder)
        except _ExpiredLinkError:
            self._run(self._find(context), context, folder)

    def _find(self, context: Context) -> Wanted:
        """Ask the hub for the first byte, by our rules: the library is told only where that came from."""
        spec, file = context.task.spec, context.task.file
        url = file_url(spec.endpoint, spec.repo_type, spec.repo_id, spec.commit, file.path)
        try:
            with self._http.open(
                "GET", url, headers={"Range": "bytes=0-0"}, cancel=context.cancel
            ) as response:
                return self._judge(response, context)
        except (NetworkError, StalledError, ServerError) as error:
            raise EngineError(str(error)) from error  # the next engine has more patience

    def _judge(self, response: Response, context: Context) -> Wanted:
        file = context.task.file
        if response.status >= 400:
            error = problem(response, file.path)
            raise error if response.from_hub else EngineError(str(error))
        if response.from_hub:
            raise UnfitError(f"{file.path}: the hub serves it itself, which is not for hf_transfer")
        check_commit(response, context.task)
        accept(response, 0, file, is_part=True)
        if not proxy_for(response.url):
            limit = self._http.inner.limit(response.url, response.depth)
            refuse_connected(urlsplit(response.url).hostname or "", resolved_depth(response.url), limit)
        piece = max(self._piece, -(-file.size // MOST_PIECES))
        return Wanted(response.url, _NAME, file.size, piece)

    def _run(self, wanted: Wanted, context: Context, folder: Path) -> None:
        """Have a process fetch the file into `folder`; raises what it ran into."""
        with Process(wanted, folder) as process, context.cancel.closing(process.end):
            self._follow(process, wanted, context)
            why = process.why()
        context.cancel.check()  # then it is we who ended it
        if why:
            refused = re.search(r"HTTP status client error \(4\d\d\b", why)
            kind = _ExpiredLinkError if refused else EngineError
            raise kind(f"{context.task.file.path}: hf_transfer: {why}")

    def _follow(self, process: Process, wanted: Wanted, context: Context) -> None:
        """Tell how far it is until it ends; raises StalledError if it gets nowhere."""
        watch, done = Watch(patient(self._patience, wanted.piece), context.task.file.path), 0
        while True:
            started = time.monotonic()
            pieces = process.pieces(min(_LOOK, self._patience.window))
            if pieces is None:
                return
            watch.saw(pieces * wanted.piece, time.monotonic() - started)
            if pieces:
                done += pieces
                context.progress(min(done * wanted.piece, wanted.size))


def _require_size(path: Path, file: RepoFile) -> None:
    with disk(path):
        found = path.stat().st_size
    if found != file.size:
        raise CorruptError(f"{file.path}: hf_transfer wrote {found} bytes, the hub lists {file.size}")
