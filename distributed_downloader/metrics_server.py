"""Serves the fleet's metrics over HTTP; Redis is read when somebody asks."""

from __future__ import annotations

import logging
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from distributed_downloader.display import metrics
from distributed_downloader.display.speed import Speedometer
from distributed_downloader.errors import RedisUnavailableError, UsageError
from distributed_downloader.outage import Outage
from distributed_downloader.unexpected import tell

if TYPE_CHECKING:
    from prometheus_client import Metric

    from distributed_downloader.redis_metrics import RedisMetrics

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.%]+)\]|(?P<host>[^\s:/@\[\]]*)):(?P<port>\d{1,5})", re.ASCII)
#: Seconds in which a request has to come, and in which whoever asked has to take the answer.
_REQUEST_SECONDS = 10.0
#: Seconds in which the server notices that it shall end.
_POLL = 0.1


class FleetCollector(Collector):
    """What prometheus_client asks for metrics; one look at a time."""

    def __init__(self, source: RedisMetrics, outage: Outage) -> None:
        self._source, self._outage = source, outage
        self._speedometer = Speedometer()
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of one look; without Redis, only that."""
        with self._lock:
            try:
                look = self._source.look()
            except RedisUnavailableError as error:
                self._outage.note(error)
                yield metrics.redis_up(False)
                return
            self._outage.over()
            progress = self._speedometer.measure(look.jobs, look.workers)
        yield metrics.redis_up(True)
        yield from metrics.families(look, progress)


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_SECONDS
    server: MetricsServer

    def do_GET(self) -> None:
        """Answer /metrics in the format that was asked for."""
        if self.path.partition("?")[0] != "/metrics":
            return self._answer(404, "text/plain; charset=utf-8", b"The metrics are at /metrics.\n")
        encode, kind = choose_encoder(self.headers.get("Accept", ""))
        return self._answer(200, kind, encode(self.server.collector))

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 as the library has it
        """Log a request; its words are somebody else's."""
        log.debug("%s %s", self.client_address[0], format % args)


class MetricsServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A thread for each request, none of which is waited for at the end."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, collector: Collector) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.collector = listener, collector

    def handle_error(self, request: object, client_address: object) -> None:
        """Tell of an answer that failed; who asked may just have left."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, OSError):
            tell(log, "an answer to a request for metrics", error)


def parse_address(text: str) -> tuple[str, int]:
    """Return ("host", port) of `127.0.0.1:9109` or `[::1]:9109`, ("", port) of `:9109`; raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) >= 1 << 16:
        raise ValueError(f"{text!a} is no address: write :9109, 127.0.0.1:9109 or [::1]:9109")
    return match["v6"] or match["host"] or "", int(match["port"])


@contextmanager
def serving(address: tuple[str, int], collector: Collector) -> Iterator[str]:
    """Serve while the block runs; yields the URL. Raises UsageError where nobody can listen there."""
    with _listen(*address) as listener, MetricsServer(listener, collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(_POLL,), name="metrics", daemon=True)
        thread.start()
        host, port = listener.getsockname()[:2]
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        finally:
            server.shutdown()


def _listen(host: str, port: int) -> socket.socket:
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0].lower()  # Python adds the address
        raise UsageError(f"--listen {host}:{port}: nobody can listen there: {why}") from error
