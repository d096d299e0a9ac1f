"""HttpClient: certificates, proxies, token, redirects, kept connections, and the stop signal."""
# ruff: noqa: SIM117 - the outer block is what is given, the inner one what is tested

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_downloader import response as response_module
from distributed_downloader import ssl_config
from distributed_downloader.cancel import Cancel
from distributed_downloader.checks import origin
from distributed_downloader.config import HuggingFaceConfig
from distributed_downloader.connection import Connection
from distributed_downloader.errors import (
    ConfigError,
    LocalError,
    NetworkError,
    RefusedError,
    ServerError,
    StalledError,
    StoppedError,
    TransferError,
)
from distributed_downloader.response import redacted
from distributed_downloader.ssl_config import HttpClient, tls_context
from tests.hub.proxy import ForwardProxy
from tests.hub.tls import Certificate, self_signed
from tests.net.kit import LONG, RawServer, Say, in_thread, reply

TOKEN = "hf_abcdefgh"


def client(endpoint: str, *, read_timeout: float = LONG, **settings: object) -> HttpClient:
    config = HuggingFaceConfig.model_validate({"endpoint": endpoint, "token": TOKEN, **settings})
    return HttpClient(config, read_timeout=read_timeout)


def get(http: HttpClient, url: str, cancel: Cancel | None = None) -> bytes:
    """Return the whole body."""
    with http.open("GET", url, cancel=cancel) as response:
        body = b""
        while data := response.read1(1 << 16):
            body += data
        return body


class Blurting(RawServer):
    """Answers before it has heard a request."""

    def _serve(self, connection: socket.socket) -> None:
        say = self.says[0]
        assert isinstance(say, Say)
        connection.sendall(say.data)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://huggingface.co/org/name", "https://huggingface.co:443"),
        ("https://HuggingFace.co:443", "https://huggingface.co:443"),
        ("http://mirror.lan/hf/x?y=z", "http://mirror.lan:80"),
        ("http://mirror.lan:8080", "http://mirror.lan:8080"),
        ("https://user:secret@mirror.lan/", "https://mirror.lan:443"),
        ("http://[::1]:8080/x", "http://::1:8080"),
    ],
)
def test_origin(url: str, expected: str) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://cdn.hf.co/a/b?X-Amz-Signature=abc#top", "https://cdn.hf.co/a/b"),
        ("https://user:secret@mirror.lan:8080/a", "https://mirror.lan:8080/a"),
        ("http://hub/a%20b", "http://hub/a%20b"),
    ],
)
def test_redacted(url: str, expected: str) -> None:
    assert redacted(url) == expected


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://mirror.lan/anything", True),
        ("https://mirror.lan:443/anything", True),
        ("https://huggingface.co/org/name", True),
        ("http://mirror.lan/anything", False),
        ("http://huggingface.co/org/name", False),
        ("https://mirror.lan:8443/anything", False),
        ("https://cdn.mirror.lan/anything", False),
        ("https://huggingface.co.evil.example/", False),
        ("https://huggingface.co@evil.example/", False),
        ("https://cdn-lfs.huggingface.co/x", False),
    ],
)
def test_where_the_token_may_go(url: str, trusted: bool) -> None:
    assert client("https://mirror.lan/hf").trusts(url) is trusted


# -- requests -------------------------------------------------------------------------------------


def test_what_a_request_says() -> None:
    with RawServer(reply(b"hello", ETag='"x"')) as server:
        with client(server.url).open("GET", f"{server.url}/a%20b?c=d", headers={"Range": "bytes=1-"}) as got:
            assert got.status == 200
            assert got.headers["etag"] == '"x"'
            assert got.url == f"{server.url}/a%20b?c=d"
            assert (got.hops, got.from_hub, got.sent_token) == ([], True, True)
            assert got.read1(100) == b"hello"
            assert got.read1(100) == b""
        assert server.heads[0].startswith("GET /a%20b?c=d HTTP/1.1\r\n")
        assert server.header(0, "Range") == "bytes=1-"
        assert server.header(0, "Accept-Encoding") == "identity"
        assert server.header(0, "Authorization") == f"Bearer {TOKEN}"
        assert server.header(0, "User-Agent").startswith("hf-downloader/")


