"""`disable_ssl_verify` is for the hub and where it sends us: everybody else's certificate is checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from distributed_downloader.cli.app import App
from distributed_downloader.config import ConfigManager, HuggingFaceConfig, RedisConfig
from distributed_downloader.errors import NetworkError, RedisUnavailableError
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.transfer.hub import HubEngine
from tests.e2e.fleet import Fleet
from tests.hub.faults import Redirect
from tests.hub.faulty import FaultyHub
from tests.hub.tls import Certificate, self_signed
from tests.net.kit import Bench, RawServer, reply
from tests.security.kit import TOKEN
from tests.servers import Server

#: The file that lies in the hub's storage.
BIG = "folder/b.bin"
WARNING = "disable_ssl_verify is on"


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    folder = tmp_path / "tls"
    folder.mkdir()
    return self_signed(folder)


@pytest.fixture
def bench(source: Path, tmp_path: Path, certificate: Certificate) -> Iterator[Bench]:
    """Return a hub whose certificate nobody vouches for, and its CDN, which is another host."""
    with FaultyHub({"models/org/name": source}, tls=certificate.server(), tokens=[TOKEN]) as hub:
        bench = Bench(hub, source, tmp_path / "out")
        yield bench
        bench.close()


@pytest.fixture
def stranger(source: Path, certificate: Certificate) -> Iterator[FaultyHub]:
    """Return another such hub, which is not the configured one."""
    with FaultyHub({"models/org/name": source}, tls=certificate.server()) as hub:
        yield hub


def client(bench: Bench) -> HttpClient:
    return HttpClient(bench.settings(disable_ssl_verify=True, token=TOKEN))


def get(http: HttpClient, url: str) -> int:
    with http.open("GET", url) as response:
        return response.status


def test_our_http_follows_the_hub_to_its_storage(bench: Bench) -> None:
    http = client(bench)
    with http.open("GET", f"{bench.hub.endpoint}/org/name/resolve/main/{BIG}") as response:
        assert response.url.startswith("https://localhost:")
        assert response.read1(1 << 20)
    http.close()


def test_our_http_checks_everybody_else(bench: Bench, stranger: FaultyHub) -> None:
    """Also where the hub's own connections to that very host are kept."""
    http = client(bench)
    bench.hub.on(Redirect(f"{stranger.endpoint}/api/models/org/name"), file="a.txt", times=None)
    assert get(http, f"{bench.hub.endpoint}/org/name/resolve/main/a.txt") == 200
    with pytest.raises(NetworkError, match="certificate is not accepted"):
        get(http, f"{stranger.endpoint}/api/models/org/name")
    http.close()


def test_a_proxy_s_own_certificate_is_checked(
    bench: Bench, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(reply(status="200 Connection established"), tls=certificate.server()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        http = client(bench)
        with pytest.raises(NetworkError, match="certificate"):
            get(http, bench.hub.endpoint)
        assert proxy.heads == [], "it was told nothing"
        http.close()


def test_huggingface_hub_is_held_to_the_same(bench: Bench, stranger: FaultyHub) -> None:
    engine = HubEngine(bench.settings(disable_ssl_verify=True, token=TOKEN))
    try:
        assert bench.fetch("folder/b.bin", engine=engine).error is None
        error = bench.fetch("folder/b.bin", engine=engine, spec=bench.spec(endpoint=stranger.endpoint)).error
    finally:
        engine.close()
    assert isinstance(error, NetworkError)
    assert "certificate" in str(error).lower()
    assert stranger.log.records() == []


def test_huggingface_hub_checks_a_proxy_s_own_certificate(
    bench: Bench, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(reply(status="200 Connection established"), tls=certificate.server()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        engine = HubEngine(bench.settings(disable_ssl_verify=True, token=TOKEN))
        try:
            error = bench.fetch("a.txt", engine=engine).error
        finally:
            engine.close()
        assert isinstance(error, NetworkError)
        assert proxy.heads == [], "it was told nothing"


def test_redis_is_checked(certificate: Certificate) -> None:
    assert "disable_ssl_verify" in HuggingFaceConfig.model_fields
    with RawServer(b"+PONG\r\n", tls=certificate.server()) as server:
        url = server.url.replace("https:", "rediss:")
        queue = RedisClient(RedisConfig.model_validate({"url": url}))
        with pytest.raises(RedisUnavailableError, match="certificate"):
            queue.check()
        queue.close()
        assert server.heads == []


# -- the warning ----------------------------------------------------------------------------------


def test_the_settings_warn_of_it() -> None:
    for switch, warnings in (("true", 1), ("false", 0)):
        manager = ConfigManager(None, environ={"HF_DISABLE_SSL_VERIFY": switch})
        manager.load()
        manager.load()
        assert sum(WARNING in text for text in manager.warnings) == warnings


def test_it_is_said_before_work_begins(capsys: pytest.CaptureFixture[str]) -> None:
    assert App(None, {"disable_ssl_verify": True}).config.huggingface.disable_ssl_verify
    assert WARNING in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("master", "models/org/name", "--dry-run"),
        ("master", "models/org/name"),
        ("batch-master", "models/org/name"),
        ("download", "models/org/name"),
        ("worker", "--drain-when-empty"),
    ],
    ids=" ".join,
)
def test_every_command_that_asks_the_hub_says_it(
    hub: FaultyHub, redis_server: Server, tmp_path: Path, words: tuple[str, ...]
) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.flushall()
    url = redis_server.config.url.get_secret_value()
    fleet = Fleet(folder, url, hub.endpoint, environ={"HF_TOKEN": TOKEN})
    assert WARNING in fleet.run("--disable-ssl-verify", *words).stderr
    assert WARNING not in fleet.run(*words).stderr
