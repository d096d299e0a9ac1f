"""The engine `http` against everything that hubs, storage hosts and lines do."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace
from typing import Literal

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    AccessError,
    CorruptError,
    EngineError,
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
from distributed_downloader.models import RepoFile
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.http import HttpEngine
from distributed_downloader.transfer.watch import Patience
from tests.hub.faults import (
    Chunked,
    Corrupt,
    Direct,
    Drip,
    Drop,
    ErrorPage,
    Expired,
    Fault,
    Gzip,
    Hang,
    Header,
    IgnoreRange,
    RateLimited,
    Redirect,
    Reset,
    Stall,
    Status,
    Truncate,
    WrongLength,
    WrongRange,
)
from tests.hub.sample import ODD_NAMES
from tests.net.kit import LONG, QUICK, Bench, RawServer, Say, in_thread, reply

BIG = 300_000


# -- what goes right ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["big.bin", "small.json", "page.html", "folder/deep/leaf.txt", *ODD_NAMES])
def test_a_file_arrives(bench: Bench, path: str) -> None:
    fetched = bench.fetch(path)
    assert fetched.error is None
    assert fetched.content == bench.content(path)
    assert fetched.progress[0] == 0
    assert fetched.progress[-1] == len(fetched.content)


def test_progress_only_grows(bench: Bench) -> None:
    progress = bench.fetch("big.bin").progress
    assert progress == sorted(progress)


def test_an_empty_file_needs_no_request(bench: Bench) -> None:
    assert bench.fetch("empty.txt").error is None
    assert bench.hub.log.records() == []


def test_one_request_to_the_hub_and_no_head(bench: Bench) -> None:
    bench.fetch("big.bin")
    assert [(r.request.route, r.request.method) for r in bench.hub.log.records()] == [
        ("resolve", "GET"),
        ("cdn", "GET"),
    ]


def test_a_complete_partial_needs_no_request(bench: Bench) -> None:
    fetched = bench.fetch("big.bin", prefix=bench.content("big.bin"))
    assert fetched.error is None
    assert bench.hub.log.records() == []


def test_what_is_there_is_not_fetched_again(bench: Bench) -> None:
    fetched = bench.fetch("big.bin", prefix=bench.content("big.bin")[:123_456])
    assert fetched.error is None
    assert bench.asked("big.bin") == [(206, "bytes=123456-")]
    assert fetched.progress[0] == 123_456


def test_ranges_also_work_on_small_files(bench: Bench) -> None:
    assert bench.fetch("small.json", prefix=bench.content("small.json")[:5]).error is None
    assert bench.asked("small.json", "cache") == [(206, "bytes=5-")]


def test_identity_is_asked_for(bench: Bench) -> None:
    bench.fetch("big.bin")
    encodings = {r.request.headers.get("Accept-Encoding") for r in bench.hub.log.records()}
    assert encodings == {"identity"}


def test_a_chunked_answer_without_a_length(bench: Bench) -> None:
    bench.hub.on(Chunked(), file="big.bin")
    assert bench.fetch("big.bin").error is None


def test_a_mirror_that_serves_files_itself(bench: Bench) -> None:
    bench.hub.on(Direct(), times=None)
    assert bench.fetch("big.bin").error is None
    assert bench.hub.log.records("cdn") == []


def test_a_renamed_repo_is_followed(bench: Bench) -> None:
    bench.hub._moved["models/old/name"] = "models/org/name"
    assert bench.fetch("big.bin", spec=bench.spec(repo_id="old/name")).error is None


def test_the_token_goes_to_the_hub_only(bench: Bench) -> None:
    engine = bench.engine(token="hf_secret")
    bench.fetch("big.bin", engine=engine)
    assert [r.request.token for r in bench.hub.log.records("resolve")] == ["hf_secret"]
    assert bench.hub.leaks() == []


def test_another_endpoint_than_ours_gets_no_token(bench: Bench) -> None:
    engine = bench.engine(token="hf_secret", endpoint="https://mirror.invalid")
    bench.fetch("big.bin", engine=engine)
    assert {r.request.token for r in bench.hub.log.records()} == {""}


# -- broken lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Truncate(100_000), Reset(100_000)])
def test_a_broken_line_is_taken_up_where_it_broke(bench: Bench, fault: Fault) -> None:
    bench.hub.on(fault, file="big.bin", times=2)
    fetched = bench.fetch("big.bin")
    assert fetched.error is None
    assert bench.asked("big.bin") == [(200, ""), (206, "bytes=100000-"), (206, "bytes=200000-")]


def test_a_line_that_breaks_again_and_again_is_no_failure(bench: Bench) -> None:
    bench.hub.on(Truncate(10_000), file="big.bin", times=None)
    assert bench.fetch("big.bin").error is None
    assert len(bench.asked("big.bin")) == 30


def test_each_connection_resolves_the_address_anew(bench: Bench) -> None:
    bench.hub.on(Truncate(100_000), file="big.bin", times=2)
    bench.fetch("big.bin")
    assert len(bench.hub.log.records("resolve", "big.bin")) == 3


@pytest.mark.parametrize("fault", [Truncate(0), Reset(0), Drop()])
def test_a_line_that_brings_nothing_is_given_up(bench: Bench, fault: Fault) -> None:
    bench.hub.on(fault, file="big.bin", times=None)
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, NetworkError)
    assert len(bench.hub.log.records("resolve", "big.bin")) in (3, 6)  # 6: Drop is also asked once more


def test_what_came_stays_when_giving_up(bench: Bench) -> None:
    bench.hub.on(Truncate(100_000), file="big.bin")
    bench.hub.on(Truncate(0), file="big.bin", skip=1, times=None)
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, NetworkError)
    assert fetched.content == bench.content("big.bin")[:100_000]


def test_a_few_bytes_for_each_connection_are_no_progress(bench: Bench) -> None:
    bench.hub.on(Truncate(100), file="big.bin", times=None)  # less than a hundredth
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, NetworkError)
    assert len(fetched.content) == 300


def test_progress_makes_good_for_fruitless_connections(bench: Bench) -> None:
    for before in (0, 3, 6):
        bench.hub.on(Truncate(0), file="big.bin", times=2, skip=before)
        bench.hub.on(Truncate(50_000), file="big.bin", skip=before + 2)
    assert bench.fetch("big.bin").error is None


def test_the_pause_grows_without_progress(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, pauses = Cancel(), list[float]()
    monkeypatch.setattr(cancel, "wait", pauses.append)
    monkeypatch.setattr("random.uniform", lambda _low, high: high)
    bench.hub.on(Truncate(0), file="big.bin", times=None)
    engine = bench.engine(Patience(connections=4, pause=1))
    bench.fetch("big.bin", engine=engine, cancel=cancel)
    assert pauses == [2, 4, 8]


def test_a_hub_that_is_not_there(bench: Bench) -> None:
    spec = bench.spec(endpoint="http://127.0.0.1:1")
    fetched = bench.fetch("big.bin", spec=spec)
    assert isinstance(fetched.error, NetworkError)
    assert ": connection refused" in str(fetched.error)


# -- stalls ---------------------------------------------------------------------------------------


def test_silence_is_a_stall(bench: Bench) -> None:
    bench.hub.on(Stall(1000), file="big.bin", times=None)
    fetched = bench.fetch("big.bin", engine=bench.engine(read_timeout=0.5))
    assert isinstance(fetched.error, StalledError)
    assert len(bench.asked("big.bin")) == 3


def test_silence_before_the_answer_is_a_stall(bench: Bench) -> None:
    bench.hub.on(Hang(), file="big.bin", times=None)
    fetched = bench.fetch("big.bin", engine=bench.engine(read_timeout=0.5))
    assert isinstance(fetched.error, StalledError)


def test_a_stall_after_much_progress_is_taken_up(bench: Bench) -> None:
    bench.hub.on(Stall(100_000), file="big.bin")
    fetched = bench.fetch("big.bin", engine=bench.engine(read_timeout=0.5))
    assert fetched.error is None
    assert bench.asked("big.bin")[1] == (206, "bytes=100000-")


def test_a_slow_drip_is_a_stall(bench: Bench) -> None:
    bench.hub.on(Drip(size=10, pause=0.01), file="big.bin", times=None)
    patience = replace(QUICK, window=0.03, window_bytes=20_000)
    fetched = bench.fetch("big.bin", engine=bench.engine(patience))
    assert isinstance(fetched.error, StalledError)
    assert "bytes in" in str(fetched.error)
    assert len(bench.asked("big.bin")) == 3


def test_a_slow_line_above_the_least_rate_is_none(bench: Bench) -> None:
    bench.hub.on(Drip(size=1000, pause=0.002), file="other.bin")
    patience = replace(QUICK, window=0.001, window_bytes=1)
    assert bench.fetch("other.bin", engine=bench.engine(patience)).error is None


def test_our_own_throttle_is_no_stall(bench: Bench) -> None:
    patience = replace(QUICK, window=0.05, window_bytes=1 << 30)
    fetched = bench.fetch("other.bin", engine=bench.engine(patience), throttle=Throttle(50_000))
    assert fetched.error is None


# -- stop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Stall(50_000), Hang()])
def test_a_stop_breaks_a_blocked_read(bench: Bench, fault: Stall) -> None:
    bench.hub.on(fault, file="big.bin")
    cancel = Cancel()
    fetching = in_thread(lambda: bench.fetch("big.bin", cancel=cancel))
    assert fault.reached.wait(LONG)
    cancel.set("shutdown")
    fetched = fetching.result(LONG)  # and the time-out for reads is much longer
    assert isinstance(fetched.error, StoppedError)
    assert str(fetched.error) == "shutdown"
    assert bench.content("big.bin").startswith(fetched.content)


def test_a_stop_beforehand(bench: Bench) -> None:
    cancel = Cancel()
    cancel.set()
    assert isinstance(bench.fetch("big.bin", cancel=cancel).error, StoppedError)
    assert bench.hub.log.records() == []


def test_a_stop_breaks_the_throttle(bench: Bench) -> None:
    cancel = Cancel()
    fetching = in_thread(lambda: bench.fetch("big.bin", cancel=cancel, throttle=Throttle(1)))
    assert bench.hub.log.wait(lambda: bool(bench.hub.log.records("cdn")))
    cancel.set()
    assert isinstance(fetching.result(LONG).error, StoppedError)


# -- ranges ---------------------------------------------------------------------------------------


def test_a_200_for_a_range_starts_over(bench: Bench) -> None:
    bench.hub.on(IgnoreRange(), file="big.bin")
    fetched = bench.fetch("big.bin", prefix=bench.content("big.bin")[:1000])
    assert fetched.error is None
    assert bench.asked("big.bin") == [(200, "bytes=1000-")]
    assert fetched.progress[:2] == [1000, 0]


def test_a_server_without_ranges_on_a_flaky_line_is_given_up(bench: Bench) -> None:
    bench.hub.on(IgnoreRange(), Truncate(100_000), file="big.bin", times=None)
    assert isinstance(bench.fetch("big.bin").error, NetworkError)
    assert len(bench.asked("big.bin")) == 4  # the first one did bring something


def test_another_range_than_asked_for_is_refused(bench: Bench) -> None:
    bench.hub.on(WrongRange(shift=-1), file="big.bin")
    fetched = bench.fetch("big.bin", prefix=bench.content("big.bin")[:1000])
    assert type(fetched.error) is RangeError
    assert fetched.content == bench.content("big.bin")[:1000]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("", RangeError),
        ("bytes 5-9", RangeError),
        ("bytes=5-9/10", RangeError),
        ("bytes */10", RangeError),
        ("items 5-9/10", RangeError),
        ("bytes 4-9/10", RangeError),
        ("bytes 6-9/10", RangeError),
        ("bytes 5-10/10", RangeError),
        ("bytes 5-4/10", RangeError),
        ("bytes 5-9/11", CorruptError),
        ("bytes 5-9/9", CorruptError),
        ("bytes 5-8/10", RangeError),  # with five bytes
        ("bytes \u0665-9/10", RangeError),
    ],
)
def test_content_range(bench: Bench, said: str, error: type[TransferError]) -> None:
    file = RepoFile(path="f.txt", size=10)
    head = reply(b"56789", "206 Partial Content", Content_Range=said.encode().decode("latin-1"))
    with RawServer(head) as server:
        fetched = bench.fetch(file, prefix=b"01234", spec=bench.spec(endpoint=server.url))
    assert type(fetched.error) is error
    assert fetched.content == b"01234"


@pytest.mark.parametrize("total", ["10", "*"])
def test_a_part_of_a_part_is_taken_and_the_rest_asked_for(bench: Bench, total: str) -> None:
    file = RepoFile(path="f.txt", size=10)
    first = reply(b"567", "206 Partial Content", Content_Range=f"bytes 5-7/{total}")
    second = reply(b"89", "206 Partial Content", Content_Range=f"bytes 8-9/{total}")
    with RawServer(first, second) as server:
        fetched = bench.fetch(file, prefix=b"01234", spec=bench.spec(endpoint=server.url))
        assert [server.header(n, "Range") for n in (0, 1)] == ["bytes=5-", "bytes=8-"]
    assert fetched.error is None
    assert fetched.content == b"0123456789"


def test_416_starts_over(bench: Bench) -> None:
    bench.hub.on(Status(416), file="big.bin", route="cdn")
    fetched = bench.fetch("big.bin", prefix=bench.content("big.bin")[:1000])
    assert fetched.error is None
    assert bench.asked("big.bin") == [(416, "bytes=1000-"), (200, "")]


def test_416_for_the_whole_file_is_an_error(bench: Bench) -> None:
    bench.hub.on(Status(416), file="big.bin", route="cdn", times=None)
    fetched = bench.fetch("big.bin", prefix=b"x")
    assert isinstance(fetched.error, RangeError)
    assert fetched.content == b""


def test_if_range_only_where_no_hash_proves_the_whole(bench: Bench) -> None:
    plain = RepoFile(path="f.txt", size=10)
    proven = plain.model_copy(update={"sha256": "0" * 64})
    cut = Say(reply(b"01234", ETag='"v1"', Content_Length="10"), "close")
    rest = reply(b"56789", "206 Partial Content", Content_Range="bytes 5-9/10")
    for file, sent in ((plain, '"v1"'), (proven, "")):
        with RawServer(cut, rest) as server:
            bench.fetch(file, spec=bench.spec(endpoint=server.url))
            assert [server.header(n, "If-Range") for n in (0, 1)] == ["", sent]


def test_a_weak_etag_is_no_if_range(bench: Bench) -> None:
    cut = Say(reply(b"01234", ETag='W/"v1"', Content_Length="10"), "close")
    rest = reply(b"56789", "206 Partial Content", Content_Range="bytes 5-9/10")
    with RawServer(cut, rest) as server:
        bench.fetch(RepoFile(path="f.txt", size=10), spec=bench.spec(endpoint=server.url))
        assert server.header(1, "If-Range") == ""


def test_changed_content_without_a_hash_starts_over(bench: Bench) -> None:
    cut = Say(reply(b"old__", ETag='"v1"', Content_Length="10"), "close")
    with RawServer(cut, reply(b"0123456789", ETag='"v2"')) as server:
        fetched = bench.fetch(RepoFile(path="f.txt", size=10), spec=bench.spec(endpoint=server.url))
    assert fetched.error is None
    assert fetched.content == b"0123456789"


# -- not the file ---------------------------------------------------------------------------------


def test_a_wrong_byte_is_found(bench: Bench) -> None:
    bench.hub.on(Corrupt(at=150_000), file="big.bin")
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, CorruptError)
    assert "sha256" in str(fetched.error)


def test_a_wrong_byte_in_a_small_file_is_found(bench: Bench) -> None:
    bench.hub.on(Corrupt(at=3), file="small.json")
    assert isinstance(bench.fetch("small.json").error, CorruptError)


def test_gzip_that_nobody_asked_for(bench: Bench) -> None:
    bench.hub.on(Gzip(), file="big.bin")
    fetched = bench.fetch("big.bin", prefix=bench.content("big.bin")[:1000])
    assert isinstance(fetched.error, CorruptError)
    assert "gzip" in str(fetched.error)
    assert fetched.content == bench.content("big.bin")[:1000]


def test_gzip_is_not_unpacked_behind_our_back(bench: Bench) -> None:
    body = gzip.compress(b"0123456789")
    file = RepoFile(path="f.txt", size=len(body))
    with RawServer(reply(body)) as server:  # a file that is a gzip, and not an encoding
        fetched = bench.fetch(file, spec=bench.spec(endpoint=server.url))
    assert fetched.content == body


@pytest.mark.parametrize("delta", [-1, 1, 1000])
def test_an_announced_length_that_is_not_the_files(bench: Bench, delta: int) -> None:
    bench.hub.on(WrongLength(delta), file="big.bin")
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, CorruptError)
    assert fetched.content == b""


def test_a_body_that_goes_on_is_cut_at_the_size_of_a_proved_file(bench: Bench) -> None:
    endless = reply(b"0123456789 and more", Content_Length="")
    proven = RepoFile(path="f.txt", size=10, sha256=hashlib.sha256(b"0123456789").hexdigest())
    with RawServer(Say(endless, "hold")) as server:
        fetched = bench.fetch(proven, spec=bench.spec(endpoint=server.url))
    assert fetched.error is None
    assert fetched.content == b"0123456789"


@pytest.mark.parametrize("then", ["hold", "close"])
def test_a_body_that_goes_on_is_not_a_file_that_nothing_proves(
    bench: Bench, then: Literal["hold", "close"]
) -> None:
    endless = reply(b"0123456789 and more", Content_Length="")
    with RawServer(Say(endless, then)) as server:
        fetched = bench.fetch(RepoFile(path="f.txt", size=10), spec=bench.spec(endpoint=server.url))
    assert isinstance(fetched.error, CorruptError)
    assert "more came" in str(fetched.error)
    assert fetched.content == b""  # a whole one would be taken for the file


def test_a_body_whose_end_is_not_seen_is_not_taken(bench: Bench) -> None:
    silent = reply(b"0123456789", Content_Length="")
    with RawServer(Say(silent, "hold")) as server:
        engine = bench.engine(read_timeout=0.5)
        spec = bench.spec(endpoint=server.url)
        fetched = bench.fetch(RepoFile(path="f.txt", size=10), spec=spec, engine=engine)
    assert isinstance(fetched.error, StalledError)
    assert fetched.content == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_length_that_ends_where_it_should(bench: Bench, chunked: bool) -> None:
    said = reply(b"0123456789", Content_Length="")
    if chunked:
        said = reply(b"a\r\n0123456789\r\n0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked")
    with RawServer(Say(said, "keep" if chunked else "close")) as server:
        fetched = bench.fetch(RepoFile(path="f.txt", size=10), spec=bench.spec(endpoint=server.url))
    assert fetched.error is None
    assert fetched.content == b"0123456789"


def test_a_body_without_length_that_ends_early_is_taken_up(bench: Bench) -> None:
    short = Say(reply(b"01234", Content_Length=""), "close")
    rest = reply(b"56789", "206 Partial Content", Content_Range="bytes 5-9/10")
    with RawServer(short, rest) as server:
        fetched = bench.fetch(RepoFile(path="f.txt", size=10), spec=bench.spec(endpoint=server.url))
    assert fetched.error is None
    assert fetched.content == b"0123456789"


def test_an_error_page_in_place_of_the_file(bench: Bench) -> None:
    bench.hub.on(ErrorPage(), file="big.bin")
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, CorruptError)
    assert "web page" in str(fetched.error)


def test_another_commit_is_refused(bench: Bench) -> None:
    bench.hub.on(Header("X-Repo-Commit", "f" * 40), file="big.bin", route="resolve")
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, CorruptError)
    assert "ffffffffffff" in str(fetched.error)
    assert fetched.content == b""


@pytest.mark.parametrize("status", ["204 No Content", "203 Non-Authoritative", "304 Not Modified"])
def test_other_statuses_of_success_are_no_success(bench: Bench, status: str) -> None:
    with RawServer(Say(reply(b"", status), "close")) as server:
        fetched = bench.fetch(RepoFile(path="f.txt", size=10), spec=bench.spec(endpoint=server.url))
    assert isinstance(fetched.error, EngineError)


# -- no hash in the listing -----------------------------------------------------------------------


@pytest.mark.parametrize(("path", "corrupt_at"), [("big.bin", 299_999), ("small.json", 1)])
def test_the_hash_of_the_headers_proves_what_the_listing_hides(
    bench: Bench, path: str, corrupt_at: int
) -> None:
    assert bench.fetch(bench.file(path, masked=True)).error is None
    bench.hub.on(Corrupt(at=corrupt_at), file=path)
    fetched = bench.fetch(bench.file(path, masked=True))
    assert isinstance(fetched.error, CorruptError)


def test_what_was_there_is_proved_by_the_headers_too(bench: Bench) -> None:
    fetched = bench.fetch(bench.file("big.bin", masked=True), prefix=b"not its beginning")
    assert isinstance(fetched.error, CorruptError)


def test_a_mirror_without_hashes_a_page_does_not_pass(bench: Bench) -> None:
    page = b"<html>busy</html>"
    file = RepoFile(path="f.txt", size=len(page))
    for path in ("f.txt", "f.html"):
        with RawServer(reply(page, Content_Type="text/html; charset=utf-8")) as server:
            spec = bench.spec(endpoint=server.url)
            fetched = bench.fetch(file.model_copy(update={"path": path}), spec=spec)
        assert isinstance(fetched.error, CorruptError)
        assert fetched.content == b""


def test_a_mirror_without_hashes_a_real_page_passes(bench: Bench) -> None:
    page = bench.content("page.html")
    spec = bench.spec()
    answer = reply(page, Content_Type="text/html", X_Repo_Commit=spec.commit)
    with RawServer(answer) as server:
        file = RepoFile(path="page.html", size=len(page))
        fetched = bench.fetch(file, spec=bench.spec(endpoint=server.url))
    assert fetched.error is None
    assert fetched.content == page


def test_an_etag_that_is_not_the_hubs_is_no_hash(bench: Bench) -> None:
    with RawServer(reply(b"0123456789", ETag=f'"{"0" * 64}"')) as server:
        fetched = bench.fetch(RepoFile(path="f.txt", size=10), spec=bench.spec(endpoint=server.url))
    assert fetched.error is None


# -- refusals -------------------------------------------------------------------------------------


def test_an_expired_link_is_resolved_again(bench: Bench) -> None:
    bench.hub.on(Expired(), file="big.bin", times=2)
    assert bench.fetch("big.bin").error is None
    assert len(bench.hub.log.records("resolve", "big.bin")) == 3


def test_a_link_that_expires_in_the_middle(bench: Bench) -> None:
    stall = Stall(100_000)
    bench.hub.on(stall, Truncate(150_000), file="big.bin")
    fetching = in_thread(lambda: bench.fetch("big.bin"))
    assert stall.reached.wait(LONG)
    bench.hub.expire_links()
    stall.release.set()
    assert fetching.result(LONG).error is None
    assert bench.asked("big.bin") == [(200, ""), (206, "bytes=150000-")]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_storage_host_that_always_refuses(bench: Bench, status: int) -> None:
    bench.hub.on(Status(status), file="big.bin", route="cdn", times=None)
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, EngineError)
    assert f"({status})" in str(fetched.error)
    assert len(bench.hub.log.records("resolve", "big.bin")) == 3


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "", AccessError),
        (403, "GatedRepo", AccessError),
        (403, "", AccessError),
        (404, "EntryNotFound", NotFoundError),
        (404, "RevisionNotFound", NotFoundError),
        (410, "", NotFoundError),
    ],
)
def test_a_hub_that_refuses_is_asked_once(
    bench: Bench, status: int, code: str, error: type[TransferError]
) -> None:
    fault = Status(status, headers=(("X-Error-Code", code),))
    bench.hub.on(fault, file="big.bin", route="resolve", times=None)
    assert type(bench.fetch("big.bin").error) is error
    assert len(bench.hub.log.records("resolve", "big.bin")) == 1


def test_a_foreign_hub_that_refuses_is_a_hub_all_the_same(bench: Bench) -> None:
    engine = bench.engine(endpoint="https://mirror.invalid")
    fetched = bench.fetch(RepoFile(path="gone.bin", size=5), engine=engine)
    assert type(fetched.error) is NotFoundError


def test_a_wrong_token(bench: Bench) -> None:
    fetched = bench.fetch("big.bin", engine=bench.engine(token="hf_wrong"))
    assert isinstance(fetched.error, AccessError)
    assert "hf_wrong" not in str(fetched.error)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_server_with_a_problem_is_asked_again(bench: Bench, status: int) -> None:
    bench.hub.on(Status(status), file="big.bin", route="resolve", times=2)
    assert bench.fetch("big.bin").error is None


@pytest.mark.parametrize("route", ["resolve", "cdn"])
def test_a_server_whose_problem_stays(bench: Bench, route: str) -> None:
    bench.hub.on(Status(500), file="big.bin", route=route, times=None)
    assert type(bench.fetch("big.bin").error) is ServerError


@pytest.mark.parametrize(
    "fault",
    [
        RateLimited(retry_after="17"),
        Status(503, headers=(("Retry-After", "17"),)),
        RateLimited(retry_after="99", window=16),
    ],
)
def test_a_pause_that_the_hub_asks_for_is_handed_on(bench: Bench, fault: Fault) -> None:
    bench.hub.on(fault, route="resolve", times=None)
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, RateLimitError)
    assert fetched.error.retry_after == 17
    assert len(bench.hub.log.records("resolve", "big.bin")) == 1


def test_a_redirect_to_a_third_host_works_without_the_token(bench: Bench) -> None:
    with RawServer(reply(bench.content("other.bin"))) as third:
        bench.hub.on(Redirect(f"{third.url}/other.bin?X-Amz-Signature=abc"), file="other.bin")
        fetched = bench.fetch("other.bin", engine=bench.engine(token="hf_secret"))
        assert third.header(0, "Authorization") == ""
    assert fetched.error is None
    assert bench.hub.log.records("resolve", "other.bin")[0].request.token == "hf_secret"


def test_a_circle_of_redirects(bench: Bench) -> None:
    bench.hub.on(Redirect(), file="big.bin", times=None)
    fetched = bench.fetch("big.bin")
    assert isinstance(fetched.error, NetworkError)
    assert "circle" in str(fetched.error)


def test_a_redirect_off_the_web_is_refused(bench: Bench) -> None:
    with RawServer(reply(status="302 Found", Location="file:///etc/passwd")) as server:
        fetched = bench.fetch("big.bin", spec=bench.spec(endpoint=server.url))
    assert isinstance(fetched.error, RefusedError)


@pytest.mark.parametrize(
    "fault", [Expired(), Status(500), Truncate(0), WrongLength(5), ErrorPage(), Gzip(), Status(416)]
)
def test_no_error_shows_a_signature_or_a_token(
    bench: Bench, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    bench.hub.on(fault, route="cdn", file="big.bin", times=None)
    fetched = bench.fetch("big.bin", engine=bench.engine(token="hf_secret"))
    assert isinstance(fetched.error, TransferError)
    [record] = bench.hub.log.records("cdn", "big.bin")[:1]
    secrets = [*(value for value in record.request.query.values() if len(value) > 5), "hf_secret"]
    assert len(secrets) > 1
    for text in (str(fetched.error), caplog.text):
        assert [secret for secret in secrets if secret in text] == []


def test_connections_are_kept(bench: Bench) -> None:
    names = [name for name in ODD_NAMES if "/" not in name]
    with RawServer(*(reply(b"0123456789") for _ in names)) as server:
        spec = bench.spec(endpoint=server.url)
        engine = HttpEngine(HttpClient(bench.settings()), QUICK)
        for name in names:
            assert bench.fetch(RepoFile(path=name, size=10), spec=spec, engine=engine).error is None
        assert server.connections == 1
        assert len(server.heads) == len(names)
