"""The test proxy and the test certificate do what real ones do."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_downloader.local_hub import LocalHub
from tests.hub import sample
from tests.hub.client import ask, connect, send
from tests.hub.proxy import ForwardProxy
from tests.hub.tls import Certificate, self_signed

CONTENT = bytes(range(256)) * 5000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repo")
    sample.write_files(folder, {"big.bin": CONTENT})
    return folder


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[LocalHub]:
    with LocalHub({"models/m": folder}) as hub:
        yield hub


@pytest.fixture
def secure_hub(folder: Path, certificate: Certificate) -> Iterator[LocalHub]:
    with LocalHub({"models/m": folder}, tls=certificate.server()) as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_proxy_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def port(url: str) -> int:
    found = urllib.parse.urlsplit(url).port
    assert found
    return found


# --- TLS


def test_a_hub_behind_tls(secure_hub: LocalHub, certificate: Certificate) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate.cert))
    assert secure_hub.endpoint.startswith("https://127.0.0.1:")
    link = ask(secure_hub.endpoint + "/m/resolve/main/big.bin", tls=trusting).location
    assert link.startswith("https://localhost:")
    assert ask(link, tls=trusting).body == CONTENT


def test_the_certificate_holds_under_strict_rules(secure_hub: LocalHub, certificate: Certificate) -> None:
    strict = ssl.create_default_context(cafile=str(certificate.cert))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    assert ask(secure_hub.endpoint + "/api/models/m", tls=strict).status == 200


def test_the_certificate_is_not_trusted_by_itself(secure_hub: LocalHub) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(secure_hub.endpoint + "/api/models/m", tls=ssl.create_default_context())


def test_the_certificate_names_its_hosts_and_no_others(folder: Path, tmp_path: Path) -> None:
    other = self_signed(tmp_path, names=("hub.test",))
    trusting = ssl.create_default_context(cafile=str(other.cert))
    with (
        LocalHub({"models/m": folder}, tls=other.server()) as hub,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ask(hub.endpoint + "/api/models/m", tls=trusting)


def test_a_client_that_fails_the_handshake_leaves_the_hub_alone(
    secure_hub: LocalHub, certificate: Certificate, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((http.client.BadStatusLine, ConnectionError)):
        ask(secure_hub.endpoint.replace("https", "http") + "/api/models/m")
    trusting = ssl.create_default_context(cafile=str(certificate.cert))
    assert ask(secure_hub.endpoint + "/api/models/m", tls=trusting).status == 200
    assert capfd.readouterr().err == ""


# --- proxy


def through(proxy: ForwardProxy, url: str) -> bytes:
    """Fetch as the standard library does with a proxy."""
    handler = urllib.request.ProxyHandler({"http": proxy.url})
    with urllib.request.build_opener(handler).open(url, timeout=60) as response:
        return bytes(response.read())


def test_plain_http_passes_as_absolute_uris(hub: LocalHub) -> None:
    with ForwardProxy() as proxy:
        assert through(proxy, hub.endpoint + "/m/resolve/main/big.bin") == CONTENT
        first, second = proxy.targets("GET")
    assert first == hub.endpoint + "/m/resolve/main/big.bin"
    assert second.startswith(hub.cdn)


def test_invented_hosts_lead_to_real_ones(hub: LocalHub) -> None:
    with ForwardProxy(hosts={"hub.test:80": ("127.0.0.1", port(hub.endpoint))}) as proxy:
        assert b'"id": "m"' in through(proxy, "http://hub.test/api/models/m?blobs=true")
        assert proxy.targets() == ["http://hub.test/api/models/m?blobs=true"]


def test_a_body_is_passed_on(hub: LocalHub) -> None:
    url = hub.endpoint + "/api/models/m/paths-info/main"
    with ForwardProxy() as proxy:
        connection = connect(proxy.url)
        headers = {"Content-Type": "application/json", "Content-Length": "22"}
        connection.request("POST", url, b'{"paths": ["big.bin"]}', headers)
        assert b'"big.bin"' in connection.getresponse().read()
        connection.close()


def test_https_passes_through_a_tunnel(secure_hub: LocalHub, certificate: Certificate) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate.cert))
    with ForwardProxy() as proxy:
        connection = http.client.HTTPSConnection("127.0.0.1", port(proxy.url), timeout=60, context=trusting)
        connection.set_tunnel("127.0.0.1", port(secure_hub.endpoint))
        assert send(connection, secure_hub.endpoint + "/api/models/m").json["id"] == "m"
        connection.close()
        assert proxy.targets() == [f"127.0.0.1:{port(secure_hub.endpoint)}"]


def test_credentials_are_asked_for_and_kept_from_the_hub(folder: Path) -> None:
    with LocalHub({"models/m": folder}) as hub, ForwardProxy(credentials="me:secret") as proxy:
        assert "me:secret@" in proxy.url
        through(proxy, hub.endpoint + "/api/models/m")
        (record,) = hub.log.records()
        assert "Proxy-Authorization" not in record.request.headers
        connection = http.client.HTTPConnection("127.0.0.1", port(proxy.url), timeout=60)
        connection.request("GET", hub.endpoint + "/api/models/m")
        assert connection.getresponse().status == 407
        connection.close()


def test_a_host_that_is_not_there_is_502() -> None:
    with ForwardProxy(hosts={"gone.test:80": ("127.0.0.1", 1)}) as proxy:
        with pytest.raises(urllib.error.HTTPError) as error:
            through(proxy, "http://gone.test/")
        assert error.value.code == 502
        error.value.close()
