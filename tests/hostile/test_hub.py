"""A hub or mirror that means harm: what it lists, what it says, and what it sends."""
# ruff: noqa: SIM117 - the outer block is what is given, the inner one what is tested

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from distributed_downloader import response as response_module
from distributed_downloader.cancel import Cancel
from distributed_downloader.cli.logs import SafeFormatter, safe_lines
from distributed_downloader.config import HuggingFaceConfig
from distributed_downloader.errors import (
    CorruptError,
    HubUnavailableError,
    NetworkError,
    RefusedError,
    ServerError,
    StalledError,
    TransferError,
)
from distributed_downloader.hub import Hub, Patience, lister
from distributed_downloader.models import JobSpec, RepoFile, RepoType
from distributed_downloader.plan import LONGEST_NAME, Plan, danger
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.storage import RepoFolder
from distributed_downloader.storage.partial import Partial
from distributed_downloader.transfer.hub import HubEngine
from tests.hostile.endless import Endless
from tests.hub.faults import Header, also_listed
from tests.net.kit import Bench, RangeSink, RawServer, Say, reply
from tests.unit.fake_http import (
    COMMIT,
    FakeHttp,
    FakeResponse,
    Sent,
    file_entry,
    hub_over,
    in_turn,
    tree_page,
)

OWN = ".hf-downloader"


def short(value: object) -> str:
    """Return a test's name for a value."""
    return ascii(value)[:50]


# -- names --------------------------------------------------------------------------------------------

#: Paths that must never be written.
UNSAFE = [
    *("..", "../x", "a/../../x", "a/..", "./a", "a/./b", ".", "a//b", "a/", "/etc/passwd", "//host/share/x"),
    *("..\\x", "a\\b", "\\\\host\\share\\x", "\\x", "C:\\x", "C:/x", "c:x", "a/D:x", "Z:", "\\\\?\\C:\\x"),
    *("a\0b", "\0", "a\0.txt", "a\nb", "a\rb", "a\tb", "a\x1b[2J", "a\x1b]0;title\x07", "a\x08b", "a\x7f"),
    *("a\x85b", "a\x9b2J", "\x01", "a/\x1fb", "a\ud800", "\udfff/x", "a\udc80b"),
    *("x" * 256, "é" * 128, "日" * 86, "😀" * 64, "a/" + "x" * 256 + "/b", "/".join(["x" * 250] * 17)),
    *(OWN, f"{OWN}/place", f"{OWN}/repos/org--name", f"{OWN}/partial/x", f"{OWN}/partial/../../x"),
    *(".HF-DOWNLOADER/place", ".Hf-Downloader/x", ".hf-Downloader", f"{OWN}./x", f"{OWN} /x", f"{OWN}. ./x"),
    *(f"{OWN}::$INDEX_ALLOCATION/x", f"{OWN}:x", "HF-DOW~1/place", "hf-dow~9", "HF12AB~1/x"),
    *(".hf\u200b-downloader/x", ".hf-down\u200dloader/x", "\ufeff.hf-downloader/x", ".hf-\u202edownloader"),
    *(
        "\uff0ehf-downloader/x",
        ".\uff48\uff46-downloader/x",
        ".hf\uff0ddownloader/x",
        ".hf-downloade\u00adr/x",
    ),
    *(".hf-\u2060downloader/x", ".hf-downloader\u206f/x", ".\u210ef-downloader/x"),
]
#: Paths that look odd and are only names; whoever names them must not be able to steer a terminal.
ODD = [
    *(
        "a\u202egnp.exe",
        "\u2066a\u2069",
        "a\u200fb",
        "\u200b",
        "a\u2028b",
        "a\u00a0b",
        "\ufeffa",
        "a\u0301\u0301b",
    ),
    *("CON", "nul.txt", "COM1", "aux/x", "LPT9.bin", "a.", "a ", " a", "-rf", "--help", "$(reboot)", "`id`"),
    *(
        "a;b",
        "a|b",
        "a&b",
        "*",
        "?",
        "[a]",
        "%2e%2e%2fx",
        "..%2fx",
        "~",
        "~root/x",
        "a%00b",
        "...",
        ". .",
        ".. /x",
    ),
    *("a/.hf-downloader/x", ".hf-downloader2", ".hf-downloaderx/y", "hf-downloader/x", ".git/config", ".env"),
]


