"""The engine `xet`: ranges of large files from a storage server, through the real hf_xet."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    AccessError,
    CorruptError,
    EngineError,
    NetworkError,
    NoAnswerError,
    NotFoundError,
    RateLimitError,
    RefusedError,
    ServerError,
    StalledError,
    StoppedError,
    TransferError,
    UnfitError,
)
from distributed_downloader.hub.xet_token import Shared
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer import xet
from distributed_downloader.transfer.watch import Patience
from distributed_downloader.transfer.xet import XetEngine
from tests.hub.faults import (
    Corrupt,
    Drip,
    Drop,
    ErrorPage,
    Fault,
    Hang,
    RateLimited,
    Redirect,
    Reset,
    Stall,
    Status,
    Truncate,
)
from tests.hub.tls import self_signed
from tests.hub.xet_hub import CAS_TOKEN, SIGNATURE, XetHub, XetStore
from tests.net.kit import LONG, QUICK, Bench, Fetched, RangeSink, in_thread

SIZE = 300_000
SECRETS = ("hf_secret", CAS_TOKEN, SIGNATURE)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> XetStore:
    return XetStore(tmp_path_factory.mktemp("xet") / "cas")


@pytest.fixture(scope="session")
def xet_hash(store: XetStore, source: Path) -> str:
    return store.upload(source / "big.bin")


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "hf_xet"))


@pytest.fixture
def hub(repo: LocalRepo, store: XetStore, xet_hash: str) -> Iterator[XetHub]:
    repos = {"models/org/name": repo}
    with XetHub(repos, store=store, xet={"big.bin": xet_hash}, tokens=["hf_secret"]) as hub:
        yield hub


@pytest.fixture
def bench(hub: XetHub, source: Path, tmp_path: Path) -> Bench:
    return Bench(hub, source, tmp_path / "out")


#: hf_xet reports a refusal only every other time, so this has to be met often.
STUBBORN = Patience(pause=0.0, connections=30)


def engine(bench: Bench, patience: Patience = QUICK, **settings: object) -> XetEngine:
    made = bench.settings(**settings)
    return XetEngine(made, HttpClient(made), patience)


def fetch(bench: Bench, path: str = "big.bin", **settings: object) -> Fetched:
    return bench.fetch(path, engine=engine(bench, QUICK, **settings))


def part(bench: Bench, start: int, end: int, made: XetEngine | None = None) -> Fetched:
    return bench.fetch_part("big.bin", RangeSink(start, end), engine=made or engine(bench))


def asked(hub: XetHub, route: str) -> list[str]:
    return [record.request.headers.get("Range", "") for record in hub.log.records(route)]


# -- what goes right ------------------------------------------------------------------------------


def test_a_whole_file_arrives(bench: Bench, hub: XetHub) -> None:
    fetched = fetch(bench)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")
    assert fetched.progress == sorted(fetched.progress)
    assert fetched.progress[-1] == SIZE
    assert asked(hub, "plan") == [f"bytes=0-{SIZE - 1}"]
    assert hub.log.records("cdn", method="GET") == []


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (5, 6), (0, 70_000), (65_536, 131_072), (100_001, 250_003), (SIZE - 1, SIZE)]
)
def test_a_range_arrives_to_the_byte(bench: Bench, hub: XetHub, start: int, end: int) -> None:
    fetched = part(bench, start, end)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")[start:end]
    assert asked(hub, "plan") == [f"bytes={start}-{end - 1}"]


def test_it_goes_on_where_the_file_ends(bench: Bench, hub: XetHub) -> None:
    fetched = bench.fetch("big.bin", engine=engine(bench), prefix=bench.content("big.bin")[:123_456])
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")
    assert asked(hub, "plan") == [f"bytes=123456-{SIZE - 1}"]


def test_an_empty_file_needs_no_request(bench: Bench, hub: XetHub) -> None:
    assert fetch(bench, "empty.txt").error is None
    assert hub.log.records() == []


def test_it_asks_for_small_blocks(bench: Bench, hub: XetHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xet, "BLOCK", 50_000)
    fetched = fetch(bench)
    assert fetched.content == bench.content("big.bin")
    spans = [[int(end) for end in span[len("bytes=") :].split("-")] for span in asked(hub, "plan")]
    assert len(spans) > 3
    assert max(last + 1 - first for first, last in spans) <= 100_000  # the last is never a small rest


def test_slots_share_hash_and_token(bench: Bench, hub: XetHub) -> None:
    made = engine(bench)
    cuts = [0, 70_000, 140_000, 210_000, SIZE]
    futures = [in_thread(partial(part, bench, start, end, made)) for start, end in itertools.pairwise(cuts)]
    content = b"".join(future.result(LONG).content for future in futures)
    assert content == bench.content("big.bin")
    assert len(hub.log.records("resolve", "big.bin")) == 1
    assert len(hub.log.records("token")) == 1


def test_a_bandwidth_limit_is_kept_in_small_steps(bench: Bench) -> None:
    throttle = Throttle(3_000_000)
    fetched = bench.fetch("big.bin", engine=engine(bench), throttle=throttle)
    assert fetched.content == bench.content("big.bin")
    assert len(fetched.progress) > SIZE // throttle.read_size


def test_a_hash_that_the_listing_hides_is_learnt(bench: Bench, hub: XetHub) -> None:
    hub.on(Corrupt(at=100_000), route="xorb")
    fetched = bench.fetch(bench.file("big.bin", masked=True), engine=engine(bench))
    assert isinstance(fetched.error, CorruptError)


def test_wrong_bytes_do_not_pass(bench: Bench, hub: XetHub) -> None:
    hub.on(Corrupt(at=100_000), route="xorb")
    assert isinstance(fetch(bench).error, CorruptError)


def test_what_a_dead_process_left_unproven_is_fetched_again(bench: Bench) -> None:
    class Sink(RangeSink):
        proves = False
        unproven = True

        def reset(self) -> None:
            self.size, self.unproven = 0, False
            self.content.clear()

    sink = Sink(0, SIZE, there=SIZE)
    fetched = bench.fetch_part("big.bin", sink, engine=engine(bench))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")
    assert [file.sha256 for file in sink.told] == [bench.file("big.bin").sha256]


# -- the end comes nearer -------------------------------------------------------------------------


def test_it_stops_at_an_end_that_came_nearer(
    bench: Bench, hub: XetHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xet, "BLOCK", 50_000)
    sink = RangeSink(1000, SIZE)

    def shorten(sink: RangeSink) -> None:
        sink.end = 120_001

    sink.wrote = shorten
    fetched = bench.fetch_part("big.bin", sink, engine=engine(bench))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")[1000:120_001]


def test_an_error_does_not_matter_once_nothing_is_missing(bench: Bench, hub: XetHub) -> None:
    sink = RangeSink(0, SIZE)
    stall = Hang()
    hub.on(stall, route="plan")
    future = in_thread(lambda: bench.fetch_part("big.bin", sink, engine=engine(bench)))
    assert stall.reached.wait(LONG)
    sink.end = 0
    hub.on(Drop(), route="plan", times=None)
    stall.release.set()
    assert future.result(LONG).error is None


# -- the token ------------------------------------------------------------------------------------


def test_the_tokens_go_where_they_belong(bench: Bench, hub: XetHub) -> None:
    assert fetch(bench, token="hf_secret").error is None
    seen = {
        (record.request.origin, record.request.route, record.request.token) for record in hub.log.records()
    }
    assert seen == {
        ("hub", "resolve", "hf_secret"),
        ("cdn", "cdn", ""),
        ("hub", "token", "hf_secret"),
        ("cas", "plan", CAS_TOKEN),
        ("cas", "xorb", ""),
    }


def test_a_token_serves_until_shortly_before_its_end(bench: Bench, hub: XetHub) -> None:
    made = engine(bench)
    for _ in range(2):
        assert part(bench, 0, 10, made).error is None
    assert len(hub.log.records("token")) == 1


@pytest.mark.parametrize("seconds", [-3600.0, 30.0])
def test_an_expired_token_is_renewed(bench: Bench, hub: XetHub, seconds: float) -> None:
    hub.token_seconds = seconds
    made = engine(bench)
    for _ in range(2):
        assert part(bench, 0, 10, made).error is None  # even where it is our clock that is wrong
    assert len(hub.log.records("token")) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_the_storage_refuses_is_renewed(bench: Bench, hub: XetHub, status: int) -> None:
    hub.on(Status(status), route="plan")
    fetched = fetch(bench)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")
    assert len(hub.log.records("token")) == 2


def test_a_storage_that_refuses_every_token_is_left(bench: Bench, hub: XetHub) -> None:
    hub.on(Status(401), route="plan", times=None)
    error = bench.fetch("big.bin", engine=engine(bench, STUBBORN)).error
    assert isinstance(error, EngineError)
    assert "refuses our token" in str(error)
    assert len(hub.log.records("token")) == STUBBORN.connections


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Status(401), AccessError),
        (Status(403, headers=(("X-Error-Code", "GatedRepo"),)), AccessError),
        (Status(404), EngineError),
        (RateLimited(window=55), RateLimitError),
        (ErrorPage(), ServerError),
        (Status(200, text=json.dumps({"accessToken": CAS_TOKEN})), ServerError),
        (Status(200, text=json.dumps(["no", "object"])), ServerError),
        (Status(500), ServerError),
        (Drop(), NoAnswerError),
    ],
)
def test_a_hub_that_gives_no_token(
    bench: Bench, hub: XetHub, fault: Fault, expected: type[TransferError]
) -> None:
    hub.on(fault, route="token", times=None)
    error = fetch(bench, token="hf_secret").error
    assert type(error) is expected
    assert not any(secret in f"{error!r} {error.__cause__!r}" for secret in SECRETS)
    assert hub.log.records("plan") == []


def test_the_hubs_pause_is_passed_on(bench: Bench, hub: XetHub) -> None:
    hub.on(RateLimited(window=55), route="token")
    error = fetch(bench).error
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 56


@pytest.mark.parametrize("address", ["local:///etc", "file:///etc", "nonsense"])
def test_a_storage_that_is_no_server(bench: Bench, hub: XetHub, address: str) -> None:
    hub.cas = address
    assert isinstance(fetch(bench).error, RefusedError)


def test_no_way_down_from_https(
    repo: LocalRepo, store: XetStore, xet_hash: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    repos, known = {"models/org/name": repo}, {"big.bin": xet_hash}
    with XetHub(repos, store=store, xet=known, tls=certificate.server()) as hub:
        error = fetch(Bench(hub, tmp_path, tmp_path / "out")).error
    assert isinstance(error, RefusedError)
    assert "its Xet storage is not on https" in str(error)


def test_a_storage_with_an_unknown_certificate(
    repo: LocalRepo, store: XetStore, xet_hash: str, tmp_path: Path
) -> None:
    certificate, repos, known = self_signed(tmp_path), {"models/org/name": repo}, {"big.bin": xet_hash}
    with XetHub(repos, store=store, xet=known, cas_tls=certificate.server()) as hub:
        fetched = fetch(Bench(hub, tmp_path, tmp_path / "out"))
        assert isinstance(fetched.error, NetworkError)
        assert hub.log.records("plan") == []


# -- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["other.bin", "small.json"])
def test_a_file_that_is_not_on_xet(bench: Bench, hub: XetHub, path: str) -> None:
    error = fetch(bench, path).error
    assert type(error) is UnfitError
    assert "is not on Xet" in str(error)
    assert hub.log.records("token") == []


def test_a_hash_that_is_masked_is_none(bench: Bench, hub: XetHub) -> None:
    hub.xet = {"big.bin": "*" * 64}
    assert "is not on Xet" in str(fetch(bench).error)


def test_a_file_that_is_gone(bench: Bench, hub: XetHub) -> None:
    missing = bench.file("big.bin").model_copy(update={"path": "gone.bin"})
    assert isinstance(bench.fetch(missing, engine=engine(bench)).error, NotFoundError)


@pytest.mark.parametrize("status", [403, 500])
def test_what_the_cdn_says_to_head_does_not_matter(bench: Bench, hub: XetHub, status: int) -> None:
    hub.on(Status(status), route="cdn", method="HEAD", times=None)
    assert fetch(bench).error is None


def test_another_commit_is_refused(bench: Bench, hub: XetHub) -> None:
    hub.on(Status(200, headers=(("X-Repo-Commit", "0" * 40),)), route="resolve")
    assert isinstance(fetch(bench).error, CorruptError)


def test_a_hub_that_breaks_off_is_asked_again(bench: Bench, hub: XetHub) -> None:
    hub.on(Drop(), route="resolve", times=2)
    assert fetch(bench).error is None


def test_redirects_to_nowhere(bench: Bench, hub: XetHub) -> None:
    hub.on(Redirect("file:///etc/passwd"), route="resolve")
    assert isinstance(fetch(bench).error, RefusedError)


# -- the stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Truncate(100_000), Reset(100_000), Drop(), Status(500), Status(503)])
@pytest.mark.parametrize("route", ["plan", "xorb"])
def test_a_broken_stream_goes_on(bench: Bench, hub: XetHub, fault: Fault, route: str) -> None:
    hub.on(fault, route=route, times=3)
    fetched = fetch(bench)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")


def test_a_stream_that_ends_early_is_noticed(bench: Bench, hub: XetHub) -> None:
    hub.on(Status(416), route="plan", times=None)
    error = fetch(bench).error
    assert isinstance(error, NetworkError)
    assert f"ended {SIZE} bytes too early" in str(error)
    assert len(hub.log.records("plan")) == QUICK.connections


def test_a_stream_that_ended_early_goes_on(
    bench: Bench, hub: XetHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xet, "BLOCK", 50_000)
    hub.on(Status(416), route="plan", skip=2)
    fetched = fetch(bench)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")


@pytest.mark.parametrize(
    ("route", "status", "expected"),
    [
        ("plan", 404, EngineError),
        ("xorb", 404, EngineError),
        ("plan", 429, RateLimitError),
        ("xorb", 429, RateLimitError),
        ("plan", 500, ServerError),
        ("xorb", 500, ServerError),
        ("xorb", 403, EngineError),
    ],
)
def test_a_storage_that_says_no(
    bench: Bench, hub: XetHub, route: str, status: int, expected: type[TransferError]
) -> None:
    hub.on(Status(status), route=route, times=None)
    error = bench.fetch("big.bin", engine=engine(bench, STUBBORN, token="hf_secret")).error
    assert isinstance(error, expected)
    assert str(error).startswith("big.bin: ")
    assert not any(secret in repr(error) for secret in SECRETS)


def test_a_storage_without_the_file_is_left(bench: Bench, hub: XetHub) -> None:
    hub.xet = {"big.bin": "0" * 64}
    error = bench.fetch("big.bin", engine=engine(bench, STUBBORN)).error
    assert isinstance(error, EngineError)
    assert "does not have it" in str(error)
    assert len(hub.log.records("plan")) < STUBBORN.connections


def test_a_stream_that_brings_nothing_has_stalled(bench: Bench, hub: XetHub) -> None:
    hub.on(Hang(), route="xorb", times=None)
    made = engine(bench, Patience(pause=0.001, window=0.1))
    error = bench.fetch("big.bin", engine=made).error
    assert isinstance(error, StalledError)
    assert str(error).startswith("big.bin: ")


def test_after_a_stall_blocks_are_smaller(bench: Bench, hub: XetHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xet, "MIN_BLOCK", 50_000)
    monkeypatch.setattr(xet, "BLOCK", 200_000)
    hub.on(Drip(size=1, pause=0.01), route="xorb")
    fetched = bench.fetch("big.bin", engine=engine(bench, Patience(pause=0.001, window=1.0)))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")
    assert asked(hub, "plan")[0] == f"bytes=0-{SIZE - 1}"
    assert "bytes=0-49999" in asked(hub, "plan")


# -- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "route"),
    [(Hang, "resolve"), (Hang, "token"), (Hang, "plan"), (Hang, "xorb"), (lambda: Stall(100_000), "xorb")],
)
def test_a_blocked_transfer_stops(bench: Bench, hub: XetHub, fault: Callable[[], Stall], route: str) -> None:
    stall, cancel = fault(), Cancel()
    hub.on(stall, route=route, method="HEAD" if route == "resolve" else "", times=None)
    future = in_thread(lambda: bench.fetch("big.bin", engine=engine(bench), cancel=cancel))
    assert stall.reached.wait(LONG)
    cancel.set("shutdown")
    error = future.result(LONG).error  # the server still waits
    assert isinstance(error, StoppedError)
    assert str(error) == "shutdown"


def test_one_transfer_stops_and_the_other_goes_on(bench: Bench, hub: XetHub) -> None:
    made, stall, cancel = engine(bench), Stall(100_000), Cancel()
    hub.on(stall, route="xorb", times=2)
    sinks = [RangeSink(0, SIZE), RangeSink(0, SIZE)]
    futures = [
        in_thread(lambda: bench.fetch_part("big.bin", sinks[0], engine=made, cancel=cancel)),
        in_thread(lambda: bench.fetch_part("big.bin", sinks[1], engine=made)),
    ]
    assert hub.log.wait(lambda: len(hub.log.records("xorb")) == 2)
    cancel.set()
    assert isinstance(futures[0].result(LONG).error, StoppedError)
    stall.release.set()
    fetched = futures[1].result(LONG)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")


def test_it_stops_while_another_slot_asks_for_the_token(bench: Bench, hub: XetHub) -> None:
    made, hang, cancel = engine(bench), Hang(), Cancel()
    hub.on(hang, route="token")
    first = in_thread(lambda: part(bench, 0, 10, made))
    assert hang.reached.wait(LONG)
    sink = RangeSink(0, 10)
    second = in_thread(lambda: bench.fetch_part("big.bin", sink, engine=made, cancel=cancel))
    cancel.set()
    assert isinstance(second.result(LONG).error, StoppedError)
    hang.release.set()
    assert first.result(LONG).error is None


def test_a_stop_that_came_before(bench: Bench) -> None:
    cancel = Cancel()
    cancel.set("shutdown")
    assert isinstance(bench.fetch("big.bin", engine=engine(bench), cancel=cancel).error, StoppedError)


# -- hf_xet itself --------------------------------------------------------------------------------


def test_it_never_goes_without_certificates(bench: Bench, hub: XetHub) -> None:
    error = fetch(bench, disable_ssl_verify=True).error
    assert type(error) is UnfitError
    assert "cannot skip certificate checks" in str(error)
    assert hub.log.records() == []


def test_hf_xet_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hf_xet", None)
    with pytest.raises(UnfitError, match="install hf_xet"):
        raise fetch(bench).error or AssertionError


def test_hf_xet_is_too_old(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hf_xet", SimpleNamespace(download_files=None))
    with pytest.raises(UnfitError, match="too old: install hf_xet"):
        raise fetch(bench).error or AssertionError


def test_hf_xet_has_no_folder(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_XET_CACHE", "/dev/null/nowhere")
    with pytest.raises(EngineError, match="HF_XET_CACHE"):
        raise fetch(bench).error or AssertionError


def test_hf_xet_is_imported_late_and_quiet(tmp_path: Path) -> None:
    script = (
        "import sys; from distributed_downloader.transfer import xet; print('hf_xet' in sys.modules);"
        "print(xet._library().__name__)"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**environ, "HF_XET_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "hf_xet"]
    assert result.stderr == ""
    assert not (tmp_path / "cache").exists()  # where it would log to


def test_its_memory_is_bounded() -> None:
    config = xet._config(xet._library(), Patience(), xet.BLOCK)
    assert isinstance(config, xet._library().XetConfig)
    assert config.get("reconstruction.download_buffer_limit") == 2 * xet.BLOCK
    assert config.get("reconstruction.download_buffer_size") == 2 * xet.BLOCK
    assert config.get("reconstruction.max_reconstruction_fetch_size") == xet.BLOCK
    assert config.get("telemetry.enabled") is False


def test_what_the_user_sets_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_XET_RECONSTRUCTION_DOWNLOAD_BUFFER_SIZE", "2gb")
    config = xet._config(xet._library(), Patience(), xet.BLOCK)
    assert isinstance(config, xet._library().XetConfig)
    assert config.get("reconstruction.download_buffer_size") == 2_000_000_000
    assert config.get("reconstruction.download_buffer_limit") >= 2_000_000_000
    assert config.get("telemetry.enabled") is False


def test_no_telemetry(bench: Bench, hub: XetHub) -> None:
    assert fetch(bench).error is None
    assert hub.log.records("telemetry") == []


# -- what threads share ---------------------------------------------------------------------------


def test_only_the_last_used_values_are_kept() -> None:
    shared, made = Shared[str, str](2), list[str]()

    def get(key: str) -> None:
        def make() -> str:
            made.append(key)
            return key

        shared.get(key, make, Cancel())

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]


def test_a_failure_is_not_kept() -> None:
    shared = Shared[str, int](2)
    with pytest.raises(NetworkError):
        shared.get("a", _fail, Cancel())
    assert shared.get("a", lambda: 1, Cancel()) == 1


def test_only_the_bad_value_is_forgotten() -> None:
    shared, bad = Shared[str, list[int]](2), [1]
    shared.get("a", lambda: bad, Cancel())
    shared.forget("a", bad)
    good = shared.get("a", lambda: [1], Cancel())
    shared.forget("a", bad)
    assert shared.get("a", lambda: [2], Cancel()) is good


def _fail() -> int:
    raise NetworkError("no")


# -- lies about sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [0, 1, SIZE - 1, SIZE + 1, 10 * SIZE, 2**50])
def test_no_more_is_written_than_the_listing_says(bench: Bench, declared: int) -> None:
    """The storage has SIZE bytes, whatever the listing says."""
    file = bench.file("big.bin").model_copy(update={"size": declared})
    sink = RangeSink(0, min(declared, 2 * SIZE))  # which asserts that nothing comes beyond
    about = bench.fetch_part(file, sink, engine=engine(bench)) if declared else None
    assert len(sink.content) <= min(declared, SIZE)
    assert bench.content("big.bin").startswith(bytes(sink.content))
    assert about is None or about.error is None or isinstance(about.error, TransferError)
