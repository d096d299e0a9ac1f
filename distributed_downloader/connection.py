"""Connections that a stop signal can hang up on, and what their errors mean."""

from __future__ import annotations

import queue
import re
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from http.client import IncompleteRead
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

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
from distributed_downloader.errors import (
    LocalError,
    MuteError,
    NetworkError,
    NoAnswerError,
    NoConnectionError,
    StalledError,
    TransientError,
)
from distributed_downloader.imports import whole_imports
from distributed_downloader.pace import Answer, PacedAnswer
from distributed_downloader.reach import Depth, depth_of, refuse_connected

#: Hosts, and connections to each, that are kept open for the next request.
POOLS, POOL_SIZE = 32, 64

#: What OpenSSL makes of an answer in plain text.
_NO_TLS = re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST")

_current = threading.local()


@contextmanager
def listening(cancel: Cancel, limit: Depth = Depth.HERE) -> Iterator[None]:
    """Let `cancel` break the wait for an answer in this thread, which may come from `limit` at most."""
    _current.cancel, _current.limit = cancel, limit
    try:
        yield
    finally:
        _current.cancel = _current.limit = None


class Connection(HTTPConnection):
    """A connection that another thread can hang up, and that leads no further in than it may."""

    _line: object = None
    #: How far in the server lies; what is behind a proxy is for the proxy to judge.
    depth = Depth.PUBLIC
    #: Tells at once whether there is something to read, which nobody has asked for while it stands idle.
    _news: select.poll | None = None
    #: What the server says to the last request.
    answer: Answer | None = None

    def response_class(  # type: ignore[override]
        self,
        line: socket.socket,
        **named: Any,  # noqa: ANN401 handed on
    ) -> PacedAnswer:
        """Make what http.client reads an answer with."""
        answer = self.answer = PacedAnswer(line, **named)
        return answer

    def _new_conn(self) -> socket.socket:
        line = super()._new_conn()
        try:
            if self.proxy is None:
                self.depth = depth_of(str(line.getpeername()[0]))
            self._require_reach()
        except BaseException:
            line.close()
            raise
        return line

    def putrequest(
        self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False
    ) -> None:
        """Begin a request; raises NetworkError if the server lies further in than we may be sent."""
        self._require_reach()  # for it may be a kept one, which was another hub's to name
        super().putrequest(method, url, skip_host, skip_accept_encoding)

    @cached_property
    def spelled(self) -> str:
        """The server as `Host` spells it (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == self.default_port else f"{host}:{self.port}"

    def _require_reach(self) -> None:
        limit: Depth | None = getattr(_current, "limit", None)
        if limit is not None:
            refuse_connected(self.host, self.depth, limit)

    def connect(self) -> None:
        """Connect, and keep hold of the socket: urllib3 lets go of it when the answer ends the connection."""
        super().connect()
        self._line = self.sock
        self._news = select.poll()
        self._news.register(self.sock, select.POLLIN)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """Wait for the answer's headers, or for the stop signal."""
        cancel: Cancel | None = getattr(_current, "cancel", None)
        with cancel.closing(self.hang_up) if cancel else nullcontext():
            return super().getresponse()

    @property
    def is_connected(self) -> bool:
        """Whether it stands, and nothing came unasked, which the socket does not show behind TLS."""
        if self.sock is None or self._news is None:
            return False
        ahead = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        return not ahead and not self._news.poll(0)

    def drop(self) -> None:
        """Close it at once, in the middle of an answer too, which would else keep the line open."""
        self.close()
        if self.answer:
            self.answer.close()

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


