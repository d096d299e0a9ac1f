"""The connections of an HTTP client, and the way a request takes over them.

Over a connection that stands, it takes the short way (kept.py); all else is urllib3's: new connections,
proxies, and whatever is not plain.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.client import RemoteDisconnected
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, ProxyError

from distributed_downloader.cancel import Cancel
from distributed_downloader.checks import origin
from distributed_downloader.connection import (
    POOLS,
    Connection,
    Pool,
    listening,
    new_manager,
    proxy_for,
    unanswered,
)
from distributed_downloader.errors import NetworkError
from distributed_downloader.kept import Kept, ask
from distributed_downloader.reach import Depth, spelled_depth

if TYPE_CHECKING:
    from distributed_downloader.ssl_config import Tls


class Request(NamedTuple):
    """What is sent again at each redirect."""

    method: str
    headers: Mapping[str, str]
    body: bytes | None
    cancel: Cancel
    tls: Tls

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to send but a head."""
        return self.method == "GET" and self.body is None


class Connections:
    """Connections to any host, kept for the next request; safe to share between threads."""

    def __init__(self, proxies: dict[str, str], proxy_tls: Tls, timeout: urllib3.Timeout) -> None:
        """`proxies`: origin -> the proxy that is known already, "" for none; others are looked up."""
        self._proxies, self._proxy_tls, self._timeout = proxies, proxy_tls, timeout
        self._lock = threading.Lock()
        #: Proxy URL, "" for none, and TLS settings, None for http -> connections.
        self._managers: dict[tuple[str, Tls | None], urllib3.PoolManager] = {}
        #: Origin and TLS settings -> the connections of a host that is reached without a proxy.
        self._direct: dict[tuple[str, Tls], Pool] = {}

    def send(
        self, request: Request, url: str, headers: Mapping[str, str], limit: Depth
    ) -> urllib3.BaseHTTPResponse | Kept:
        """Send a request to a URL, whose host may lie `limit` deep.

        Once more if a kept connection turns out to have been closed by the server. Raises NetworkError (no
        connection, TLS, proxy), StalledError (no answer in time), LocalError (a proxy of a kind that we
        cannot use) and StoppedError.
        """
        try:
            return self._send_once(request, url, headers, limit)
        except NetworkError as error:
            if not _hung_up(error.__cause__):
                raise
        return self._send_once(request, url, headers, limit)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._direct.clear()
        for manager in self._managers.values():
            # The library leaves this to the garbage collector, and the trace of an error may know a pool.
            for pool in map(manager.pools.get, manager.pools.keys()):
                if pool:
                    pool.close()
            manager.clear()

    def _send_once(
        self, request: Request, url: str, headers: Mapping[str, str], limit: Depth
    ) -> urllib3.BaseHTTPResponse | Kept:
        request.cancel.check()
        try:
            pool = self._direct.get((origin(url), request.tls)) if request.is_plain else None
            if pool and (kept := ask(pool, url, headers, limit, request.cancel)):
                return kept
            with listening(request.cancel, limit):
                return self._by_library(request, url, headers)
        except (HTTPError, OSError) as error:
            request.cancel.check()
            raise unanswered(error, url) from error

    def _by_library(self, request: Request, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        where = origin(url)
        proxy = self._proxies.get(where)
        if proxy is None:
            proxy = self._proxies[where] = proxy_for(url)
        manager = self._manager(proxy, request.tls if where.startswith("https:") else None)
        response = manager.request(
            request.method,
            url,
            headers=headers,
            body=request.body,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=self._timeout,
        )
        if not proxy:
            self._remember(where, request.tls, manager.connection_from_url(url))
        return response

    def _remember(self, where: str, tls: Tls, pool: urllib3.HTTPConnectionPool) -> None:
        """Know where the connections of a host are kept; no more such pools than the library keeps."""
        assert isinstance(pool, Pool)
        with self._lock:
            if len(self._direct) >= POOLS:
                self._direct.clear()
            self._direct[where, tls] = pool

    def _manager(self, proxy: str, tls: Tls | None) -> urllib3.PoolManager:
        """Return direct connections, or those through a proxy."""
        with self._lock:
            if (proxy, tls) not in self._managers:
                context = tls.context() if tls else None
                own = self._proxy_tls.context() if urlsplit(proxy).scheme == "https" else None
                self._managers[proxy, tls] = new_manager(proxy, context, own)
            return self._managers[proxy, tls]


def depth_behind(connection: object, url: str) -> Depth:
    """Return how far in the server lies that answered; behind a proxy, only its address tells."""
    if isinstance(connection, Connection) and connection.proxy is None:
        return connection.depth
    return spelled_depth(url)


def _hung_up(error: BaseException | None) -> bool:
    """Return whether the other end closed a line that stood; urllib3 takes that for a proxy's refusal."""
    by_proxy = isinstance(error, ProxyError) and isinstance(error.original_error, RemoteDisconnected)
    return by_proxy or isinstance(error, ProtocolError)
