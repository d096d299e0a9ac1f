"""What the doctor finds of a hub: over real sockets, with faults, through a proxy, behind TLS."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_downloader.config import AppConfig, ConfigManager
from distributed_downloader.doctor import look
from distributed_downloader.doctor.certificate import presented
from distributed_downloader.doctor.hub import HUB, HubHealth
from distributed_downloader.findings import Finding, Verdict
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.master import JobRequest
from tests.hub.faults import Status
from tests.hub.faulty import FaultyHub
from tests.hub.proxy import ForwardProxy
from tests.hub.tls import self_signed
from tests.net.conftest import FILES

TOKEN = "hf_secret"


def examine(
    endpoint: str, repo: str = "", *, seconds: float = 60, token: str = ""
) -> tuple[HubHealth, dict[str, Finding]]:
    """Return the examiner, and its findings by name."""
    flags = {"huggingface.endpoint": endpoint} | ({"huggingface.token": token} if token else {})
    manager = ConfigManager(None, flags, {})
    health = HubHealth(manager, manager.load(), JobRequest(repo) if repo else None)
    return health, {finding.name: finding for finding in look({HUB: health.findings}, seconds)}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file or login of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def hub(source: Path, repo: LocalRepo) -> Iterator[FaultyHub]:
    gated = LocalRepo(source, gated=True, readers=("hf_reader",))
    with FaultyHub({"models/org/name": repo, "models/org/gated": gated}, tokens=[TOKEN]) as hub:
        yield hub


def test_a_healthy_hub_and_its_repo(hub: FaultyHub) -> None:
    health, found = examine(hub.endpoint, "org/name", token=TOKEN)
    assert {finding.verdict for finding in found.values()} == {Verdict.GOOD}
    assert found["endpoint"].value.startswith(f"{hub.endpoint} answers in ")
    assert found["proxy"].value == "none, directly"
    assert found["token"].value == "of local, read, from flag"
    assert "left (api), new ones in" in found["requests"].value
    assert found["access"].value.startswith("org/name: big.bin from localhost begins in ")
    assert health.need
    assert (health.need.files, health.need.size) == (len(FILES), sum(map(len, FILES.values())))
    assert health.need.whole
    assert TOKEN not in str(found)
    assert hub.leaks() == []
    assert [r.request.route for r in hub.log.records()].count("whoami") == 1


def test_without_a_token(hub: FaultyHub) -> None:
    _, found = examine(hub.endpoint)
    assert found["token"].verdict is found["endpoint"].verdict is Verdict.GOOD
    assert found["token"].value.startswith("none")


def test_a_token_that_is_refused(hub: FaultyHub) -> None:
    _, found = examine(hub.endpoint, token="hf_wrong")
    assert found["token"].verdict is Verdict.BROKEN
    assert "refuses the token" in found["token"].advice
    assert "hf_wrong" not in str(found)


def test_a_mirror_that_knows_nobody(hub: FaultyHub) -> None:
    hub.on(Status(404), route="whoami")
    _, found = examine(hub.endpoint, token=TOKEN)
    assert found["token"].verdict is Verdict.UNKNOWN
    assert found["endpoint"].verdict is Verdict.GOOD


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_hub_with_a_problem_is_asked_once(status: int, hub: FaultyHub) -> None:
    hub.on(Status(status), route="whoami", times=None)
    _, found = examine(hub.endpoint)
    assert found["endpoint"].verdict is Verdict.WARNING
    assert f"({status}" in found["endpoint"].advice or f"({status})" in found["endpoint"].advice
    assert len(hub.log.records()) == 1


def test_few_requests_are_left(source: Path) -> None:
    with FaultyHub({"models/org/name": source}, quotas={"api": 8}) as hub:
        for _ in range(6):
            examine(hub.endpoint)
        _, found = examine(hub.endpoint)
    assert found["requests"].verdict is Verdict.WARNING
    assert found["requests"].value.startswith("1 of 8 left (api)")


def test_a_gated_repo_lists_and_gives_nothing(hub: FaultyHub) -> None:
    _, found = examine(hub.endpoint, "org/gated", token=TOKEN)
    assert found["access"].verdict is Verdict.BROKEN
    assert "the repo is gated" in found["access"].advice
    _, found = examine(hub.endpoint, "org/gated", token="hf_reader")
    assert found["access"].verdict is Verdict.GOOD


def test_a_repo_that_is_not_there(hub: FaultyHub) -> None:
    _, found = examine(hub.endpoint, "org/nothing")
    assert found["access"].verdict is Verdict.BROKEN
    assert "has no model, dataset or space org/nothing" in found["access"].advice
    assert "size" not in found


def test_a_hub_that_is_not_there(hub: FaultyHub) -> None:
    hub.refuse()
    _, found = examine(hub.endpoint, "org/name")
    assert found["answer"].verdict is Verdict.BROKEN
    assert "connection refused" in found["answer"].advice


def test_a_hub_that_says_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed_downloader.doctor.hub._SILENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _, found = examine(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert found["answer"].verdict is Verdict.BROKEN
    assert "127.0.0.1" in found["answer"].advice


def test_a_hub_that_says_nothing_holds_nobody_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _, found = examine(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.5)
    assert found["answer"].verdict is Verdict.BROKEN
    assert found["answer"].advice == "hub has not answered for 0 s, so it was not looked at any further"
    assert found["proxy"].verdict is Verdict.GOOD


def test_a_page_that_is_no_hub(hub: FaultyHub) -> None:
    hub.on(Status(200), route="whoami")
    _, found = examine(hub.endpoint, token=TOKEN)
    assert {"answer", "token"} & {name for name, each in found.items() if each.verdict is not Verdict.GOOD}


# -- a proxy, and TLS -----------------------------------------------------------------------------


def test_a_proxy_is_named_without_its_password(hub: FaultyHub, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(hub.endpoint.rpartition(":")[2])
    with ForwardProxy(hosts={"hub.test:80": ("127.0.0.1", port)}, credentials="me:pass") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        _, found = examine("http://hub.test")
        assert found["endpoint"].verdict is Verdict.GOOD
        assert found["proxy"].value == proxy.url.replace("me:pass@", "")
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("me:pass", "me:wrong"))
        _, found = examine("http://hub.test")
        assert found["endpoint"].verdict is Verdict.BROKEN
        assert "proxy asks for a password" in found["endpoint"].advice


@pytest.fixture
def secure(source: Path, tmp_path: Path) -> Iterator[FaultyHub]:
    """A hub whose certificate lies in cert.pem, and nobody vouches for."""
    with FaultyHub({"models/org/name": source}, tls=self_signed(tmp_path).server()) as hub:
        yield hub


def test_a_certificate_that_is_accepted(
    secure: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    _, found = examine(secure.endpoint)
    assert found["endpoint"].verdict is Verdict.GOOD
    # It is good for a day, which is soon over.
    assert found["certificate"].verdict is Verdict.WARNING
    assert found["certificate"].value.startswith("issued by local test hub, ")


def test_one_that_is_not_still_tells_who_issued_it(secure: FaultyHub) -> None:
    _, found = examine(secure.endpoint, token=TOKEN)
    assert found["answer"].verdict is Verdict.BROKEN
    assert "certificate is not accepted" in found["answer"].advice
    assert "SSL_CERT_FILE" in found["answer"].advice
    assert "issued by local test hub" in found["certificate"].value
    assert secure.log.records() == []  # nothing was asked, no token was shown


def test_one_that_is_over_can_be_read(source: Path, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, days_ago=9)
    with FaultyHub({"models/org/name": source}, tls=certificate.server()) as hub:
        _, found = examine(hub.endpoint)
    assert found["certificate"].value == "issued by local test hub, it is over"
    assert "has to be renewed" in found["certificate"].advice


def test_through_a_proxy_it_is_that_of_the_other_end(secure: FaultyHub) -> None:
    port = int(secure.endpoint.rpartition(":")[2])
    with ForwardProxy(hosts={"hub.test:443": ("127.0.0.1", port)}, credentials="me:pass") as proxy:
        shown = presented("https://hub.test", proxy.url)
        assert shown
        assert shown.issuer == "local test hub"
        assert proxy.targets("CONNECT") == ["hub.test:443"] * 2
        assert presented("https://hub.test", proxy.url.replace("http:", "https:")) is None


def test_a_server_without_tls_shows_none(hub: FaultyHub) -> None:
    assert presented(hub.endpoint.replace("http:", "https:"), "") is None


def test_rules_of_this_machine_count(hub: FaultyHub) -> None:
    config = AppConfig.model_validate(
        {"huggingface": {"endpoint": hub.endpoint}, "security": {"allowed_repos": "other/*"}}
    )
    health = HubHealth(ConfigManager(None, {}, {}), config, JobRequest("org/name"))
    found = {finding.name: finding for finding in look({HUB: health.findings})}
    assert "allowed_repos has no models/org/name" in found["access"].advice