def test_without_a_token_none_is_sent() -> None:
    with RawServer(reply()) as server:
        with client(server.url, token="").open("GET", server.url) as got:
            assert not got.sent_token
        assert server.header(0, "Authorization") == ""


def test_a_callers_own_authorization_does_not_win() -> None:
    with RawServer(reply()) as server:
        client(server.url).open("GET", server.url, headers={"Accept-Encoding": "gzip"}).close()
        assert server.header(0, "Accept-Encoding") == "identity"


def test_a_post_has_a_body() -> None:
    with RawServer(reply(b"[]")) as server:
        with client(server.url).open("POST", server.url, body=b"paths=a") as got:
            assert got.json() == []
        assert server.heads[0].startswith("POST ")
        assert server.header(0, "Content-Length") == "7"


@pytest.mark.parametrize("status", ["404 Not Found", "429 Too Many Requests", "500 Oops", "304 Not Modified"])
def test_a_status_is_an_answer_and_no_error(status: str) -> None:
    with RawServer(Say(reply(b"", status), "close")) as server:
        with client(server.url).open("GET", server.url) as got:
            assert got.status == int(status[:3])


def test_read1_gives_no_more_than_asked_for() -> None:
    with RawServer(reply(b"0123456789")) as server, client(server.url).open("GET", server.url) as got:
        assert got.read1(3) == b"012"
        assert got.read1(100) == b"3456789"


# -- redirects ------------------------------------------------------------------------------------


def test_hops_are_kept() -> None:
    first = reply(b"moved", "307 Temporary Redirect", Location="/b?x=1", X_Repo_Commit="abc")
    second = reply(b"moved", "302 Found", Location="c")
    with RawServer(first, second, reply(b"end")) as server:
        with client(server.url).open("GET", f"{server.url}/d/a") as got:
            assert got.url == f"{server.url}/c"
            assert [hop.get("x-repo-commit") for hop in got.hops] == ["abc", None]
            assert got.sent_token
        assert [head.split(" ")[1] for head in server.heads] == ["/d/a", "/b?x=1", "/c"]
        assert server.connections == 1


def test_another_origin_gets_no_token() -> None:
    with RawServer(reply(b"bytes")) as other:
        away = reply(status="302 Found", Location=f"{other.url}/blob?sig=1")
        with RawServer(away) as server, client(server.url).open("GET", server.url) as got:
            assert (got.from_hub, got.sent_token) == (False, False)
        assert server.header(0, "Authorization") == f"Bearer {TOKEN}"
        assert other.header(0, "Authorization") == ""


def test_the_way_back_to_the_hub_gets_it_again() -> None:
    with RawServer(reply(b"x")) as server:
        with RawServer(reply(status="302 Found", Location=f"{server.url}/back")) as other:
            server.says.insert(0, Say(reply(status="302 Found", Location=other.url)))
            with client(server.url).open("GET", server.url) as got:
                assert (got.from_hub, got.sent_token, len(got.hops)) == (True, True, 2)


def test_whom_we_asked_counts_as_the_hub() -> None:
    with RawServer(reply(status="404 Not Found")) as server:
        with client("https://mirror.lan").open("GET", server.url) as got:
            assert (got.from_hub, got.sent_token) == (True, False)


@pytest.mark.parametrize("target", ["/", "/other"])
def test_a_circle(target: str) -> None:
    with RawServer(reply(status="302 Found", Location=target)) as server:
        with pytest.raises(NetworkError, match="circle"):
            client(server.url).open("GET", f"{server.url}/?secret=1")
        assert len(server.heads) <= 2


def test_a_long_way_is_a_circle_too() -> None:
    with RawServer(*(reply(status="302 Found", Location=f"/{n}") for n in range(40))) as server:
        with pytest.raises(NetworkError, match="circle"):
            client(server.url).open("GET", server.url)
        assert len(server.heads) == 21


def test_a_redirect_without_a_target_is_an_answer() -> None:
    with RawServer(reply(status="302 Found")) as server:
        with client(server.url).open("GET", server.url) as got:
            assert got.status == 302


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/x", "data:text/plain,x"])
def test_a_redirect_off_the_web(target: str) -> None:
    with RawServer(reply(status="302 Found", Location=target)) as server:
        with pytest.raises(RefusedError, match="not followed"):
            client(server.url).open("GET", server.url)


