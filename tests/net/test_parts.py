"""The engine `http` on a part of a file."""

from __future__ import annotations

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    CorruptError,
    EngineError,
    NetworkError,
    RangeError,
    StalledError,
    StoppedError,
    TransferError,
)
from distributed_downloader.models import Part, RepoFile
from distributed_downloader.storage.place import make_place
from distributed_downloader.storage.records import gaps
from distributed_downloader.storage.split import SplitFile
from tests.hub.faults import (
    Chunked,
    Corrupt,
    ErrorPage,
    Expired,
    Fault,
    Gzip,
    Header,
    IgnoreRange,
    Reset,
    Stall,
    Status,
    Truncate,
    WrongLength,
    WrongRange,
)
from tests.net.kit import LONG, Bench, Fetched, RangeSink, RawServer, Say, header, in_thread, reply

#: The part of big.bin that most tests fetch.
START, END = 100_000, 200_000
TINY = RepoFile(path="f.txt", size=20, sha256="0" * 64)
LETTERS = b"abcdefghijklmnopqrst"


def part_reply(first: int, end: int, said: str = "", **headers: str) -> bytes:
    """Return LETTERS from `first` to before `end`, as a part of them."""
    said = said or f"bytes {first}-{end - 1}/20"
    return reply(LETTERS[first:end], "206 Partial Content", Content_Range=said, **headers)


def tiny_part(bench: Bench, *says: bytes | Say, start: int = 5, end: int = 10) -> tuple[Fetched, list[str]]:
    """Fetch a part of LETTERS from what a server says; also return which ranges it was asked for."""
    with RawServer(*says) as server:
        sink = RangeSink(start, end)
        fetched = bench.fetch_part(TINY, sink, spec=bench.spec(endpoint=server.url))
    return fetched, [header(head, "Range") for head in server.heads]


# -- what goes right ------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(START, END), (0, 1), (0, 300_000), (299_999, 300_000)])
def test_a_part_arrives(bench: Bench, start: int, end: int) -> None:
    fetched = bench.fetch_part("big.bin", RangeSink(start, end))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")[start:end]
    assert bench.asked("big.bin") == [(206, f"bytes={start}-{end - 1}")]
    assert (fetched.progress[0], fetched.progress[-1]) == (0, end - start)
    assert fetched.progress == sorted(fetched.progress)


def test_what_is_there_of_a_part_is_not_fetched_again(bench: Bench) -> None:
    fetched = bench.fetch_part("big.bin", RangeSink(START, END, there=30_000))
    assert fetched.content == bench.content("big.bin")[START + 30_000 : END]
    assert bench.asked("big.bin") == [(206, "bytes=130000-199999")]
    assert fetched.progress[0] == 30_000


def test_a_complete_part_needs_no_request(bench: Bench) -> None:
    fetched = bench.fetch_part("big.bin", RangeSink(START, END, there=END - START))
    assert fetched.error is None
    assert bench.hub.log.records() == []


def test_a_part_in_chunked_encoding(bench: Bench) -> None:
    bench.hub.on(Chunked(), file="big.bin")
    fetched = bench.fetch_part("big.bin", RangeSink(START, END))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")[START:END]


@pytest.mark.parametrize("total", ["20", "*"])
def test_a_short_answer_is_taken_and_the_rest_asked_for(bench: Bench, total: str) -> None:
    fetched, asked = tiny_part(bench, part_reply(5, 7, f"bytes 5-6/{total}"), part_reply(7, 10))
    assert fetched.error is None
    assert fetched.content == b"fghij"
    assert asked == ["bytes=5-9", "bytes=7-9"]


def test_of_a_long_answer_only_our_bytes_are_taken(bench: Bench) -> None:
    fetched, asked = tiny_part(bench, part_reply(5, 20))
    assert fetched.error is None
    assert fetched.content == b"fghij"
    assert asked == ["bytes=5-9"]


def test_of_a_body_that_goes_on_only_our_bytes_are_taken(bench: Bench) -> None:
    endless = part_reply(5, 20, "bytes 5-9/20", Content_Length="")
    fetched, _ = tiny_part(bench, Say(endless, "hold"))
    assert fetched.error is None
    assert fetched.content == b"fghij"


