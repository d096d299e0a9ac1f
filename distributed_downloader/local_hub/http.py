"""The local hub's HTTP server: requests in, replies out, one thread for each connection, and a log."""

from __future__ import annotations

import io
import json
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import BinaryIO, cast
from urllib.parse import parse_qsl, urlencode

WINDOW_SECONDS = 300
_Accepted = socket.socket | tuple[bytes, socket.socket]


@dataclass
class Request:
    """One request; the hub fills in what it is about: `route`, `repo`, `rev` and `file`."""

    #: "hub" or "cdn".
    origin: str
    method: str
    #: The path as it was sent, without the query and the hub's prefix.
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes = b""
    #: The question: a key of `local_hub.ROUTES`, or "" for anything else.
    route: str = ""
    #: E.g. "models/org/name".
    repo: str = ""
    rev: str = ""
    file: str = ""

    @property
    def token(self) -> str:
        """The bearer token that came along, or ""."""
        return str(self.headers.get("Authorization", "")).removeprefix("Bearer ")

    @property
    def uri(self) -> str:
        """Path and query."""
        return self.path + (f"?{urlencode(self.query)}" if self.query else "")


@dataclass
class Reply:
    """One answer; its body is `length` bytes of what `source` opens, from `start`."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    source: Callable[[], BinaryIO] = io.BytesIO
    start: int = 0
    length: int = 0
    #: Bytes of the body that were given to the network so far.
    sent: int = 0

    def send(self, connection: socket.socket) -> None:
        """Send the body in constant memory; raises ConnectionError when the client has left."""
        if not self.length:
            return
        with self.source() as file:
            file.seek(self.start)
            try:
                connection.sendfile(file, self.start, self.length)
            finally:
                self.sent = file.tell() - self.start


def data_reply(data: bytes, kind: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a reply of bytes in memory; `kind` is their content type."""
    return Reply(status, {"Content-Type": kind, **(headers or {})}, lambda: io.BytesIO(data), 0, len(data))


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a JSON reply."""
    return data_reply(json.dumps(value).encode(), "application/json; charset=utf-8", status, headers)


def redirect(status: int, location: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a redirect; as on the real hub it has a body, which is not the file's."""
    text = f"Redirecting to {location}".encode()
    return data_reply(text, "text/plain; charset=utf-8", status, {"Location": location, **(headers or {})})


@dataclass
class Record:
    """One line of the log; `done` when nothing more will be sent."""

    request: Request
    reply: Reply
    done: bool = False


class RequestLog:
    """What the hub was asked, in order; any thread may look at it."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._changed = threading.Condition()

    def add(self, request: Request, reply: Reply) -> Record:
        """Note an answer that is about to be sent."""
        record = Record(request, reply)
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()
        return record

    def finish(self, record: Record) -> None:
        """Note that nothing more of it will be sent."""
        with self._changed:
            record.done = True
            self._changed.notify_all()

    def records(self, route: str = "", file: str = "", method: str = "") -> list[Record]:
        """Return the records of that route, file and method, where given."""
        wanted = {key: value for key, value in locals().items() if key != "self" and value}
        with self._changed:
            return [
                record
                for record in self._records
                if all(getattr(record.request, key) == value for key, value in wanted.items())
            ]

    def wait(self, condition: Callable[[], bool], timeout: float = 60) -> bool:
        """Wait until `condition`, asked after each change of the log, holds; False after `timeout` s."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)


class Window:
    """A fixed window of requests, counted and told as the real hub does."""

    def __init__(self, name: str, quota: int, seconds: int = WINDOW_SECONDS) -> None:
        self.name, self.quota, self.seconds = name, quota, seconds
        self._lock = threading.Lock()
        self._used, self._end = 0, 0.0

    def spend(self) -> tuple[bool, dict[str, str]]:
        """Take one request; return whether it was there to take, and the headers that say so."""
        with self._lock:
            now = time.monotonic()
            if now >= self._end:
                self._used, self._end = 0, now + self.seconds
            allowed = self._used < self.quota
            self._used += allowed
            left, seconds = self.quota - self._used, int(self._end - now)
        return allowed, {
            "RateLimit": f'"{self.name}";r={left};t={seconds}',
            "RateLimit-Policy": f'"fixed window";"{self.name}";q={self.quota};w={self.seconds}',
        }


class Origin(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """One port of the hub; it listens at once and serves between `start` and `stop`.

    It listens at `address` and calls itself `host` in its URL.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        name: str,
        answer: Callable[[Request], Reply],
        log: RequestLog,
        *,
        address: tuple[str, int],
        host: str,
        prefix: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(address, _Handler)
        self.name, self.answer, self.log, self.prefix, self._tls = name, answer, log, prefix, tls
        self.url = f"{'https' if tls else 'http'}://{host}:{self.server_address[1]}{prefix}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._connections: dict[threading.Thread, socket.socket] = {}

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Cut all connections and stop; returns when every thread has ended."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()
        for thread, connection in list(self._connections.items()):
            _cut(connection)
            thread.join()

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection; TLS shakes hands later, in the connection's own thread."""
        connection, peer = super().get_request()
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, peer

    def process_request(self, request: _Accepted, client_address: object) -> None:
        """Give a connection its thread."""
        thread = threading.Thread(target=self._serve, args=(request, client_address), daemon=True)
        self._connections[thread] = cast(socket.socket, request)
        thread.start()

    def _serve(self, request: _Accepted, client_address: object) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            del self._connections[threading.current_thread()]

    def handle_error(self, request: _Accepted, client_address: object) -> None:
        """Say nothing of clients that leave; anything else is a bug of ours, and shown."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


def _cut(connection: socket.socket) -> None:
    try:
        # Not SSLSocket's own shutdown: that one is not safe while another thread reads.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return  # it has ended meanwhile


class _Handler(BaseHTTPRequestHandler):
    """Reads requests from one connection, and writes the replies."""

    protocol_version = "HTTP/1.1"
    server_version = "LocalHub"
    disable_nagle_algorithm = True
    server: Origin

    def do_GET(self) -> None:
        """Answer one request, of any method."""
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = dict(parse_qsl(query, keep_blank_values=True))
        # What lies outside the prefix is no part of the hub: an empty path is not found.
        path = path.removeprefix(self.server.prefix) if path.startswith(f"{self.server.prefix}/") else ""
        request = Request(self.server.name, self.command, path, asked, self.headers, body)
        reply = self.server.answer(request)
        record = self.server.log.add(request, reply)
        try:
            self._write(reply)
        finally:
            self.server.log.finish(record)

    do_HEAD = do_POST = do_GET  # noqa: N815 http.server's names

    def _write(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(reply.length), **reply.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            reply.send(self.connection)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet; the log has it all."""
