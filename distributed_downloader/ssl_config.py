"""The one place that builds HTTP clients: certificates, proxies, token, redirects."""

from __future__ import annotations

import logging
import os
import platform
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests.utils
import urllib3
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util.ssl_ import create_urllib3_context

from distributed_downloader import __version__
from distributed_downloader.cancel import Cancel
from distributed_downloader.checks import origin
from distributed_downloader.config.values import listed
from distributed_downloader.connection import Connection, listening, new_manager, proxy_for, unanswered
from distributed_downloader.errors import ConfigError, LocalError, NetworkError, RefusedError, ServerError
from distributed_downloader.reach import (
    NO_HOSTS,
    Depth,
    InnerHosts,
    has_plain_host,
    refuse_spelled,
    spelled_depth,
)
from distributed_downloader.response import Response, redacted

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig, HuggingFaceConfig

#: The hub itself; its token is good there whatever mirror is configured.
HUB = "https://huggingface.co"
#: Redirects to follow in one request.
MAX_REDIRECTS = 20
#: Seconds for a connection to be made.
CONNECT_TIMEOUT = 10.0
#: Seconds without a single byte.
READ_TIMEOUT = 30.0

_OURS = {
    "Accept-Encoding": "identity",  # CloudFront ignores the ranges of whoever takes gzip
    "User-Agent": f"hf-downloader/{__version__} python/{platform.python_version()}",
}
_REDIRECTS = (301, 302, 303, 307, 308)

# Its DEBUG lines hold signed addresses.
logging.getLogger("urllib3").setLevel(logging.INFO)


def trusted_origins(settings: HuggingFaceConfig) -> frozenset[str]:
    """Return where the token may be sent: the configured endpoint and the hub itself."""
    return frozenset((origin(settings.endpoint), origin(HUB)))


def tls_context(*, verify: bool) -> ssl.SSLContext:
    """Return a client's TLS settings: the system's certificates and requests' own, or none at all.

    SSL_CERT_FILE and SSL_CERT_DIR replace them, else REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE (a file or
    folder). Raises ConfigError if what they name cannot be read.
    """
    context = create_urllib3_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    ours = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    bundle = "" if ours else os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    try:
        if bundle:
            _trust(context, bundle)
        else:
            _trust_system(context)
    except OSError as error:
        name = "REQUESTS_CA_BUNDLE" if bundle else "SSL_CERT_FILE and SSL_CERT_DIR"
        raise ConfigError(f"environment {name}: its certificates cannot be read: {error}") from error
    return context


def _trust(context: ssl.SSLContext, path: str) -> None:
    if Path(path).is_dir():
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)


def _trust_system(context: ssl.SSLContext) -> None:
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    for path in filter(None, (file, folder)):
        _trust(context, path)
    if not (file or folder):
        context.load_default_certs()
        # A system without certificates of its own (slim containers) still has these.
        context.load_verify_locations(cafile=requests.utils.DEFAULT_CA_BUNDLE_PATH)


@dataclass(frozen=True)
class _Request:
    """What is sent again at each redirect."""

    method: str
    headers: Mapping[str, str]
    body: bytes | None
    cancel: Cancel
    tls: ssl.SSLContext


