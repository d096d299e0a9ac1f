"""What can go wrong between a hub and its clients: each fault is a value; `faulty.py` shows how to use it."""

from __future__ import annotations

import fcntl
import gzip
import itertools
import json
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from distributed_downloader.local_hub.http import Reply, Request, data_reply

if TYPE_CHECKING:
    from tests.hub.faulty import FaultyHub

CONTENT = ("cdn", "cache")
#: Seconds that a client gets to take the bytes before a reset.
_TAKE_SECONDS = 5.0
ERROR_PAGE = b"<!DOCTYPE html><html><body><h1>Gateway says no</h1></body></html>"
Chunks = Iterator[bytes]


class _CutError(Exception):
    def __init__(self, *, reset: bool) -> None:
        self.reset = reset


@dataclass
class FaultyReply(Reply):
    """A reply whose body passes through stages on its way to the client."""

    stages: list[Callable[[Chunks], Chunks]] = field(default_factory=list)

    @classmethod
    def of(cls, reply: Reply) -> FaultyReply:
        return cls(**{each.name: getattr(reply, each.name) for each in fields(reply)})

    def send(self, connection: socket.socket) -> None:
        if not self.stages:
            return super().send(connection)
        chunks: Chunks = self._read()
        for stage in self.stages:
            chunks = stage(chunks)
        try:
            for chunk in chunks:
                connection.sendall(chunk)
                self.sent += len(chunk)
        except _CutError as cut:
            if cut.reset:
                _reset(connection)
            raise ConnectionAbortedError("as the script says") from cut
        return None

    def _read(self) -> Chunks:
        left = self.length
        with self.source() as file:
            file.seek(self.start)
            while left:
                chunk = file.read(min(left, 1 << 16))
                left -= len(chunk)
                yield chunk


def _reset(connection: socket.socket) -> None:
    """Send a RST, but only after the client's kernel has all bytes, so that each run is the same.

    A client that has died, or is frozen, takes no more of them.
    """
    deadline = time.monotonic() + _TAKE_SECONDS
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))[0]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())


def _first(chunks: Chunks, count: int) -> Chunks:
    """Yield `count` bytes of the chunks; what follows stays in the iterator but for one cut chunk's rest."""
    for chunk in chunks:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


class Fault:
    """What goes wrong with one exchange."""

    routes: ClassVar[tuple[str, ...]] = CONTENT
    methods: ClassVar[tuple[str, ...]] = ("GET",)

    def ask(self, hub: FaultyHub, request: Request) -> None:
        """Change the request before the hub sees it."""

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        """Change the answer."""
        return reply

    def let_go(self) -> None:
        """Release whoever waits: the hub closes."""


@dataclass(frozen=True)
class Truncate(Fault):
    """End the connection in good order (FIN) after so many bytes of the body."""

    after: int
    reset: ClassVar[bool] = False

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        reply.stages.append(self._stage)
        return reply

    def _stage(self, chunks: Chunks) -> Chunks:
        yield from _first(chunks, self.after)
        raise _CutError(reset=self.reset)


@dataclass(frozen=True)
class Reset(Truncate):
    """Reset the connection (RST) after so many bytes of the body."""

    reset: ClassVar[bool] = True


@dataclass(frozen=True)
class Drop(Fault):
    """Close the connection without any answer."""

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        hub.log.finish(hub.log.add(request, replace(reply, status=0)))
        raise ConnectionAbortedError("as the script says")


@dataclass(frozen=True)
class Stall(Fault):
    """Send so many bytes of the body, then nothing until `release` is set; `reached` tells that it waits."""

    after: int
    reached: threading.Event = field(default_factory=threading.Event, compare=False)
    release: threading.Event = field(default_factory=threading.Event, compare=False)

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        reply.stages.append(self._stage)
        return reply

    def _stage(self, chunks: Chunks) -> Chunks:
        passed, waited = 0, False
        for chunk in chunks:
            cut = self.after - passed
            if not waited and cut <= len(chunk):
                yield chunk[:cut]
                self._wait()
                chunk, passed, waited = chunk[cut:], passed + cut, True  # noqa: PLW2901
            yield chunk
            passed += len(chunk)

    def _wait(self) -> None:
        self.reached.set()
        self.release.wait()

    def let_go(self) -> None:
        self.release.set()


@dataclass(frozen=True)
class Hang(Stall):
    """Answer nothing at all, not even headers, until `release` is set."""

    after: int = 0

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        self._wait()
        return reply