def test_a_redirect_from_https_to_http_is_refused(certificate: Certificate) -> None:
    with RawServer(reply(b"x")) as plain:
        away = reply(status="302 Found", Location=f"{plain.url}/x?signature=1")
        with RawServer(away, tls=certificate.server()) as server:
            http = client(server.url, disable_ssl_verify=True)
            with pytest.raises(RefusedError, match="from https to http") as caught:
                http.open("GET", server.url)
        assert "signature" not in str(caught.value)
        assert plain.heads == []


def test_the_case_of_a_scheme_does_not_matter(certificate: Certificate) -> None:
    with RawServer(reply(b"x")) as plain:
        away = reply(status="302 Found", Location=plain.url.replace("http:", "HTTP:"))
        with RawServer(away, tls=certificate.server()) as server:
            http = client(server.url, disable_ssl_verify=True)
            with pytest.raises(RefusedError, match="from https to http"):
                http.open("GET", server.url.replace("https:", "HTTPS:"))
        assert plain.heads == []


def test_a_target_in_plain_utf8() -> None:
    with RawServer(reply(status="302 Found", Location="/日本é?a=ü"), reply(b"x")) as server:
        assert get(client(server.url), server.url) == b"x"
        assert server.heads[1].startswith("GET /%E6%97%A5%E6%9C%AC%C3%A9?a=%C3%BC HTTP/1.1\r\n")


def test_a_target_in_latin_1() -> None:
    away = reply(status="302 Found", Location="/@").replace(b"@", b"\xe9")
    with RawServer(away, reply(b"x")) as server:
        assert get(client(server.url), server.url) == b"x"
        assert server.heads[1].startswith("GET /%C3%A9 HTTP/1.1\r\n")


@pytest.mark.parametrize("target", ["http://[bad/", "http://h:abc/", "http://h:99999/", "//[", "https:///x"])
def test_a_target_that_is_no_address(target: str) -> None:
    with RawServer(reply(status="302 Found", Location=target)) as server:
        with pytest.raises(ServerError, match="no address") as caught:
            client(server.url).open("GET", f"{server.url}/?secret=1")
        assert "secret" not in str(caught.value)


def test_who_chose_http_may_be_led_from_https_to_http(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    with RawServer(reply(b"x")) as plain:
        away = reply(status="302 Found", Location=plain.url)
        with RawServer(away, tls=certificate.server()) as server:
            assert get(client("http://mirror.lan"), server.url) == b"x"


# -- connections ----------------------------------------------------------------------------------


def test_a_connection_is_used_again() -> None:
    with RawServer(reply(b"one"), reply(b"two")) as server:
        http = client(server.url)
        assert [get(http, server.url), get(http, server.url)] == [b"one", b"two"]
        assert server.connections == 1


def test_a_short_unread_body_does_not_cost_a_connection() -> None:
    with RawServer(reply(b"x" * 1000, "404 Not Found"), reply(b"two")) as server:
        http = client(server.url)
        http.open("GET", server.url).close()
        assert get(http, server.url) == b"two"
        assert server.connections == 1


def test_a_long_unread_body_does() -> None:
    with RawServer(reply(b"x" * 5_000_000), reply(b"two")) as server:
        http = client(server.url)
        http.open("GET", server.url).close()
        assert get(http, server.url) == b"two"
        assert server.connections == 2


def test_an_unread_body_of_unknown_length_does() -> None:
    with RawServer(Say(reply(b"x" * 10, Content_Length=""), "hold"), reply(b"two")) as server:
        http = client(server.url)
        http.open("GET", server.url).close()
        assert get(http, server.url) == b"two"
        assert server.connections == 2


def test_a_kept_connection_that_the_server_closed() -> None:
    with RawServer(Say(reply(b"one"), "close"), reply(b"two")) as server:
        http = client(server.url)
        assert [get(http, server.url), get(http, server.url)] == [b"one", b"two"]


def test_a_kept_connection_that_breaks_under_the_request() -> None:
    # The server takes the request on the old connection, and closes without a word.
    with RawServer(reply(b"one"), Say(b"", "close"), reply(b"two")) as server:
        http = client(server.url)
        assert [get(http, server.url), get(http, server.url)] == [b"one", b"two"]
        assert server.connections == 2


def test_a_kept_connection_to_a_proxy_that_breaks_under_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"one"), Say(b"", "close"), reply(b"two")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        http = client("http://hub.test")
        assert [get(http, "http://hub.test"), get(http, "http://hub.test")] == [b"one", b"two"]
        assert proxy.connections == 2


