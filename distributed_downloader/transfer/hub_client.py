"""The HTTP client that huggingface_hub uses here: it stops, slows down and gives up when we say so.

The library retries and sleeps on its own, up to minutes and deaf to any signal. So this client
raises our errors, which pass through the library untouched, for all that `retry.py` decides better.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from distributed_downloader.budget import Budgets
from distributed_downloader.checks import origin
from distributed_downloader.connection import proxy_for
from distributed_downloader.errors import (
    CorruptError,
    EngineError,
    LocalError,
    NetworkError,
    NoAnswerError,
    NoConnectionError,
    RefusedError,
)
from distributed_downloader.hub import problem
from distributed_downloader.reach import (
    NO_HOSTS,
    Depth,
    InnerHosts,
    depth_of,
    refuse_connected,
    refuse_spelled,
    spelled_depth,
)
from distributed_downloader.response import redacted
from distributed_downloader.ssl_config import tls_context, trusted_origins
from distributed_downloader.transfer.answer import check_commit, refuse_compressed
from distributed_downloader.transfer.engine import Context
from distributed_downloader.transfer.hub_library import httpx
from distributed_downloader.transfer.watch import Patience, Watch

if TYPE_CHECKING:
    from distributed_downloader.config import HuggingFaceConfig
    from distributed_downloader.response import Response

_current = threading.local()
#: What the library may name a file after.
_ETAG = re.compile(r"""(?:W/)?"?\w[\w.:+=-]{0,199}"?""", re.ASCII)


@contextmanager
def serving(context: Context) -> Iterator[None]:
    """Let the client's requests in this thread belong to `context`."""
    _current.context, _current.depth, _current.taken = context, Depth.PUBLIC, None
    try:
        yield
    finally:
        del _current.context


@dataclass(frozen=True)
class _Answer:
    """What `problem` and `check_commit` look at."""

    status: int
    headers: Mapping[str, str]
    hops: list[Mapping[str, str]]
    url: str
    from_hub: bool
    sent_token: bool


