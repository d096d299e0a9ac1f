"""What a server says, at a pace: nobody waits for ever for what has no end, nor longer than it pays."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPResponse, IncompleteRead
from typing import Any

from urllib3 import HTTPHeaderDict

from distributed_downloader.head import plain_head

#: Bytes that may come in one receive with the head: small files come whole.
_AHEAD = 1 << 16


class Pace(io.RawIOBase):
    """What comes over a line, as long as there is time for what was begun.

    A server that sends a byte now and then, or interim answers or trailers without an end, would hold us
    for ever: no timeout of the socket ends that.
    """

    def __init__(self, raw: io.RawIOBase, line: socket.socket) -> None:
        """The headers, or one piece of the body, may take twice the line's timeout, if it has one."""
        # Not read from, for after a timeout it would give nothing more; but it keeps the line open.
        self._raw, self.line = raw, line
        self._timeout = line.gettimeout()
        self.begin()

    def begin(self) -> None:
        """Start to count for what is wanted next."""
        self._began = time.monotonic()

    @contextmanager
    def hurried(self, seconds: float) -> Iterator[None]:
        """Wait for each receive of the block so long at most."""
        self.line.settimeout(seconds)
        try:
            yield
        finally:
            with suppress(OSError):  # what has no timeout any more is closed
                self.line.settimeout(self._timeout)

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 typeshed has no public name for it
        """Return how many bytes came; raises OSError, of which TimeoutError is one."""
        if self._timeout is not None and time.monotonic() - self._began > 2 * self._timeout:
            raise TimeoutError("what comes has no end")
        return self.line.recv_into(buffer)

    def close(self) -> None:
        """Let go of the line."""
        super().close()
        self._raw.close()


class PacedAnswer(HTTPResponse):
    """An answer that is read at a pace, and whose body goes straight to where it is wanted."""

    def __init__(self, line: socket.socket, *options: Any, **named: Any) -> None:  # noqa: ANN401 handed on
        super().__init__(line, *options, **named)
        self.pace = Pace(self.fp.detach(), line)
        self.fp = io.BufferedReader(self.pace, _AHEAD)
        #: Bytes of the body that came together with the headers; None until that is looked at.
        self._ahead: int | None = None

    def read_head(self) -> Mapping[str, str]:
        """Read the head of an answer to GET, and return its headers; raises HTTPException, OSError."""
        head = plain_head(self.fp.peek())
        if head is None:
            self.begin()
            return HTTPHeaderDict(self.msg.items())
        self.fp.read(head.size)
        self.code = self.status = head.status
        self.version, self.chunked, self.will_close = 11, False, False
        self.length = head.length
        return head.headers

    def receive(self, view: memoryview) -> int:
        """Put what is there already, or else comes next, into `view`; return the bytes, 0 at the body's end.

        Raises HTTPException for a body that ends too early or is not well formed, and OSError.
        """
        if self.chunked:
            data = self.read1(len(view))
            if (self.chunk_left or 0) < 0:  # http.client takes a size with a minus
                raise IncompleteRead(b"")
            view[: len(data)] = data
            return len(data)
        if self.isclosed():
            return 0
        count = self._take(view[: self.length])
        self._passed(count)
        return count

    def pieces(self, view: memoryview) -> Iterator[int]:
        """Receive into `view` until it is full or the body ends; yield the bytes of each time.

        For a body that is not chunked. Over TLS, a receive gives 16 KiB at most: what each costs counts.
        Raises what `receive` raises.
        """
        view, receive = view[: self.length], self.pace.line.recv_into
        while view and not self.isclosed():
            count = receive(view) if self._ahead == 0 else self._take(view)
            self._passed(count)
            view = view[count:]
            yield count

    def _passed(self, count: int) -> None:
        """Take note of what came of the body; raises IncompleteRead if it ends too early."""
        if self.length is not None:
            if self.length and not count:
                raise IncompleteRead(b"", self.length)
            self.length -= count
        if not count or self.length == 0:
            self.close()

    def _take(self, view: memoryview) -> int:
        """Take what the reader has ahead, or receive once, past the reader."""
        if not view:
            return 0  # for to receive nothing would be to wait as well
        if self._ahead is None:
            self._ahead = len(self.fp.peek())  # which receives, if there is nothing
        elif not self._ahead:
            return self.pace.readinto(view)
        count = self.fp.readinto(view[: self._ahead])
        self._ahead -= count
        return count