def test_a_server_that_always_closes_is_asked_twice() -> None:
    with RawServer(Say(b"", "close")) as server:
        with pytest.raises(NetworkError):
            get(client(server.url), server.url)
        assert len(server.heads) == 2


def test_many_threads_share_a_client() -> None:
    with RawServer(reply(b"x" * 1000)) as server:
        http = client(server.url)
        futures = [in_thread(lambda: [get(http, server.url) for _ in range(20)]) for _ in range(8)]
        assert {len(body) for future in futures for body in future.result(LONG)} == {1000}
        assert server.connections <= 8


def test_close_lets_go_of_the_connections() -> None:
    with RawServer(reply(b"one"), reply(b"two")) as server:
        http = client(server.url)
        get(http, server.url)
        http.close()
        assert get(http, server.url) == b"two"
        assert server.connections == 2


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:1/a?secret=1", "connection refused"),
        ("http://no-such-host.invalid/a?secret=1", "name is not known"),
    ],
)
def test_no_connection(url: str, says: str) -> None:
    with pytest.raises(NetworkError, match=says) as caught:
        client("http://mirror.lan").open("GET", url)
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith(url.split("/")[2].split(":", maxsplit=1)[0])


@pytest.mark.parametrize(
    "answer",
    [b"", b"not http at all\r\n\r\n", b"HTTP/1.1 abc Oops\r\n\r\n"],
)
def test_an_answer_that_is_none(answer: bytes) -> None:
    with RawServer(Say(answer, "close")) as server, pytest.raises(NetworkError):
        get(client(server.url), server.url)


def test_a_body_that_ends_too_early() -> None:
    with RawServer(Say(reply(b"half", Content_Length="8"), "close")) as server:
        with client(server.url).open("GET", server.url) as got:
            assert got.read1(100) == b"half"
            with pytest.raises(NetworkError, match="too early"):
                got.read1(100)


def test_no_answer_in_time() -> None:
    with RawServer(Say(b"", "hold")) as server, pytest.raises(StalledError, match="nothing comes"):
        client(server.url, read_timeout=0.5).open("GET", server.url)


def test_no_more_of_the_body_in_time() -> None:
    with RawServer(Say(reply(b"half", Content_Length="8"), "hold")) as server:
        with client(server.url, read_timeout=0.5).open("GET", server.url) as got:
            assert got.read1(100) == b"half"
            with pytest.raises(StalledError):
                got.read1(100)


def test_json() -> None:
    with RawServer(reply(b'{"a": [1]}')) as server, client(server.url).open("GET", server.url) as got:
        assert got.json() == {"a": [1]}


@pytest.mark.parametrize("body", [b"", b"<html>log in</html>", b'{"a": ', b"\xff\xfe"])
def test_what_is_not_json(body: bytes) -> None:
    with RawServer(reply(body)) as server:
        with client(server.url).open("GET", f"{server.url}?secret=1") as got:
            with pytest.raises(ServerError, match="not JSON") as caught:
                got.json()
    assert "secret" not in str(caught.value)


def test_json_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_module, "MAX_JSON", 1000)
    with RawServer(reply(b" " * 100_000)) as server, client(server.url).open("GET", server.url) as got:
        with pytest.raises(ServerError, match="longer"):
            got.json()


# -- stop -----------------------------------------------------------------------------------------


def test_a_stop_before_the_request() -> None:
    cancel = Cancel()
    cancel.set("lost lease")
    with RawServer(reply()) as server:
        with pytest.raises(StoppedError, match="lost lease"):
            client(server.url).open("GET", server.url, cancel=cancel)
        assert server.heads == []


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "held", [b"", reply(b"half", Content_Length="8"), reply(b"half", Content_Length="8", Connection="close")]
)
def test_a_stop_breaks_a_wait(held: bytes, secure: bool, certificate: Certificate) -> None:
    cancel = Cancel()
    tls = certificate.server() if secure else None
    with RawServer(Say(held, "hold"), tls=tls) as server:
        http = client(server.url, disable_ssl_verify=True)
        getting = in_thread(lambda: get(http, server.url, cancel))
        assert server.holding.wait(LONG)
        cancel.set("shutdown")
        with pytest.raises(StoppedError, match="shutdown"):
            getting.result(LONG)