class HubClient(httpx.Client):
    """One for all threads and for good: the library closes its client under other threads' downloads."""

    def __init__(
        self, settings: HuggingFaceConfig, inner: InnerHosts = NO_HOSTS, budgets: Budgets | None = None
    ) -> None:
        self._inner = inner
        self._budgets = budgets or Budgets()
        self._trusted = trusted_origins(settings)
        self._allow_downgrade = urlsplit(settings.endpoint).scheme == "http"
        hooks: dict[str, list[Callable[..., Any]]] = {
            "request": [self._prepare],
            "response": [self._learn],
        }
        options: dict[str, Any] = {"follow_redirects": True, "timeout": None, "event_hooks": hooks}
        unchecked = settings.disable_ssl_verify
        try:
            super().__init__(verify=tls_context(verify=True), **options)
            #: For the hub, and where it sends us, where the user wants no certificates checked.
            self._unchecked = httpx.Client(verify=tls_context(verify=False), **options) if unchecked else None
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise LocalError(
                "huggingface_hub cannot use a proxy that the environment names; "
                "see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
            ) from error

    def trusts(self, url: str) -> bool:
        """Return whether the token may be sent there."""
        return origin(url) in self._trusted

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # noqa: ANN401
        """Send a request for the current context; raises our errors for all but 2xx and 3xx."""
        context: Context | None = getattr(_current, "context", None)
        if context is None:
            return super().send(request, **options)
        try:
            response = self._send(request, context, options)
        except httpx.TransportError as error:
            context.cancel.check()
            raise _network_error(error, request) from error
        finally:
            self._landed()
        if response.status_code >= 400:
            response.close()
            raise problem(self._answer(response, context), context.task.file.path)
        self._judge(response, context)
        if isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _Stream(response.stream, response, context)
        return response

    def _send(self, request: httpx.Request, context: Context, options: dict[str, Any]) -> httpx.Response:
        """Send; once more if a kept connection turns out to have been closed by the server."""
        context.cancel.check()
        trusted = self.trusts(context.task.spec.endpoint)
        send = self._unchecked.send if self._unchecked and trusted else super().send
        with suppress(httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            return send(request, **options)
        context.cancel.check()
        return send(request, **options)

    def close(self) -> None:
        """Do nothing; see `shut_down`."""

    def shut_down(self) -> None:
        """Close all connections."""
        super().close()
        if self._unchecked:
            self._unchecked.close()

    def _prepare(self, request: httpx.Request) -> None:
        """Called for every request, redirects included."""
        self._refuse_downgrade(request)
        self._refuse_reach(request)
        request.headers["Accept-Encoding"] = "identity"
        if not self.trusts(str(request.url)):
            request.headers.pop("Authorization", None)
        context: Context | None = getattr(_current, "context", None)
        if context and self._chosen(str(request.url), context):
            self._landed()
            _current.taken = self._budgets.take(str(request.url), _token(request), context.cancel)

    def _refuse_downgrade(self, request: httpx.Request) -> None:
        context: Context | None = getattr(_current, "context", None)
        if context is None or self._allow_downgrade or request.url.scheme != "http":
            return
        endpoint = context.task.spec.endpoint
        if urlsplit(endpoint).scheme == "https":
            raise RefusedError(f"{redacted(endpoint)}: redirects from https to http; that is not followed")

    def _refuse_reach(self, request: httpx.Request) -> None:
        """Let a request lead no further in than the hub lies, as `connection.py` does."""
        context: Context | None = getattr(_current, "context", None)
        url = str(request.url)
        if context is None or self._chosen(url, context):
            return
        request.headers["Connection"] = "close"  # a kept one would not be looked at again
        limit = self._inner.limit(url, _current.depth)
        refuse_spelled(url, limit)
        if not proxy_for(url):
            look = partial(_refuse_connected, request.url.host, limit)
            request.extensions = {**request.extensions, "trace": look}

    def _learn(self, response: httpx.Response) -> None:
        """Called for every answer: remember how far in the hub lies, and what it still allows."""
        context: Context | None = getattr(_current, "context", None)
        url = str(response.url)
        if context is None or not self._chosen(url, context):
            return
        self._budgets.learn(url, _token(response.request), response.headers)
        self._landed()
        line = _socket(response)
        direct = line is not None and not proxy_for(url)
        _current.depth = depth_of(_peer(line)) if line and direct else spelled_depth(url)

    def _landed(self) -> None:
        """A request has come to its end, with an answer or without."""
        self._budgets.done(_current.taken)
        _current.taken = None

    def _chosen(self, url: str, context: Context) -> bool:
        """Return whether it is the user who chose the host, and not a hub."""
        return self.trusts(url) or origin(url) == origin(context.task.spec.endpoint)

    def _judge(self, response: httpx.Response, context: Context) -> None:
        """Raise EngineError or CorruptError for what the library would take, and we do not."""
        path = context.task.file.path
        check_commit(self._answer(response, context), context.task)
        refuse_compressed(response.headers, path)
        etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag", "")
        if response.request.method == "HEAD" and etag and not _ETAG.fullmatch(etag):
            raise EngineError(f"{path}: the hub's ETag is {etag[:80]!a}, and no file can be named so")

    def _answer(self, response: httpx.Response, context: Context) -> Response:
        url = str(response.url)
        answer = _Answer(
            response.status_code,
            response.headers,
            [earlier.headers for earlier in response.history],
            url,
            from_hub=self._chosen(url, context),
            sent_token="Authorization" in response.request.headers,
        )
        return cast("Response", answer)


class _Stream(httpx.SyncByteStream):
    """A body that reports progress, keeps to the throttle, and stops at once."""

    def __init__(self, inner: httpx.SyncByteStream, response: httpx.Response, context: Context) -> None:
        self._inner = inner
        self._context = context
        self._socket = _socket(response)
        part = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        self._done = int(part) if re.fullmatch(r"\d{1,19}", part, re.ASCII) else 0

    def __iter__(self) -> Iterator[bytes]:
        context, file = self._context, self._context.task.file
        watch = Watch(Patience(), file.path)
        with context.cancel.closing(self._hang_up):
            started = time.monotonic()
            for data in self._inner:
                context.cancel.check()
                watch.saw(len(data), time.monotonic() - started)
                self._done += len(data)
                if self._done > file.size:
                    raise CorruptError(f"{file.path}: more came than the {file.size} bytes the hub lists")
                context.progress(self._done)
                context.throttle.take(len(data), context.cancel)
                yield data
                started = time.monotonic()

    def close(self) -> None:
        """Give the connection back."""
        self._inner.close()

    def _hang_up(self) -> None:
        if self._socket:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _token(request: httpx.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _network_error(error: httpx.TransportError, request: httpx.Request) -> NetworkError:
    """Return our error for a request, or a redirect of it, that got no answer."""
    with suppress(RuntimeError):  # what has no request of its own
        request = error.request
    text = f"{request.url.host}: {type(error).__name__}: {error}"
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return NoConnectionError(text, origin(str(request.url)))
    broken = isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError))
    return NoAnswerError(text) if broken else NetworkError(text)


def _refuse_connected(host: str, limit: Depth, event: str, info: Mapping[str, Any]) -> None:
    """Called by httpx for all it does: hang up on a server that lies too far in, before a word is said."""
    if event == "connection.connect_tcp.complete":
        stream = info["return_value"]
        try:
            refuse_connected(host, depth_of(stream.get_extra_info("server_addr")[0]), limit)
        except NetworkError:
            stream.close()
            raise


def _peer(line: socket.socket) -> str:
    """Return the address at the other end; raises httpx.ReadError if it has hung up already."""
    try:
        return str(line.getpeername()[0])
    except OSError as error:
        raise httpx.ReadError(str(error)) from error


def _socket(response: httpx.Response) -> socket.socket | None:
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream else None
    return found if isinstance(found, socket.socket) else None