@pytest.mark.parametrize("path", UNSAFE, ids=short)
def test_an_unsafe_path_is_refused_and_told(path: str) -> None:
    plan = Plan()
    assert list(plan.pages([[RepoFile.model_construct(path=path, size=1)]])) == []
    assert plan.skipped_count == 1


def job(endpoint: str = "http://hub.test") -> JobSpec:
    return JobSpec(
        repo_type=RepoType.MODEL, repo_id="org/name", revision="main", commit=COMMIT, endpoint=endpoint
    )


def files_below(root: Path) -> list[Path]:
    """Return all files, also where a path is too long to be used as a whole."""
    return [Path(folder, name) for folder, _, names, _ in os.fwalk(root) for name in names]


@pytest.mark.parametrize("path", UNSAFE, ids=short)
def test_an_unsafe_path_that_got_into_the_queue_stays_below_its_folder(tmp_path: Path, path: str) -> None:
    """Whatever the listing's filter missed, or somebody put into Redis."""
    out = tmp_path / "out"
    folder = RepoFolder(out, job())
    file = RepoFile.model_construct(path=path, size=1, sha256=None, git_sha1=None, clash=False)
    try:
        with folder.partial(file, Cancel()) as partial:
            partial.write(b"x")
            folder.publish(partial, file)
    except TransferError:
        pass
    assert all(found.is_relative_to(out / "org" / "name") for found in files_below(tmp_path))


@pytest.mark.parametrize("path", ODD, ids=short)
def test_an_odd_path_arrives_and_is_harmless_to_print(tmp_path: Path, path: str) -> None:
    assert danger(path) == ""
    file = RepoFile(path=path, size=4)
    folder = RepoFolder(tmp_path, job())
    with folder.partial(file, Cancel()) as partial:
        partial.write(b"here")
        folder.publish(partial, file)
    assert (folder.path / path).read_bytes() == b"here"
    record = logging.LogRecord("x", logging.INFO, "", 0, "done %s", (path,), None)
    assert SafeFormatter().format(record).isprintable()


