"""The engine `hub`: hf_hub_download with its traps taken out."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    AccessError,
    CorruptError,
    EngineError,
    LocalError,
    NetworkError,
    NotFoundError,
    RangeError,
    RateLimitError,
    RefusedError,
    ServerError,
    StalledError,
    StoppedError,
    TransferError,
)
from distributed_downloader.models import RepoType
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer import hub as hub_module
from distributed_downloader.transfer.hub import HubEngine
from distributed_downloader.transfer.hub_client import HubClient
from distributed_downloader.transfer.hub_library import httpx
from distributed_downloader.transfer.watch import Patience
from tests.hub.faults import (
    Corrupt,
    Direct,
    Drop,
    ErrorPage,
    Expired,
    Fault,
    Hang,
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
from tests.hub.sample import ODD_NAMES
from tests.hub.tls import self_signed
from tests.net.kit import LONG, Bench, Fetched, RangeSink, RawServer, Say, in_thread, reply


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the library's own pauses out."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)


@pytest.fixture(autouse=True)
def _engines_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what the tests have opened, for sockets that are left are warnings."""
    made = list[HubEngine]()
    init = HubEngine.__init__

    def noted(self: HubEngine, *args: object) -> None:
        init(self, *args)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(HubEngine, "__init__", noted)
    yield
    for engine in made:
        engine.close()


def fetch(bench: Bench, path: str, **settings: object) -> Fetched:
    return bench.fetch(path, engine=HubEngine(bench.settings(**settings)))


def staged(bench: Bench) -> list[str]:
    return [path.name for path in bench.partials() if path.name.endswith(".staging")]


# -- what goes right ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["big.bin", "small.json", "page.html", "folder/deep/leaf.txt", *ODD_NAMES])
def test_a_file_arrives(bench: Bench, path: str) -> None:
    fetched = fetch(bench, path)
    assert fetched.error is None
    assert fetched.content == bench.content(path)
    assert fetched.progress[-1] == len(fetched.content)
    assert staged(bench) == []


def test_an_empty_file_needs_no_request(bench: Bench) -> None:
    assert fetch(bench, "empty.txt").error is None
    assert bench.hub.log.records() == []


def test_a_dataset(bench: Bench) -> None:
    engine = HubEngine(bench.settings())
    fetched = bench.fetch("big.bin", engine=engine, spec=bench.spec(RepoType.DATASET))
    assert fetched.error is None
    assert {record.request.repo for record in bench.hub.log.records()} == {"datasets/org/name"}


def test_progress_grows_and_ends_at_the_size(bench: Bench) -> None:
    progress = fetch(bench, "big.bin").progress
    assert progress == sorted(progress)
    assert len(progress) > 2


def test_what_was_there_is_replaced(bench: Bench) -> None:
    """The library cannot go on from a beginning, so it starts over and the result is whole."""
    engine = HubEngine(bench.settings())
    fetched = bench.fetch("big.bin", engine=engine, prefix=bench.content("big.bin")[:1000])
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")


def test_a_complete_partial_needs_no_request(bench: Bench) -> None:
    engine = HubEngine(bench.settings())
    assert bench.fetch("big.bin", engine=engine, prefix=bench.content("big.bin")).error is None
    assert bench.hub.log.records() == []


def test_a_part_is_not_its_business(bench: Bench) -> None:
    engine, sink = HubEngine(bench.settings()), RangeSink(0, 1000)
    assert type(bench.fetch_part("big.bin", sink, engine=engine).error) is RangeError
    assert sink.size == 0
    assert bench.hub.log.records() == []


def test_a_mirror_that_serves_files_itself(bench: Bench) -> None:
    bench.hub.on(Direct(), times=None)
    assert fetch(bench, "big.bin").error is None


def test_nothing_but_the_file_is_asked_for(bench: Bench) -> None:
    fetch(bench, "big.bin")
    assert {record.request.route for record in bench.hub.log.records()} == {"resolve", "cdn"}


def test_identity_is_asked_for(bench: Bench) -> None:
    fetch(bench, "big.bin")
    encodings = {record.request.headers.get("Accept-Encoding") for record in bench.hub.log.records()}
    assert encodings == {"identity"}


