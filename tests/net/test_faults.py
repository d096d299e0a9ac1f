"""The faulty hub goes wrong exactly as its script says: other tests build on that."""

from __future__ import annotations

import email.utils
import gzip
import http.client
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_downloader.local_hub.repo import LocalRepo
from tests.hub import sample
from tests.hub.client import Answer, ask, body_until_end, connect, raw, send
from tests.hub.faults import (
    ERROR_PAGE,
    Chunked,
    Corrupt,
    CursorLoop,
    Drip,
    Drop,
    EndlessListing,
    ErrorPage,
    Expired,
    Fault,
    ForeignLink,
    Gzip,
    Hang,
    Header,
    IgnoreRange,
    RateLimited,
    Redirect,
    Reset,
    SmallPages,
    Stall,
    Status,
    Truncate,
    WrongLength,
    WrongRange,
    also_listed,
    duplicated,
    masked,
)
from tests.hub.faulty import FaultyHub
from tests.hub.synthetic import SyntheticSnapshot

BIG = bytes(range(256)) * 1200
TREE = "/api/models/org/name/tree/main?recursive=true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repo")
    sample.write_files(folder, {"big.bin": BIG, "config.json": b'{"a": 1}', "sub/b.txt": b"bb"})
    return folder


@pytest.fixture
def hub(folder: Path) -> Iterator[FaultyHub]:
    with FaultyHub({"models/org/name": folder}) as hub:
        yield hub


def resolve(hub: FaultyHub, file: str = "big.bin") -> str:
    return f"{hub.endpoint}/org/name/resolve/main/{file}"


def place(hub: FaultyHub, file: str = "big.bin") -> str:
    return urllib.parse.urljoin(resolve(hub, file), ask(resolve(hub, file)).location)


def listed(answer: Answer) -> list[str]:
    return [line["path"] for line in answer.json]


def following(answer: Answer) -> str:
    return str(answer.headers["Link"]).partition(">")[0].removeprefix("<")


# --- when a rule strikes


def test_a_rule_strikes_as_often_as_it_says(hub: FaultyHub) -> None:
    rule = hub.on(Status(503), route="tree", times=2, skip=1)
    assert [ask(hub.endpoint + TREE).status for _ in range(5)] == [200, 503, 503, 200, 200]
    assert rule.struck == 2


def test_a_rule_without_a_count_strikes_until_the_hub_heals(hub: FaultyHub) -> None:
    hub.on(Status(500), route="tree", times=None)
    assert {ask(hub.endpoint + TREE).status for _ in range(5)} == {500}
    hub.heal()
    assert ask(hub.endpoint + TREE).status == 200


def test_a_rule_strikes_only_where_it_says(hub: FaultyHub) -> None:
    hub.on(Status(500), route="resolve", file="*.bin", method="HEAD")
    assert ask(resolve(hub, "config.json"), method="HEAD").status == 307
    assert ask(resolve(hub)).status == 302
    assert ask(resolve(hub), method="HEAD").status == 500


def test_rules_and_faults_add_up(hub: FaultyHub) -> None:
    hub.on(IgnoreRange(), Corrupt(at=1), times=None)
    hub.on(Truncate(after=100))
    with pytest.raises(http.client.IncompleteRead) as error:
        ask(place(hub), {"Range": "bytes=50-"})
    assert error.value.partial == BIG[:1] + b"\xfe" + BIG[2:100]
    assert ask(place(hub)).body == BIG[:1] + b"\xfe" + BIG[2:]


def test_the_log_shows_what_the_client_sent(hub: FaultyHub) -> None:
    hub.on(IgnoreRange())
    assert ask(place(hub), {"Range": "bytes=7-"}).status == 200
    (record,) = hub.log.records("cdn")
    assert record.request.headers["Range"] == "bytes=7-"
    assert record.reply.status == 200


# --- bodies


