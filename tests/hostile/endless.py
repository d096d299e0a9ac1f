"""A server that does not stop talking."""

from __future__ import annotations

import socket

from tests.net.kit import RawServer, _read_head


class Endless(RawServer):
    """Answers each request with `start`, and then with `again` for as long as somebody listens."""

    def __init__(self, start: bytes, again: bytes, *, head: bytes = b"") -> None:
        """A request with HEAD gets `head`, if there is one, and no more."""
        super().__init__(start)
        self._start, self._again, self._head = start, again, head

    def _serve(self, connection: socket.socket) -> None:
        self._open.append(connection)
        with connection:
            while head := _read_head(connection):
                if self._head and head.startswith("HEAD"):
                    connection.sendall(self._head)
                    continue
                connection.sendall(self._start)
                while True:
                    connection.sendall(self._again)
