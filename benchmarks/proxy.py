"""An HTTP proxy that lets so many bytes a second through: a slow link where no real one can be made."""

from __future__ import annotations

import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import urlsplit

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import StoppedError
from distributed_downloader.throttle import Throttle

#: They are about one connection, not about the request.
_HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding"}


class ThrottlingProxy(ThreadingHTTPServer):
    """Forwards plain HTTP; the bodies of all answers together come at `rate` bytes a second."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, rate: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.throttle, self.cancel = Throttle(rate), Cancel()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def limit(self, rate: int) -> None:
        """Change the rate, for what comes from now on."""
        self.throttle.keep_to(rate)

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; what is under way ends."""
        self.cancel.set("the proxy stops")
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients and servers that leave; anything else is a bug, and shown."""
        if not isinstance(sys.exc_info()[1], (OSError, StoppedError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """One client's connection, and ours to the servers that it asks for."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._servers: dict[str, HTTPConnection] = {}

    def finish(self) -> None:
        for server in self._servers.values():
            server.close()
        super().finish()

    def do_GET(self) -> None:
        """Forward one request, of any method."""
        proxy = cast(ThrottlingProxy, self.server)
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server = self._servers.setdefault(url.netloc, HTTPConnection(url.netloc))
        server.putrequest(
            self.command,
            url._replace(scheme="", netloc="").geturl(),
            skip_host=True,
            skip_accept_encoding=True,
        )
        for name, value in self.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                server.putheader(name, value)
        server.endheaders(body or None)
        answer = server.getresponse()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()
        while data := answer.read(proxy.throttle.read_size):
            proxy.throttle.take(len(data), proxy.cancel)
            self.wfile.write(data)

    do_HEAD = do_POST = do_GET  # noqa: N815 http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""
