"""Bodies that are read into a buffer: what one receive brings, and what comes soon after it."""
# ruff: noqa: SIM117 - the outer block is what is given, the inner one what is tested

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from distributed_downloader import response as response_module
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import CorruptError, NetworkError, StalledError, StoppedError
from distributed_downloader.models import RepoFile
from distributed_downloader.response import Response
from distributed_downloader.storage.partial import Partial
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.engine import Context
from distributed_downloader.verify import Data, Hasher
from tests.hub.faults import Stall
from tests.hub.tls import Certificate, self_signed
from tests.net.kit import LONG, Bench, RawServer, Say, in_thread, reply
from tests.net.test_http_client import client

BODY = random.Random(3).randbytes(3_000_000)
MIB = 1 << 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


def read(response: Response, size: int) -> bytes:
    view = memoryview(bytearray(size))
    return bytes(view[: response.readinto(view)])


def read_all(response: Response, size: int = MIB) -> bytes:
    return b"".join(iter(lambda: read(response, size), b""))


@contextmanager
def answered(
    server: RawServer, *, read_timeout: float = LONG, cancel: Cancel | None = None
) -> Iterator[Response]:
    http = client(server.url, read_timeout=read_timeout, disable_ssl_verify=True)
    with http.open("GET", server.url, cancel=cancel) as response:
        yield response


class Halting(RawServer):
    """Sends the pieces one by one, each when it is told to `go`."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(b"")
        self._pieces, self.go = pieces, threading.Semaphore()

    def __enter__(self) -> Halting:
        super().__enter__()
        return self

    def _serve(self, connection: socket.socket) -> None:
        self._open.append(connection)
        with connection:
            for piece in self._pieces:
                assert self.go.acquire(timeout=LONG)
                if piece.startswith(b"HTTP/"):
                    connection.recv(1 << 16)  # for what comes unasked would make the client hang up
                connection.sendall(piece)
            while connection.recv(1 << 16):
                pass  # or what it did not read would break the connection


class Trickle(RawServer):
    """Stands before another server, and passes on what that one says in small pieces with pauses."""

    def __init__(self, behind: RawServer, size: int) -> None:
        super().__init__(b"")
        self._behind, self._size = behind, size
        self.url = self.url.replace("http:", behind.url.partition("//")[0])

    def _serve(self, connection: socket.socket) -> None:
        self._open.append(connection)
        host, _, port = self._behind.url.partition("//")[2].partition(":")
        with connection, socket.create_connection((host, int(port))) as line:
            in_thread(lambda: self._ask(connection, line))
            while data := line.recv(self._size):
                connection.sendall(data)
                time.sleep(0.002)

    def _ask(self, connection: socket.socket, line: socket.socket) -> None:
        with suppress(OSError):
            while data := connection.recv(1 << 16):
                line.sendall(data)
            line.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("secure", [False, True])
def test_a_buffer_is_filled_over_several_receives(
    secure: bool, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_module, "SOON", LONG)
    with RawServer(reply(BODY), tls=certificate.server() if secure else None) as server:
        with answered(server) as got:
            sizes = [len(BODY[start : start + MIB]) for start in range(0, len(BODY), MIB)]
            assert [read(got, MIB) for _ in sizes] == [
                BODY[n * MIB : (n + 1) * MIB] for n in range(len(sizes))
            ]
            assert read(got, MIB) == b""


@pytest.mark.parametrize("size", [1, 1000, 8192, 8193, 100_000, MIB])
def test_buffers_of_any_size(size: int) -> None:
    body = BODY[: size * 20 + 7] if size < 8192 else BODY
    with RawServer(reply(body)) as server, answered(server) as got:
        assert read_all(got, size) == body


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("size", [1, 1000, (1 << 16) + 1])
def test_a_file_that_comes_together_with_its_headers(
    secure: bool, size: int, certificate: Certificate
) -> None:
    """And the next one on the same connection begins where it ended."""
    answers = [reply(BODY[:size]), reply(BODY[size : 2 * size])]
    with RawServer(*answers, tls=certificate.server() if secure else None) as server:
        http = client(server.url, disable_ssl_verify=True)
        for n in range(2):
            with http.open("GET", server.url) as got:
                assert read_all(got, 1 << 20) == BODY[n * size : (n + 1) * size]
        assert server.connections == 1


@pytest.mark.parametrize("size", [4, 100, MIB])
def test_a_slow_line_hands_over_what_is_there(size: int) -> None:
    with Halting(reply(b"half", Content_Length="8"), b"rest") as server:
        with answered(server) as got:
            assert read(got, size) == b"half"  # and the rest comes only when it is told to
            server.go.release()
            assert read_all(got, size) == b"rest"


def test_bytes_that_come_before_silence_are_handed_over_first() -> None:
    with RawServer(Say(reply(b"half", Content_Length="8"), "hold")) as server:
        with answered(server, read_timeout=0.5) as got:
            assert read(got, MIB) == b"half"
            with pytest.raises(StalledError, match="nothing comes"):
                read(got, MIB)


def test_bytes_that_come_before_a_break_are_handed_over_first() -> None:
    with RawServer(Say(reply(b"half", Content_Length="8"), "close")) as server:
        with answered(server) as got:
            assert read(got, MIB) == b"half"
            for _ in range(2):
                with pytest.raises(NetworkError, match="too early"):
                    read(got, MIB)


def test_what_goes_wrong_while_more_is_waited_for_is_told_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(Say(reply(b"half", Content_Length="8"), "hold")) as server:
        with answered(server) as got:

            def breaking(_view: memoryview) -> Iterator[int]:
                raise ConnectionResetError(104, "Connection reset by peer")

            monkeypatch.setattr(got._answer, "pieces", breaking)
            assert read(got, MIB) == b"half"
            monkeypatch.undo()
            with pytest.raises(NetworkError, match="connection reset by peer"):
                read(got, MIB)


def test_no_byte_is_lost_in_waits_that_are_cut_short(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within what TLS encrypts at once."""
    monkeypatch.setattr(response_module, "SOON", 0.0005)
    body = BODY[:100_000]
    with RawServer(reply(body), tls=certificate.server()) as behind, Trickle(behind, 1000) as server:
        with answered(server) as got:
            assert read_all(got) == body


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = reply(Content_Length="", Transfer_Encoding="chunked")
    return head + body + b"0\r\n\r\n"


