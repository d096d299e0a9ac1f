"""The engine `hf_transfer`: the real library in a process of its own, against a hub that misbehaves."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

from distributed_downloader.budget import Budgets
from distributed_downloader.cancel import Cancel
from distributed_downloader.cli.app import App
from distributed_downloader.config import HuggingFaceConfig
from distributed_downloader.errors import (
    AccessError,
    CorruptError,
    EngineError,
    NotFoundError,
    RangeError,
    StalledError,
    StoppedError,
    UnfitError,
)
from distributed_downloader.folders import Folders
from distributed_downloader.local_hub.http import Request
from distributed_downloader.queue_terms import Member
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer import hf_transfer, hf_transfer_process, rust_threads
from distributed_downloader.transfer.division import Division, Fleet
from distributed_downloader.transfer.hf_transfer import HfTransferEngine, objection, patient
from distributed_downloader.transfer.hf_transfer_process import Wanted
from distributed_downloader.transfer.watch import Patience, Watch
from tests.e2e.fleet import until
from tests.hub.faults import (
    Chunks,
    Corrupt,
    Direct,
    Expired,
    Fault,
    FaultyReply,
    IgnoreRange,
    Redirect,
    Reset,
    Stall,
    Status,
    Truncate,
)
from tests.hub.faulty import FaultyHub
from tests.hub.proxy import ForwardProxy
from tests.hub.tls import self_signed
from tests.net.kit import LONG, Bench, Fetched, RangeSink, RawServer, in_thread, reply

#: Five pieces make big.bin.
PIECE = 1 << 16
#: What comes before the pieces: our own look at the address, and the library's.
LOOKS = 2


def engine(bench: Bench, patience: Patience | None = None, **settings: object) -> HfTransferEngine:
    given = bench.settings(**settings)
    return HfTransferEngine(HttpClient(given, read_timeout=LONG), patience, piece=PIECE)


def fetch(bench: Bench, path: str = "big.bin", token: str = "") -> Fetched:
    return bench.fetch(path, engine=engine(bench, token=token))


def processes(of: int | None = None) -> list[psutil.Process]:
    """Return the library's processes that a process (this one) has started."""
    children = psutil.Process(of or os.getpid()).children(recursive=True)
    return [child for child in children if "hf_transfer_child" in _words(child)]


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""  # it has ended


@pytest.fixture(autouse=True)
def _nothing_is_left(bench: Bench) -> Iterator[None]:
    """Whatever happens: no process, and no file of its own."""
    yield
    assert processes() == []
    assert [path.name for path in bench.partials() if path.name.endswith(".staging")] == []


# -- what goes right ------------------------------------------------------------------------------


def test_a_file_arrives_in_pieces(bench: Bench) -> None:
    fetched = fetch(bench)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")
    assert fetched.progress[0] == 0
    assert fetched.progress[-1] == len(fetched.content)
    assert fetched.progress == sorted(fetched.progress)
    asked = [wanted for _, wanted in bench.asked("big.bin")]
    assert asked[:LOOKS] == ["bytes=0-0"] * LOOKS
    assert sorted(asked[LOOKS:]) == sorted(
        f"bytes={start}-{min(start + PIECE - 1, 300_000)}" for start in range(0, 300_000, PIECE)
    )


def test_the_hub_is_asked_once(bench: Bench) -> None:
    assert fetch(bench).error is None
    assert len(bench.hub.log.records("resolve")) == 1


def test_the_storage_gets_no_token(bench: Bench) -> None:
    assert fetch(bench, token="hf_secret").error is None
    assert bench.hub.leaks() == []


@pytest.mark.parametrize("faults", [[], [Direct()]])
def test_a_hub_that_serves_the_bytes_is_left_to_http(bench: Bench, faults: list[Fault]) -> None:
    """What lies in git, and all that a mirror has: there, the token and the hub's budget are at stake."""
    for fault in faults:
        bench.hub.on(fault, times=None)
    path = "big.bin" if faults else "small.json"
    assert type(fetch(bench, path, token="hf_secret").error) is UnfitError
    assert len(bench.hub.log.records("resolve" if faults else "cache", path)) == 1


def test_a_hub_that_leads_elsewhere_later_gets_the_token_for_nobody(bench: Bench) -> None:
    with RawServer(reply(b"x")) as other:
        bench.hub.on(Direct(), times=None)
        bench.hub.on(Redirect(other.url), route="resolve", file="big.bin", skip=1, times=None)
        assert fetch(bench, token="hf_secret").error
        assert other.heads == []