def test_leftovers_of_a_killed_process_are_removed(bench: Bench) -> None:
    task = bench.task("big.bin")
    with bench.partial(task) as partial:
        staging = partial.staging
    (staging / "models--org--name" / "blobs").mkdir(parents=True)
    (staging / "models--org--name" / "blobs" / "x.incomplete").write_bytes(b"half")
    assert fetch(bench, "big.bin").error is None
    assert not staging.exists()


def test_stale_content_of_another_commit_is_not_taken(bench: Bench) -> None:
    """A private folder for each file: there is no metadata that could call old bytes fresh."""
    assert fetch(bench, "big.bin").error is None
    bench.hub.on(Corrupt(at=5), file="big.bin")
    assert isinstance(fetch(bench, "big.bin").error, CorruptError)


def test_it_is_quiet(
    bench: Bench, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    bench.hub.on(Truncate(1000), file="big.bin")
    assert fetch(bench, "big.bin").error is None
    assert capfd.readouterr() == ("", "")
    noisy = {record.name.split(".")[0] for record in caplog.records if record.levelno < logging.ERROR}
    assert not noisy & {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2"}


# -- the token ------------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_only(bench: Bench) -> None:
    assert fetch(bench, "big.bin", token="hf_secret").error is None
    assert {record.request.token for record in bench.hub.log.records("resolve")} == {"hf_secret"}
    assert bench.hub.leaks() == []


def test_another_endpoint_than_ours_gets_no_token(bench: Bench) -> None:
    assert fetch(bench, "big.bin", token="hf_secret", endpoint="https://mirror.invalid").error is None
    assert {record.request.token for record in bench.hub.log.records()} == {""}


def test_a_token_that_the_library_finds_is_not_ours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    assert fetch(bench, "big.bin").error is None
    assert {record.request.token for record in bench.hub.log.records()} == {""}


def test_a_third_host_gets_no_token(bench: Bench) -> None:
    # With the hub's headers, for 1.x also follows the HEAD there: it takes the same host for the same origin.
    answer = reply(bench.content("other.bin"), X_Repo_Commit=bench.spec().commit, ETag='"x"')
    with RawServer(Say(answer, "close")) as third:
        bench.hub.on(Redirect(f"{third.url}/x"), file="other.bin", times=None)
        fetched = fetch(bench, "other.bin", token="hf_secret")
        assert third.heads
        assert {third.header(n, "Authorization") for n in range(len(third.heads))} == {""}
    assert fetched.error is None


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "", AccessError),
        (401, "RepoNotFound", NotFoundError),
        (403, "GatedRepo", AccessError),
        (404, "EntryNotFound", NotFoundError),
        (404, "RevisionNotFound", NotFoundError),
        (404, "", NotFoundError),
        (500, "", ServerError),
        (502, "", ServerError),
    ],
)
def test_a_hub_that_refuses_is_asked_once(
    bench: Bench, status: int, code: str, error: type[TransferError]
) -> None:
    fault = Status(status, headers=(("X-Error-Code", code),))
    bench.hub.on(fault, file="big.bin", route="resolve", times=None)
    assert type(fetch(bench, "big.bin").error) is error
    assert len(bench.hub.log.records()) == 1
    assert staged(bench) == []


def test_a_pause_that_the_hub_asks_for_is_handed_on(bench: Bench) -> None:
    """And not slept through: the library would do so for up to five minutes, deaf to everything."""
    bench.hub.on(RateLimited(retry_after="17"), route="resolve", times=None)
    fetched = fetch(bench, "big.bin")
    assert isinstance(fetched.error, RateLimitError)
    assert fetched.error.retry_after == 17
    assert len(bench.hub.log.records()) == 1


def test_a_wrong_token(bench: Bench) -> None:
    fetched = fetch(bench, "big.bin", token="hf_wrong")
    assert isinstance(fetched.error, AccessError)
    assert "hf_wrong" not in str(fetched.error)


def test_a_storage_host_that_refuses(bench: Bench) -> None:
    bench.hub.on(Expired(), file="big.bin", times=None)
    assert type(fetch(bench, "big.bin").error) is EngineError


def test_a_hub_that_is_not_there(bench: Bench) -> None:
    engine = HubEngine(bench.settings())
    fetched = bench.fetch("big.bin", engine=engine, spec=bench.spec(endpoint="http://127.0.0.1:1"))
    assert isinstance(fetched.error, NetworkError)
    assert "127.0.0.1" in str(fetched.error)