def test_lines_stay_lines() -> None:
    assert safe_lines("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\nc\\u202ed"
    assert safe_lines("plain") == "plain"


#: Two names that some disks take for one.
ALIKE = [
    ("Read", "read"),
    ("STRASSE", "straße"),
    ("é", "e\u0301"),
    ("Å", "A\u030a"),
    ("Å", "\u212b"),
    ("ﬃ", "ffi"),
    ("ǅ", "ǆ"),
    ("K", "\u212a"),
    ("a/B", "A/b"),
    ("Σ", "ς"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=short)
def test_names_that_are_one_somewhere_are_told(one: str, other: str) -> None:
    plan = Plan()
    files = [RepoFile(path=path, size=1) for path in (one, other)]
    assert list(plan.pages([files])) == [files]
    assert plan.alike == [(one, other)]


@pytest.mark.parametrize("order", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("a/b", "a/b/c/d")])
def test_a_file_where_a_folder_should_be(tmp_path: Path, order: Sequence[str]) -> None:
    folder = RepoFolder(tmp_path, job())
    first, second = (RepoFile(path=path, size=1) for path in order)
    with folder.partial(first, Cancel()) as partial:
        partial.write(b"1")
        folder.publish(partial, first)
    with pytest.raises(RefusedError), folder.partial(second, Cancel()):
        pass
    assert (folder.path / first.path).read_bytes() == b"1"


def test_the_longest_name_is_no_trouble(tmp_path: Path) -> None:
    path = "/".join(["x" * LONGEST_NAME] * 12)
    folder, file = RepoFolder(tmp_path, job()), RepoFile(path=path, size=1)
    with folder.partial(file, Cancel()) as partial:
        partial.write(b"1")
        folder.publish(partial, file)


# -- listings -----------------------------------------------------------------------------------------

HASTY = Patience(faults=0.004, asked=1, first=0.001, longest=0.001)


def hub_at(server: RawServer) -> Hub:
    settings = HuggingFaceConfig.model_validate({"endpoint": server.url})
    return Hub(HttpClient(settings), server.url, HASTY)


def listed(hub: Hub) -> list[RepoFile]:
    with closing(hub.pages(RepoType.MODEL, "org/name", COMMIT)) as pages:
        return [file for page in pages for file in page]


def entry(**fields: object) -> dict[str, object]:
    return {**file_entry("a"), **fields}


#: Sizes that are no sizes.
SIZES = [
    -1,
    -(2**63),
    2**50 + 1,
    2**63,
    2**64,
    10**30,
    1.5,
    1e400,
    math.nan,
    -math.inf,
    True,
    "7",
    "",
    [],
    {},
]


@pytest.mark.parametrize("size", SIZES, ids=short)
@pytest.mark.parametrize("where", ["size", "lfs"])
def test_sizes_that_are_none(where: str, size: object) -> None:
    line = entry(size=size) if where == "size" else entry(lfs={"oid": "b" * 64, "size": size})
    page = json.dumps([line]).encode()
    with RawServer(reply(page)) as server, pytest.raises(ServerError, match="size"):
        listed(hub_at(server))


#: Hashes that are no hashes: nothing is proven by them, and nothing proved wrong.
HASHES = [
    *(
        "A" * 64,
        "a" * 63,
        "a" * 65,
        "g" * 64,
        "*" * 64,
        "\u0661" * 64,
        "\uff11" * 64,
        " " * 64,
        "a" * 64 + "\n",
    ),
    *("0x" + "a" * 62, "-" + "a" * 63, "../" + "a" * 61, "a" * 64 + "\0", "", "sha256:" + "a" * 64),
]


@pytest.mark.parametrize("digest", HASHES, ids=short)
def test_hashes_of_the_wrong_form(digest: str) -> None:
    line = entry(oid=digest[:40] if len(digest) == 64 else digest, lfs={"oid": digest, "size": 3})
    with RawServer(reply(json.dumps([line]).encode())) as server:
        assert listed(hub_at(server)) == [RepoFile(path="a", size=3)]
    with RawServer(reply(json.dumps([entry(oid=digest)]).encode())) as server:
        assert listed(hub_at(server)) == [RepoFile(path="a", size=3)]


#: Bodies that are no page of a listing.
PAGES: list[bytes] = [
    *(b"", b"{", b"[", b"]", b"null", b"true", b"0", b'""', b"{}", b"[[]]", b"[null]", b"[1]", b'["a"]'),
    *(
        b"NaN",
        b"[NaN]",
        b"-Infinity",
        b"1e999",
        b"[" + b"9" * 5000 + b"]",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf[",
    ),
    *(
        b'["\xff"]',
        b'[{"path": "\xc3("}]',
        "[]".encode("utf-16")[:-1],
        b"<html>log in</html>",
        b"[]x",
        b"[]{}",
    ),
    *(b"[" * 200_000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 100_000, b'[{"a":' * 2000 + b"1" + b"}]" * 2000),
    *(b'[{"type":"file"}]', b'[{"type":"file","path":""}]', b'[{"type":"file","path":null,"size":1}]'),
    *(
        b'[{"type":"file","path":1,"size":1}]',
        b'[{"type":1,"path":"a","size":1}]',
        b'[{"path":"a","size":1}]',
    ),
    *(b'[{"type":"file","path":["a"],"size":1}]', b'[{"type":"file","path":"a","size":1,"lfs":[]}]'),
    *(
        b'[{"type":"file","path":"a","size":1,"oid":1}]',
        b'[{"type":"file","path":"a","size":1,"lfs":{"oid":1}}]',
    ),
    *(b'[{"type":"file","path":"\\ud800","size":1}]', b'[{"type":"file","path":"a","size":{"a":1}}]'),
    b'[{"type":"file","path":"a","size":' + b"1" * 5000 + b"}]",
    b'[{"type":"file","path":"a","size":1,"size":-1}]',
    b'{"type":"file","path":"a","size":1}',
]


@pytest.mark.parametrize("body", PAGES, ids=short)
def test_pages_that_are_none(body: bytes) -> None:
    with RawServer(reply(body)) as server, pytest.raises((ServerError, HubUnavailableError)):
        listed(hub_at(server))


@pytest.mark.parametrize("body", PAGES, ids=short)
def test_summaries_that_are_none(body: bytes) -> None:
    with RawServer(reply(body)) as server, pytest.raises((ServerError, HubUnavailableError)):
        hub_at(server).pin(RepoType.MODEL, "org/name", "main")


#: What a repo's summary may say of its name and commit.
IDS: list[object] = [
    *(
        "..",
        "../x",
        "a/../b",
        "/a",
        "a/",
        "a/b/c",
        "a\\b",
        ".hf-downloader",
        "",
        "a\n",
        "a\0b",
        "-a/b",
        "a b",
    ),
    *(
        "\u0430/b",
        "a" * 97,
        "a/" + "b" * 97,
        None,
        1,
        ["a"],
        {},
        "a/.",
        "a/..",
        "./a",
        ".hf-downloader/partial",
    ),
]
COMMITS: list[object] = [
    *("", "main", "A" * 40, "a" * 39, "a" * 41, "a" * 40 + "\n", "../" + "a" * 37, None, 0, [COMMIT]),
    "\u0661" * 40,
]
SUMMARIES: list[dict[str, object]] = [
    *({"id": name, "sha": COMMIT} for name in IDS),
    *({"id": "a/b", "sha": commit} for commit in COMMITS),
    {"id": "a/b"},
    {"sha": COMMIT},
]


@pytest.mark.parametrize("summary", SUMMARIES, ids=short)
def test_summaries_with_other_names(summary: dict[str, object]) -> None:
    with RawServer(reply(json.dumps(summary).encode())) as server:
        with pytest.raises(ServerError, match="does not tell the commit"):
            hub_at(server).pin(RepoType.MODEL, "org/name", "main")


def answer_longer_than(limit: int) -> Endless:
    return Endless(reply(Content_Length="")[:-2] + b"\r\n[", b" " * limit)


def test_json_without_an_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_module, "MAX_JSON", 1 << 20)
    with answer_longer_than(1 << 16) as server, pytest.raises(HubUnavailableError, match="longer than 1 MiB"):
        listed(hub_at(server))


def test_json_that_takes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_module, "LONGEST_JSON", 0.0)
    with answer_longer_than(1) as server, pytest.raises(HubUnavailableError, match="took more than 0 s"):
        listed(hub_at(server))


