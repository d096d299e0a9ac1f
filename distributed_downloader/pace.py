"""What a server says, at a pace: nobody waits for ever for what has no end, nor longer than it pays."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse, IncompleteRead
from typing import Any, Protocol, cast

from distributed_downloader.head import Head

#: Bytes that may come in one receive with the head: small files come whole.
AHEAD = 1 << 16
_NOTHING = memoryview(b"")


class Pace:
    """What comes over a line, as long as there is time for what was begun.

    A server that sends a byte now and then, or interim answers or trailers without an end, would hold us
    for ever: no timeout of the socket ends that.
    """

    def __init__(self, line: socket.socket) -> None:
        """The headers, or one piece of the body, may take twice the line's timeout, if it has one."""
        self.line, self._timeout = line, line.gettimeout()
        self._began = time.monotonic()

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

    def receive(self, buffer: Any) -> int:  # noqa: ANN401 typeshed has no public name for it
        """Return how many bytes came; raises OSError, of which TimeoutError is one."""
        if self._timeout is not None and time.monotonic() - self._began > 2 * self._timeout:
            raise TimeoutError("what comes has no end")
        return self.line.recv_into(buffer)


class Answer(Protocol):
    """An answer whose body goes straight to where it is wanted."""

    pace: Pace
    chunked: bool
    #: Bytes of the body that are still to come, None where only its end tells.
    length: int | None
    #: Bytes of it that came together with the headers; None until that is looked at.
    _ahead: int | None

    def isclosed(self) -> bool:
        """Return whether the body is at its end."""

    def close(self) -> None:
        """Let go of the line."""

    def _take(self, view: memoryview) -> int:
        """Take what came ahead, or receive once; `view` is not empty."""

    def receive(self, view: memoryview) -> int:
        """Put what is there already, or else comes next, into `view`; return the bytes, 0 at the body's end.

        Raises HTTPException for a body that ends too early or is not well formed, and OSError.
        """
        if self.isclosed():
            return 0
        view = view[: self.length]
        count = self._take(view) if view else 0  # for to receive nothing would be to wait as well
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


class PlainAnswer(Answer):
    """An answer with a plain head, of which everything is known that http.client would have to find out."""

    chunked = False

    def __init__(self, pace: Pace, head: Head, ahead: memoryview) -> None:
        """`ahead`: what came of the body together with the head. The line is the connection's to keep."""
        self.pace, self.length = pace, head.length
        self._came, self._ahead = ahead, len(ahead)
        self._closed = False

    def isclosed(self) -> bool:
        """See Answer."""
        return self._closed

    def close(self) -> None:
        """See Answer."""
        self._closed, self._came = True, _NOTHING  # for the connection keeps its last answer

    def _take(self, view: memoryview) -> int:
        if not self._ahead:
            return self.pace.receive(view)
        count = min(self._ahead, len(view))
        view[:count], self._came = self._came[:count], self._came[count:]
        self._ahead -= count
        return count


class _Source(io.RawIOBase):
    """What http.client reads an answer from, in place of a socket."""

    def __init__(self, pace: Pace, begun: bytes) -> None:
        """`begun`: what has come already."""
        # Not read from, for after a timeout it would give nothing more; but it keeps the line open.
        self._raw = pace.line.makefile("rb", buffering=0)
        self._pace, self._begun = pace, begun

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return what http.client asks a socket for."""
        return io.BufferedReader(self, AHEAD)

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 typeshed has no public name for it
        """Return how many bytes came; raises what `Pace.receive` raises."""
        if not self._begun:
            return self._pace.receive(buffer)
        count = min(len(buffer), len(self._begun))
        buffer[:count], self._begun = self._begun[:count], self._begun[count:]
        return count

    def close(self) -> None:
        """Let go of the line."""
        super().close()
        self._raw.close()


class PacedAnswer(HTTPResponse, Answer):
    """Any other answer: http.client reads its head, and the body where its length is not known."""

    def __init__(
        self,
        line: socket.socket,
        *options: Any,  # noqa: ANN401 handed on
        pace: Pace | None = None,
        begun: bytes = b"",
        **named: Any,  # noqa: ANN401 handed on
    ) -> None:
        """`begun`: what has come of it already, at that `pace`."""
        self.pace = pace or Pace(line)
        super().__init__(cast("socket.socket", _Source(self.pace, begun)), *options, **named)
        self._ahead: int | None = None

    def receive(self, view: memoryview) -> int:
        """See Answer."""
        if not self.chunked:
            return Answer.receive(self, view)
        data = self.read1(len(view))
        if (self.chunk_left or 0) < 0:  # http.client takes a size with a minus
            raise IncompleteRead(b"")
        view[: len(data)] = data
        return len(data)

    def _take(self, view: memoryview) -> int:
        """Take what the reader has ahead, or receive once, past the reader."""
        if self._ahead is None:
            self._ahead = len(self.fp.peek())  # which receives, if there is nothing
        elif not self._ahead:
            return self.pace.receive(view)
        count = self.fp.readinto(view[: self._ahead])
        self._ahead -= count
        return count
