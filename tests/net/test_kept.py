"""Requests over a connection that stands: they say what urllib3 would say, and end as its would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from distributed_downloader import connections
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import MuteError, NetworkError, RefusedError, StoppedError
from distributed_downloader.kept import Kept, ask
from distributed_downloader.ssl_config import HttpClient
from tests.hub.tls import Certificate, self_signed
from tests.net.kit import LONG, RawServer, Say, in_thread, reply
from tests.net.test_http_client import client, get


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were asked the short way, with success."""
    asked: list[str] = []

    def look(*given: object) -> Kept | None:
        kept = ask(*given)  # type: ignore[arg-type]
        if kept:
            asked.append(str(given[1]))
        return kept

    monkeypatch.setattr(connections, "ask", look)
    return asked


@contextmanager
def warm(
    *says: Say | bytes | Callable[[str], Say], read_timeout: float = LONG
) -> Iterator[tuple[RawServer, HttpClient]]:
    """Yield a server to which a connection stands, and its client; the says are for what follows."""
    with RawServer(reply(b"warm"), *says) as server:
        http = client(server.url, read_timeout=read_timeout)
        assert get(http, f"{server.url}/") == b"warm"
        yield server, http


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a/b.json",
        "/.gitattributes",
        "/a..b/...",
        "/%C3%A4%20b?x=1&y=a/b?c",
        "/models/o/n/resolve/m/x~(1)'!*;=:@,+$",
    ],
)
def test_it_sends_the_same_bytes(
    target: str, secure: bool, certificate: Certificate, short: list[str]
) -> None:
    tls = certificate.server() if secure else None
    with RawServer(reply(b"one"), tls=tls) as server:
        http = client(server.url, disable_ssl_verify=True)
        for _ in range(2):
            with http.open("GET", server.url + target, headers={"Range": "bytes=1-2"}) as response:
                assert response.read1(10) == b"one"
        assert short == [server.url + target]
        assert server.heads[0] == server.heads[1]
        assert server.connections == 1


@pytest.mark.parametrize(
    "target",
    [
        "",
        "?x",
        "/a/../b",
        "/a/.",
        "/ä",
        "/a b",
        "/%c3",
        "/%",
        "/%zz",
        "/a#b",
        '/"',
        "/a|b",
        "/a\\b",
        "/{x}",
        "/^",
        "/[x]",
    ],
)
def test_what_is_not_plain_goes_by_the_library(target: str, short: list[str]) -> None:
    with warm(reply(b"two")) as (server, http):
        assert get(http, server.url + target) == b"two"
        assert short == []
        assert server.connections == 1


def test_a_header_that_would_be_two_is_not_sent(short: list[str]) -> None:
    with warm(reply(b"two")) as (server, http):
        with pytest.raises(ValueError, match="Invalid header value"):
            http.open("GET", f"{server.url}/x", headers={"Range": "x\r\nEvil: y"})
        assert get(http, f"{server.url}/x") == b"two"
        assert len(server.heads) == 2


def test_one_connection_serves_both_ways_in_turn(short: list[str]) -> None:
    with warm(reply(b"two"), reply(b"three"), reply(b"four")) as (server, http):
        for target, body in (("/a", b"two"), ("/a b", b"three"), ("/a", b"four")):
            assert get(http, server.url + target) == body
        assert len(short) == 2
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"two", Transfer_Encoding="chunked", Content_Length="").replace(
            b"two", b"3\r\ntwo\r\n0\r\n\r\n"
        ),
        b"HTTP/1.1 100 Continue\r\n\r\n" + reply(b"two"),
        reply(b"two", X_A="\xe4"),
        reply(b"two").replace(b"\r\n", b"\n"),
        reply(b"two", Connection="close"),
        reply(b"two", Content_Length=""),
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\ntwo",
    ],
)
def test_an_answer_that_is_not_plain(answer: bytes, short: list[str]) -> None:
    last = b"Connection: close" in answer or b"Length" not in answer or b"HTTP/1.0" in answer
    last = last and b"chunked" not in answer
    with warm(Say(answer, "close" if last else "keep"), reply(b"three")) as (server, http):
        assert get(http, f"{server.url}/x") == b"two"
        assert len(short) == 1
        assert get(http, f"{server.url}/x") == b"three"
        assert server.connections == 1 + last


def test_an_answer_without_a_body() -> None:
    with warm(reply(b""), reply(b"three")) as (server, http):
        assert get(http, f"{server.url}/x") == b""
        assert get(http, f"{server.url}/x") == b"three"
        assert server.connections == 1