def endless_listing(page: Callable[[int], list[dict[str, object]]]) -> FakeHttp:
    numbers = iter(range(10**9))

    def script(_: Sent) -> FakeResponse:
        number = next(numbers)
        return tree_page(page(number), f"cursor={number}")

    return FakeHttp(script)


#: Listings that never end and have something new on each page.
ENDLESS: dict[str, Callable[[int], list[dict[str, object]]]] = {
    "files": lambda number: [file_entry(f"{number}/{k}") for k in range(1000)],
    "folders": lambda number: [{**file_entry(f"{number}/{k}"), "type": "directory"} for k in range(1000)],
    "one a page": lambda number: [file_entry(str(number))],
    "refused names": lambda number: [file_entry(f"../{number}/{k}") for k in range(1000)],
    "long names": lambda number: [file_entry(f"{number}/{k}/" + "x" * 5000) for k in range(100)],
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_listing_without_an_end(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lister, "MOST_ENTRIES", 20_000)
    monkeypatch.setattr(lister, "MOST_NAMES", 4_000_000)
    http = endless_listing(ENDLESS[kind])
    with pytest.raises(RefusedError, match="is read no further"):
        for _ in hub_over(http).pages(RepoType.MODEL, "org/name", COMMIT):
            pass
    assert len(http.sent) <= 2001


@pytest.mark.parametrize(("limit", "enough"), [("MOST_ENTRIES", 30), ("MOST_NAMES", 15)])
def test_a_listing_that_just_ends_in_time_is_read(
    limit: str, enough: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three pages, each of which counts for ten entries at least, with a name of five bytes."""
    listing = [tree_page([file_entry(f"a/{n}/b")], f"cursor={n}" if n < 3 else "") for n in (1, 2, 3)]
    for most, error in ((enough, False), (enough - 1, True)):
        monkeypatch.setattr(lister, limit, most)
        pages = hub_over(in_turn(*listing)).pages(RepoType.MODEL, "org/name", COMMIT)
        with pytest.raises(RefusedError, match="is read no further") if error else nullcontext():
            assert [file.path for page in pages for file in page] == ["a/1/b", "a/2/b", "a/3/b"]


#: `Link` headers that lead nowhere good; no request may leave for another host.
LINKS = [
    '<http://[::1>; rel="next"',
    '<http://169.254.169.254/latest?x=1>; rel="next"',
    '<file:///etc/passwd?x=1>; rel="next"',
    '<gopher://127.0.0.1:6379/_FLUSHALL?x>; rel="next"',
    '<//evil.test/x?cursor=2>; rel="next"',
    '<?>; rel="next"',
    '<>; rel="next"',
    '; rel="next"',
    'rel="next"',
    "<a>;;;;;rel=next",
    '<?cursor=../../../x>; rel="next"',
    '<?cursor=a b>; rel="next"',
    '<?cursor=\u00fc>; rel="next"',
    '<?#x>; rel="next"',
    '<http://user:pass@evil.test/?cursor=3>; rel="next"',
    "," * 1000,
    '<?x=1>; rel="next", ' * 100,
    "<?cursor=" + "x" * 60_000 + '>; rel="next"',
]


@pytest.mark.parametrize("link", LINKS, ids=short)
def test_links_that_lead_astray(link: str) -> None:
    first = reply(json.dumps([file_entry("a")]).encode(), Link=link)
    with RawServer(first, reply(json.dumps([file_entry("b")]).encode())) as server:
        assert [file.path for file in listed(hub_at(server))] in (["a"], ["a", "b"])
        assert all(head.startswith("GET /api/models/org/name/tree/") for head in server.heads)


def test_dangerous_entries_among_good_ones_are_left_out(bench: Bench) -> None:
    writable = [path for path in UNSAFE if path.isprintable() and path]
    bench.hub.on(also_listed(writable), route="tree")
    hub = Hub(HttpClient(bench.settings()), bench.hub.endpoint, HASTY)
    plan = Plan()
    pages = plan.pages(hub.pages(RepoType.MODEL, "org/name", bench.spec().commit))
    found = {file.path for page in pages for file in page}
    assert "big.bin" in found
    assert found.isdisjoint(UNSAFE)
    assert plan.skipped_count == len(set(writable))


# -- headers ------------------------------------------------------------------------------------------

NEVER_ENDS: dict[str, tuple[bytes, bytes]] = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 100),
    "one header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 10_000),
    "status line": (b"HTTP/1.1 200 ", b"O" * 10_000),
    "folded header": (b"HTTP/1.1 200 OK\r\nX-A: b\r\n", b" folded\r\n" * 100),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "continue with headers": (b"", b"HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n" * 100),
    "noise": (b"", b"\xff\x00" * 5000),
    "empty lines": (b"", b"\r\n" * 5000),
}


@pytest.mark.parametrize("kind", NEVER_ENDS)
def test_headers_without_an_end(kind: str) -> None:
    settings = HuggingFaceConfig.model_validate({"endpoint": "http://hub.test"})
    with Endless(*NEVER_ENDS[kind]) as server, pytest.raises((NetworkError, StalledError)):
        HttpClient(settings, read_timeout=1).open("GET", server.url)


DRIPS: dict[str, tuple[bytes, bytes]] = {
    "trailers": (reply(Content_Length="", Transfer_Encoding="chunked")[:-2] + b"\r\n0\r\n", b"X: y\r\n" * 99),
    "chunk extension": (reply(Content_Length="", Transfer_Encoding="chunked")[:-2] + b"\r\n1;", b"x" * 9999),
}


@pytest.mark.parametrize("kind", DRIPS)
def test_bodies_of_which_nothing_comes(kind: str) -> None:
    settings = HuggingFaceConfig.model_validate({"endpoint": "http://hub.test"})
    with Endless(*DRIPS[kind]) as server:
        with HttpClient(settings, read_timeout=1).open("GET", server.url) as response:
            with pytest.raises((NetworkError, StalledError)):
                response.read1(100)


class Slow(RawServer):
    """Sends a byte now and then, which in all takes longer than our patience for a piece of it."""

    def _serve(self, client: socket.socket) -> None:
        self._open.append(client)
        client.recv(65536)
        client.sendall(reply(Content_Length="20"))
        for _ in range(20):
            client.sendall(b"x")
            time.sleep(0.1)


def test_a_body_may_take_longer_than_our_patience_for_a_piece() -> None:
    settings = HuggingFaceConfig.model_validate({"endpoint": "http://hub.test"})
    with Slow() as server, HttpClient(settings, read_timeout=0.5).open("GET", server.url) as response:
        assert sum(len(data) for data in iter(lambda: response.read1(100), b"")) == 20


def test_a_short_rest_that_never_comes_does_not_hold_us() -> None:
    settings = HuggingFaceConfig.model_validate({"endpoint": "http://hub.test"})
    with RawServer(Say(reply(b"x", Content_Length="2000"), "hold")) as server:
        HttpClient(settings, read_timeout=1).open("GET", server.url).close()


@pytest.mark.parametrize(
    "status", ["101 Switching Protocols", "102 Processing", "103 Early Hints", "199 What"]
)
def test_what_comes_behind_an_interim_answer_is_not_the_next_ones(status: str) -> None:
    interim = f"HTTP/1.1 {status}\r\n\r\n".encode() + reply(b"for the first")
    settings = HuggingFaceConfig.model_validate({"endpoint": "http://hub.test"})
    with RawServer(interim, reply(b"for the second")) as server:
        http = HttpClient(settings)
        http.open("GET", f"{server.url}/first").close()
        with http.open("GET", f"{server.url}/second") as response:
            assert response.read1(100) == b"for the second"


# -- lies about files, for each engine ----------------------------------------------------------------

CONTENT = b"0123456789" * 1000
SIZE = len(CONTENT)


def lying_file(*, hashed: bool) -> RepoFile:
    return RepoFile(path="lie.bin", size=SIZE, sha256="a" * 64 if hashed else None)


def chunked(start: bytes = b"") -> bytes:
    return reply(Content_Length="", Transfer_Encoding="chunked", X_Repo_Commit=COMMIT)[:-2] + b"\r\n" + start


def unsized() -> bytes:
    return reply(Content_Length="", Connection="close", X_Repo_Commit=COMMIT)[:-2] + b"\r\n"


PIECE = b"x" * 50_000
#: Answers that bring more than the listing says, without an end.
MORE: dict[str, tuple[bytes, bytes]] = {
    "chunked": (chunked(), b"c350\r\n" + PIECE + b"\r\n"),
    "one huge chunk": (chunked(b"ffffffffff\r\n"), PIECE),
    "without a length": (unsized(), PIECE),
    "length of a terabyte": (reply(Content_Length=str(10**12), X_Repo_Commit=COMMIT), PIECE),
    "length of the file": (reply(Content_Length=str(SIZE), X_Repo_Commit=COMMIT), PIECE),
    "negative length": (reply(Content_Length="-1", X_Repo_Commit=COMMIT), PIECE),
    "two lengths": (reply(Content_Length=str(SIZE), X_Repo_Commit=COMMIT, content_length="99999999"), PIECE),
    "length and chunks": (
        reply(Content_Length=str(SIZE), Transfer_Encoding="chunked", X_Repo_Commit=COMMIT),
        b"c350\r\n" + PIECE + b"\r\n",
    ),
}


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("kind", MORE)
def test_no_more_is_written_than_was_declared(bench: Bench, kind: str, hashed: bool) -> None:
    with Endless(*MORE[kind]) as server:
        spec = bench.spec(commit=COMMIT, endpoint=server.url)
        fetched = bench.fetch(lying_file(hashed=hashed), engine=bench.engine(), spec=spec)
    assert isinstance(fetched.error, TransferError) or not hashed
    assert max([len(fetched.content), *fetched.progress]) <= SIZE


@pytest.mark.parametrize("kind", MORE)
def test_no_more_is_written_of_a_part(bench: Bench, kind: str) -> None:
    start, again = MORE[kind]
    partial = start.replace(b"200 OK", b"206 Partial Content\r\nContent-Range: bytes 100-199/%d" % SIZE)
    with Endless(partial, again) as server:
        spec = bench.spec(commit=COMMIT, endpoint=server.url)
        sink = RangeSink(100, 200)  # asserts that no byte too much is written
        fetched = bench.fetch_part(lying_file(hashed=True), sink, spec=spec)
    assert fetched.error is None or isinstance(fetched.error, TransferError)
    assert len(sink.content) <= 100


@pytest.fixture
def hub_engine(bench: Bench) -> Iterator[HubEngine]:
    with closing(HubEngine(bench.settings())) as engine:
        yield engine


@pytest.mark.parametrize("kind", MORE)
def test_the_library_writes_no_more_than_was_declared(
    bench: Bench, hub_engine: HubEngine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    most = [0]
    clear = Partial.remove_staging

    def look(partial: Partial) -> None:
        most.append(sum(path.lstat().st_size for path in bench.out.rglob("*incomplete")))
        clear(partial)

    monkeypatch.setattr(Partial, "remove_staging", look)
    described = reply(X_Repo_Commit=COMMIT, ETag='"abc"', Content_Length=str(SIZE))
    with Endless(*MORE[kind], head=described) as server:
        spec = bench.spec(commit=COMMIT, endpoint=server.url)
        fetched = bench.fetch(lying_file(hashed=True), engine=hub_engine, spec=spec)
    assert isinstance(fetched.error, TransferError)
    assert max([*most, *fetched.progress]) <= SIZE


#: Names that a hub may give to what the library stores.
ETAGS = [
    *(
        '"../../../../escaped"',
        '"/tmp/escaped"',
        '".."',
        '"."',
        '"a/b"',
        '"..\\\\x"',
        'W/"../x"',
        '"' + "x" * 300 + '"',
    ),
    *(
        '"a b"',
        '"a\x1b[2J"',
        '"-rf"',
        '"~"',
        '"%2e%2e%2fx"',
        "'; rm -rf /",
        '"\u00fc"',
        '"*"',
        "../escaped",
        "W/..",
    ),
]


@pytest.mark.parametrize("name", ["ETag", "X-Linked-Etag"])
@pytest.mark.parametrize("etag", ETAGS, ids=short)
def test_no_etag_makes_the_library_write_elsewhere(
    bench: Bench, hub_engine: HubEngine, name: str, etag: str
) -> None:
    without = [Header("X-Linked-Etag")] if name == "ETag" else []
    bench.hub.on(Header(name, etag), *without, route="resolve", method="HEAD", times=None)
    before = {path for path in bench.out.parent.rglob("*") if not path.is_relative_to(bench.out)}
    fetched = bench.fetch("big.bin", engine=hub_engine)
    assert isinstance(fetched.error, TransferError)
    after = {path for path in bench.out.parent.rglob("*") if not path.is_relative_to(bench.out)}
    assert after == before
    assert [path for path in bench.out.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("commit", ["../../../../escaped", "b" * 40, "main", "/tmp/escaped", ".."])
def test_no_commit_makes_the_library_write_elsewhere(
    bench: Bench, hub_engine: HubEngine, commit: str
) -> None:
    bench.hub.on(Header("X-Repo-Commit", commit), route="resolve", method="HEAD", times=None)
    fetched = bench.fetch("big.bin", engine=hub_engine)
    assert isinstance(fetched.error, CorruptError)


BOMB = gzip.compress(b"\0" * 20_000_000)


@pytest.mark.parametrize(
    "encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP", "x-gzip", "what"]
)
@pytest.mark.parametrize("engine", ["http", "hub"])
def test_no_compressed_body_is_unpacked(
    bench: Bench, hub_engine: HubEngine, engine: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    bomb = reply(BOMB, Content_Encoding=encoding, ETag='"abc"', X_Repo_Commit=COMMIT)
    plain = reply(X_Repo_Commit=COMMIT, ETag='"abc"', Content_Length=str(SIZE))
    with RawServer(lambda head: Say(plain if head.startswith("HEAD") else bomb)) as server:
        spec = bench.spec(commit=COMMIT, endpoint=server.url)
        chosen = hub_engine if engine == "hub" else bench.engine()
        fetched = bench.fetch(lying_file(hashed=True), engine=chosen, spec=spec)
        assert isinstance(fetched.error, CorruptError)
        assert "compressed" in str(fetched.error)
    assert fetched.content == b""


#: `Content-Range` headers for a request of the bytes 100 to 199 of 10,000, none of which may be believed.
RANGES = [
    *("", "bytes", "bytes */10000", "bytes 0-99/10000", "bytes 101-199/10000", "bytes 199-100/10000"),
    *("bytes 100-99/10000", "bytes 100-199/9999", "bytes 100-199/99999999999", "bytes 100-10000/10000"),
    *("bytes -100-199/10000", "bytes 100--199/10000", "bytes 1e2-199/10000", "bytes 0x64-199/10000"),
    *("bytes 100-199/-1", "items 100-199/10000", "bytes=100-199/10000", "bytes 100-199", "bytes 100-199/"),
    *(
        "bytes \u0661\u0660\u0660-199/10000",
        "bytes 100 - 199/10000",
        "bytes 100-199/10000, bytes 300-399/10000",
    ),
    *("bytes 100-" + "9" * 5000 + "/*", "bytes " + "9" * 5000 + "-199/*", "bytes 100-199/" + "9" * 5000),
    *("bytes 100-199/10000\x1b[2J", "bytes 100-9223372036854775808/*", "BYTES 100-199/10000"),
]


@pytest.mark.parametrize("said", RANGES, ids=short)
def test_ranges_that_are_lies(bench: Bench, said: str) -> None:
    body = CONTENT[100:200]
    with RawServer(reply(body, "206 Partial Content", Content_Range=said, X_Repo_Commit=COMMIT)) as server:
        spec = bench.spec(commit=COMMIT, endpoint=server.url)
        sink = RangeSink(100, 200)
        fetched = bench.fetch_part(lying_file(hashed=True), sink, spec=spec)
    assert isinstance(fetched.error, TransferError)
    assert str(fetched.error).isprintable()
    assert sink.content == b""