# -- not what was asked for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("none", RangeError),
        ("bytes */20", RangeError),
        ("bytes 4-8/20", RangeError),
        ("bytes 6-10/20", RangeError),
        ("bytes 0-4/20", RangeError),
        ("bytes 5-20/20", RangeError),
        ("bytes 5-4/20", RangeError),
        ("bytes 5-8/20", RangeError),  # with five bytes
        ("bytes 5-9/21", CorruptError),
        ("bytes 5-9/10", CorruptError),
    ],
)
def test_another_range_than_asked_for_writes_nothing(
    bench: Bench, said: str, error: type[TransferError]
) -> None:
    fetched, asked = tiny_part(bench, part_reply(5, 10, said))
    assert type(fetched.error) is error
    assert fetched.content == b""
    assert len(asked) == 1


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize(
    "said",
    [
        reply(LETTERS),
        reply(LETTERS, Content_Range="bytes 5-9/20"),
        reply(LETTERS[5:10]),
        reply(LETTERS, Content_Length=""),
    ],
)
def test_a_200_is_no_part_wherever_the_part_begins(bench: Bench, said: bytes, start: int) -> None:
    fetched, _ = tiny_part(bench, Say(said, "close"), start=start)
    assert type(fetched.error) is RangeError
    assert fetched.content == b""


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (IgnoreRange(), RangeError),
        (ErrorPage(), CorruptError),
        (WrongRange(shift=-1), RangeError),
        (WrongRange(shift=1), RangeError),
        (Status(416), RangeError),
        (Gzip(), CorruptError),
        (WrongLength(1), RangeError),
        (Status(204), EngineError),
    ],
)
def test_what_goes_wrong_in_mid_part_leaves_what_is_there(
    bench: Bench, fault: Fault, error: type[TransferError]
) -> None:
    bench.hub.on(Truncate(40_000), file="big.bin", route="cdn")
    bench.hub.on(fault, file="big.bin", route="cdn", skip=1, times=None)
    fetched = bench.fetch_part("big.bin", RangeSink(START, END))
    assert type(fetched.error) is error
    assert fetched.content == bench.content("big.bin")[START : START + 40_000]
    assert len(bench.asked("big.bin")) == 2


def test_a_page_in_place_of_a_part_says_nothing_about_ranges(bench: Bench) -> None:
    fetched, _ = tiny_part(bench, reply(b"<html>log in</html>", Content_Type="text/html"))
    assert type(fetched.error) is CorruptError
    assert "web page" in str(fetched.error)


def test_a_part_from_another_commit_is_refused(bench: Bench) -> None:
    bench.hub.on(Header("X-Repo-Commit", "f" * 40), file="big.bin", route="resolve")
    fetched = bench.fetch_part("big.bin", RangeSink(START, END))
    assert isinstance(fetched.error, CorruptError)
    assert "ffffffffffff" in str(fetched.error)
    assert fetched.content == b""


def test_a_wrong_byte_in_a_part_is_the_seals_to_find(bench: Bench) -> None:
    bench.hub.on(Corrupt(at=START), file="big.bin")
    assert bench.fetch_part("big.bin", RangeSink(START, END)).error is None


# -- no hash in the listing -----------------------------------------------------------------------


def test_a_hash_that_the_headers_tell_is_handed_on_once(bench: Bench) -> None:
    bench.hub.on(Truncate(40_000), file="big.bin", route="cdn")
    sink = RangeSink(START, END)
    assert bench.fetch_part(bench.file("big.bin", masked=True), sink).error is None
    assert len(bench.asked("big.bin")) == 2
    assert sink.told == [bench.file("big.bin")]


def test_a_hash_that_is_known_is_not_told(bench: Bench) -> None:
    sink = RangeSink(START, END)
    bench.fetch_part("big.bin", sink)
    assert sink.told == []


def test_a_masked_part_from_another_commit_is_refused(bench: Bench) -> None:
    bench.hub.on(Header("X-Repo-Commit", "f" * 40), file="big.bin", route="resolve")
    sink = RangeSink(START, END)
    assert isinstance(bench.fetch_part(bench.file("big.bin", masked=True), sink).error, CorruptError)
    assert (sink.told, sink.size) == ([], 0)


def test_without_any_hash_a_page_is_no_part(bench: Bench) -> None:
    page = part_reply(5, 10, Content_Type="text/html")
    with RawServer(page) as server:
        plain, spec = RepoFile(path="f.txt", size=20), bench.spec(endpoint=server.url)
        fetched = bench.fetch_part(plain, RangeSink(5, 10), spec=spec)
    assert isinstance(fetched.error, CorruptError)
    assert fetched.content == b""


