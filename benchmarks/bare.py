"""The least that one Python process pays for a file and its hash on this machine, and for the hash alone.

No check of anything: http.client asks, pieces come into reused buffers, are written to their place, and are
hashed in a thread beside, while the next one comes into the other buffer.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

_PIECE = 1 << 20


def fetch(url: str, path: Path) -> None:
    """Fill a file with what `url` leads to."""
    connection, answer = _ask(url)
    with closing(connection), path.open("wb") as out, ThreadPoolExecutor(1) as beside:
        _copy(answer, out.fileno(), beside)


def hash_alone(size: int) -> None:
    """Hash so many bytes that are in memory."""
    digest, view = hashlib.sha256(), memoryview(bytearray(_PIECE))
    for start in range(0, size, _PIECE):
        digest.update(view[: size - start])


def _ask(url: str) -> tuple[HTTPConnection, HTTPResponse]:
    parts = urlsplit(url)
    connection = (HTTPSConnection if parts.scheme == "https" else HTTPConnection)(parts.netloc)
    connection.request("GET", parts._replace(scheme="", netloc="").geturl())
    answer = connection.getresponse()
    if there := answer.headers["Location"]:
        connection.close()
        return _ask(there)
    return connection, answer


def _copy(answer: HTTPResponse, file: int, beside: ThreadPoolExecutor) -> None:
    digest, position, hashed = hashlib.sha256(), 0, Future[None]()
    hashed.set_result(None)
    # It receives into our buffer, without one in between, until that is full.
    for view in cycle([memoryview(bytearray(_PIECE)) for _ in range(2)]):
        if not (count := answer.readinto(view)):
            break
        os.pwrite(file, view[:count], position)
        position += count
        hashed.result()  # before its buffer is the next one's
        hashed = beside.submit(digest.update, view[:count])
    hashed.result()