def test_an_answer_without_the_hubs_headers(bench: Bench) -> None:
    """The library says LocalEntryNotFoundError to this, as to everything else."""
    bench.hub.on(Header("X-Repo-Commit"), route="resolve", method="HEAD", times=None)
    fetched = fetch(bench, "big.bin")
    assert type(fetched.error) is EngineError
    assert "x-repo-commit" in str(fetched.error).lower()


@pytest.mark.parametrize("fault", [Truncate(100_000), Reset(100_000)])
def test_a_line_that_breaks_once(bench: Bench, fault: Fault) -> None:
    bench.hub.on(fault, file="big.bin")
    fetched = fetch(bench, "big.bin")
    assert fetched.error is None or isinstance(fetched.error, NetworkError)
    assert staged(bench) == []


@pytest.mark.parametrize("fault", [Truncate(0), Reset(1000), Drop()])
def test_a_line_that_always_breaks(bench: Bench, fault: Fault) -> None:
    bench.hub.on(fault, file="big.bin", times=None)
    fetched = fetch(bench, "big.bin")
    assert isinstance(fetched.error, NetworkError)
    assert staged(bench) == []


def test_one_dead_host_does_not_break_another_threads_download(bench: Bench) -> None:
    """The library closes its one client, under everybody, after each failed connection."""
    stall = Stall(100_000)
    bench.hub.on(stall, file="big.bin")
    engine = HubEngine(bench.settings())
    fetching = in_thread(lambda: bench.fetch("big.bin", engine=engine))
    assert stall.reached.wait(LONG)
    huggingface_hub.close_session()
    other = Bench(bench.hub, bench.source, bench.out / "other")
    dead = other.fetch("small.json", engine=engine, spec=bench.spec(endpoint="http://127.0.0.1:1"))
    assert isinstance(dead.error, NetworkError)
    huggingface_hub.close_session()
    stall.release.set()
    assert fetching.result(LONG).error is None


def test_content_is_hashed_afterwards(bench: Bench) -> None:
    bench.hub.on(Corrupt(at=1000), file="big.bin", times=None)
    assert isinstance(fetch(bench, "big.bin").error, CorruptError)


@pytest.mark.parametrize(("path", "at"), [("big.bin", 299_999), ("small.json", 3)])
def test_content_is_hashed_even_where_the_listing_hides_the_hash(bench: Bench, path: str, at: int) -> None:
    file = bench.file(path, masked=True)
    assert bench.fetch(file, engine=HubEngine(bench.settings())).error is None
    bench.hub.on(Corrupt(at=at), file=path, times=None)
    assert isinstance(bench.fetch(file, engine=HubEngine(bench.settings())).error, CorruptError)


def test_an_error_page(bench: Bench) -> None:
    bench.hub.on(ErrorPage(), route="cdn", file="big.bin", times=None)
    assert isinstance(fetch(bench, "big.bin").error, (EngineError, NetworkError))


def test_too_big_for_the_library(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1000)
    fetched = fetch(bench, "big.bin")
    assert type(fetched.error) is EngineError
    assert "too large" in str(fetched.error)


def test_a_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub_module, "hf_hub_download", full)
    fetched = fetch(bench, "big.bin")
    assert isinstance(fetched.error, LocalError)
    assert "free some space" in str(fetched.error)


@pytest.mark.parametrize(
    "fault", [Expired(), Status(500), Truncate(0), ErrorPage(), Status(400), Header("Content-Length", "7")]
)
def test_no_error_shows_a_signature_or_a_token(bench: Bench, fault: Fault) -> None:
    bench.hub.on(fault, route="cdn", file="big.bin", times=None)
    fetched = fetch(bench, "big.bin", token="hf_secret")
    assert isinstance(fetched.error, TransferError)
    [record] = bench.hub.log.records("cdn", "big.bin", "GET")[:1]
    secrets = [*(value for value in record.request.query.values() if len(value) > 5), "hf_secret"]
    assert [secret for secret in secrets if secret in str(fetched.error)] == []


def test_what_is_cut_from_the_librarys_words() -> None:
    said = ValueError("bad\nanswer from https://cdn/x?Signature=abc&k=v (tried 5 times)")
    text = str(hub_module._translated(said, "big.bin"))
    assert (
        text == "big.bin: huggingface_hub does not download it: bad answer from https://cdn/x (tried 5 times)"
    )