def test_a_stop_after_the_answer_does_not_touch_the_next_request() -> None:
    first, second = Cancel(), Cancel()
    with RawServer(reply(b"one"), Say(reply(b"half", Content_Length="8"), "hold")) as server:
        http = client(server.url)
        held = http.open("GET", server.url, cancel=first)
        assert held.read1(100) == b"one"  # to the end, so the connection is free
        getting = in_thread(lambda: get(http, server.url, second))
        assert server.holding.wait(LONG)
        assert server.connections == 1
        first.set()
        assert not getting.done()
        held.close()
        second.set()
        with pytest.raises(StoppedError):
            getting.result(LONG)


def test_a_stopped_answer_does_not_read_on() -> None:
    cancel = Cancel()
    with RawServer(reply(b"x" * 1000)) as server:
        with client(server.url).open("GET", server.url, cancel=cancel) as got:
            cancel.set()
            with pytest.raises(StoppedError):
                got.read1(10)


def test_hanging_up_twice_or_before_connecting_is_harmless() -> None:
    connection = Connection("127.0.0.1", 1)
    connection.hang_up()
    with RawServer(reply()) as server:
        connection = Connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        connection.connect()
        connection.hang_up()
        connection.close()
        connection.hang_up()


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[RawServer]:
    with RawServer(reply(b"secret"), tls=certificate.server()) as server:
        yield server


def test_an_unknown_certificate_is_refused(secure: RawServer) -> None:
    with pytest.raises(NetworkError, match="certificate is not accepted") as caught:
        get(client(secure.url), secure.url)
    assert "SSL_CERT_FILE" in str(caught.value)
    assert secure.heads == []


def test_a_server_without_tls_is_told_as_that() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(1024)
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NetworkError, match=r"the server there speaks no TLS; is it http://\?") as caught:
            get(client(url), url)
        answering.join()
    assert "SSL_CERT_FILE" not in str(caught.value)


def test_disable_ssl_verify_accepts_it_without_a_warning(
    secure: RawServer, recwarn: pytest.WarningsRecorder
) -> None:
    assert get(client(secure.url, disable_ssl_verify=True), secure.url) == b"secret"
    assert list(recwarn) == []
    assert secure.header(0, "Authorization") == f"Bearer {TOKEN}"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_certificate_that_the_environment_names(
    secure: RawServer, certificate: Certificate, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(certificate.cert))
    assert get(client(secure.url), secure.url) == b"secret"


def test_another_certificate_is_not_enough(
    secure: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(self_signed(tmp_path).cert))
    with pytest.raises(NetworkError, match="not accepted"):
        get(client(secure.url), secure.url)


def test_a_name_that_the_certificate_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = self_signed(tmp_path, names=("hub.test",))
    monkeypatch.setenv("SSL_CERT_FILE", str(other.cert))
    with RawServer(reply(), tls=other.server()) as server:
        with pytest.raises(NetworkError, match="not accepted"):
            get(client(server.url), server.url)


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_file_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=name):
        client("https://mirror.lan")


def test_a_certificate_file_without_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing here\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    with pytest.raises(ConfigError, match="cannot be read"):
        client("https://mirror.lan")


def test_certificates_that_nobody_names_are_read_when_they_are_needed(
    secure: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[bool]()

    def context(*, verify: bool) -> ssl.SSLContext:
        read.append(verify)
        return tls_context(verify=verify)

    monkeypatch.setattr(ssl_config, "tls_context", context)
    with RawServer(reply(b"plain")) as plain:
        both = client(plain.url)
        assert get(both, plain.url) == b"plain"
        assert read == []
    for _ in range(2):
        with pytest.raises(NetworkError, match="certificate is not accepted"):
            get(both, secure.url)
    assert read == [True]


def test_a_named_certificate_that_is_broken_is_the_machines_fault(
    secure: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))
    with pytest.raises(LocalError, match="SSL_CERT_FILE and SSL_CERT_DIR: its certificates cannot be read"):
        get(client(secure.url), secure.url)


def test_a_folder_of_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path))
        assert tls_context(verify=True).verify_mode == ssl.CERT_REQUIRED
        monkeypatch.delenv(name)