def test_a_redirect_over_kept_connections(short: list[str]) -> None:
    with warm(reply(b"", "302 Found", Location="/there", X_Repo_Commit="abc"), reply(b"two")) as (
        server,
        http,
    ):
        with http.open("GET", f"{server.url}/x") as response:
            assert response.read1(10) == b"two"
            assert response.url == f"{server.url}/there"
            assert [hop["X-Repo-Commit"] for hop in response.hops] == ["abc"]
        assert len(short) == 2


def test_a_body_that_comes_later_and_ends_too_early() -> None:
    half = Say(reply(b"half", Content_Length="8"), "close")
    with warm(half) as (server, http), pytest.raises(NetworkError, match="ended too early"):
        get(http, f"{server.url}/x")


@pytest.mark.parametrize("ends", [False, True])
def test_a_body_that_is_shorter_than_what_is_asked_for_just_ends(*, ends: bool) -> None:
    said = Say(reply(b"hello", Connection="close"), "close") if ends else reply(b"hello")
    with (
        warm(said, said) as (server, http),
        http.open("GET", f"{server.url}/x") as short,
        http.open("GET", f"{server.url}/x") as response,
    ):
        view = memoryview(bytearray(100))
        for answer in (short, response):  # the second one came over a new connection
            assert bytes(view[: answer.readinto(view)]) == b"hello"
            assert answer.readinto(view) == 0


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n"])
def test_a_kept_connection_that_ends_without_an_answer(said: bytes) -> None:
    with warm(Say(said, "close"), reply(b"two")) as (server, http):
        assert get(http, f"{server.url}/x") == b"two"
        assert server.connections == 2


def test_a_silent_server() -> None:
    with warm(Say(b"", "hold"), read_timeout=0.2) as (server, http):
        with pytest.raises(MuteError):
            get(http, f"{server.url}/x")
        assert len(server.heads) == 2, "nobody asks again at once"


@pytest.mark.parametrize("held", [b"", b"HTTP/1.1 200 OK\r\n", reply(b"half", Content_Length="8")])
def test_a_stop_breaks_a_wait(held: bytes) -> None:
    cancel = Cancel()
    with warm(Say(held, "hold")) as (server, http):
        getting = in_thread(lambda: get(http, f"{server.url}/x", cancel))
        assert server.holding.wait(LONG)
        cancel.set("shutdown")
        with pytest.raises(StoppedError, match="shutdown"):
            getting.result(LONG)


def test_a_host_that_lies_too_far_in_is_not_asked_over_a_kept_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was somebody's to name; now it is named by a hub that lies in public."""
    with warm(reply(b"two")) as (server, http):
        monkeypatch.setattr(http, "_limit", lambda *_: 0)
        with pytest.raises((NetworkError, RefusedError)):
            get(http, f"{server.url}/x")
        assert len(server.heads) == 1


def test_closed_pools_are_made_anew(short: list[str]) -> None:
    with warm(reply(b"two"), reply(b"three")) as (server, http):
        http.close()
        assert get(http, f"{server.url}/x") == b"two"
        assert get(http, f"{server.url}/x") == b"three"
        assert server.connections == 2
        assert len(short) == 1


@pytest.mark.parametrize("how", ["stopped", "silent", "left"])
def test_an_answer_that_is_broken_off_ends_its_connection_at_once(how: str) -> None:
    """Else the hub would go on sending, and a descriptor be gone, until the next request."""
    body = reply(b"x" * 50_000, Content_Length="100000000")
    silent = how == "silent"
    with warm(Say(b"" if silent else body, "hold"), read_timeout=0.2 if silent else LONG) as (server, http):
        cancel = Cancel()
        if silent:
            with pytest.raises(MuteError):
                http.open("GET", f"{server.url}/x", cancel=cancel)
        else:
            response = http.open("GET", f"{server.url}/x", cancel=cancel)
            assert response.read1(10)
            if how == "stopped":
                cancel.set()
            response.close()
        assert server.holding.wait(LONG)
        (line,) = server.open_lines()
        line.settimeout(LONG)
        with suppress(ConnectionError):
            assert line.recv(1) == b"", "the end, and at once"


@pytest.mark.parametrize("size", [3, 200_000])
def test_what_comes_behind_an_answer_is_no_answer(size: int, certificate: Certificate) -> None:
    """Behind TLS it lies decrypted in the library, where the socket does not show it."""
    evil = reply(b"EVIL")
    tls = certificate.server()
    with RawServer(reply(b"warm"), reply(b"x" * size) + evil, reply(b"good"), tls=tls) as server:
        http = client(server.url, disable_ssl_verify=True)
        for target, body in (("/", b"warm"), ("/one", b"x" * size), ("/two", b"good")):
            with http.open("GET", server.url + target) as response:
                view, got = memoryview(bytearray(1 << 20)), b""
                while count := response.readinto(view):
                    got += view[:count]
            assert got == body