class HttpClient:
    """HTTP for the hub and the hosts it sends us to; safe to share between threads."""

    def __init__(
        self,
        settings: HuggingFaceConfig,
        *,
        inner: InnerHosts = NO_HOSTS,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        #: The hosts that may lie in a private network, whichever hub leads there.
        self.inner = inner
        self._token = settings.token.get_secret_value()
        self._trusted = trusted_origins(settings)
        self._allow_downgrade = urlsplit(settings.endpoint).scheme == "http"
        self._timeout = urllib3.Timeout(connect=connect_timeout, read=read_timeout)
        self._lock = threading.Lock()
        self._tls = tls_context(verify=True)
        #: For the hub, and where it sends us, which may be its storage: for no other host, and no proxy.
        self._hub_tls = tls_context(verify=False) if settings.disable_ssl_verify else self._tls
        #: Proxy URL, "" for none, and TLS settings -> connections.
        self._managers: dict[tuple[str, ssl.SSLContext], urllib3.PoolManager] = {}
        #: Origin -> the proxy that the environment names for it.
        self._proxies = {origin(settings.endpoint): _endpoint_proxy(settings.endpoint)}

    @classmethod
    def of(cls, config: AppConfig) -> HttpClient:
        """Return one as the settings of this machine want it."""
        return cls(config.huggingface, inner=InnerHosts(listed(config.security.inner_hosts)))

    def trusts(self, url: str) -> bool:
        """Return whether the token may be sent there."""
        return origin(url) in self._trusted

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cancel: Cancel | None = None,
    ) -> Response:
        """Send a request, follow its redirects, return the answer whatever its status.

        Raises NetworkError (no connection, TLS, proxy), StalledError (no answer in time),
        ServerError (a redirect to no address), RefusedError (to somewhere we do not go), LocalError
        (a proxy of a kind that we cannot use) and StoppedError.
        """
        tls = self._hub_tls if self.trusts(url) else self._tls
        request = _Request(method, headers or {}, body, cancel or Cancel(), tls)
        hops: list[Mapping[str, str]] = []
        visited, asked, depth = {url}, origin(url), None
        while True:
            response = self._answer(request, url, hops, asked, depth)
            depth = response.depth
            target = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not target:
                return response
            response.close()
            hops.append(response.headers)
            target = _absolute(url, target)
            url = self._next(url, target, self._limit(target, asked, depth))
            if url in visited or len(hops) > MAX_REDIRECTS:
                raise NetworkError(f"{redacted(url)}: redirects in a circle; is the endpoint right?")
            visited.add(url)

    def close(self) -> None:
        """Close the connections that are not in use."""
        for manager in self._managers.values():
            manager.clear()

    def _limit(self, url: str, asked: str, depth: Depth | None) -> Depth:
        """Return how far in the host of a URL may lie: as far as the hub, which lies where the user likes."""
        if depth is None or self.trusts(url) or origin(url) == asked:
            return Depth.HERE
        return self.inner.limit(url, depth)

    def _next(self, url: str, target: str, limit: Depth) -> str:
        """Return where a redirect leads; raises RefusedError if we do not go there."""
        scheme = urlsplit(target).scheme
        if scheme not in ("http", "https"):
            raise RefusedError(f"{redacted(url)}: redirects to a {scheme}: address; that is not followed")
        if urlsplit(url).scheme == "https" and scheme == "http" and not self._allow_downgrade:
            raise RefusedError(f"{redacted(url)}: redirects from https to http; that is not followed")
        refuse_spelled(target, limit)
        return target

    def _answer(
        self, request: _Request, url: str, hops: list[Mapping[str, str]], asked: str, depth: Depth | None
    ) -> Response:
        trusted = self.trusts(url)
        headers = {**request.headers, **_OURS}
        if trusted and self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        raw = self._send(request, url, headers, self._limit(url, asked, depth))
        return Response(
            raw,
            url,
            hops,
            from_hub=trusted or origin(url) == asked,
            sent_token=trusted and bool(self._token),
            depth=_depth(raw, url) if depth is None else depth,
            cancel=request.cancel,
        )

    def _send(
        self, request: _Request, url: str, headers: dict[str, str], limit: Depth
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; once more if a kept connection turns out to have been closed by the server."""
        try:
            return self._send_once(request, url, headers, limit)
        except NetworkError as error:
            if not isinstance(error.__cause__, ProtocolError):
                raise
        return self._send_once(request, url, headers, limit)

    def _send_once(
        self, request: _Request, url: str, headers: dict[str, str], limit: Depth
    ) -> urllib3.BaseHTTPResponse:
        request.cancel.check()
        try:
            with listening(request.cancel, limit):
                return self._manager(url, request.tls).request(
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
        except (HTTPError, OSError) as error:
            request.cancel.check()
            raise unanswered(error, url) from error

    def _manager(self, url: str, tls: ssl.SSLContext) -> urllib3.PoolManager:
        """Return the connections for a URL: direct ones, or its proxy's."""
        where = origin(url)
        proxy = self._proxies.get(where)
        if proxy is None:
            proxy = self._proxies[where] = proxy_for(url)
        with self._lock:
            if (proxy, tls) not in self._managers:
                self._managers[proxy, tls] = new_manager(proxy, tls, self._tls)
            return self._managers[proxy, tls]


def _depth(raw: urllib3.BaseHTTPResponse, url: str) -> Depth:
    """Return how far in the server lies that answered; behind a proxy, only its address tells."""
    connection = raw.connection
    if isinstance(connection, Connection) and connection.proxy is None:
        return connection.depth
    return spelled_depth(url)


def _endpoint_proxy(endpoint: str) -> str:
    """Return the endpoint's proxy; raises ConfigError early for one that no request could use."""
    try:
        return proxy_for(endpoint)
    except LocalError as error:
        raise ConfigError(f"environment: {error}") from error


def _absolute(url: str, target: str) -> str:
    """Return where a `Location` leads; raises ServerError if that is no address."""
    with suppress(UnicodeError):
        target = target.encode("latin-1").decode("utf-8")  # http.client takes all headers for Latin-1
    try:
        target = urljoin(url, target)
        parts = urlsplit(target)
        named = bool(parts.hostname) and has_plain_host(target)
        usable = parts.port != 0 and (named or parts.scheme not in ("http", "https"))
    except ValueError:
        usable = False
    if not usable:
        raise ServerError(f"{redacted(url)}: redirects to something that is no address")
    return target