def test_chunks() -> None:
    with RawServer(chunked(b"hello ", BODY, b"!"), reply(b"next")) as server:
        http = client(server.url)
        with http.open("GET", server.url) as got:
            assert read_all(got) == b"hello " + BODY + b"!"
        with http.open("GET", server.url) as got:
            assert read(got, 100) == b"next"
        assert server.connections == 1


def test_chunks_that_come_byte_by_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_module, "SOON", 0.0005)
    with RawServer(Say(chunked(b"x" * 20, b"y" * 300), "close")) as behind, Trickle(behind, 1) as server:
        with answered(server) as got:
            assert read_all(got) == b"x" * 20 + b"y" * 300


@pytest.mark.parametrize("cut", [b"5\r\nhel", b"5\r\nhello\r\n", b"5\r\nhello\r\nwhat\r\n"])
def test_chunks_that_break_off(cut: bytes) -> None:
    head = reply(Content_Length="", Transfer_Encoding="chunked")
    with RawServer(Say(head + cut, "close"), reply(b"next")) as server:
        http = client(server.url)
        with http.open("GET", server.url) as got:
            with pytest.raises(NetworkError):
                read_all(got)
        with http.open("GET", server.url) as got:
            assert read(got, 100) == b"next"
        assert server.connections == 2


@pytest.mark.parametrize("size", [100, MIB])
def test_a_chunk_of_negative_size_is_no_body(size: int) -> None:
    head = reply(Content_Length="", Transfer_Encoding="chunked")
    with RawServer(Say(head + b"-5\r\n" + b"x" * 8000, "close")) as server:
        with answered(server) as got, pytest.raises(NetworkError):
            read_all(got, size)


def test_a_body_until_the_connection_ends() -> None:
    with RawServer(Say(reply(BODY, Content_Length=""), "close")) as server, answered(server) as got:
        assert read_all(got) == BODY


def test_a_body_that_is_longer_than_declared() -> None:
    with RawServer(reply(b"0123456789 and more", Content_Length="10"), reply(b"next")) as server:
        http = client(server.url)
        with http.open("GET", server.url) as got:
            assert (read(got, 100), read(got, 100)) == (b"0123456789", b"")
        with http.open("GET", server.url) as got:
            assert read(got, 100) == b"next"


def test_the_connection_is_free_with_the_last_byte() -> None:
    with RawServer(reply(BODY), reply(b"next")) as server:
        http = client(server.url)
        held = http.open("GET", server.url)
        left = len(BODY)
        while left:
            left -= len(read(held, MIB))
        with http.open("GET", server.url) as got:
            assert read(got, 100) == b"next"
        held.close()
        assert server.connections == 1


