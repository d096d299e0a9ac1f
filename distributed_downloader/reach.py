"""How far inside a network an address lies: a hub may send us no further in than it lies itself."""

from __future__ import annotations

import enum
import socket
import unicodedata
from collections.abc import Iterable
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from distributed_downloader.errors import NetworkError, RefusedError


class Depth(enum.IntEnum):
    """How few can reach an address: anybody, those in a private network, or this machine and its link."""

    PUBLIC = 0
    PRIVATE = 1
    HERE = 2


#: Loopback, link-local, multicast, and where clouds tell a machine its own secrets. 198.18.0.0/15 and
#: fc00::/8 are in no list: some proxies let every public name resolve to them.
_HERE = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
            *("::/128", "::1/128", "fe80::/10", "ff00::/8"),
            *("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
            *("fd00:ec2::254/128", "fd20:ce::254/128"),
        ),
    )
)
_PRIVATE = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8", "fec0::/10"),
    )
)
#: IPv6 networks that lead to an IPv4 address, and how many bits stand behind that.
_WRAPPED = tuple(
    (ip_network(network), shift)
    for network, shift in (
        ("::/96", 0),
        ("::ffff:0:0/96", 0),
        ("64:ff9b::/96", 0),
        ("64:ff9b:1::/48", 0),
        ("2002::/16", 80),
    )
)
_WORDS = {Depth.PRIVATE: "in a private network", Depth.HERE: "on this machine or its own link"}


def depth_of(address: str) -> Depth:
    """Return how far in a numeric address lies; raises ValueError for anything else."""
    found = _unwrapped(ip_address(address.partition("%")[0]))
    for depth, networks in ((Depth.HERE, _HERE), (Depth.PRIVATE, _PRIVATE)):
        if any(found in network for network in networks):
            return depth
    return Depth.PUBLIC


def has_plain_host(url: str) -> bool:
    """Return whether all who read a URL find the same host in it: some take `\\` for `/`, or decode `%`."""
    netloc = urlsplit(url).netloc
    return "\\" not in netloc and "%" not in netloc.rpartition("@")[2]


def spelled_depth(url: str) -> Depth:
    """Return how far in the host of a URL lies, as far as its spelling tells: PUBLIC for most names."""
    host = unicodedata.normalize("NFKC", urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return Depth.HERE
    try:
        return depth_of(host)
    except ValueError:
        return _depth_of_number(host)


def resolved_depth(url: str) -> Depth:
    """Return how far in the host of a URL lies at most, by its name's addresses; PUBLIC if it has none."""
    host = urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return spelled_depth(url)
    return max((depth_of(str(entry[4][0])) for entry in found), default=Depth.PUBLIC)


class InnerHosts:
    """The hosts of which the user says that they may lie in a private network, whichever hub leads there.

    Never on this machine or its link: nobody's storage lies there, and a cloud's secrets do.
    """

    def __init__(self, globs: Iterable[str] = ()) -> None:
        """`globs`: of host names, without scheme and port; their case means nothing."""
        self._globs = tuple(glob.lower() for glob in globs)

    def limit(self, url: str, depth: Depth) -> Depth:
        """Return how far in the host of a URL may lie, where a hub that lies `depth` deep leads there."""
        host = (urlsplit(url).hostname or "").rstrip(".")
        listed = any(fnmatchcase(host, glob) for glob in self._globs)
        return max(depth, Depth.PRIVATE) if listed else depth


NO_HOSTS = InnerHosts()


def refuse_spelled(url: str, limit: Depth) -> None:
    """Raise RefusedError for an address that by its spelling lies further in than `limit`."""
    if (depth := spelled_depth(url)) > limit:
        raise RefusedError(_too_far(urlsplit(url).hostname or "", depth))


def refuse_connected(host: str, depth: Depth, limit: Depth) -> None:
    """Raise NetworkError for a name that leads further in than `limit`; to others it may lead elsewhere."""
    if depth > limit:
        raise NetworkError(_too_far(host, depth))


def _too_far(host: str, depth: Depth) -> str:
    switch = "name it in [security] inner_hosts, " if depth is Depth.PRIVATE else ""
    return (
        f"{host}: is {_WORDS[depth]}, and the hub that leads there is not; that is not followed "
        f"(if it is right, {switch}use an endpoint there, or a proxy that reaches both)"
    )


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address) and int(address) > 1:  # else :: or ::1
        for network, shift in _WRAPPED:
            if address in network:
                return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return address


def _depth_of_number(host: str) -> Depth:
    """Return the depth of what C libraries take for an address: 2130706433, 0x7f.1, 0177.0.0.1."""
    try:
        return depth_of(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        return Depth.PUBLIC