def test_the_process_is_told_no_token(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    orders, order = list[str](), Wanted.order

    def noted(wanted: Wanted) -> dict[str, object]:
        orders.append(str(order(wanted)))
        return order(wanted)

    monkeypatch.setattr(Wanted, "order", noted)
    assert fetch(bench, token="hf_secret").error is None
    assert "big.bin" in orders[0]
    assert "hf_secret" not in orders[0]
    assert "Authorization" not in orders[0]


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("faults", [[], [Direct()]])
def test_each_request_to_the_hub_comes_out_of_its_budget(bench: Bench, faults: list[Fault]) -> None:
    for fault in faults:
        bench.hub.on(fault, times=None)
    with patch.object(Budgets, "take", autospec=True, side_effect=Budgets.take) as take:
        assert run(bench) is not bool(faults)
    assert take.call_count == len(bench.hub.log.records("resolve"))


def test_a_huge_file_has_no_more_pieces_than_the_library_can_bear(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_transfer, "MOST_PIECES", 2)
    assert fetch(bench).error is None
    assert len(bench.asked("big.bin")) == LOOKS + 2


def test_what_was_there_is_replaced(bench: Bench) -> None:
    fetched = bench.fetch("big.bin", engine=engine(bench), prefix=b"something else")
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")


# -- when it is used ------------------------------------------------------------------------------


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_transfer, "SMALLEST", 10_000)


def used(bench: Bench, path: str = "big.bin") -> bool:
    """Return whether the library has asked for a file; our own http asks for the whole without a range."""
    return len([wanted for _, wanted in bench.asked(path) if wanted]) > 1


def run(bench: Bench, path: str = "big.bin", engine: str = "auto", **settings: object) -> bool:
    """Download a file as a worker does, and see that it is right; return whether the library was used."""
    downloader = bench.downloader(engine, **{"enable_hf_transfer": True, **settings})
    downloader.run(bench.task(path), Cancel(), lambda _: None)
    assert bench.published(path).read_bytes() == bench.content(path)
    return used(bench, path)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("choice", ["auto", "http"])
def test_large_files_go_through_it(bench: Bench, choice: str) -> None:
    assert run(bench, engine=choice)
    assert bench.asked("big.bin")[-1] == (206, "bytes=0-300000")


@pytest.mark.usefixtures("small_is_large")
def test_small_ones_do_not(bench: Bench) -> None:
    assert not run(bench, "other.bin")


def test_what_is_large_is_the_library_s_to_be_worth_it(bench: Bench) -> None:
    assert not run(bench)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize(
    "settings", [{"enable_hf_transfer": False}, {"engine": "hub"}, {"disable_ssl_verify": True}]
)
def test_settings_that_leave_it_out(bench: Bench, settings: dict[str, object]) -> None:
    bench.downloader(**{"engine": "auto", "enable_hf_transfer": True, **settings}).run(  # type: ignore[arg-type]
        bench.task("big.bin"), Cancel(), lambda _: None
    )
    assert bench.published("big.bin").read_bytes() == bench.content("big.bin")
    assert not used(bench)


@pytest.mark.usefixtures("small_is_large")
def test_a_limit_of_bandwidth_leaves_it_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Throttle, "limited", True)
    assert not run(bench)


@pytest.mark.usefixtures("small_is_large")
def test_a_beginning_goes_on_with_http(bench: Bench) -> None:
    stall, cancel = Stall(after=50_000), Cancel()
    bench.hub.on(stall, file="big.bin")
    first = in_thread(lambda: bench.run("big.bin", "http", cancel))
    assert stall.reached.wait(LONG)
    until(lambda: any(path.stat().st_size for path in bench.partials()))
    cancel.set()
    assert isinstance(first.exception(LONG), StoppedError)
    stall.release.set()
    run(bench)
    assert bench.asked("big.bin")[-1][1].startswith("bytes=")
    assert bench.asked("big.bin")[-1][1].endswith("-")


@pytest.mark.usefixtures("small_is_large")
def test_a_file_without_a_hash_is_left_to_http(bench: Bench) -> None:
    downloader = bench.downloader("auto", enable_hf_transfer=True)
    downloader.run(bench.task(bench.file("big.bin", masked=True)), Cancel(), lambda _: None)
    assert not used(bench)


def test_a_part_is_not_its_business(bench: Bench) -> None:
    fetched = bench.fetch_part("big.bin", RangeSink(0, 1000), engine=engine(bench))
    assert type(fetched.error) is RangeError
    assert bench.hub.log.records() == []


