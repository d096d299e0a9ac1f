"""An answer whose body is still to be read, within bounds of size and time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from distributed_downloader.cancel import Cancel
from distributed_downloader.connection import Connection, Pace, broken_off
from distributed_downloader.errors import ServerError, StalledError
from distributed_downloader.reach import Depth

#: Bytes of a JSON answer; a page of 1,000 files has about 300 kB.
MAX_JSON = 64 << 20
#: Bytes of an unread body that are cheaper to read than a new connection is to make.
MAX_DRAIN = 1 << 16
#: Seconds for a whole JSON answer.
LONGEST_JSON = 300.0


def redacted(url: str) -> str:
    """Return a URL that can be shown: its query may be a signature, its user part a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Response:
    """An answer whose body has not been read; a context manager that gives the connection back."""

    def __init__(
        self,
        raw: urllib3.BaseHTTPResponse,
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
        self._stack = ExitStack()
        self._pace: Pace | None = None
        connection = raw.connection
        if isinstance(connection, Connection):
            self._pace = connection.pace
            self._stack.enter_context(cancel.closing(lambda: self._hang_up(connection)))
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
        self._begin()
        try:
            data = self._raw.read1(size)
        except (HTTPError, OSError) as error:
            self._cancel.check()
            raise broken_off(error, self.url) from error
        self._cancel.check()
        return data

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
        with self._stack:
            left = self._raw.length_remaining
            # Behind an interim answer (1xx) the real one may follow, which nobody asked for then.
            keeps = self.status >= 200 and left is not None and left <= MAX_DRAIN
            if keeps and not self._cancel.is_set():
                self._begin()
                self._raw.drain_conn()
            self._raw.close()

    def _begin(self) -> None:
        if self._pace:
            self._pace.begin()

    def _hang_up(self, connection: Connection) -> None:
        if self._raw.connection is connection:  # and not already another request's
            connection.hang_up()