@pytest.mark.parametrize("after", [0, 1, 70_000, len(BIG) - 1])
@pytest.mark.parametrize(("fault", "is_reset"), [(Truncate, False), (Reset, True)])
def test_a_body_that_ends_early(hub: FaultyHub, fault: type[Truncate], after: int, *, is_reset: bool) -> None:
    rule = hub.on(fault(after=after))
    with raw(place(hub)) as connection:
        assert body_until_end(connection) == (BIG[:after], is_reset)
    assert hub.log.wait(lambda: all(record.done for record in hub.log.records("cdn")))
    assert hub.log.records("cdn")[0].reply.sent == after
    assert rule.struck == 1
    assert ask(place(hub)).body == BIG


def test_counts_start_with_the_response(hub: FaultyHub) -> None:
    hub.on(Truncate(after=10))
    with pytest.raises(http.client.IncompleteRead) as error:
        ask(place(hub), {"Range": "bytes=1000-"})
    assert error.value.partial == BIG[1000:1010]


def test_a_connection_dropped_without_a_word(hub: FaultyHub) -> None:
    hub.on(Drop())
    with pytest.raises(http.client.RemoteDisconnected):
        ask(place(hub))
    assert [record.reply.status for record in hub.log.records("cdn")] == [0]


def test_a_stall_lasts_until_it_is_released(hub: FaultyHub) -> None:
    stall = Stall(after=1000)
    hub.on(stall)
    with raw(place(hub)) as connection:
        assert stall.reached.wait(60)
        data = b""
        while len(data.partition(b"\r\n\r\n")[2]) < 1000:
            data += connection.recv(1 << 16)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.setblocking(True)
        stall.release.set()
        data = data.partition(b"\r\n\r\n")[2]
        while len(data) < len(BIG):
            data += connection.recv(1 << 16)
    assert data == BIG


def test_a_hub_that_does_not_answer(hub: FaultyHub) -> None:
    hang = Hang()
    hub.on(hang, route="tree")
    with raw(hub.endpoint + TREE) as connection:
        assert hang.reached.wait(60)
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.setblocking(True)
        hang.release.set()
        assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("stall", [Stall(after=5), Hang()])
def test_closing_the_hub_ends_what_stalls(folder: Path, stall: Stall) -> None:
    before = set(threading.enumerate())
    with FaultyHub({"models/org/name": folder}) as hub:
        hub.on(stall)
        url = place(hub)
        connection = raw(url)
        assert stall.reached.wait(60)
    assert set(threading.enumerate()) <= before
    connection.close()


def test_a_drip_comes_in_drops(hub: FaultyHub) -> None:
    hub.on(Drip(size=3, pause=0))
    assert ask(place(hub, "config.json")).body == b'{"a": 1}'


@pytest.mark.parametrize(("at", "length"), [(0, 1), (70_000, 5), (65_530, 12), (len(BIG) - 1, 1)])
@pytest.mark.parametrize("start", [0, 65_534])
def test_corrupt_bytes_have_their_place_in_the_file(hub: FaultyHub, at: int, length: int, start: int) -> None:
    hub.on(Corrupt(at, length))
    body = ask(place(hub), {"Range": f"bytes={start}-"}).body
    wrong = [start + index for index, (a, b) in enumerate(zip(body, BIG[start:], strict=True)) if a != b]
    assert wrong == [index for index in range(at, at + length) if index >= start]


def test_a_wrong_content_range(hub: FaultyHub) -> None:
    hub.on(WrongRange(shift=-3), times=2)
    answer = ask(place(hub), {"Range": "bytes=10-19"})
    assert (answer.status, answer.body) == (206, BIG[10:20])
    assert answer.headers["Content-Range"] == f"bytes 7-16/{len(BIG)}"
    assert ask(place(hub)).headers["Content-Range"] is None