@pytest.mark.usefixtures("small_is_large")
def test_where_it_is_not_installed_the_standard_engine_is_used(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hf_transfer", None)
    assert not run(bench)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize(
    ("workers", "settings", "is_split"),
    [
        (1, {"enable_hf_transfer": True}, False),
        (2, {"enable_hf_transfer": True}, True),  # whose links are worth more together
        (1, {"enable_hf_transfer": True, "disable_ssl_verify": True}, True),
        (1, {}, True),
    ],
)
def test_a_worker_that_is_alone_splits_nothing(
    bench: Bench, workers: int, settings: dict[str, object], is_split: bool
) -> None:
    config, told = bench.config(**settings), list[str]()
    bench.out.mkdir()
    folders = Folders(config)
    members = [Member(f"w{number}", 4, folders.own_id, "") for number in range(workers)]
    division = Division(config, folders, Fleet(lambda: members, lambda _job, why: told.append(why)))
    spec = bench.spec().model_copy(update={"split_over": 10_000})
    assert bool(division.place(bench.task("big.bin", spec))) is is_split
    assert is_split or "hf_transfer" in told[0]


# -- what is said of a setting that does nothing ---------------------------------------------------


def told(caplog: pytest.LogCaptureFixture, **settings: object) -> str:
    app = App(None, {})
    app.override(huggingface_enable_hf_transfer="1", **settings)
    app.warn_of_idle_settings()
    return caplog.text


@pytest.fixture
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_own_settings")
def test_nothing_is_said_where_it_works(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog) == ""


@pytest.mark.usefixtures("_own_settings")
def test_one_warning_says_that_it_is_not_installed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hf_transfer", None)
    text = told(caplog)
    assert "not installed" in text
    assert "the standard engine is used" in text
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("_own_settings")
@pytest.mark.parametrize("key", ["app_max_bandwidth", "limits_fleet_bandwidth"])
def test_one_line_says_that_it_cannot_be_limited(caplog: pytest.LogCaptureFixture, key: str) -> None:
    assert "bandwidth" in told(caplog, **{key: "10MB/s"})
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("settings", "limited", "word"),
    [
        ({}, False, ""),
        ({}, True, "bandwidth"),
        ({"disable_ssl_verify": True}, False, "disable_ssl_verify"),
        ({"engine": "hub"}, False, "engine = hub"),
        ({"engine": "xet"}, False, "engine = xet"),
        ({"engine": "http"}, False, ""),
    ],
)
def test_each_reason_is_told(settings: dict[str, object], limited: bool, word: str) -> None:
    why = objection(HuggingFaceConfig.model_validate(settings), limited=limited)
    assert word in why
    assert bool(why) is bool(word)


def test_another_system_s_worker_could_leave_it_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "Linux only" in objection(HuggingFaceConfig(), limited=False)


# -- what goes wrong, and who mends it -------------------------------------------------------------


@dataclass(frozen=True)
class Shorter(Fault):
    """Answer every range with the first ten bytes."""

    def ask(self, hub: FaultyHub, request: Request) -> None:
        del request.headers["Range"]
        request.headers["Range"] = "bytes=0-9"


@dataclass(frozen=True)
class Endless(Fault):
    """Announce far too much, and send it."""

    def answer(self, hub: FaultyHub, request: Request, reply: FaultyReply) -> FaultyReply:
        reply.headers["Content-Length"] = str(1 << 40)
        reply.stages.append(self._stage)
        return reply

    def _stage(self, chunks: Chunks) -> Chunks:
        yield from chunks
        while True:
            yield bytes(1 << 20)


def test_too_few_bytes_are_noticed(bench: Bench) -> None:
    bench.hub.on(Shorter(), file="big.bin", skip=LOOKS, times=None)
    error = fetch(bench).error
    assert isinstance(error, CorruptError)
    assert "the hub lists 300000" in str(error)


def test_ranges_that_are_ignored_do_not_fill_the_disk(bench: Bench) -> None:
    bench.hub.on(IgnoreRange(), file="big.bin", skip=LOOKS, times=None)
    error = fetch(bench).error
    assert error is None or isinstance(error, EngineError)  # right by chance, if the first piece ended last
    assert "wrote" not in str(error)  # more than there is room for


def test_a_hub_without_ranges_is_left_to_http(bench: Bench) -> None:
    bench.hub.on(IgnoreRange(), file="big.bin", times=None)
    assert type(fetch(bench).error) is RangeError
    assert len(bench.asked("big.bin")) == 1


