"""How a Redis with Sentinel is named: the addresses of its sentinels, and the service that they watch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

#: `redis+sentinel://[user:password@]host:port[,host:port...]/service[/db]`, or `rediss+sentinel://` with TLS.
_URL = re.compile(
    r"redis(?P<tls>s?)\+sentinel://"
    r"(?:(?P<username>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?"
    r"(?P<sentinels>[^@/?#]+)/(?P<service>[^/?#]+)(?:/(?P<db>\d*))?",
    re.ASCII,
)
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^\s:/@,\[\]'\"]+)(?::(?P<port>\d{1,5}))?", re.ASCII)
_PORT = 26379
#: What a service may be called: what Sentinel's own configuration takes.
SERVICE = r"^[\w.-]*$"


@dataclass(frozen=True)
class SentinelUrl:
    """What such a URL says; "" and None where it says nothing."""

    sentinels: str
    service: str
    tls: bool
    username: str
    password: str
    db: int | None


def is_sentinel_url(url: str) -> bool:
    """Return whether a URL is meant to name sentinels."""
    return re.match(r"rediss?\+sentinel:", url) is not None


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Return what a URL of sentinels says; raises ValueError, without what may be secret in it."""
    match = _URL.fullmatch(url)
    if match is None or not re.match(SERVICE, unquote(match["service"])):
        raise ValueError(
            "must be like redis+sentinel://user:password@host:26379,host:26379/service/0; "
            "percent-encode special characters in its password"
        )
    sentinel_addresses(match["sentinels"])
    return SentinelUrl(
        sentinels=match["sentinels"],
        service=unquote(match["service"]),
        tls=bool(match["tls"]),
        username=unquote(match["username"] or ""),
        password=unquote(match["password"] or ""),
        db=int(match["db"]) if match["db"] else None,
    )


def sentinel_addresses(text: str) -> tuple[tuple[str, int], ...]:
    """Return (host, port) of each sentinel in `host:port,[::1]:port,host`; raises ValueError."""
    found = [_ADDRESS.fullmatch(part.strip()) for part in text.split(",")]
    ports = [int(match["port"] or _PORT) for match in found if match]
    if None in found or not all(0 < port < 1 << 16 for port in ports):
        raise ValueError("must be host:port of each sentinel, with commas in between")
    return tuple((match["host"].strip("[]"), port) for match, port in zip(found, ports, strict=True) if match)