def test_the_default_trusts_public_authorities() -> None:
    context = tls_context(verify=True)
    assert context.check_hostname
    assert len(context.get_ca_certs()) > 50


def test_http_where_https_is_spoken(secure: RawServer) -> None:
    with pytest.raises(TransferError):
        get(client(secure.url), secure.url.replace("https:", "http:"))


def test_https_where_http_is_spoken() -> None:
    with Blurting(reply(status="400 Bad Request")) as server:
        with pytest.raises(NetworkError, match="secure"):
            get(client(server.url), server.url.replace("http:", "https:"))


# -- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_for_http(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"x")) as server, ForwardProxy() as proxy:
        host = server.url.removeprefix("http://").split(":")
        proxy.hosts["hub.test:80"] = (host[0], int(host[1]))
        monkeypatch.setenv(name, proxy.url)
        assert get(client("http://hub.test"), "http://hub.test/a?b=c") == b"x"
        assert proxy.targets() == ["http://hub.test/a?b=c"]
        assert server.header(0, "Authorization") == f"Bearer {TOKEN}"


def test_a_proxy_without_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"x")) as server, ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removeprefix("http://"))
        assert get(client(server.url), server.url) == b"x"
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_for_https_sees_no_token(
    secure: RawServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv(name, proxy.url)
        assert get(client(secure.url, disable_ssl_verify=True), secure.url) == b"secret"
        [asked] = proxy.asked
        assert (asked.method, asked.target) == ("CONNECT", secure.url.removeprefix("https://"))
        assert "authorization" not in asked.headers


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "localhost,127.0.0.0/8"])
def test_no_proxy(exempt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"x")) as server, ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", exempt)
        assert get(client(server.url), server.url) == b"x"
        assert proxy.asked == []


def test_a_redirect_leaves_the_proxy_where_no_proxy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"x")) as lan, ForwardProxy() as proxy:
        with RawServer(reply(status="302 Found", Location=lan.url)) as server:
            proxy.hosts["hub.test:80"] = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert get(client(lan.url), "http://hub.test/") == b"x"
        assert proxy.targets() == ["http://hub.test/"]


def test_a_proxy_that_wants_a_password(secure: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"x")) as server, ForwardProxy(credentials="user:p%40ss") as proxy:
        proxy.expected = "Basic dXNlcjpwQHNz"  # user:p@ss
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert get(client(server.url), server.url) == b"x"
        assert get(client(secure.url, disable_ssl_verify=True), secure.url) == b"secret"


def test_a_proxy_that_refuses_the_password(secure: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with RawServer(reply(b"x")) as server, ForwardProxy(credentials="user:right") as proxy:
        wrong = proxy.url.replace("right", "wrongwrong")
        monkeypatch.setenv("HTTP_PROXY", wrong)
        monkeypatch.setenv("HTTPS_PROXY", wrong)
        with client(server.url).open("GET", server.url) as got:
            assert got.status == 407
        with pytest.raises(NetworkError, match=r"proxy cannot be used.*407") as caught:
            get(client(secure.url), secure.url)
        assert "wrongwrong" not in str(caught.value)


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:secretly@127.0.0.1:1")
    with pytest.raises(NetworkError, match="proxy cannot be used") as caught:
        get(client("http://hub.test"), "http://hub.test/")
    assert "secretly" not in str(caught.value)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_of_another_kind_is_a_wrong_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "socks5://user:secretly@127.0.0.1:1080")
    with pytest.raises(ConfigError, match="socks5") as caught:
        client("http://hub.test")
    assert "secretly" not in str(caught.value)
    assert name in str(caught.value)


def test_a_proxy_of_another_kind_for_another_host_is_this_machines_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secretly@127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "hub.test")
    with pytest.raises(LocalError, match="socks5") as caught:
        get(client("http://hub.test"), "http://other.test/")
    assert "secretly" not in str(caught.value)


def test_the_environment_is_asked_once_for_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def ask(url: str) -> dict[str, str]:
        asked.append(url)
        return {}

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("requests.utils.get_environ_proxies", ask)
    with RawServer(reply(b"x")) as server:
        http = client(server.url)
        for _ in range(5):
            get(http, server.url)
    assert len(asked) == 1


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    with RawServer(reply(b"x")) as server:
        get(client(server.url), server.url)
    assert threading.active_count() <= before
