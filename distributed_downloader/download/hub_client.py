"""The HTTP client that huggingface_hub uses here: it stops, slows down and gives up when we say so.

The library retries and sleeps on its own, up to minutes and deaf to any signal. So this client
raises our errors, which pass through the library untouched, for all that `retry.py` decides better.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from distributed_downloader.download.engine import Context
from distributed_downloader.download.hub_library import httpx
from distributed_downloader.download.watch import Patience, Watch
from distributed_downloader.errors import LocalError, NetworkError, RefusedError
from distributed_downloader.hub import problem
from distributed_downloader.ssl_config import origin, redacted, tls_context, trusted_origins

if TYPE_CHECKING:
    from distributed_downloader.config import HuggingFaceConfig
    from distributed_downloader.ssl_config import Response

_current = threading.local()


@contextmanager
def serving(context: Context) -> Iterator[None]:
    """Let the client's requests in this thread belong to `context`."""
    _current.context = context
    try:
        yield
    finally:
        del _current.context


@dataclass(frozen=True)
class _Answer:
    """What `problem` looks at."""

    status: int
    headers: Mapping[str, str]
    url: str
    from_hub: bool
    sent_token: bool


class HubClient(httpx.Client):
    """One for all threads and for good: the library closes its client under other threads' downloads."""

    def __init__(self, settings: HuggingFaceConfig) -> None:
        self._trusted = trusted_origins(settings)
        self._allow_downgrade = urlsplit(settings.endpoint).scheme == "http"
        tls = tls_context(verify=not settings.disable_ssl_verify)
        hooks = {"request": [self._prepare]}
        try:
            super().__init__(verify=tls, follow_redirects=True, timeout=None, event_hooks=hooks)
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
            raise NetworkError(f"{request.url.host}: {type(error).__name__}: {error}") from error
        if response.status_code >= 400:
            response.close()
            raise problem(cast("Response", self._answer(response, context)), context.task.file.path)
        if isinstance(response.stream, httpx.SyncByteStream):
            response.stream = _Stream(response.stream, response, context)
        return response

    def _send(self, request: httpx.Request, context: Context, options: dict[str, Any]) -> httpx.Response:
        """Send; once more if a kept connection turns out to have been closed by the server."""
        context.cancel.check()
        with suppress(httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            return super().send(request, **options)
        context.cancel.check()
        return super().send(request, **options)

    def close(self) -> None:
        """Do nothing; see `shut_down`."""

    def shut_down(self) -> None:
        """Close all connections."""
        super().close()

    def _prepare(self, request: httpx.Request) -> None:
        """Called for every request, redirects included."""
        self._refuse_downgrade(request)
        request.headers["Accept-Encoding"] = "identity"
        if not self.trusts(str(request.url)):
            request.headers.pop("Authorization", None)

    def _refuse_downgrade(self, request: httpx.Request) -> None:
        context: Context | None = getattr(_current, "context", None)
        if context is None or self._allow_downgrade or request.url.scheme != "http":
            return
        endpoint = context.task.spec.endpoint
        if urlsplit(endpoint).scheme == "https":
            raise RefusedError(f"{redacted(endpoint)}: redirects from https to http; that is not followed")

    def _answer(self, response: httpx.Response, context: Context) -> _Answer:
        url = str(response.url)
        return _Answer(
            response.status_code,
            response.headers,
            url,
            from_hub=self.trusts(url) or origin(url) == origin(context.task.spec.endpoint),
            sent_token="Authorization" in response.request.headers,
        )


class _Stream(httpx.SyncByteStream):
    """A body that reports progress, keeps to the throttle, and stops at once."""

    def __init__(self, inner: httpx.SyncByteStream, response: httpx.Response, context: Context) -> None:
        self._inner = inner
        self._context = context
        self._socket = _socket(response)
        part = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        self._done = int(part) if part.isdigit() else 0

    def __iter__(self) -> Iterator[bytes]:
        context = self._context
        watch = Watch(Patience(), context.task.file.path)
        with context.cancel.closing(self._hang_up):
            started = time.monotonic()
            for data in self._inner:
                context.cancel.check()
                watch.saw(len(data), time.monotonic() - started)
                self._done += len(data)
                context.progress(min(self._done, context.task.file.size))
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


def _socket(response: httpx.Response) -> socket.socket | None:
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream else None
    return found if isinstance(found, socket.socket) else None