@dataclass(frozen=True)
class Drip(Fault):
    """Send `size` bytes, pause for `pause` seconds, and so on until `release` is set."""

    size: int = 1
    pause: float = 0.05
    release: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        def stage(chunks: Chunks) -> Chunks:
            for chunk in chunks:
                for start in range(0, len(chunk), self.size):
                    yield chunk[start : start + self.size]
                    self.release.wait(self.pause)

        reply.stages.append(stage)
        return reply

    def let_go(self) -> None:
        self.release.set()


@dataclass(frozen=True)
class Corrupt(Fault):
    """Flip all bits of `length` bytes at `at`, counted in the file; the size stays."""

    at: int = 0
    length: int = 1

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        def stage(chunks: Chunks) -> Chunks:
            position = reply.start
            for chunk in chunks:
                data = bytearray(chunk)
                for index in range(max(self.at - position, 0), self.at + self.length - position):
                    if index < len(data):
                        data[index] ^= 0xFF
                position += len(data)
                yield bytes(data)

        reply.stages.append(stage)
        return reply


@dataclass(frozen=True)
class Header(Fault):
    """Set a header of the answer; "" takes it away."""

    name: str
    value: str = ""

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        reply.headers[self.name] = self.value
        return reply


@dataclass(frozen=True)
class WrongRange(Fault):
    """Send 206 with a Content-Range that is moved by `shift` bytes; the bytes are the right ones."""

    shift: int = 1

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        if "Content-Range" in reply.headers and reply.status == 206:
            span, total = reply.headers["Content-Range"].removeprefix("bytes ").split("/")
            first, last = (int(end) + self.shift for end in span.split("-"))
            reply.headers["Content-Range"] = f"bytes {first}-{last}/{total}"
        return reply


@dataclass(frozen=True)
class IgnoreRange(Fault):
    """Answer 200 with the whole file to a request for a range."""

    def ask(self, hub: FaultyHub, request: Request) -> None:
        del request.headers["Range"]


@dataclass(frozen=True)
class Gzip(IgnoreRange):
    """Answer 200 with the gzipped whole file, whatever encoding was asked for."""

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        with reply.source() as file:
            body = gzip.compress(file.read())
        headers = {**reply.headers, "Content-Encoding": "gzip"}
        return FaultyReply.of(data_reply(body, "text/plain", reply.status, headers))


@dataclass(frozen=True)
class WrongLength(Fault):
    """Announce `delta` bytes more (or fewer) than are sent, then close."""

    delta: int

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        reply.headers["Content-Length"] = str(reply.length + self.delta)
        reply.stages.append(self._stage)
        return reply

    def _stage(self, chunks: Chunks) -> Chunks:
        yield from chunks
        raise _CutError(reset=False)


@dataclass(frozen=True)
class Chunked(Fault):
    """Send the body in chunked encoding, so without a length."""

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        reply.headers |= {"Content-Length": "", "Transfer-Encoding": "chunked"}
        reply.stages.append(self._stage)
        return reply

    def _stage(self, chunks: Chunks) -> Chunks:
        for chunk in chunks:
            yield b"%x\r\n%b\r\n" % (len(chunk), chunk)
        yield b"0\r\n\r\n"


@dataclass(frozen=True)
class Status(Fault):
    """Answer with this status; `headers` are pairs of name and value."""

    status: int
    text: str = "as the script says"
    headers: tuple[tuple[str, str], ...] = ()
    kind: ClassVar[str] = "text/plain"
    methods: ClassVar[tuple[str, ...]] = ("GET", "HEAD", "POST")

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        return FaultyReply.of(data_reply(self.text.encode(), self.kind, self.status, dict(self.headers)))


@dataclass(frozen=True)
class ErrorPage(Status):
    """Answer an HTML error page in place of the file, with status 200."""

    status: int = 200
    text: str = ERROR_PAGE.decode()
    kind: ClassVar[str] = "text/html"


@dataclass(frozen=True)
class RateLimited(Status):
    """429; `retry_after` in seconds or as an HTTP date, and `window` the seconds of the RateLimit header."""

    status: int = 429
    retry_after: str = ""
    window: int | None = None
    routes: ClassVar[tuple[str, ...]] = ("info", "tree", "paths", "resolve")

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        reply = super().answer(hub, request, reply)
        reply.headers["Retry-After"] = self.retry_after
        if self.window is not None:
            reply.headers["RateLimit"] = f'"resolvers";r=0;t={self.window}'
        return reply