def test_the_next_request_has_its_own_patience() -> None:
    """A short wait for more does not stay with the connection."""
    with Halting(
        reply(b"half", Content_Length="8"), b"rest", reply(b"la", Content_Length="4"), b"te"
    ) as server:
        http = client(server.url)
        with http.open("GET", server.url) as got:
            assert read(got, MIB) == b"half"
            server.go.release()
            assert read(got, MIB) == b"rest"
        assert got._raw.connection is None
        asking = in_thread(lambda: http.open("GET", server.url))
        assert not asking.done()
        server.go.release()
        with asking.result(LONG) as got:
            assert read(got, 2) == b"la"
            server.go.release()
            assert read(got, MIB) == b"te"


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("ends", [{}, {"Connection": "close"}])
def test_a_stop_breaks_a_wait_for_more(
    secure: bool, ends: dict[str, str], certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_module, "SOON", LONG)
    cancel, tls = Cancel(), certificate.server() if secure else None
    with RawServer(Say(reply(b"half", Content_Length="8", **ends), "hold"), tls=tls) as server:
        with answered(server, cancel=cancel) as got:
            reading = in_thread(lambda: read_all(got))
            assert server.holding.wait(LONG)
            cancel.set("shutdown")
            with pytest.raises(StoppedError, match="shutdown"):
                reading.result(LONG)


def test_no_body_at_all(tmp_path: Path) -> None:
    with RawServer(reply(status="204 No Content", Content_Length=""), reply(b"next")) as server:
        http = client(server.url)
        with http.open("GET", server.url) as got:
            assert read(got, 100) == b""
        with http.open("HEAD", server.url) as got:
            assert got.status == 200


# -- the engine -----------------------------------------------------------------------------------

LARGE = RepoFile(path="large.bin", size=len(BODY), sha256=hashlib.sha256(BODY).hexdigest())


def test_a_large_file_on_one_connection(bench: Bench) -> None:
    with RawServer(reply(BODY)) as server:
        fetched = bench.fetch(LARGE, spec=bench.spec(endpoint=server.url))
    assert fetched.error is None
    assert fetched.content == BODY


def test_a_large_file_whose_last_byte_is_wrong(bench: Bench) -> None:
    with RawServer(reply(BODY[:-1] + bytes([BODY[-1] ^ 1]))) as server:
        fetched = bench.fetch(LARGE, spec=bench.spec(endpoint=server.url))
    assert isinstance(fetched.error, CorruptError)


@pytest.mark.parametrize("cut", [1, MIB - 1, MIB, MIB + 1, 2 * MIB + 5])
def test_a_large_file_on_two_connections(bench: Bench, cut: int) -> None:
    size = len(BODY)
    rest = reply(BODY[cut:], "206 Partial Content", Content_Range=f"bytes {cut}-{size - 1}/{size}")
    with RawServer(Say(reply(BODY[:cut], Content_Length=str(size)), "close"), rest) as server:
        fetched = bench.fetch(LARGE, spec=bench.spec(endpoint=server.url))
        assert server.header(1, "Range") == f"bytes={cut}-"
    assert fetched.error is None
    assert fetched.content == BODY


def test_progress_is_told_of_while_a_line_is_slow(bench: Bench) -> None:
    stall, told = Stall(1000), threading.Event()
    bench.hub.on(stall, file="big.bin")
    task = bench.task("big.bin")

    def progress(count: int) -> None:
        if count == 1000:
            told.set()

    with bench.partial(task) as partial:
        context = Context(task, partial, Cancel(), Throttle(), progress)
        fetching = in_thread(lambda: bench.engine().fetch(context))
        assert told.wait(LONG)  # and the line goes on only now
        stall.release.set()
        fetching.result(LONG)
        partial.check()


def test_a_stop_while_the_hash_is_computed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, update = Cancel(), Hasher.update

    def stopping(hasher: Hasher, data: Data) -> None:
        if threading.current_thread().name == "hash":
            cancel.set("shutdown")
        update(hasher, data)

    monkeypatch.setattr(Hasher, "update", stopping)
    larger = RepoFile(path="large.bin", size=2 * len(BODY), sha256="0" * 64)
    with RawServer(Say(reply(BODY, Content_Length=str(larger.size)), "hold")) as server:
        fetched = bench.fetch(larger, cancel=cancel, spec=bench.spec(endpoint=server.url))
    assert isinstance(fetched.error, StoppedError)
    assert BODY.startswith(fetched.content)
    assert "hash" not in [thread.name for thread in threading.enumerate()]


def test_a_transfer_takes_no_more_memory_than_two_buffers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set[int]()
    write = Partial.write

    def noting(partial: Partial, data: Data) -> None:
        if data:
            asked.add(id(memoryview(data).obj))
        write(partial, data)

    monkeypatch.setattr(Partial, "write", noting)
    body = BODY * 3
    large = RepoFile(path="large.bin", size=len(body), sha256=hashlib.sha256(body).hexdigest())
    with RawServer(reply(body)) as server:
        assert bench.fetch(large, spec=bench.spec(endpoint=server.url)).error is None
    assert len(asked) <= 2