def test_an_answer_without_an_end_does_not_fill_the_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_transfer_process, "MEMORY", 128 << 20)
    bench.hub.on(Endless(), file="big.bin", skip=LOOKS, times=None)
    assert type(fetch(bench).error) is EngineError


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize(
    "fault", [Corrupt(at=7), Shorter(), IgnoreRange(), Truncate(after=1000), Reset(after=1000)]
)
def test_http_mends_what_came_wrong(bench: Bench, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    retries = 1 + hf_transfer_process._RETRIES
    times = retries if isinstance(fault, Truncate) else 1
    bench.hub.on(fault, file="big.bin", skip=LOOKS, times=times)
    with caplog.at_level(logging.INFO):
        run(bench)
    asked = bench.asked("big.bin")
    if not isinstance(fault, IgnoreRange):  # which is right by chance for a file of one piece
        assert "trying again with engine http" in caplog.text
        assert asked[-1] == (200, "")


def test_a_stall_ends_it(bench: Bench) -> None:
    bench.hub.on(Stall(after=1000), file="big.bin", skip=LOOKS, times=None)
    patience = Patience(window=0.2, window_bytes=1)
    error = bench.fetch("big.bin", engine=engine(bench, patience)).error
    assert type(error) is StalledError


@pytest.mark.parametrize("size", [1 << 26, 16 << 30, 123 * 10**9, 500 * 10**9, 1 << 40])
def test_huge_pieces_have_longer_to_come(size: int) -> None:
    """All connections may begin theirs at the same time, and end them together."""
    piece = max(hf_transfer.PIECE, size // hf_transfer.MOST_PIECES)
    window = patient(Patience(), piece).window
    assert hf_transfer_process.CONNECTIONS * piece / window <= 1e6
    assert 60 <= window < 600  # a stall is noticed all the same


def test_a_transfer_is_watched_as_suits_its_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = list[float]()

    class Noted(Watch):
        def __init__(self, patience: Patience, path: str) -> None:
            super().__init__(patience, path)
            windows.append(patience.window)

    monkeypatch.setattr(hf_transfer, "Watch", Noted)
    assert fetch(bench).error is None
    monkeypatch.setattr(hf_transfer, "EASY_PIECE", PIECE // 2)
    assert fetch(bench).error is None
    assert windows == [60, 120]


def test_an_address_that_has_expired_is_asked_for_again(bench: Bench) -> None:
    bench.hub.on(Expired(), file="big.bin", skip=1)
    assert fetch(bench).error is None
    assert len(bench.hub.log.records("resolve", "big.bin")) == 2


@pytest.mark.usefixtures("small_is_large")
def test_http_fetches_what_the_storage_refuses_twice(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for skip in (1, 3):
        bench.hub.on(Expired(), file="big.bin", skip=skip)
    with caplog.at_level(logging.DEBUG):
        run(bench)
    assert len(bench.hub.log.records("resolve", "big.bin")) == 3
    assert "403" in caplog.text
    assert "Signature" not in caplog.text


def test_a_storage_that_refuses_us_is_no_reason_to_give_up(bench: Bench) -> None:
    bench.hub.on(Expired(), file="big.bin")
    assert type(fetch(bench).error) is EngineError
    assert len(bench.asked("big.bin")) == 1


@pytest.mark.parametrize(("status", "kind"), [(401, AccessError), (404, NotFoundError), (500, EngineError)])
def test_what_the_hub_says_counts(bench: Bench, status: int, kind: type[Exception]) -> None:
    bench.hub.on(Status(status), route="resolve", times=None)
    assert type(fetch(bench).error) is kind
    assert bench.asked("big.bin") == []


def test_another_commit_s_file_is_refused(bench: Bench) -> None:
    spec = bench.spec(commit="0" * 40)
    error = bench.fetch("big.bin", engine=engine(bench), spec=spec).error
    assert isinstance(error, NotFoundError)


def test_the_storage_may_not_lead_it_elsewhere(bench: Bench) -> None:
    """Our own look came to the storage; what the library is told there later, nobody has judged."""
    with RawServer(reply(b"x")) as inner:
        bench.hub.on(Redirect(f"{inner.url}/secrets"), route="cdn", file="big.bin", skip=1, times=None)
        assert type(fetch(bench).error) is EngineError
        assert inner.heads == []


def stalled(bench: Bench) -> Stall:
    stall = Stall(after=1000)
    bench.hub.on(stall, file="big.bin", skip=LOOKS, times=None)
    return stall


def test_a_stop_ends_it(bench: Bench) -> None:
    stall, cancel = stalled(bench), Cancel()
    fetching = in_thread(lambda: bench.fetch("big.bin", engine=engine(bench), cancel=cancel))
    assert stall.reached.wait(LONG)
    assert len(processes()) == 1
    cancel.set("shutdown")
    assert isinstance(fetching.result(LONG).error, StoppedError)


def test_a_stop_beforehand(bench: Bench) -> None:
    cancel = Cancel()
    cancel.set()
    fetched = bench.fetch("big.bin", engine=engine(bench), cancel=cancel)
    assert isinstance(fetched.error, StoppedError)
    assert bench.hub.log.records() == []


def test_somebody_kills_it(bench: Bench) -> None:
    stall = stalled(bench)
    fetching = in_thread(lambda: fetch(bench))
    assert stall.reached.wait(LONG)
    processes()[0].kill()
    error = fetching.result(LONG).error
    assert type(error) is EngineError
    assert "signal 9" in str(error)


def test_no_process_can_be_started(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(bench.out / "nothing"))
    assert "no process" in str(fetch(bench).error)


def test_a_process_that_ends_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    error = fetch(bench).error
    assert type(error) is EngineError
    assert "ended with code 1" in str(error)


_WORKER = """
import sys
from pathlib import Path
from distributed_downloader.transfer.hf_transfer_process import Process, Wanted
with Process(Wanted(sys.argv[1], "file", 300_000, 1 << 16), Path(sys.argv[2])) as process:
    while process.pieces(60) is not None:
        pass
"""


def test_it_dies_with_its_worker(bench: Bench, tmp_path: Path) -> None:
    stall = Stall(after=1000)
    bench.hub.on(Direct(), times=None)
    bench.hub.on(stall, route="resolve", file="big.bin", skip=1, times=None)
    url = f"{bench.hub.endpoint}/org/name/resolve/{bench.spec().commit}/big.bin"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, url, str(tmp_path)], env=environ)
    try:
        assert stall.reached.wait(LONG)
        (child,) = processes(worker.pid)
    finally:
        worker.kill()
        worker.wait()
    psutil.wait_procs([child], LONG)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


# -- certificates, proxies, secrets ----------------------------------------------------------------


@pytest.fixture
def secure(source: Path, tmp_path: Path) -> Iterator[Bench]:
    certificate = self_signed(tmp_path)
    with FaultyHub({"models/org/name": source}, tls=certificate.server()) as hub:
        yield Bench(hub, source, tmp_path / "secure")


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_that_the_environment_names(
    secure: Bench, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, os.path.relpath(tmp_path / "cert.pem"))
    assert fetch(secure).error is None


def test_the_library_refuses_an_unknown_certificate(
    secure: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    monkeypatch.setattr(hf_transfer_process, "_certificates", dict)
    assert type(fetch(secure).error) is EngineError
    assert len(secure.asked("big.bin")) == 1


def test_a_folder_of_certificates_stands_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    named = hf_transfer_process._certificates()
    assert named == {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": str(tmp_path)}


def test_a_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy(credentials="me:proxyCanary") as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert fetch(bench).error is None
        assert len([target for target in proxy.targets("GET") if "/lfs/" in target]) == LOOKS + 5


def test_hosts_that_need_no_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert fetch(bench).error is None
        assert not [target for target in proxy.targets() if "/lfs/" in target]


def test_no_secret_is_where_others_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = ("hf_secret", "proxyCanary", "Signature")
    with ForwardProxy(credentials="me:proxyCanary") as proxy, caplog.at_level(logging.DEBUG):
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        stall = stalled(bench)
        fetching = in_thread(lambda: fetch(bench, token="hf_secret"))
        assert stall.reached.wait(LONG)
        (process,) = processes()
        seen = " ".join(process.cmdline()) + str(process.environ())
        stall.release.set()
        assert fetching.result(LONG).error is None
    assert [secret for secret in secrets if secret in seen + caplog.text] == []


@pytest.mark.parametrize(("wish", "threads"), [("", "8"), ("3", "3")])
def test_it_has_a_thread_for_each_connection_not_for_each_cpu(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wish: str, threads: str
) -> None:
    """Their stacks count as memory, of which a machine with many CPUs would have too little."""
    monkeypatch.setattr(rust_threads, "_WISH", wish)
    monkeypatch.setenv("TOKIO_WORKER_THREADS", "2")  # what we have told hf_xet in our own process
    stall = stalled(bench)
    fetching = in_thread(lambda: fetch(bench))
    assert stall.reached.wait(LONG)
    (process,) = processes()
    assert process.environ()["TOKIO_WORKER_THREADS"] == threads
    stall.release.set()
    assert fetching.result(LONG).error is None
