"""The engine `http` on files that are too large for the hub to hand out as a whole."""

from __future__ import annotations

import re

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import CorruptError, NotFoundError, RangeError, TransferError
from distributed_downloader.models import RepoFile
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.engine import Context
from distributed_downloader.transfer.http import MAX_WHOLE, WINDOW, HttpEngine
from tests.hub.faults import Fault, IgnoreRange, Reset, Status, Truncate, WrongRange
from tests.net.kit import QUICK, Bench, Fetched, RangeSink, RawServer, Say, header, reply

HUGE = RepoFile(path="huge.bin", size=60 * 10**9, sha256="0" * 64)
#: Bytes asked for at once in these tests.
SMALL = 1 << 16
GONE = reply(status="404 Not Found")


class WholeSink(RangeSink):
    """Takes a whole file, of which so many bytes are there already, and keeps none."""

    def __init__(self, *, there: int) -> None:
        super().__init__(0, HUGE.size, there=there, keep=False)

    def reset(self) -> None:
        self.size = 0


def zeros(head: str) -> Say:
    """Answer a bounded range with zeros, and refuse everything else as the hub does."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d+)", header(head, "Range"))
    if not asked:
        return Say(reply(status="400 Bad Request"))
    first, last = int(asked[1]), int(asked[2])
    said = f"bytes {first}-{last}/{HUGE.size}"
    return Say(reply(bytes(last - first + 1), "206 Partial Content", Content_Range=said))


def fetch(bench: Bench, server: RawServer, sink: RangeSink, window: int = SMALL) -> Fetched:
    """Fetch the huge file into a sink; whatever is raised is in the result."""
    fetched, task = Fetched(), bench.task(HUGE, bench.spec(endpoint=server.url))
    engine = HttpEngine(HttpClient(bench.settings()), QUICK, window=window)
    try:
        engine.fetch(Context(task, sink, Cancel(), Throttle(), fetched.progress.append))
    except TransferError as error:
        fetched.error = error
    return fetched


def ranges(server: RawServer) -> list[str]:
    return [header(head, "Range") for head in server.heads]


# -- 60 GB ----------------------------------------------------------------------------------------


def test_a_huge_file_is_asked_for_in_windows_to_its_very_end(bench: Bench) -> None:
    there = HUGE.size - 2 * SMALL - 5
    sink = WholeSink(there=there)
    with RawServer(zeros) as server:
        fetched = fetch(bench, server, sink)
    assert fetched.error is None
    assert sink.size == HUGE.size
    assert (fetched.progress[0], fetched.progress[-1]) == (there, HUGE.size)
    assert ranges(server) == [
        f"bytes={there}-{there + SMALL - 1}",
        f"bytes={there + SMALL}-{there + 2 * SMALL - 1}",
        f"bytes={there + 2 * SMALL}-{HUGE.size - 1}",
    ]


def test_a_huge_file_is_asked_for_in_windows_from_its_beginning(bench: Bench) -> None:
    sink = WholeSink(there=0)
    with RawServer(zeros, zeros, GONE) as server:
        fetched = fetch(bench, server, sink)
    assert isinstance(fetched.error, NotFoundError)
    assert sink.size == 2 * SMALL
    assert ranges(server) == ["bytes=0-65535", "bytes=65536-131071", "bytes=131072-196607"]


def test_a_window_is_16_gib(bench: Bench) -> None:
    with RawServer(GONE) as server:
        fetch(bench, server, WholeSink(there=7), WINDOW)
    assert ranges(server) == [f"bytes=7-{7 + (16 << 30) - 1}"]


@pytest.mark.parametrize(("size", "asked"), [(MAX_WHOLE, ""), (MAX_WHOLE + 1, "bytes=0-17179869183")])
def test_where_huge_begins(bench: Bench, size: int, asked: str) -> None:
    with RawServer(GONE) as server:
        file = HUGE.model_copy(update={"size": size})
        bench.fetch(file, spec=bench.spec(endpoint=server.url))
    assert ranges(server) == [asked]


def test_a_server_that_sends_all_of_a_huge_file_may(bench: Bench) -> None:
    all_of_it = Say(reply(bytes(100_000), Content_Length=str(HUGE.size)), "close")
    sink = WholeSink(there=0)
    with RawServer(all_of_it, GONE) as server:
        assert isinstance(fetch(bench, server, sink).error, NotFoundError)
    assert sink.size == 100_000
    assert ranges(server) == ["bytes=0-65535", "bytes=100000-165535"]


def test_what_is_there_of_a_huge_file_is_dropped_where_all_of_it_comes_again(bench: Bench) -> None:
    all_of_it = Say(reply(bytes(100_000), Content_Length=str(HUGE.size)), "close")
    sink = WholeSink(there=5_000_000)
    with RawServer(all_of_it, GONE) as server:
        fetched = fetch(bench, server, sink)
    assert isinstance(fetched.error, NotFoundError)
    assert fetched.progress[:2] == [5_000_000, 0]
    assert sink.size == 100_000


def test_who_starts_over_takes_any_version_of_a_huge_file(bench: Bench) -> None:
    first = reply(
        bytes(SMALL), "206 Partial Content", ETag='"v1"', Content_Range=f"bytes 0-{SMALL - 1}/{HUGE.size}"
    )
    sink = WholeSink(there=0)
    sink.proves = False
    with RawServer(first, reply(status="416 Range Not Satisfiable"), GONE) as server:
        fetch(bench, server, sink)
    assert [header(head, "If-Range") for head in server.heads] == ["", '"v1"', ""]
    assert ranges(server)[2] == ranges(server)[0]


# -- the same with real bytes, where 100 kB are huge ------------------------------------------------


@pytest.fixture
def windows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> HttpEngine:
    """Return an engine to which big.bin is huge."""
    monkeypatch.setattr("distributed_downloader.transfer.http.MAX_WHOLE", 100_000)
    return HttpEngine(HttpClient(bench.settings()), QUICK, window=100_000)


@pytest.mark.parametrize("masked", [False, True])
def test_a_file_in_windows_is_the_file(bench: Bench, windows: HttpEngine, *, masked: bool) -> None:
    fetched = bench.fetch(bench.file("big.bin", masked=masked), engine=windows)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")
    asked = ["bytes=0-99999", "bytes=100000-199999", "bytes=200000-299999"]
    assert bench.asked("big.bin") == [(206, each) for each in asked]


@pytest.mark.parametrize("fault", [Truncate(60_000), Reset(60_000), Status(500), Status(403)])
def test_a_window_is_taken_up_where_it_broke(bench: Bench, windows: HttpEngine, fault: Fault) -> None:
    bench.hub.on(fault, file="big.bin", route="cdn", skip=1)
    fetched = bench.fetch("big.bin", engine=windows)
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")


def test_a_server_without_ranges_sends_all_at_once(bench: Bench, windows: HttpEngine) -> None:
    bench.hub.on(IgnoreRange(), file="big.bin")
    assert bench.fetch("big.bin", engine=windows).error is None
    assert bench.asked("big.bin") == [(200, "bytes=0-99999")]


def test_a_server_that_forgets_ranges_half_way_starts_over(bench: Bench, windows: HttpEngine) -> None:
    bench.hub.on(IgnoreRange(), file="big.bin", skip=1)
    fetched = bench.fetch("big.bin", engine=windows)
    assert fetched.error is None
    assert bench.asked("big.bin") == [(206, "bytes=0-99999"), (200, "bytes=100000-199999")]
    assert 0 in fetched.progress[1:]


@pytest.mark.parametrize(("fault", "error"), [(WrongRange(), RangeError), (Status(416), RangeError)])
def test_a_wrong_window_is_refused(
    bench: Bench, windows: HttpEngine, fault: Fault, error: type[TransferError]
) -> None:
    bench.hub.on(fault, file="big.bin", route="cdn", times=None)
    assert type(bench.fetch("big.bin", engine=windows).error) is error


def test_of_another_size_than_listed(bench: Bench, windows: HttpEngine) -> None:
    file = bench.file("big.bin").model_copy(update={"size": 299_999})
    fetched = bench.fetch(file, engine=windows)
    assert isinstance(fetched.error, CorruptError)
    assert fetched.content == b""