def test_the_cause_is_what_counts() -> None:
    wrapped = FileNotFoundError("An error happened while trying to locate the file on the Hub")
    wrapped.__cause__ = httpx.ConnectTimeout("timed out")
    assert isinstance(hub_module._translated(wrapped, "big.bin"), NetworkError)


# -- stop, throttle, stall ------------------------------------------------------------------------


def test_a_stop_breaks_a_blocked_read(bench: Bench) -> None:
    stall, cancel = Stall(50_000), Cancel()
    bench.hub.on(stall, file="big.bin")
    engine = HubEngine(bench.settings())
    fetching = in_thread(lambda: bench.fetch("big.bin", engine=engine, cancel=cancel))
    assert stall.reached.wait(LONG)
    cancel.set("shutdown")
    fetched = fetching.result(LONG)
    assert isinstance(fetched.error, StoppedError)
    assert staged(bench) == []


def test_a_stop_while_the_hub_is_silent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    hang, cancel = Hang(), Cancel()
    bench.hub.on(hang, route="resolve", method="HEAD", file="big.bin", times=None)
    engine = HubEngine(bench.settings())
    fetching = in_thread(lambda: bench.fetch("big.bin", engine=engine, cancel=cancel))
    assert hang.reached.wait(LONG)
    cancel.set("shutdown")
    assert isinstance(fetching.result(LONG).error, StoppedError)


def test_a_stop_beforehand(bench: Bench) -> None:
    cancel = Cancel()
    cancel.set()
    fetched = bench.fetch("big.bin", engine=HubEngine(bench.settings()), cancel=cancel)
    assert isinstance(fetched.error, StoppedError)
    assert bench.hub.log.records() == []


def test_a_stop_breaks_the_throttle(bench: Bench) -> None:
    cancel, engine = Cancel(), HubEngine(bench.settings())
    slow = in_thread(lambda: bench.fetch("big.bin", engine=engine, cancel=cancel, throttle=Throttle(1)))
    assert bench.hub.log.wait(lambda: bool(bench.hub.log.records("cdn")))
    cancel.set()
    assert isinstance(slow.result(LONG).error, StoppedError)


def test_the_throttle_sees_every_byte(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    throttle, taken = Throttle(), list[int]()
    monkeypatch.setattr(throttle, "take", lambda count, _cancel: taken.append(count))
    assert bench.fetch("big.bin", engine=HubEngine(bench.settings()), throttle=throttle).error is None
    assert sum(taken) == 300_000


def test_a_stall_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "distributed_downloader.transfer.hub_client.Patience",
        lambda: Patience(window=0, window_bytes=1 << 30),
    )
    assert isinstance(fetch(bench, "big.bin").error, StalledError)


# -- TLS and proxies ------------------------------------------------------------------------------


@pytest.fixture
def secure(source: Path, tmp_path: Path) -> Iterator[Bench]:
    certificate = self_signed(tmp_path)
    with FaultyHub({"models/org/name": source}, tls=certificate.server()) as hub:
        yield Bench(hub, source, tmp_path / "out")


def test_an_unknown_certificate_is_refused(secure: Bench) -> None:
    fetched = fetch(secure, "small.json")
    assert isinstance(fetched.error, NetworkError)
    assert "certificate" in str(fetched.error).lower()


def test_disable_ssl_verify(secure: Bench, recwarn: pytest.WarningsRecorder) -> None:
    assert fetch(secure, "big.bin", disable_ssl_verify=True).error is None
    assert list(recwarn) == []


def test_a_redirect_from_https_to_http_is_refused(secure: Bench) -> None:
    with RawServer(reply(b"x")) as plain:
        secure.hub.on(Redirect(f"{plain.url}/x?signature=1"), file="big.bin", times=None)
        fetched = fetch(secure, "big.bin", disable_ssl_verify=True)
        assert plain.heads == []
    assert isinstance(fetched.error, RefusedError)
    assert "from https to http" in str(fetched.error)
    assert "signature" not in str(fetched.error)


