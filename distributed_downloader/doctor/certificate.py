"""Whose certificate a server shows, whether or not it is one to trust; nothing is said to that server."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from urllib3.util import make_headers

#: Seconds for each of two connections.
_SECONDS = 5.0
#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for: one that is over can be read, too.
_NO_CHECK_TIME = 0x200000


class Certificate(NamedTuple):
    """What a certificate says."""

    #: Who vouches for it.
    issuer: str
    #: Unix time of its end.
    until: float


def presented(url: str, proxy: str) -> Certificate | None:
    """Return the certificate of a server, asked through a proxy unless that is ""; None if it shows none.

    Python reads no certificate but one that it has found right. So the one that was shown is made the only
    one that is trusted, for a second connection.
    """
    if urlsplit(proxy).scheme == "https":
        return None  # TLS within TLS is more than http.client can do
    try:
        with _connected(url, proxy, _trusting_all()) as line:
            shown = line.getpeercert(binary_form=True) or b""
        with _connected(url, proxy, _trusting(shown)) as line:
            about: Any = line.getpeercert()
    except (OSError, HTTPException, ValueError):
        return None
    return Certificate(_name(about["issuer"]), ssl.cert_time_to_seconds(about["notAfter"]))


@contextmanager
def _connected(url: str, proxy: str, tls: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    server, way = urlsplit(url), urlsplit(proxy or url)
    connection = HTTPSConnection(str(way.hostname), way.port, timeout=_SECONDS, context=tls)
    if proxy:
        login = f"{unquote(way.username or '')}:{unquote(way.password or '')}" if way.username else None
        headers = make_headers(proxy_basic_auth=login)
        connection.set_tunnel(str(server.hostname), server.port or 443, headers)
    with closing(connection):
        connection.connect()
        yield connection.sock


def _trusting_all() -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


def _trusting(shown: bytes) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.load_verify_locations(cadata=shown)
    tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return tls


def _name(parts: Any) -> str:  # noqa: ANN401 as ssl has it
    """Return `common name (organisation)`."""
    found = {key: value for part in parts for key, value in part}
    common, organisation = found.get("commonName", ""), found.get("organizationName", "")
    return f"{common} ({organisation})" if common and organisation else common or organisation or "nobody"