@dataclass(frozen=True)
class Expired(Status):
    """403, as the CDN says when a signed link's time is over."""

    status: int = 403
    text: str = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    routes: ClassVar[tuple[str, ...]] = ("cdn",)


@dataclass(frozen=True)
class Redirect(Fault):
    """Redirect to `to`: a whole URL, or only another origin (`http://host:port`) for the same path and query.

    "" is a loop: back to where the request came from.
    """

    to: str = ""
    status: int = 302
    routes: ClassVar[tuple[str, ...]] = ("resolve",)
    methods: ClassVar[tuple[str, ...]] = ("GET", "HEAD", "POST")

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        here = hub.cdn if request.origin == "cdn" else hub.endpoint
        to = self.to or here
        location = to if urlsplit(to).path.removeprefix(hub.prefix) else to + request.uri
        return replace(reply, status=self.status, headers={**reply.headers, "Location": location})


class _Listing(Fault):
    routes: ClassVar[tuple[str, ...]] = ("tree",)


@dataclass(frozen=True)
class SmallPages(_Listing):
    """Never list more than `size` entries on a page."""

    size: int

    def ask(self, hub: FaultyHub, request: Request) -> None:
        request.query["limit"] = str(self.size)


@dataclass(frozen=True)
class CursorLoop(_Listing):
    """Link every page to itself."""

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        query = replace(request, query={**request.query, "cursor": request.query.get("cursor", "MA==")}).uri
        return _linked(reply, hub.endpoint + query)


@dataclass(frozen=True)
class EndlessListing(_Listing):
    """Answer every cursor with the first page and yet another cursor."""

    count: Iterator[int] = field(default_factory=itertools.count, compare=False)

    def ask(self, hub: FaultyHub, request: Request) -> None:
        request.query.pop("cursor", None)

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        uri = replace(request, query={**request.query, "cursor": f"c{next(self.count)}"}).uri
        return _linked(reply, hub.endpoint + uri)


@dataclass(frozen=True)
class ForeignLink(_Listing):
    """Let `Link` name another host: `to` is an origin such as https://huggingface.co."""

    to: str

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        reply.headers["Link"] = reply.headers.get("Link", "").replace(hub.endpoint, self.to)
        return reply


@dataclass(frozen=True)
class DropCursor(_Listing):
    """Forget cursor and limit, as mirrors do: page 1 for ever, with the upstream's own Link."""

    upstream: str = "https://huggingface.co"

    def ask(self, hub: FaultyHub, request: Request) -> None:
        request.query.pop("cursor", None)

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        return ForeignLink(self.upstream).answer(hub, request, reply)


@dataclass(frozen=True)
class Edit(_Listing):
    """Pass the entries of a listing page (JSON) through a function."""

    change: Callable[[list[dict[str, Any]]], object]
    routes: ClassVar[tuple[str, ...]] = ("tree", "paths")
    methods: ClassVar[tuple[str, ...]] = ("GET", "POST")

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        with reply.source() as file:
            page = self.change(json.load(file))
        body = json.dumps(page).encode()
        return FaultyReply.of(data_reply(body, "application/json", reply.status, reply.headers))


def masked() -> Edit:
    """Show 64 asterisks for every sha256."""
    return Edit(
        lambda page: [
            {**line, "lfs": {**line["lfs"], "oid": "*" * 64}} if "lfs" in line else line for line in page
        ]
    )


def duplicated() -> Edit:
    """List every entry twice."""
    return Edit(lambda page: [line for line in page for _ in range(2)])


def also_listed(paths: Iterable[str], size: int = 3) -> Edit:
    """List these paths too, dangerous ones for instance; they can't be downloaded."""
    extra = [{"type": "file", "path": path, "size": size, "oid": "0" * 40} for path in paths]
    return Edit(lambda page: [*page, *extra])


@dataclass(frozen=True)
class Direct(Fault):
    """Serve the file itself in place of a redirect, without X-Linked headers, as mirrors do."""

    routes: ClassVar[tuple[str, ...]] = ("resolve",)
    methods: ClassVar[tuple[str, ...]] = ("GET", "HEAD")

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        return FaultyReply.of(hub.content(request)) if reply.status in (302, 307) else reply


def _linked(reply: FaultyReply, url: str) -> FaultyReply:
    reply.headers["Link"] = f'<{url}>; rel="next"'
    return reply
