"""The short way of a request: over a connection that stands, with no library between us and the line.

A small file then costs a fraction of what it costs through urllib3 and http.client. Only what is plain goes
this way; where an address, a header or an answer is anything else, the libraries have it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from functools import lru_cache
from http.client import HTTPException

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import ProtocolError, ReadTimeoutError, SSLError

from distributed_downloader.cancel import Cancel
from distributed_downloader.connection import Connection, Pool
from distributed_downloader.head import plain_head
from distributed_downloader.pace import AHEAD, Pace, PacedAnswer, PlainAnswer
from distributed_downloader.reach import Depth, refuse_connected

#: An address that urllib3 would send as it stands.
_PLAIN = re.compile(r"https?://[\w.:\[\]-]+(/[\w.~!$&'()*+,;=:@/?%-]*)", re.ASCII)
_NOT_PLAIN = re.compile(r"%(?![0-9A-F]{2})|/\.\.?(?:[/?]|\Z)")
_SENDABLE = re.compile(r"(?:[!-9;-~]+: [ -~]*\r\n)+")


class Kept:
    """An answer that came the short way, its body still on the line: what `Response` needs to know of it."""

    def __init__(self, pool: Pool, connection: Connection, headers: Mapping[str, str], status: int) -> None:
        self._pool = pool
        self.connection: Connection | None = connection
        self.headers, self.status = headers, status

    def release_conn(self) -> None:
        """Give the connection back for the next request."""
        if self.connection:
            self._pool.give_back(self.connection)
            self.connection = None

    def close(self) -> None:
        """Close the connection, if it was not given back."""
        if self.connection:
            self.connection.drop()
            self.release_conn()


def ask(pool: Pool, url: str, headers: Mapping[str, str], limit: Depth, cancel: Cancel) -> Kept | None:
    """GET a URL over a connection of `pool`; None if none stands, or the request is not plain.

    Raises urllib3's errors as urllib3 would, and NetworkError if the server lies further in than `limit`.
    """
    target, fields = _target(url), _fields(tuple(headers.items()))
    connection = pool.standing() if target and fields else None
    if connection is None:
        return None
    done = False
    try:
        refuse_connected(connection.host, connection.depth, limit)
        sent = f"GET {target} HTTP/1.1\r\nHost: {connection.spelled}\r\n{fields}\r\n"
        with cancel.closing(connection.hang_up):
            status, seen = _exchange(connection, sent.encode("ascii"))
        done = True
    except TimeoutError as error:
        raise ReadTimeoutError(pool, url, "no answer in time") from error
    except ssl.SSLError as error:
        raise SSLError(error) from error
    except (HTTPException, OSError) as error:
        raise ProtocolError("no answer", error) from error
    finally:
        if not done:
            connection.drop()
            pool.give_back(connection)
    return Kept(pool, connection, seen, status)


def _target(url: str) -> str:
    """Return what of a URL stands in the first line of a request; "" if that is for a library to say."""
    plain = _PLAIN.fullmatch(url)
    return plain[1] if plain and not _NOT_PLAIN.search(plain[1]) else ""


@lru_cache(16)
def _fields(headers: tuple[tuple[str, str], ...]) -> str:
    """Return headers as they are sent; "" if there are some that must not be, or none."""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return fields if _SENDABLE.fullmatch(fields) and fields.count("\n") == len(headers) else ""


def _exchange(connection: Connection, sent: bytes) -> tuple[int, Mapping[str, str]]:
    """Send a request and wait for the answer's status and headers; raises HTTPException, OSError."""
    line = connection.sock
    line.sendall(sent)
    pace = Pace(line)
    begun = line.recv(AHEAD)
    if head := plain_head(begun):
        connection.answer = PlainAnswer(pace, head, memoryview(begun)[head.size :])
        return head.status, head.headers
    answer = connection.answer = PacedAnswer(line, method="GET", pace=pace, begun=begun)
    answer.begin()
    if answer.will_close:
        connection.close()  # the answer itself keeps the line until it is read
    return answer.status, HTTPHeaderDict(answer.msg.items())