class _Idle(queue.LifoQueue[Any]):
    """What stands idle in a pool, without the locks of a queue: our pools wait for no connection."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ANN401 as the queue has it
        """Return what was put here last; raises queue.Empty at once."""
        try:
            return self.queue.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ANN401
        """Keep something; raises queue.Full at once."""
        if len(self.queue) >= self.maxsize:
            raise queue.Full
        self.queue.append(item)


class Pool(HTTPConnectionPool):
    """The connections to one host, those that stand idle among them."""

    ConnectionCls, QueueCls = Connection, _Idle

    def standing(self) -> Connection | None:
        """Take a connection that stands idle, if there is one; it must be given back."""
        try:
            connection: Connection | None = idle.get() if (idle := self.pool) else None
        except queue.Empty:
            return None
        if connection and connection.is_connected:
            return connection
        if connection:
            connection.close()
        self.give_back(connection)
        return None

    def give_back(self, connection: Connection | None) -> None:
        """Keep a connection for the next request, None for one that is still to be made."""
        self._put_conn(connection)


class TLSPool(Pool, HTTPSConnectionPool):
    """The same for https."""

    ConnectionCls = TLSConnection


def install(manager: PoolManager) -> PoolManager:
    """Make a pool manager use these connections."""
    manager.pool_classes_by_scheme = {"http": Pool, "https": TLSPool}
    return manager


def new_manager(proxy: str, tls: ssl.SSLContext | None, proxy_tls: ssl.SSLContext | None) -> PoolManager:
    """Return connections through a proxy, whose own TLS is `proxy_tls`, or direct ones if it is "".

    Without `tls` they are for http only.
    """
    if not proxy:
        return install(PoolManager(POOLS, maxsize=POOL_SIZE, ssl_context=tls))
    parts = urlsplit(proxy)
    login = {}
    if parts.username and parts.password is not None:
        login = make_headers(proxy_basic_auth=f"{unquote(parts.username)}:{unquote(parts.password)}")
    return install(
        ProxyManager(
            proxy,
            POOLS,
            proxy_headers=login,
            proxy_ssl_context=proxy_tls,
            maxsize=POOL_SIZE,
            ssl_context=tls,
        )
    )


def proxy_for(url: str) -> str:
    """Return the proxy that the environment names for a URL, "" for none; raises LocalError."""
    proxy = _environ_proxy(url) if getproxies() else ""
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise LocalError(
            f"the proxy for {urlsplit(url).hostname} is a {urlsplit(proxy).scheme}:// address; only "
            "http:// and https:// proxies can be used; see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
        )
    return proxy


def _environ_proxy(url: str) -> str:
    """Return the proxy for a URL, or ""; by requests' rules, which take long to import."""
    with whole_imports():
        from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415
    return select_proxy(url, get_environ_proxies(url)) or ""


def unanswered(error: Exception, url: str) -> TransientError:
    """Return our error for a request that got no answer, from what urllib3 or a socket said.

    It names the host, never the whole address.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "the server"
    if isinstance(error, ProxyError):
        why = f"the proxy cannot be used: {_why(error)}; see HTTP_PROXY, HTTPS_PROXY"
    elif isinstance(error, SSLError):
        why = f"no secure connection: {_why_not_secure(error)}"
    elif isinstance(error, (NewConnectionError, ConnectTimeoutError)):  # an unknown name is one of these
        why = _why(error)
    else:
        kind = MuteError if isinstance(error, ReadTimeoutError) else NoAnswerError
        return kind(str(broken_off(error, url)))
    return NoConnectionError(f"{host}: {why}", f"{parts.scheme}://{host}", passes=not _is_lasting(error))


def broken_off(error: Exception, url: str) -> TransientError:
    """Return our error for an answer that does not go on, from what urllib3 or a socket said."""
    host = urlsplit(url).netloc.rpartition("@")[2] or "the server"
    if isinstance(error, (ReadTimeoutError, TimeoutError)):
        return StalledError(f"{host}: the connection is open, but nothing comes")
    return NetworkError(f"{host}: {_why(error)}")


def _is_lasting(error: Exception) -> bool:
    """Return whether somebody has to change something: a certificate, a login, a scheme."""
    return (
        _is_refused(error)
        or bool(_NO_TLS.search(str(error)))
        or "Proxy Authentication Required" in str(error)
    )


def _why_not_secure(error: Exception) -> str:
    if _NO_TLS.search(str(error)):
        return "the server there speaks no TLS; is it http://?"
    inspected = (
        "; if your network inspects TLS, name its certificate in SSL_CERT_FILE, or set disable_ssl_verify "
        "(for the worker's own endpoint)"
    )
    return f"{_why(error)}{inspected if _is_refused(error) else ''}"


def _is_refused(error: Exception) -> bool:
    """Return whether it is the certificate that is not accepted."""
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error))


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
