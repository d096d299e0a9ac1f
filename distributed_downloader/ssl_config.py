"""The one place that builds HTTP clients: certificates, proxies, token, redirects."""

from __future__ import annotations

import logging
import os
import platform
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.util.ssl_ import create_urllib3_context

from distributed_downloader import __version__
from distributed_downloader.budget import Budgets
from distributed_downloader.cancel import Cancel
from distributed_downloader.checks import origin
from distributed_downloader.config.values import listed
from distributed_downloader.connection import proxy_for
from distributed_downloader.connections import Connections, Request, depth_behind
from distributed_downloader.errors import ConfigError, LocalError, NetworkError, RefusedError, ServerError
from distributed_downloader.imports import whole_imports
from distributed_downloader.reach import (
    NO_HOSTS,
    Depth,
    InnerHosts,
    has_plain_host,
    refuse_spelled,
)
from distributed_downloader.response import Response, redacted
from distributed_downloader.unexpected import dry

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
    with _certificates() as paths:
        for path in paths:
            _trust(context, path)
        if not paths:
            context.load_default_certs()
            # A system without certificates of its own (slim containers) still has these.
            context.load_verify_locations(cafile=_bundled())
    return context


def require_certificates() -> None:
    """Raise ConfigError if certificates that the environment names are not there; it takes no time."""
    with _certificates() as paths:
        for path in map(Path, paths):
            if not path.is_dir() and b"-----BEGIN " not in path.read_bytes():
                raise OSError("no certificate in PEM form is in it")


@contextmanager
def _certificates() -> Iterator[list[str]]:
    """Yield the files and folders of certificates that the environment names, [] for the system's.

    Raises ConfigError for what goes wrong with them.
    """
    name, bundles = "SSL_CERT_FILE and SSL_CERT_DIR", list[str]()
    paths = [path for path in map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")) if path]
    if not paths and (bundle := os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")):
        name, bundles = "REQUESTS_CA_BUNDLE", [bundle]
    try:
        yield paths or bundles
    except OSError as error:
        raise ConfigError(f"environment {name}: its certificates cannot be read: {error}") from error


def _bundled() -> str:
    """Return the file of certificates that comes with requests, which takes long to import."""
    with whole_imports():
        from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415
    return DEFAULT_CA_BUNDLE_PATH


def _trust(context: ssl.SSLContext, path: str) -> None:
    if Path(path).is_dir():
        context.load_verify_locations(capath=path)
    else:
        context.load_verify_locations(cafile=path)


class Tls:
    """A client's TLS settings, whose certificates are read when they are first needed: that takes a while.

    Raises ConfigError if those that the environment names are not there.
    """

    def __init__(self, *, verify: bool) -> None:
        self._verify, self._lock = verify, threading.Lock()
        self._context: ssl.SSLContext | None = None
        if verify:
            require_certificates()

    def context(self) -> ssl.SSLContext:
        """Return them, ready for use, to any thread; raises LocalError if they cannot be read."""
        with self._lock:
            if self._context is None:
                try:
                    self._context = tls_context(verify=self._verify)
                except ConfigError as error:
                    raise dry(error) or LocalError(str(error)) from error
            return self._context


class HttpClient:
    """HTTP for the hub and the hosts it sends us to; safe to share between threads."""

    def __init__(
        self,
        settings: HuggingFaceConfig,
        *,
        inner: InnerHosts = NO_HOSTS,
        budgets: Budgets | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        #: The hosts that may lie in a private network, whichever hub leads there.
        self.inner = inner
        #: What the hubs allow; every request to one takes from it.
        self.budgets = budgets or Budgets()
        self._token = settings.token.get_secret_value()
        self._trusted = trusted_origins(settings)
        self._allow_downgrade = urlsplit(settings.endpoint).scheme == "http"
        self._tls = Tls(verify=True)
        #: For the hub, and where it sends us, which may be its storage: for no other host, and no proxy.
        self._hub_tls = Tls(verify=False) if settings.disable_ssl_verify else self._tls
        self._connections = Connections(
            {origin(settings.endpoint): _endpoint_proxy(settings.endpoint)},
            self._tls,
            urllib3.Timeout(connect=connect_timeout, read=read_timeout),
        )

    @classmethod
    def of(
        cls, config: AppConfig, budgets: Budgets | None = None, read_timeout: float = READ_TIMEOUT
    ) -> HttpClient:
        """Return one as the settings of this machine want it."""
        inner = InnerHosts(listed(config.security.inner_hosts))
        return cls(config.huggingface, inner=inner, budgets=budgets, read_timeout=read_timeout)

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
        asked, depth = origin(url), None
        tls = self._hub_tls if asked in self._trusted else self._tls
        request = Request(method, headers or {}, body, cancel or Cancel(), tls)
        hops, visited = list[Mapping[str, str]](), {url}
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
        self.budgets.close()
        self._connections.close()

    def _limit(self, url: str, asked: str, depth: Depth | None) -> Depth:
        """Return how far in the host of a URL may lie: as far as the hub, which lies where the user likes."""
        if depth is None or self._is_hub(origin(url), asked):
            return Depth.HERE
        return self.inner.limit(url, depth)

    def _is_hub(self, where: str, asked: str) -> bool:
        """Return whether an origin is the hub that was asked, or one of this machine's own."""
        return where == asked or where in self._trusted

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
        self, request: Request, url: str, hops: list[Mapping[str, str]], asked: str, depth: Depth | None
    ) -> Response:
        where = origin(url)
        from_hub, token = self._is_hub(where, asked), self._token if where in self._trusted else ""
        headers = {**request.headers, **_OURS}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        taken = self.budgets.take(url, token, request.cancel) if from_hub else None
        try:
            raw = self._connections.send(request, url, headers, self._limit(url, asked, depth))
            if from_hub:
                self.budgets.learn(url, token, raw.headers)
        finally:
            self.budgets.done(taken)
        return Response(
            raw,
            url,
            hops,
            from_hub=from_hub,
            sent_token=bool(token),
            depth=depth_behind(raw.connection, url) if depth is None else depth,
            cancel=request.cancel,
        )


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