def test_gzip_for_identity(hub: FaultyHub) -> None:
    hub.on(Gzip())
    answer = ask(place(hub), {"Range": "bytes=10-19", "Accept-Encoding": "identity"})
    assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(answer.body) == BIG


def test_a_length_that_is_too_great(hub: FaultyHub) -> None:
    hub.on(WrongLength(delta=5))
    with pytest.raises(http.client.IncompleteRead) as error:
        ask(place(hub))
    assert (error.value.partial, error.value.expected) == (BIG, 5)


def test_a_length_that_is_too_small(hub: FaultyHub) -> None:
    hub.on(WrongLength(delta=-5))
    answer = ask(place(hub))
    assert answer.body == BIG[:-5]


def test_a_body_without_a_length(hub: FaultyHub) -> None:
    hub.on(Chunked(), times=None)
    connection = connect(hub.cdn)
    try:
        for _ in range(2):  # on the same connection: the end is marked
            answer = send(connection, place(hub))
            assert (answer.body, answer.headers["Content-Length"]) == (BIG, None)
    finally:
        connection.close()


@pytest.mark.parametrize("file", ["big.bin", "config.json"])
def test_an_error_page_with_status_200(hub: FaultyHub, file: str) -> None:
    hub.on(ErrorPage())
    answer = ask(place(hub, file))
    assert (answer.status, answer.body) == (200, ERROR_PAGE)
    assert answer.headers["Content-Type"] == "text/html"


def test_headers_can_be_changed_and_taken(hub: FaultyHub) -> None:
    hub.on(Header("ETag", '"other"'), Header("Accept-Ranges"))
    answer = ask(place(hub))
    assert (answer.headers["ETag"], answer.headers["Accept-Ranges"]) == ('"other"', None)


# --- statuses and redirects


DATE = email.utils.formatdate(2e9, usegmt=True)


@pytest.mark.parametrize(
    ("fault", "retry_after", "window"),
    [
        (RateLimited(), None, None),
        (RateLimited(retry_after="7"), "7", None),
        (RateLimited(retry_after=DATE), DATE, None),
        (RateLimited(window=33), None, '"resolvers";r=0;t=33'),
    ],
)
def test_too_many_requests(
    hub: FaultyHub, fault: RateLimited, retry_after: str | None, window: str | None
) -> None:
    hub.on(fault, route="cdn")
    answer = ask(place(hub))
    assert answer.status == 429
    assert (answer.headers["Retry-After"], answer.headers["RateLimit"]) == (retry_after, window)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_rate_limits_strike_the_hub_by_default(hub: FaultyHub, method: str) -> None:
    hub.on(RateLimited(retry_after="1"), times=2)
    assert ask(resolve(hub), method=method).status == 429
    assert ask(hub.endpoint + TREE).status == 429


def test_an_expired_link(hub: FaultyHub) -> None:
    hub.on(Expired())
    url = place(hub)
    assert [ask(url).status for _ in range(2)] == [403, 200]


def test_a_redirect_loop(hub: FaultyHub) -> None:
    hub.on(Redirect(), times=None)
    assert ask(resolve(hub)).location == resolve(hub)


@pytest.mark.parametrize(
    ("to", "path"), [("http://other.test:81", "/org/name/resolve/main/big.bin"), ("http://other.test/x", "")]
)
def test_a_redirect_to_another_host(hub: FaultyHub, to: str, path: str) -> None:
    hub.on(Redirect(to, status=308))
    answer = ask(resolve(hub))
    assert (answer.status, answer.location) == (308, to + path)


# --- listings


def all_pages(hub: FaultyHub, most: int) -> list[list[str]]:
    found: list[list[str]] = []
    url = hub.endpoint + TREE
    while url and len(found) < most:
        answer = ask(url)
        found.append(listed(answer))
        url = following(answer) if answer.headers["Link"] else ""
    return found


def test_small_pages(hub: FaultyHub) -> None:
    hub.on(SmallPages(1), times=None)
    assert all_pages(hub, 9) == [["big.bin"], ["config.json"], ["sub"], ["sub/b.txt"]]


