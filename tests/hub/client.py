"""The plainest of clients, to look at the local hub's answers as they are: no redirects, no retries."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 60


@dataclass
class Answer:
    """Status, headers and the whole body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 whatever the hub says
        return json.loads(self.body)

    @property
    def location(self) -> str:
        return self.headers["Location"]


def connect(url: str, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """Return a connection to the origin of that URL."""
    place = urlsplit(url)
    if place.scheme == "https":
        return http.client.HTTPSConnection(place.hostname or "", place.port, timeout=TIMEOUT, context=tls)
    return http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT)


def send(
    connection: http.client.HTTPConnection,
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
) -> Answer:
    """Ask on an open connection; raises what http.client raises."""
    place = urlsplit(url)
    connection.request(
        method, place.path + (f"?{place.query}" if place.query else ""), body, dict(headers or {})
    )
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def ask(
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Ask on a connection of its own."""
    connection = connect(url, tls)
    try:
        return send(connection, url, headers, method=method, body=body)
    finally:
        connection.close()


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def raw(url: str, headers: Mapping[str, str] | None = None) -> socket.socket:
    """Send a GET and return the socket, so that a test can read what really comes."""
    place = urlsplit(url)
    connection = socket.create_connection((place.hostname or "", place.port or 80), timeout=TIMEOUT)
    lines = [f"GET {place.path}?{place.query} HTTP/1.1", f"Host: {place.netloc}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def body_until_end(connection: socket.socket) -> tuple[bytes, bool]:
    """Read what follows the headers to the end; tell whether that was a reset."""
    data = b""
    try:
        while piece := connection.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        return data.partition(b"\r\n\r\n")[2], True
    return data.partition(b"\r\n\r\n")[2], False
