"""Secrets are found where they belong, and nowhere else: looked for wherever a process can leave them."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import redis
from rich.console import Console

from distributed_downloader.config import ConfigManager, RedisConfig
from distributed_downloader.demo import Demo
from distributed_downloader.errors import NetworkError, RedisUnavailableError
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.transfer.engine import Engine
from distributed_downloader.transfer.hf_transfer import HfTransferEngine
from distributed_downloader.transfer.hub import HubEngine
from distributed_downloader.transfer.xet import XetEngine
from tests.e2e.conftest import hub1_python, hub_python
from tests.e2e.fleet import Fleet
from tests.hub.faults import (
    Corrupt,
    ErrorPage,
    Fault,
    Header,
    RateLimited,
    Redirect,
    Reset,
    Stall,
    Status,
    Truncate,
)
from tests.hub.faulty import FaultyHub
from tests.hub.proxy import ForwardProxy
from tests.hub.tls import Certificate, self_signed
from tests.hub.xet_hub import CAS_TOKEN, SIGNATURE, XetHub, XetStore
from tests.net.kit import QUICK, Bench
from tests.security.kit import FILES, TOKEN
from tests.servers import Server, binaries, free_port

__all__ = ["hub1_python", "hub_python"]

REDIS_PASSWORD, PROXY_PASSWORD = "redisCanary0123456789", "proxyCanary0123456789"
SECRETS = (TOKEN, REDIS_PASSWORD, PROXY_PASSWORD)
BIG, SMALL = "folder/b.bin", "a.txt"


def assert_free(of: Iterable[str], where: str, text: str) -> None:
    """Assert that a text holds none of the secrets."""
    found = [secret[:6] for secret in of if secret in text]
    assert not found, f"{where} holds {found}: {text[:2000]}"


# -- one engine at a time, in this process --------------------------------------------------------


@pytest.fixture
def everything(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[], str]]:
    """Return what is logged and printed, by whichever library, as a user sees it who asks for DEBUG."""
    with caplog.at_level(logging.DEBUG):
        yield lambda: caplog.text + "".join(capfd.readouterr())


def http_engine(bench: Bench) -> Engine:
    return bench.engine(QUICK, token=TOKEN)


def hub_engine(bench: Bench) -> Engine:
    return HubEngine(bench.settings(token=TOKEN))


def hf_transfer_engine(bench: Bench) -> Engine:
    return HfTransferEngine(HttpClient(bench.settings(token=TOKEN)))


def xet_engine(bench: Bench) -> Engine:
    settings = bench.settings(token=TOKEN)
    return XetEngine(settings, HttpClient(settings), QUICK)


FAULTS: dict[str, list[tuple[Fault, str]]] = {
    "none": [],
    "401": [(Status(401), "resolve")],
    "403": [(Status(403), "resolve")],
    "404": [(Status(404), "resolve")],
    "429": [(RateLimited(), "resolve")],
    "500": [(Status(500), "resolve")],
    "said back": [(Header("X-Error-Message", f"no: Bearer {TOKEN}"), "resolve"), (Status(403), "resolve")],
    "page": [(ErrorPage(), "cdn")],
    "storage says no": [(Status(403), "cdn")],
    "truncated": [(Truncate(after=10), "cdn")],
    "reset": [(Reset(after=10), "cdn")],
    "corrupt": [(Corrupt(at=7), "cdn")],
}


@pytest.fixture
def bench(tmp_path: Path, source: Path, hub: FaultyHub) -> Bench:
    return Bench(hub, source, tmp_path / "out")


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("make", [http_engine, hub_engine, hf_transfer_engine])
def test_an_engine_tells_nobody(
    bench: Bench, hub: FaultyHub, make: Callable[[Bench], Engine], faults: str, everything: Callable[[], str]
) -> None:
    for fault, route in FAULTS[faults]:
        hub.on(fault, route=route, times=None)
    engine = make(bench)
    try:
        fetched = [bench.fetch(path, engine=engine) for path in (BIG, SMALL)]
    finally:
        engine.close()
    for each in fetched:
        assert_free([TOKEN], "an error", "".join(traceback.format_exception(each.error)) + repr(each.error))
    assert_free([TOKEN], "the log", everything())
    assert hub.leaks() == []
    assert any(record.request.token == TOKEN for record in hub.log.records("resolve")), "the hub gets it"


def _unknown(folder: Path, plain: str, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    return self_signed(folder)


def _misnamed(folder: Path, plain: str, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    certificate = self_signed(folder, ("elsewhere.test",))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    return certificate


def _no_tls(folder: Path, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Return no certificate: the server speaks plain HTTP."""


