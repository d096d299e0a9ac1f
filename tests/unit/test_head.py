"""The quick look at an answer's head: what it finds is what http.client finds."""

from __future__ import annotations

import http.client
import io
import socket
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.head import Head, plain_head

_PLAIN = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag:  "a" \t\r\nConnection: Keep-Alive\r\n\r\n'


class _Line:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def read_by_library(data: bytes) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(cast("socket.socket", _Line(data)), method="GET")
    response.begin()
    return response


def test_a_plain_head() -> None:
    head = plain_head(_PLAIN + b"body\r\n\r\n")
    assert head
    assert (head.status, head.length, head.size) == (200, 5, len(_PLAIN))
    assert head.headers["ETAG"] == '"a"'
    assert "etag" in head.headers
    assert head.headers.get("Location", "") == ""
    assert dict(head.headers) == {"content-length": "5", "etag": '"a"', "connection": "Keep-Alive"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"200 OK", b"100 Continue"),
        (b"200 OK", b"204 No Content"),
        (b"200 OK", b"304 Not Modified"),
        (b"200 OK", b"20 OK"),
        (b"200 OK", b"200"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"ICY"),
        (b"Content-Length: 5", b"Content-Length: -5"),
        (b"Content-Length: 5", b"Content-Length: +5"),
        (b"Content-Length: 5", b"Content-Length: 5_0"),
        (b"Content-Length: 5", b"Content-Length: 5, 5"),
        (b"Content-Length: 5", b"Content-Length: " + b"5" * 19),
        (b"Content-Length: 5", b"Content-Length: 5\r\nContent-Length: 6"),
        (b"Content-Length: 5", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        (b"Content-Length: 5", b"X: 5"),
        (b"Content-Length: 5", b"Content-Length : 5"),
        (b"ETag", b" ETag"),
        (b"ETag:", b"ETag"),
        (b'"a"', '"ä"'.encode()),
        (b'"a"', b'"a\x00"'),
        (b'"a"', b'"a\rb"'),
        (b'"a"', b'"a\n"'),
        (b"Keep-Alive", b"close"),
        (b"Connection: Keep-Alive", b"Upgrade: websocket"),
        (b"\r\n\r\n", b"\r\n"),
        (b"\r\n", b"\n"),
        (b"ETag", b"X: y\r\n" * 99 + b"ETag"),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(old: bytes, new: bytes) -> None:
    assert old in _PLAIN
    assert plain_head(_PLAIN.replace(old, new)) is None


def test_every_beginning_of_a_head_is_none() -> None:
    assert [plain_head(_PLAIN[:size]) for size in range(len(_PLAIN))] == [None] * len(_PLAIN)


_NAMES = st.sampled_from(
    ["Content-Length", "ETag", "etag", "Connection", "X-A", "Transfer-Encoding", "Upgrade"]
)
_VALUES = st.one_of(
    st.sampled_from(["5", "0", "7", "keep-alive", "close", "chunked", " 5\t", "a:b", ""]),
    st.text(st.characters(max_codepoint=255), max_size=6),
)
_LINES = st.lists(st.tuples(_NAMES, st.sampled_from([":", ": ", " :"]), _VALUES), max_size=5)


@given(_LINES, st.sampled_from([200, 206, 302, 404, 503, 204, 100, 304]), st.sampled_from([" OK", "", " "]))
def test_it_finds_what_the_library_finds(lines: list[tuple[str, str, str]], status: int, reason: str) -> None:
    fields = "".join(f"{name}{colon}{value}\r\n" for name, colon, value in lines)
    data = f"HTTP/1.1 {status}{reason}\r\n{fields}\r\n".encode("latin-1")
    head = plain_head(data + b"bodybody")
    if head:
        require_same(head, data)


def require_same(head: Head, data: bytes) -> None:
    library = read_by_library(data + b"bodybody")
    assert head.status == library.status
    assert dict(head.headers) == {name.lower(): value for name, value in library.getheaders()}
    assert head.length == library.length
    assert not library.chunked
    assert not library.will_close
    assert head.size == len(data)
