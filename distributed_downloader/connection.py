"""Connections that a stop signal can hang up on, and what their errors mean."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.client import IncompleteRead
from typing import Any
from urllib.parse import urlsplit

import requests.utils
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import HTTPResponse
from urllib3.util import make_headers

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import LocalError, NetworkError, StalledError, TransientError

#: Hosts, and connections to each, that are kept open for the next request.
POOLS, POOL_SIZE = 32, 64

_current = threading.local()


@contextmanager
def listening(cancel: Cancel) -> Iterator[None]:
    """Let `cancel` break the wait for an answer in this thread."""
    _current.cancel = cancel
    try:
        yield
    finally:
        _current.cancel = None


class Connection(HTTPConnection):
    """A connection that another thread can hang up."""

    _line: object = None

    def connect(self) -> None:
        """Connect, and keep hold of the socket: urllib3 lets go of it when the answer ends the connection."""
        super().connect()
        self._line = self.sock

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """Wait for the answer's headers, or for the stop signal."""
        cancel: Cancel | None = getattr(_current, "cancel", None)
        with cancel.closing(self.hang_up) if cancel else nullcontext():
            return super().getresponse()

    def hang_up(self) -> None:
        """Wake whoever is blocked on the socket."""
        if isinstance(self._line, socket.socket):
            # Not SSLSocket's own shutdown: that would let its reader see the encrypted bytes.
            with suppress(OSError):
                socket.socket.shutdown(self._line, socket.SHUT_RDWR)


class TLSConnection(Connection, HTTPSConnection):
    """The same for https."""

    def connect(self) -> None:
        """Connect; without a warning for each connection if the user chose not to verify."""
        super().connect()
        if self.ssl_context is not None and self.ssl_context.verify_mode == ssl.CERT_NONE:
            self.is_verified = True


class _Pool(HTTPConnectionPool):
    ConnectionCls = Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = TLSConnection


def install(manager: PoolManager) -> PoolManager:
    """Make a pool manager use these connections."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return manager


def new_manager(proxy: str, tls: ssl.SSLContext) -> PoolManager:
    """Return connections that go through a proxy, or directly if it is ""."""
    if not proxy:
        return install(PoolManager(POOLS, maxsize=POOL_SIZE, ssl_context=tls))
    user, password = requests.utils.get_auth_from_url(proxy)
    login = make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
    return install(
        ProxyManager(
            proxy,
            POOLS,
            proxy_headers=login,
            proxy_ssl_context=tls,
            maxsize=POOL_SIZE,
            ssl_context=tls,
        )
    )


def proxy_for(url: str) -> str:
    """Return the proxy that the environment names for a URL, "" for none; raises LocalError."""
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)) or ""
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise LocalError(
            f"the proxy for {urlsplit(url).hostname} is a {urlsplit(proxy).scheme}:// address; only "
            "http:// and https:// proxies can be used; see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
        )
    return proxy


def network_error(error: Exception, url: str) -> TransientError:
    """Return our error for what urllib3 or a socket said; names the host, never the whole address."""
    host = urlsplit(url).netloc.rpartition("@")[2] or "the server"
    if isinstance(error, ReadTimeoutError):
        return StalledError(f"{host}: the connection is open, but nothing comes")
    if isinstance(error, ProxyError):
        return NetworkError(f"{host}: the proxy cannot be used: {_why(error)}; see HTTP_PROXY, HTTPS_PROXY")
    if isinstance(error, SSLError):
        return NetworkError(
            f"{host}: no secure connection: {_why(error)}; if your network inspects TLS, name its "
            "certificate in SSL_CERT_FILE, or set disable_ssl_verify"
        )
    return NetworkError(f"{host}: {_why(error)}")


def _why(error: Exception) -> str:
    """Return the reason at the bottom of an error, in words without addresses."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({cause.verify_message})"
        if isinstance(cause, NameResolutionError):
            return "the host name is not known"
        if isinstance(cause, ConnectTimeoutError) and not isinstance(cause, NewConnectionError):
            return "no connection in time"
        if isinstance(cause, IncompleteRead):
            return "the connection ended too early"
    cause = chain[-1]
    text = cause.strerror or str(cause) if isinstance(cause, OSError) else ""
    return (text or type(cause).__name__).lower()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it wraps; urllib3 hides some of it in `args`."""
    while error is not None:
        yield error
        inner: Any = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = inner or error.__cause__ or error.__context__