def test_who_chose_http_may_be_led_from_https_to_http(
    secure: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    answer = reply(secure.content("other.bin"), X_Repo_Commit=secure.spec().commit, ETag='"x"')
    with RawServer(Say(answer, "close")) as plain:
        secure.hub.on(Redirect(f"{plain.url}/x"), file="other.bin", times=None)
        assert fetch(secure, "other.bin", endpoint="http://mirror.lan").error is None


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_that_the_environment_names(
    secure: Bench, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "cert.pem"))
    assert fetch(secure, "big.bin").error is None


def test_a_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert fetch(bench, "small.json").error is None
        assert all(target.startswith("http://127.0.0.1:") for target in proxy.targets())
        assert len(proxy.targets()) >= 2


def test_a_proxy_of_another_kind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secretly@127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(LocalError, match="prox") as caught:
        HubEngine(bench.settings())
    assert "secretly" not in str(caught.value)


def test_no_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert fetch(bench, "small.json").error is None
        assert proxy.targets() == []


# -- the library's cache --------------------------------------------------------------------------


@pytest.fixture
def cache(bench: Bench, tmp_path: Path) -> Path:
    """A cache that the library itself has filled, with the network's traces taken away."""
    HubEngine(bench.settings())  # so that the library uses our client
    huggingface_hub.hf_hub_download(
        "org/name",
        "big.bin",
        revision=bench.spec().commit,
        endpoint=bench.hub.endpoint,
        cache_dir=tmp_path / "cache",
        token=False,
    )
    bench.hub.log._records.clear()
    return tmp_path / "cache"


def test_what_is_in_the_cache_is_not_downloaded(bench: Bench, cache: Path) -> None:
    fetched = fetch(bench, "big.bin", cache_dir=str(cache))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")
    assert bench.hub.log.records() == []


def test_what_is_not_in_the_cache_is_and_does_not_fill_it(bench: Bench, cache: Path) -> None:
    before = sorted(cache.rglob("*"))
    assert fetch(bench, "small.json", cache_dir=str(cache)).error is None
    assert sorted(cache.rglob("*")) == before


def test_bad_bytes_in_the_cache_are_found(bench: Bench, cache: Path) -> None:
    [blob] = (cache / "models--org--name" / "blobs").iterdir()
    blob.write_bytes(b"x" * blob.stat().st_size)
    fetched = fetch(bench, "big.bin", cache_dir=str(cache))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")


def test_the_cache_is_not_trusted_without_a_hash(bench: Bench, cache: Path) -> None:
    engine = HubEngine(bench.settings(cache_dir=str(cache)))
    assert bench.fetch(bench.file("big.bin", masked=True), engine=engine).error is None
    assert bench.hub.log.records("cdn") != []


# -- the library itself ---------------------------------------------------------------------------


def test_the_switches() -> None:
    assert constants.HF_HUB_DISABLE_XET
    assert constants.HF_HUB_DISABLE_TELEMETRY
    assert not constants.HF_HUB_OFFLINE
    assert not constants.is_offline_mode()


def test_the_client_cannot_be_closed_by_the_library(bench: Bench) -> None:
    with RawServer(reply(b"x")) as server:
        client = HubClient(bench.settings())
        client.close()
        assert client.get(server.url).text == "x"
        client.shut_down()
        with pytest.raises(RuntimeError):
            client.get(server.url)


def test_requests_of_others_are_left_alone(bench: Bench) -> None:
    """Outside of a fetch the client is a plain one: the library, or a plugin of it, may use it."""
    client = HubClient(bench.settings())
    with RawServer(Say(reply(b"no", "404 Not Found"))) as server:
        assert client.get(server.url).status_code == 404
    client.shut_down()


SCRIPT = """
import json, os, sys, warnings
warnings.simplefilter("error")
from distributed_downloader.transfer.hub import HubEngine
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled
print(json.dumps([
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY,
    are_progress_bars_disabled(), {k: v for k, v in os.environ.items() if k.startswith("HF_")},
]))
"""


@pytest.mark.parametrize(
    "environment",
    [{}, {"HF_HUB_OFFLINE": "1"}, {"HF_HUB_ENABLE_HF_TRANSFER": "1"}, {"HF_HUB_DISABLE_XET": "0"}],
)
def test_the_environment_neither_decides_nor_changes(environment: dict[str, str]) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ran.stdout) == [False, True, True, True, environment]
    assert ran.stderr == ""
