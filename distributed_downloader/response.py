"""An answer whose body is still to be read, within bounds of size and time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import urllib3

from distributed_downloader.cancel import Cancel
from distributed_downloader.connection import Connection, broken_off
from distributed_downloader.errors import ServerError, StalledError
from distributed_downloader.kept import Kept
from distributed_downloader.reach import Depth

#: Bytes of a JSON answer; a page of 1,000 files has about 300 kB.
MAX_JSON = 64 << 20
#: Bytes of an unread body that are cheaper to read than a new connection is to make.
MAX_DRAIN = 1 << 16
#: Seconds for a whole JSON answer.
LONGEST_JSON = 300.0
#: Seconds to wait for more of a body, once something of it is there.
SOON = 0.2
_CLOSED = nullcontext()


def redacted(url: str) -> str:
    """Return a URL that can be shown: its query may be a signature, its user part a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Response:
    """An answer whose body has not been read; a context manager that gives the connection back."""

    def __init__(
        self,
        raw: urllib3.BaseHTTPResponse | Kept,
        url: str,
        hops: list[Mapping[str, str]],
        *,
        from_hub: bool,
        sent_token: bool,
        depth: Depth,
        cancel: Cancel,
    ) -> None:
        self._raw = raw
        self._cancel = cancel
        #: What went wrong with the body.
        self._failure: Exception | None = None
        connection = raw.connection
        assert isinstance(connection, Connection)
        assert connection.answer
        self._answer, self._connection = connection.answer, connection
        self._closing: AbstractContextManager[None] = cancel.closing(self._hang_up)
        self._closing.__enter__()
        self.status = raw.status
        self.headers: Mapping[str, str] = raw.headers
        #: The address that answered, after redirects; its query may be a signature.
        self.url = url
        #: The headers of the redirects on the way here.
        self.hops = hops
        #: Whether it came from the hub or the host that was asked, and not from a storage host behind it.
        self.from_hub = from_hub
        #: Whether that host was shown the token.
        self.sent_token = sent_token
        #: How far in the hub lies that was asked.
        self.depth = depth

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read1(self, size: int) -> bytes:
        """Return what one receive gives, up to `size` bytes; b"" at the end.

        Raises NetworkError, StalledError (nothing came for the read timeout) or StoppedError.
        """
        view = memoryview(bytearray(size))
        count = self._receive(view)
        self._free()
        return bytes(view[:count])

    def readinto(self, view: memoryview) -> int:
        """Fill `view`, or as much of it as comes soon after the first bytes; return how many, 0 at the end.

        Raises what `read1` raises; bytes that came before that are handed over first.
        """
        count = self._receive(view)
        # Not between chunks: what is known of their borders would be lost with a wait that is cut short.
        if 0 < count < len(view) and not (self._answer.chunked or self._answer.isclosed()):
            count += self._gather(view[count:])
        self._free()
        return count

    def json(self) -> Any:  # noqa: ANN401
        """Return the whole body, parsed; raises ServerError if it is not JSON or far too long.

        Raises StalledError if it takes far too long, and what `read1` raises.
        """
        body, started = bytearray(), time.monotonic()
        while data := self.read1(1 << 16):
            body += data
            if time.monotonic() - started > LONGEST_JSON:
                raise StalledError(f"{redacted(self.url)}: the answer took more than {LONGEST_JSON:.0f} s")
            if len(body) > MAX_JSON:
                raise ServerError(f"{redacted(self.url)}: the answer is longer than {MAX_JSON >> 20} MiB")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ServerError(
                f"{redacted(self.url)}: the answer is not JSON; is a login page or another server in between?"
            ) from error

    def close(self) -> None:
        """Give the connection back for the next request, if what is left of the body is short."""
        closing, self._closing = self._closing, _CLOSED
        try:
            if not self._cancel.is_set():
                self._drain()
            self._free()
            self._raw.close()
        finally:
            closing.__exit__(None, None, None)

    def _receive(self, view: memoryview) -> int:
        """Put what one receive gives into `view`; raises what `read1` raises."""
        if not self._failure:
            self._answer.pace.begin()
            try:
                count = self._answer.receive(view)
            except (HTTPException, OSError) as error:
                self._failure = error
        self._cancel.check()
        if self._failure:
            raise broken_off(self._failure, self.url) from self._failure
        return count

    def _gather(self, view: memoryview) -> int:
        """Put what comes soon into `view`; what goes wrong is for the next read to tell."""
        count, until = 0, time.monotonic() + SOON
        try:
            with self._answer.pace.hurried(SOON):
                for more in self._answer.pieces(view):
                    count += more
                    if time.monotonic() > until:
                        break
        except TimeoutError:
            pass  # later, then
        except (HTTPException, OSError) as error:
            self._failure = error
        return count

    def _drain(self) -> None:
        """Read what is left of the body, if that is short."""
        left = self._answer.length
        if self._answer.isclosed() or self._failure or left is None or left > MAX_DRAIN:
            return
        self._answer.pace.begin()
        with suppress(HTTPException, OSError):
            while self._answer.receive(memoryview(bytearray(left))):
                pass

    def _free(self) -> None:
        """Give the connection back if the body is at its end."""
        # Behind an interim answer (1xx) the real one may follow, which nobody asked for then.
        if self._answer.isclosed() and not self._failure and self.status >= 200:
            self._raw.release_conn()

    def _hang_up(self) -> None:
        if self._raw.connection is self._connection:  # and not already another request's
            self._connection.hang_up()