# -- broken lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Truncate(40_000), Reset(40_000)])
def test_a_broken_line_is_taken_up_within_the_part(bench: Bench, fault: Fault) -> None:
    bench.hub.on(fault, file="big.bin", times=2)
    fetched = bench.fetch_part("big.bin", RangeSink(START, END))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")[START:END]
    assert [asked for _, asked in bench.asked("big.bin")] == [
        "bytes=100000-199999",
        "bytes=140000-199999",
        "bytes=180000-199999",
    ]


def test_a_line_that_brings_nothing_of_the_part_is_given_up(bench: Bench) -> None:
    bench.hub.on(Truncate(999), file="big.bin", times=None)  # less than a hundredth of the part
    fetched = bench.fetch_part("big.bin", RangeSink(START, END))
    assert type(fetched.error) is NetworkError
    assert len(bench.asked("big.bin")) == 3
    assert fetched.content == bench.content("big.bin")[START : START + 3 * 999]


def test_a_hundredth_of_the_part_is_progress(bench: Bench) -> None:
    bench.hub.on(Truncate(1000), file="big.bin", times=5)
    assert bench.fetch_part("big.bin", RangeSink(START, END)).error is None


def test_a_stall_in_mid_part_is_taken_up(bench: Bench) -> None:
    bench.hub.on(Stall(50_000), file="big.bin")
    fetched = bench.fetch_part("big.bin", RangeSink(START, END), engine=bench.engine(read_timeout=0.2))
    assert fetched.error is None
    assert bench.asked("big.bin")[1] == (206, "bytes=150000-199999")


def test_a_part_that_stalls_for_good(bench: Bench) -> None:
    bench.hub.on(Stall(100), file="big.bin", times=None)
    fetched = bench.fetch_part("big.bin", RangeSink(START, END), engine=bench.engine(read_timeout=0.2))
    assert isinstance(fetched.error, StalledError)


def test_a_stop_in_mid_part(bench: Bench) -> None:
    stall, cancel = Stall(50_000), Cancel()
    bench.hub.on(stall, file="big.bin")
    fetching = in_thread(lambda: bench.fetch_part("big.bin", RangeSink(START, END), cancel=cancel))
    assert stall.reached.wait(LONG)
    cancel.set("shutdown")
    assert isinstance(fetching.result(LONG).error, StoppedError)


def test_a_link_that_expires_in_mid_part(bench: Bench) -> None:
    bench.hub.on(Truncate(40_000), file="big.bin", route="cdn")
    bench.hub.on(Expired(), file="big.bin", skip=1, times=2)
    fetched = bench.fetch_part("big.bin", RangeSink(START, END))
    assert fetched.error is None
    assert fetched.content == bench.content("big.bin")[START:END]
    assert [status for status, _ in bench.asked("big.bin")] == [206, 403, 403, 206]
    assert len(bench.hub.log.records("resolve", "big.bin")) == 4


# -- on disk --------------------------------------------------------------------------------------


def test_parts_on_disk_make_the_file(bench: Bench) -> None:
    make_place(bench.out, create_root=True)
    split = SplitFile(bench.out, bench.spec(), bench.file("big.bin"), Cancel())
    split.prepare()
    bench.hub.on(Reset(40_000), file="big.bin", times=2)
    for start in (200_000, 0, 100_000):
        with split.part(Part(start=start, length=100_000, seal=0)) as sink:
            assert bench.fetch_part("big.bin", sink).error is None
    assert list(gaps(split.records(), bench.file("big.bin").size)) == []
    split.publish()
    assert bench.published("big.bin").read_bytes() == bench.content("big.bin")


def test_what_came_of_a_part_is_recorded_when_it_fails(bench: Bench) -> None:
    make_place(bench.out, create_root=True)
    split = SplitFile(bench.out, bench.spec(), bench.file("big.bin"), Cancel())
    split.prepare()
    bench.hub.on(Truncate(40_000), file="big.bin")
    bench.hub.on(IgnoreRange(), file="big.bin", skip=1)
    with split.part(Part(start=START, length=END - START, seal=0)) as sink:
        assert isinstance(bench.fetch_part("big.bin", sink).error, RangeError)
    assert [(record.start, record.length) for record in split.records()] == [(START, 40_000)]
    with split.part(Part(start=START, length=END - START, seal=0)) as sink:
        assert bench.fetch_part("big.bin", sink).error is None
    assert bench.asked("big.bin")[-1] == (206, "bytes=140000-199999")
    with split.reader() as reader:
        assert reader.read(START, END - START) == bench.content("big.bin")[START:END]