def test_a_page_that_links_to_itself(hub: FaultyHub) -> None:
    hub.on(SmallPages(1), CursorLoop(), times=None)
    assert all_pages(hub, 3) == [["big.bin"]] * 3
    first = ask(following(ask(hub.endpoint + TREE)))
    assert following(ask(following(first))) == following(first)


def test_an_endless_listing(hub: FaultyHub) -> None:
    hub.on(EndlessListing(), times=None)
    first, second = ask(hub.endpoint + TREE), ask(hub.endpoint + TREE)
    assert following(first) != following(second)
    assert len(all_pages(hub, 20)) == 20


def test_a_link_to_a_foreign_host(hub: FaultyHub) -> None:
    hub.on(SmallPages(3), ForeignLink("https://elsewhere.test"))
    link = following(ask(hub.endpoint + TREE))
    assert link.startswith("https://elsewhere.test/api/models/org/name/tree/main?")


def test_masked_and_doubled_and_dangerous_entries(hub: FaultyHub) -> None:
    hub.on(masked(), duplicated(), also_listed(["../../etc/passwd", "C:x"]))
    answer = ask(hub.endpoint + TREE)
    assert listed(answer) == [
        *["big.bin"] * 2,
        *["config.json"] * 2,
        *["sub"] * 2,
        *["sub/b.txt"] * 2,
        "../../etc/passwd",
        "C:x",
    ]
    assert answer.json[0]["lfs"]["oid"] == "*" * 64


def test_a_listing_that_is_no_json(hub: FaultyHub) -> None:
    hub.on(ErrorPage(), route="tree")
    assert ask(hub.endpoint + TREE).body == ERROR_PAGE


def test_a_mirror() -> None:
    with FaultyHub({"models/org/name": LocalRepo(SyntheticSnapshot(2500))}) as hub:
        hub.be_a_mirror()
        first = ask(hub.endpoint + TREE)
        link = following(first)
        assert link.startswith("https://huggingface.co/api/models/org/name/tree/main")
        assert listed(ask(link.replace("https://huggingface.co", hub.endpoint))) == listed(first)
        file = f"{hub.endpoint}/org/name/resolve/main/part-001/file-0001999.txt"
        head = ask(file, method="HEAD")
        assert (head.status, head.headers["Content-Length"]) == (200, "64")
        assert head.headers["X-Repo-Commit"]
        assert head.headers["X-Linked-Size"] is None
        assert ask(file, {"Range": "bytes=1-9"}).body == ask(file).body[1:10]
        assert ask(file + "x").status == 404


# --- what holds for all


@pytest.mark.parametrize(
    "fault",
    [
        Truncate(9),
        Reset(9),
        Drip(),
        Corrupt(),
        WrongRange(),
        IgnoreRange(),
        WrongLength(1),
        Chunked(),
        Status(500),
    ],
)
def test_faults_are_values(fault: Fault) -> None:
    copy: Any = eval(repr(fault))
    assert copy == fault
    assert hash(copy) == hash(fault)


def test_strikes_are_counted_once_under_many_clients(hub: FaultyHub) -> None:
    rule = hub.on(Status(500), route="info", times=7)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(hub.endpoint + "/api/models/org/name").status))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statuses.count(500), rule.struck) == (7, 7)


def test_a_client_that_leaves_does_no_harm(hub: FaultyHub, capfd: pytest.CaptureFixture[str]) -> None:
    stall = Stall(after=1)
    hub.on(stall)
    with raw(place(hub)) as connection:
        assert stall.reached.wait(60)
        connection.shutdown(socket.SHUT_RDWR)
    stall.release.set()
    assert hub.log.wait(lambda: all(record.done for record in hub.log.records()))
    assert ask(place(hub)).body == BIG
    assert capfd.readouterr().err == ""
