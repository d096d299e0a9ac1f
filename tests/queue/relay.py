"""A relay between a client and a Redis: speaks TLS if asked, and loses replies or connections on demand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path


class Relay:
    """Listens on a TCP port of 127.0.0.1 and passes everything on to a unix socket; a context manager."""

    def __init__(self, target: Path, tls: ssl.SSLContext | None = None) -> None:
        #: Where new connections lead to.
        self.target, self._tls = target, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._lose = self._after = 0

    def lose_replies(self, n: int, *, after: int = 0) -> None:
        """Let Redis carry out the next requests, but break the connection `after` bytes of n replies."""
        with self._lock:
            self._lose, self._after = n, after

    def cut(self) -> None:
        """Break all connections."""
        with self._lock:
            sockets, self._open = self._open, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(str(self.target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._open += [client, server]
        threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
        self._pass(server, client, True)

    def _pass(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if replies and self._loses():
                    sink.sendall(data[: self._after])
                    break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _loses(self) -> bool:
        with self._lock:
            lose = self._lose > 0
            self._lose -= lose
            return lose