def _proxy_without_tls(folder: Path, plain: str, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    monkeypatch.setenv("HTTPS_PROXY", f"https://me:{PROXY_PASSWORD}@{plain}")
    return self_signed(folder)


@pytest.mark.parametrize("trouble", [_unknown, _misnamed, _no_tls, _proxy_without_tls])
@pytest.mark.parametrize("make", [http_engine, hub_engine, xet_engine])
def test_tls_that_fails_tells_nobody(
    bench: Bench,
    make: Callable[[Bench], Engine],
    trouble: Callable[[Path, str, pytest.MonkeyPatch], Certificate | None],
    everything: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error, with all that led to it, and what libraries log of a handshake at DEBUG."""
    plain = bench.hub.endpoint.removeprefix("http://")
    certificate = trouble(bench.out.parent, plain, monkeypatch)
    tls = certificate.server() if certificate else None
    with FaultyHub({"models/org/name": bench.source}, tls=tls, tokens=[TOKEN]) as hub:
        hub_bench = Bench(hub, bench.source, bench.out)
        endpoint = f"https://localhost:{hub.endpoint.rpartition(':')[2]}"
        monkeypatch.setattr(hub_bench, "settings", partial(hub_bench.settings, endpoint=endpoint))
        engine = make(hub_bench)
        try:
            fetched = hub_bench.fetch(BIG, engine=engine, spec=hub_bench.spec(endpoint=endpoint))
        finally:
            engine.close()
        assert isinstance(fetched.error, NetworkError)
        told = "".join(traceback.format_exception(fetched.error)) + repr(fetched.error)
        assert_free(SECRETS, "what is said", told + everything())
        assert hub.log.records() == []


@pytest.mark.parametrize("make", [http_engine, hub_engine, hf_transfer_engine])
def test_no_other_host_is_shown_it(
    bench: Bench, hub: FaultyHub, stranger: FaultyHub, make: Callable[[Bench], Engine]
) -> None:
    """Not where the hub redirects to another hub, which looks much like itself."""
    for path in (BIG, SMALL):
        target = f"{stranger.endpoint}/org/name/resolve/{bench.spec().commit}/{path}"
        hub.on(Redirect(target), file=path, times=None)
    engine = make(bench)
    try:
        assert bench.fetch(BIG, engine=engine).error is None
        bench.fetch(SMALL, engine=engine)
    finally:
        engine.close()
    assert stranger.log.records("resolve")
    for record in stranger.log.records():
        assert_free([TOKEN], "a request", str(record.request))
        assert_free([TOKEN], "its headers", str(record.request.headers.items()))


@pytest.fixture
def _xet_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "hf_xet"))


@pytest.mark.usefixtures("_xet_folder")
@pytest.mark.parametrize(
    ("faults", "tls_fails"),
    [
        ([], False),
        ([], True),
        ([(Status(401), "token")], False),
        ([(Status(403), "plan")], False),
        ([(Status(500), "xorb")], False),
    ],
)
def test_xet_tells_nobody(
    tmp_path: Path,
    source: Path,
    faults: list[tuple[Fault, str]],
    tls_fails: bool,
    everything: Callable[[], str],
) -> None:
    store = XetStore(tmp_path / "cas")
    hashes = {BIG: store.upload(source / BIG)}
    repos, tls = {"models/org/name": LocalRepo(source)}, self_signed(tmp_path).server() if tls_fails else None
    with XetHub(repos, store=store, xet=hashes, tokens=[TOKEN], cas_tls=tls) as hub:
        for fault, route in faults:
            hub.on(fault, route=route, times=None)
        bench = Bench(hub, source, tmp_path / "out")
        fetched = bench.fetch(BIG, engine=xet_engine(bench))
        assert bool(fetched.error) is (bool(faults) or tls_fails)
        said = "".join(traceback.format_exception(fetched.error)) + everything()
        assert_free([TOKEN, CAS_TOKEN, SIGNATURE], "what is said", said)
        storage = [record for record in hub.log.records() if record.request.origin != "hub"]
        for record in storage:
            assert_free([TOKEN], "a request", str(record.request.headers.items()))
    for path in (tmp_path / "hf_xet").rglob("*"):
        if path.is_file():
            assert_free([TOKEN, CAS_TOKEN], str(path), path.read_bytes().decode("latin-1"))


# -- a fleet, as users run it ---------------------------------------------------------------------


@pytest.fixture
def guarded() -> Iterator[Server]:
    """Return a Redis that wants a password."""
    with Server(binaries()[0], port=free_port(), settings={"requirepass": REDIS_PASSWORD}) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    """Return a proxy that wants a password."""
    with ForwardProxy(credentials=f"me:{PROXY_PASSWORD}") as proxy:
        yield proxy


@pytest.fixture
def secretive(
    tmp_path: Path, hub: FaultyHub, guarded: Server, proxy: ForwardProxy, hub_python: Path
) -> Iterator[Fleet]:
    """Return a fleet that has all the secrets, in its environment, and logs at DEBUG."""
    folder = tmp_path / "machine"
    folder.mkdir()
    environ = {
        "HF_TOKEN": TOKEN,
        "REDIS_PASSWORD": REDIS_PASSWORD,
        "HTTP_PROXY": proxy.url,
        "LOG_LEVEL": "DEBUG",
    }
    url = f"redis://127.0.0.1:{guarded.port}"
    fleet = Fleet(folder, url, hub.endpoint, python=str(hub_python), environ=environ)
    yield fleet
    fleet.close()


def everything_in(server: Server) -> str:
    """Return all keys of a Redis as bytes, and what its log says."""
    with redis.Redis(unix_socket_path=str(server.socket), password=REDIS_PASSWORD) as client:
        keys: list[bytes] = client.keys("*")
        assert len(keys) > 10
        found = b"".join(key + bytes(client.dump(key) or b"") for key in keys)
        values = [client.hgetall(key) for key in keys if client.type(key) == b"hash"]
        values += [client.get(key) for key in keys if client.type(key) == b"string"]
    return found.decode("latin-1") + str(values) + (server.folder / "log").read_text()


@pytest.mark.parametrize("engine", ["http", "hub", "auto"])
def test_a_fleet_leaves_no_secret_anywhere(
    secretive: Fleet, hub: FaultyHub, stranger: FaultyHub, guarded: Server, engine: str
) -> None:
    """Through a download in which much goes wrong: 500, 401, 404, and a redirect to another host."""
    (secretive.folder / "config.ini").write_text(f"[huggingface]\nengine = {engine}\n")
    hub.on(Status(500), route="resolve", file=SMALL, times=1)
    hub.on(Redirect(f"{stranger.endpoint}/elsewhere"), file="c.json", times=None)
    hub.on(Status(401), route="resolve", file=SMALL, times=None, skip=1)
    stall = Stall(after=100)
    hub.on(stall, route="cdn", file=BIG, times=1)
    job = secretive.queue("models/org/name")
    worker = secretive.worker()
    assert stall.reached.wait(60)
    assert_command_lines_free(psutil.Process(worker.process.pid))
    dumps = everything_in(guarded)
    stall.release.set()
    secretive.until_ended(job)
    said = secretive.run("status", str(job))
    for where, text in {
        "Redis": dumps + everything_in(guarded),
        "the worker's log": worker.log,
        "status": said.stdout + said.stderr,
        "the stranger": str([record.request.headers.items() for record in stranger.log.records()]),
    }.items():
        assert_free(SECRETS, where, text)
    assert "failed  " in worker.log
    for path in secretive.folder.rglob("*"):
        if path.is_file() and path.name != "config.ini":
            assert_free(SECRETS, str(path), path.read_bytes().decode("latin-1"))
    assert hub.leaks() == []
    assert_free([PROXY_PASSWORD, REDIS_PASSWORD], "the hub", _headers(hub))


def _headers(hub: FaultyHub) -> str:
    return str([record.request.headers.items() for record in hub.log.records()])


def assert_command_lines_free(process: psutil.Process) -> None:
    """Look at a process and all that it started: at their command lines, and the children's environment."""
    for each in (process, *process.children(recursive=True)):
        assert_free(SECRETS, f"the command line of {each.name()}", " ".join(each.cmdline()))
    for child in process.children(recursive=True):
        assert_free(SECRETS, f"the environment of {child.name()}", str(child.environ()))


def test_the_private_redis_gets_no_secret(tmp_path: Path, hub: FaultyHub) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    stall = Stall(after=100)
    hub.on(stall, route="cdn", file=BIG)
    fleet = Fleet(folder, "", hub.endpoint, environ={"HF_TOKEN": TOKEN, "REDIS_PASSWORD": REDIS_PASSWORD})
    process = fleet.start("download", "models/org/name")
    try:
        assert stall.reached.wait(60)
        started = psutil.Process(process.pid).children(recursive=True)
        assert any("server" in child.name() for child in started)
        assert_command_lines_free(psutil.Process(process.pid))
    finally:
        stall.release.set()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert_free(SECRETS, "the output", out + err)
    assert (folder / "downloads/org/name" / BIG).read_bytes() == FILES[BIG]


def test_the_demo_s_processes_get_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "REDIS_PASSWORD", "HTTPS_PROXY"):
        monkeypatch.setenv(name, TOKEN)
    (tmp_path / "home/.cache/huggingface").mkdir(parents=True)
    (tmp_path / "home/.cache/huggingface/token").write_text(TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    demo = Demo(tmp_path, "redis://127.0.0.1:1", "http://127.0.0.1:1", Console())
    environ = demo._environ
    assert_free([TOKEN], "the environment", str(environ))
    assert ConfigManager(None, environ=environ).load().huggingface.token.get_secret_value() == ""
    demo.close()


# -- errors and models ----------------------------------------------------------------------------


def test_a_redis_that_refuses_us_does_not_repeat_the_password(guarded: Server) -> None:
    for url in (
        f"redis://user:{REDIS_PASSWORD}x@127.0.0.1:{guarded.port}",
        f"redis://:{REDIS_PASSWORD}@127.0.0.1:1",
        f"rediss://:{REDIS_PASSWORD}@127.0.0.1:{guarded.port}",
    ):
        queue = RedisClient(RedisConfig.model_validate({"url": url}))
        with pytest.raises(RedisUnavailableError) as error:
            queue.check()
        queue.close()
        assert_free(SECRETS, "an error", "".join(traceback.format_exception(error.value)))


def test_settings_do_not_show_what_is_secret() -> None:
    url = f"redis://:{REDIS_PASSWORD}@host"
    config = ConfigManager(None, environ={"HF_TOKEN": TOKEN, "REDIS_URL": url}).load()
    assert_free(SECRETS, "settings", f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}")
