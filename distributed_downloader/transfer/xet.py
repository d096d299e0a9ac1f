"""The engine `xet`: byte ranges of large files straight from the hub's storage, through hf_xet.

It has neither limits on file size nor addresses that expire, so it fetches what plain HTTP cannot. hf_xet
is a second HTTP client with rules of its own; here it is held to ours: certificates, memory, stop signal.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import re
import sys
import threading
from contextlib import closing
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from distributed_downloader import __version__
from distributed_downloader.errors import (
    EngineError,
    NetworkError,
    NoAnswerError,
    RateLimitError,
    ServerError,
    StalledError,
    TransferError,
    UnfitError,
    one_line,
)
from distributed_downloader.hub import file_url, problem
from distributed_downloader.hub.problems import DEFAULT_PAUSE
from distributed_downloader.hub.xet_token import Shared, XetAccess, XetTokens
from distributed_downloader.models import RepoFile
from distributed_downloader.ssl_config import CONNECT_TIMEOUT, READ_TIMEOUT
from distributed_downloader.transfer.answer import check_commit, described
from distributed_downloader.transfer.engine import Context
from distributed_downloader.transfer.rust_threads import rust_threads
from distributed_downloader.transfer.watch import Patience

if TYPE_CHECKING:
    from distributed_downloader.cancel import Cancel
    from distributed_downloader.config import HuggingFaceConfig
    from distributed_downloader.ssl_config import HttpClient

log = logging.getLogger(__name__)

#: Bytes that hf_xet asks for, and hands out, at once: four transfers then take some 95 MB of memory, and
#: 1.1 GB as hf_xet has it by default. Each block costs one request to the storage.
BLOCK = 3 << 20
#: The same after stalls, at least: blocks come as a whole, so a slow line needs small ones.
MIN_BLOCK = 192 << 10
#: Blocks that hf_xet fetches ahead for one transfer.
AHEAD = 2
#: Files whose Xet hash is kept, because the parts of one ask again and again.
_KEPT = 1000
#: hf_xet would refuse a token by this machine's clock, which may be wrong; the storage knows better.
_NEVER = 1 << 40

_INSTALL = "install hf_xet 1.6 or newer, or use engine http"
#: Threads of hf_xet for each transfer, unless the user says how many.
_THREADS = 2


class XetEngine:
    """Gets a file, or a part of one, from the storage behind the hub; for all slots of a worker."""

    name = "xet"

    def __init__(
        self, settings: HuggingFaceConfig, http: HttpClient, patience: Patience | None = None
    ) -> None:
        self._verifies = not settings.disable_ssl_verify
        self._http = http
        #: How long a transfer goes on by itself.
        self.patience = patience or Patience()
        #: The tokens for the storage.
        self.tokens = XetTokens(http)
        self._files: Shared[str, _Found] = Shared(_KEPT)

    def fetch(self, context: Context) -> None:
        """See `Engine`; raises UnfitError for a file that is not on Xet."""
        if not self._verifies:
            raise UnfitError(
                "engine xet: hf_xet cannot skip certificate checks, as [huggingface] disable_ssl_verify wants"
            )
        _Transfer(self, context).run()

    def close(self) -> None:
        """Close the connections to the hub that are not in use."""
        self._http.close()

    def find(self, context: Context) -> _Found:
        """Return what the hub tells of the file; raises UnfitError if it is not on Xet."""
        spec, path = context.task.spec, context.task.file.path
        url = file_url(spec.endpoint, spec.repo_type, spec.repo_id, spec.commit, path)
        return self._files.get(url, lambda: self._ask(url, context), context.cancel)

    def _ask(self, url: str, context: Context) -> _Found:
        file = context.task.file
        with self._http.open("HEAD", url, cancel=context.cancel) as response:
            check_commit(response, context.task)
            for headers in (*response.hops, response.headers):
                xet_hash = headers.get("X-Xet-Hash", "")
                if re.fullmatch("[0-9a-f]{64}", xet_hash):
                    return _Found(xet_hash, described(response, file))
            # A signed address is good for GET only, so what the storage says to HEAD means nothing.
            if response.status >= 400 and response.from_hub:
                raise problem(response, file.path)
        raise UnfitError(f"{file.path}: is not on Xet, as far as {context.task.spec.endpoint} tells")


class _Found(NamedTuple):
    """What the hub tells of a file."""

    xet_hash: str
    #: The file with its hash, if the hub's headers have it.
    described: RepoFile | None


class _Span(NamedTuple):
    """Which bytes of a file of `size` bytes are wanted."""

    path: str
    xet_hash: str
    size: int
    start: int
    end: int


class _TokenRefusedError(EngineError):
    """The storage does not take the token; the hub may give a new one."""


class _BrokenError(EngineError):
    """hf_xet ended the stream for a reason of its own."""


class _EarlyEndError(NetworkError):
    """The stream ended as if all were there; every other time, hf_xet reports a refusal like that."""


class _Transfer:
    """One file's or part's transfer, with what is learnt from one stream to the next."""

    def __init__(self, engine: XetEngine, context: Context) -> None:
        self._engine, self._context = engine, context
        self._sink, self._path = context.sink, context.task.file.path
        self._library = _library()
        self._block = BLOCK
        self._fruitless = 0
        #: What the fruitless streams ran into, as far as it is known.
        self._reason: TransferError | None = None
        #: The most bytes that were ever there.
        self._best = self._sink.size

    def run(self) -> None:
        """Stream until all bytes are there; raises what the last fruitless stream ran into."""
        self._context.progress(self._sink.size)
        while self._wanting:
            try:
                self._connect()
            except (NetworkError, StalledError, ServerError, _TokenRefusedError, _BrokenError) as error:
                if self._wanting:  # else somebody took over what was missing
                    self._pause(error)

    @property
    def _wanting(self) -> bool:
        return self._context.left > 0 or self._sink.unproven

    def _pause(self, error: TransferError) -> None:
        """Wait before the next stream, or give up."""
        patience = self._engine.patience
        if isinstance(error, StalledError):
            self._block = max(self._block // 4, MIN_BLOCK)
        step = max(1, min(patience.step, (self._sink.end - self._sink.start) // 100))
        if self._sink.size - self._best >= step:
            self._fruitless, self._reason = 0, None
        else:
            self._fruitless += 1
        self._best = max(self._best, self._sink.size)
        if not isinstance(error, (_EarlyEndError, _BrokenError)):
            self._reason = error
        if self._fruitless >= patience.connections:
            raise self._reason or error
        log.debug("%s; going on from byte %d", error, self._context.position)
        self._context.cancel.wait(random.uniform(0.5, 1) * patience.pause * 2**self._fruitless)

    def _connect(self) -> None:
        """Get what one stream brings."""
        found = self._engine.find(self._context)
        if not self._sink.proves and found.described:
            self._sink.expect(found.described)
        if self._sink.unproven:
            self._sink.reset()
            self._best = 0
            self._context.progress(0)
        access = self._engine.tokens.get(self._context.task.spec, self._context.cancel)
        try:
            self._stream(found.xet_hash, access)
        except (_TokenRefusedError, _EarlyEndError):
            self._engine.tokens.forget(self._context.task.spec, access)
            raise

    def _stream(self, xet_hash: str, access: XetAccess) -> None:
        """Copy from the present byte to the end, as far as it goes."""
        context = self._context
        span = _Span(self._path, xet_hash, context.task.file.size, context.position, self._sink.end)
        if span.start >= span.end:
            return  # the end came nearer just now
        config = _config(self._library, self._engine.patience, self._block)
        stream = _Stream(self._library, config, access, span, self._engine.patience.window)
        with closing(stream), context.cancel.closing(stream.close):
            while context.left and self._take(stream.read(context.cancel)):
                pass
        if left := context.left:
            raise _EarlyEndError(
                f"{self._path}: the stream from the Xet storage ended {left} bytes too early"
            )

    def _take(self, data: bytes) -> bool:
        """Write what still belongs here, in pieces that suit the throttle; return whether there was any."""
        context, view = self._context, memoryview(data)
        while view and (left := context.left):
            piece = bytes(view[: min(left, context.throttle.read_size)])
            context.write(piece)
            view = view[len(piece) :]
        return bool(data)


class _Stream:
    """hf_xet at work on one range; it shares nothing with others, for only so can it be ended alone."""

    def __init__(
        self, library: ModuleType, config: object, access: XetAccess, span: _Span, window: float
    ) -> None:
        self._path, self._window = span.path, window
        self._lock = threading.Lock()
        self._over = self._stalled = False
        try:
            self._session = library.XetSession(config)
            group = self._session.new_download_stream_group(
                endpoint=access.url,
                token=access.token.get_secret_value(),
                token_expiry_unix_secs=_NEVER,
                custom_headers={"User-Agent": f"hf-downloader/{__version__}"},
            )
            info = library.XetFileInfo(span.xet_hash, span.size)
            self._stream = group.download_stream(info, span.start, span.end)
        except (OSError, RuntimeError, ValueError) as error:
            raise EngineError(
                f"{span.path}: hf_xet does not start: {one_line(error)}; "
                "can it use its folder (HF_XET_CACHE)?"
            ) from None

    def read(self, cancel: Cancel) -> bytes:
        """Return the next block, b"" at the end, which may come early; raises what went wrong."""
        timer = threading.Timer(self._window, self._stall)
        timer.daemon = True
        timer.start()
        failed: TransferError | None = None
        try:
            if data := bytes(next(self._stream, b"")):
                return data
        except (OSError, RuntimeError) as error:
            failed = _translated(error, self._path)
        finally:
            timer.cancel()
        cancel.check()  # then it is we who hung up
        if self._stalled:
            raise StalledError(f"{self._path}: nothing came from the Xet storage for {self._window:.0f} s")
        if failed:
            raise failed
        return b""

    def close(self) -> None:
        """End it at once, also while another thread reads; may be called again."""
        with self._lock:
            if not self._over:
                self._over = True
                # Its name says signal, but all it does is to stop this session's own threads.
                self._session.sigint_abort()

    def _stall(self) -> None:
        self._stalled = True
        self.close()


def _library() -> ModuleType:
    """Return hf_xet; raises UnfitError if it is not there."""
    if "hf_xet" not in sys.modules:
        os.environ.setdefault("HF_XET_LOG_DEST", os.devnull)  # no log files in the user's cache
        os.environ.update(rust_threads(_THREADS))
    try:
        library = importlib.import_module("hf_xet")
    except ImportError as error:
        raise UnfitError(f"engine xet: hf_xet cannot be imported ({error}): {_INSTALL}") from error
    if not hasattr(library, "XetSession") or not hasattr(library, "XetConfig"):
        raise UnfitError(f"engine xet: the hf_xet that is installed is too old: {_INSTALL}")
    return library


def _config(library: ModuleType, patience: Patience, block: int) -> object:
    """Return hf_xet's settings with ours in them, but for groups that the user's environment sets."""
    config = library.XetConfig()
    known = set(config.keys())
    ours = {
        "reconstruction.min_reconstruction_fetch_size": block,
        "reconstruction.max_reconstruction_fetch_size": block,
        "reconstruction.min_prefetch_buffer": block,
        "reconstruction.download_buffer_size": AHEAD * block,
        "reconstruction.download_buffer_perfile_size": 0,
        "reconstruction.download_buffer_limit": AHEAD * block,
        "client.connect_timeout": f"{CONNECT_TIMEOUT:.0f}s",
        "client.read_timeout": f"{READ_TIMEOUT:.0f}s",
        "client.retry_max_attempts": 1,  # we go on by ourselves, and stop when told to
        "client.retry_base_delay": f"{patience.pause * 1000:.0f}ms",
        "telemetry.enabled": False,
    }
    return config.with_config(
        {key: value for key, value in ours.items() if key in known and not _set_by_user(key)}
    )


def _set_by_user(key: str) -> bool:
    start = f"HF_XET_{key.partition('.')[0].upper()}_"
    return any(name.startswith(start) for name in os.environ)


def _translated(error: Exception, path: str) -> TransferError:
    """Return our error for what the stream raised; the status, if there was one, is only in its text."""
    text = one_line(error)
    found = re.search(r"HTTP status \w+ error \((\d{3})\b", text)
    status = int(found[1]) if found else 0
    if status in (401, 403) or isinstance(error, PermissionError):
        return _TokenRefusedError(f"{path}: the Xet storage refuses our token: {text}")
    if status == 404 or isinstance(error, FileNotFoundError):
        return EngineError(f"{path}: the Xet storage does not have it: {text}")
    if status == 429:
        return RateLimitError(f"{path}: the Xet storage asks for a pause: {text}", DEFAULT_PAUSE)
    if status >= 500:
        return ServerError(f"{path}: the Xet storage has a problem: {text}")
    if isinstance(error, OSError):
        return NoAnswerError(f"{path}: hf_xet: {text}")
    return _BrokenError(f"{path}: hf_xet: {text}")
