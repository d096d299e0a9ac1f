"""A plain forward proxy, for HTTP_PROXY, HTTPS_PROXY and NO_PROXY: CONNECT and absolute URIs.

    with ForwardProxy(hosts={"hub.test:80": ("127.0.0.1", hub_port)}) as proxy:
        environ["HTTP_PROXY"] = proxy.url
        ...
        assert proxy.targets() == ["http://hub.test/api/..."]

`hosts` leads names that exist nowhere to real addresses; with `credentials` ("user:password") it answers 407
to those who don't bring them.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

_HOP_BY_HOP = ("proxy-authorization", "proxy-connection", "connection")
_DENIED = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
)


@dataclass
class Asked:
    """One request that came to the proxy; `headers` have lower-case names."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)


class ForwardProxy(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves between `__enter__` and `__exit__`."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *, hosts: Mapping[str, tuple[str, int]] | None = None, credentials: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hosts = dict(hosts or {})
        self.expected = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        self.asked: list[Asked] = []
        self.url = f"http://{credentials}@127.0.0.1:{self.server_address[1]}".replace("//@", "//")
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> ForwardProxy:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        for each in self._sockets:
            _shut(each)

    def targets(self, method: str = "") -> list[str]:
        """Return what was asked for, in order."""
        return [asked.target for asked in self.asked if asked.method == method or not method]

    def dial(self, host: str, port: int) -> socket.socket:
        """Connect to where `hosts` leads, or to the host itself."""
        upstream = socket.create_connection(self.hosts.get(f"{host}:{port}", (host, port)))
        self._sockets.append(upstream)
        return upstream

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client: object) -> None:
        self._sockets.append(cast(socket.socket, request))
        super().process_request(request, client)


class _Handler(socketserver.StreamRequestHandler):
    rbufsize = 0
    server: ForwardProxy

    def handle(self) -> None:
        """Serve one request, then relay until either side ends; a proxied connection is used once."""
        asked, body = self._read_head()
        if asked is None:
            return
        self.server.asked.append(asked)
        if self.server.expected not in ("", asked.headers.get("proxy-authorization", "")):
            self.wfile.write(_DENIED)
            return
        try:
            self._connect(asked) if asked.method == "CONNECT" else self._forward(asked, body)
        except OSError:
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def _read_head(self) -> tuple[Asked | None, bytes]:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := self.connection.recv(1 << 16)):
                return None, b""
            head += data
        text, _, body = head.partition(b"\r\n\r\n")
        first, *lines = text.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        method, target, _version = first.split(" ", 2)
        return Asked(method, target, {name.lower(): value.strip() for name, _, value in pairs}), body

    def _connect(self, asked: Asked) -> None:
        host, _, port = asked.target.rpartition(":")
        with self.server.dial(host, int(port)) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._relay(upstream)

    def _forward(self, asked: Asked, body: bytes) -> None:
        url = urlsplit(asked.target)
        origin_form = (url.path or "/") + (f"?{url.query}" if url.query else "")
        kept = {name: value for name, value in asked.headers.items() if name not in _HOP_BY_HOP}
        lines = [
            f"{asked.method} {origin_form} HTTP/1.1",
            *(f"{name}: {value}" for name, value in kept.items()),
        ]
        head = "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1")
        with self.server.dial(url.hostname or "", url.port or 80) as upstream:
            upstream.sendall(head + body)
            self._relay(upstream)

    def _relay(self, upstream: socket.socket) -> None:
        back = threading.Thread(target=_pump, args=(self.connection, upstream), daemon=True)
        back.start()
        _pump(upstream, self.connection)
        _shut(self.connection)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _shut(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
