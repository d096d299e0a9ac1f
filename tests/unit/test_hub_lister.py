from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import cast
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from distributed_downloader.errors import HubUnavailableError, NotFoundError, ServerError
from distributed_downloader.hub import Patience
from distributed_downloader.hub.lister import FULL_PAGE, LARGEST_FILE
from distributed_downloader.models import RepoFile, RepoType
from distributed_downloader.plan import Plan
from tests.unit.fake_http import (
    COMMIT,
    ENDPOINT,
    FakeHttp,
    FakeResponse,
    Sent,
    file_entry,
    hub_over,
    in_turn,
    lfs_entry,
    tree_page,
)

Entries = Sequence[dict[str, object]]
TREE = f"{ENDPOINT}/api/models/org/name/tree/{COMMIT}"
FOLDER: dict[str, object] = {"type": "directory", "path": "d", "size": 0, "oid": "d" * 40}


def listed(http: FakeHttp) -> list[RepoFile]:
    """Return all files that a hub behind `http` lists."""
    return [file for page in hub_over(http).pages(RepoType.MODEL, "org/name", COMMIT) for file in page]


def paths(http: FakeHttp) -> list[str]:
    return [file.path for file in listed(http)]


class Mirror:
    """A hub of one repo whose way to turn pages is a function: (number of the page) -> the next one's."""

    def __init__(self, names: Sequence[str], size: int, following: Callable[[int], int | None]) -> None:
        self.names = list(names)
        self.siblings = list(names)
        self.size = size
        self.following = following
        self.http = FakeHttp(self.answer)

    def answer(self, sent: Sent) -> FakeResponse:
        url = urlsplit(sent.url)
        if "/tree/" in url.path:
            return self.page(int(dict(parse_qsl(url.query)).get("cursor", "0")))
        if "/paths-info/" in url.path:
            assert sent.body is not None
            asked = parse_qs(sent.body.decode(), keep_blank_values=True)
            assert asked["expand"] == ["false"]
            return FakeResponse(data=[file_entry(path) for path in asked["paths"]])
        assert url.path.endswith(f"/revision/{COMMIT}")
        return FakeResponse(data={"siblings": [{"rfilename": name} for name in self.siblings]})

    def page(self, number: int) -> FakeResponse:
        names = self.names[number * self.size : (number + 1) * self.size]
        following = self.following(number)
        return tree_page(list(map(file_entry, names)), "" if following is None else f"cursor={following}")


def last_page(count: int, size: int) -> Callable[[int], int | None]:
    return lambda number: number + 1 if (number + 1) * size < count else None


def test_files_with_their_sizes_and_hashes_and_no_folders() -> None:
    entries = [FOLDER, file_entry("d/a", 5), lfs_entry("d/b", 2**40), file_entry("empty", 0)]
    assert listed(in_turn(tree_page(entries))) == [
        RepoFile(path="d/a", size=5, git_sha1="a" * 40),
        RepoFile(path="d/b", size=2**40, sha256="b" * 64),
        RepoFile(path="empty", size=0, git_sha1="a" * 40),
    ]


def test_what_newer_hubs_add_does_no_harm() -> None:
    entry = {**lfs_entry("a"), "xetHash": "e" * 64, "lastCommit": {"id": COMMIT}, "securityFileStatus": None}
    assert paths(in_turn(tree_page([entry]))) == ["a"]


@pytest.mark.parametrize("oid", ["*" * 64, "", "B" * 64, "b" * 63, "b" * 65, f"{'b' * 64}\n", "g" * 64])
def test_a_masked_hash_is_no_hash(oid: str) -> None:
    # The pointer's own id must not slip in instead.
    assert listed(in_turn(tree_page([lfs_entry("a", 7, oid)]))) == [RepoFile(path="a", size=7)]


@pytest.mark.parametrize("oid", ["*" * 40, "", None, "b" * 64, "A" * 40])
def test_a_masked_git_id_is_no_hash(oid: str | None) -> None:
    assert listed(in_turn(tree_page([file_entry("a", 7, oid=oid)]))) == [RepoFile(path="a", size=7)]


def test_the_size_of_an_lfs_file_is_the_contents_not_the_pointers() -> None:
    entry = {**lfs_entry("a", 4096), "size": 130}
    assert listed(in_turn(tree_page([entry])))[0].size == 4096


def test_an_empty_repo_has_no_files() -> None:
    assert listed(in_turn(tree_page([]))) == []


def test_pages_are_turned_at_our_endpoint_whatever_host_and_path_the_link_names() -> None:
    http = in_turn(
        FakeResponse(
            data=[file_entry("a")],
            headers={"Link": '<https://evil.test/steal?cursor=x%3D%26y&limit=2>; rel="next"'},
        ),
        FakeResponse(data=[file_entry("b")], headers={"Link": '</relative?cursor=z>; rel="next"'}),
        FakeResponse(data=[file_entry("c")], headers={"Link": '<https://hub.test/x?cursor=q>; rel="prev"'}),
    )
    assert paths(http) == ["a", "b", "c"]
    assert [sent.url for sent in http.sent] == [
        f"{TREE}?recursive=true&expand=false",
        f"{TREE}?cursor=x%3D%26y&limit=2",
        f"{TREE}?cursor=z",
    ]


@pytest.mark.parametrize(
    "link", ["", "nonsense", "<>", '<https://x.test/no-query>; rel="next"', '<x?a=b>; rel=""']
)
def test_a_link_that_leads_nowhere_is_the_end(link: str) -> None:
    assert paths(in_turn(FakeResponse(data=[file_entry("a")], headers={"Link": link}))) == ["a"]


def test_many_pages() -> None:
    names = [f"{number:04}" for number in range(2500)]
    mirror = Mirror(names, 100, last_page(2500, 100))
    assert paths(mirror.http) == names
    assert len(mirror.http.sent) == 25


def test_a_mirror_that_drops_the_cursor_is_listed_by_its_summary() -> None:
    names = [f"{number:04}" for number in range(2345)]
    mirror = Mirror(names, 1000, lambda _: 0)
    assert paths(mirror.http) == names
    posted = [len(parse_qs((sent.body or b"").decode())["paths"]) for sent in mirror.http.sent if sent.body]
    assert posted == [1000, 345], "the hub takes no more than 1000 paths"


def test_a_mirror_that_drops_the_link_is_listed_by_its_summary(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{number:04}" for number in range(FULL_PAGE + 5)]
    assert paths(Mirror(names, FULL_PAGE, lambda _: None).http) == names
    assert "cannot turn pages. 5 more files" in caplog.text


def test_a_repo_of_just_one_full_page_is_complete(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{number:04}" for number in range(FULL_PAGE)]
    assert paths(Mirror(names, FULL_PAGE, lambda _: None).http) == names
    assert caplog.text == ""


@pytest.mark.parametrize("back", [0, 1, 2, 3])
def test_a_circle_of_pages_is_left_and_no_file_comes_twice(back: int) -> None:
    names = [f"{number:02}" for number in range(80)]
    mirror = Mirror(names, 10, lambda number: back if number == 3 else number + 1)
    assert paths(mirror.http) == names


def test_a_mirror_that_changes_its_mind_is_not_believed() -> None:
    names = [f"{number:02}" for number in range(40)]
    mirror = Mirror(names, 10, lambda number: min(number + 1, 2))
    calls = []

    def answer(sent: Sent) -> FakeResponse:
        calls.append(sent)
        if len(calls) == 5:
            mirror.names[0] = "other"
            mirror.siblings[0] = "other"
        return mirror.answer(sent)

    with pytest.raises(ServerError, match="neither turn pages nor sum up"):
        paths(FakeHttp(answer))


def test_names_that_a_form_must_escape_are_asked_for_as_they_are() -> None:
    names = ["a b&c=d+e%f#g.bin", "ü/日本.bin"]
    mirror = Mirror(["first"], 1, lambda _: 0)
    mirror.siblings = ["first", *names]
    assert paths(mirror.http) == ["first", *names]


def test_a_summary_that_is_cut_short_is_not_taken_for_the_whole() -> None:
    mirror = Mirror([f"{number:02}" for number in range(20)], 10, lambda _: 0)
    mirror.siblings = mirror.names[5:]
    with pytest.raises(ServerError, match="neither turn pages nor sum up; use another --endpoint"):
        paths(mirror.http)


def test_a_file_that_only_the_summary_knows_is_an_error() -> None:
    mirror = Mirror(["a", "b"], 1, lambda _: 0)

    def answer(sent: Sent) -> FakeResponse:
        return FakeResponse(data=[]) if sent.body else mirror.answer(sent)

    with pytest.raises(ServerError, match="has 'b', but the hub tells nothing about it"):
        paths(FakeHttp(answer))


def test_a_missing_size_is_asked_for() -> None:
    unsized = {key: value for key, value in file_entry("b").items() if key != "size"}
    http = in_turn(
        tree_page([file_entry("a", 1), unsized, file_entry("c", 3)]), FakeResponse(data=[file_entry("b", 2)])
    )
    assert [(file.path, file.size) for file in listed(http)] == [("a", 1), ("b", 2), ("c", 3)]
    assert http.sent[1].body == b"paths=b&expand=false"


def test_a_size_that_nobody_knows_is_an_error() -> None:
    unsized = {**file_entry("b"), "size": None}
    with pytest.raises(ServerError, match="does not tell the size of 'b'"):
        listed(in_turn(tree_page([unsized]), FakeResponse(data=[unsized])))


@pytest.mark.parametrize("size", [-1, True, "12", 1.5, LARGEST_FILE + 1, 2**64, 1e300])
@pytest.mark.parametrize("lfs", [True, False])
def test_absurd_sizes_are_refused(size: object, lfs: bool) -> None:
    entry = (
        {**lfs_entry("a"), "lfs": {"oid": "b" * 64, "size": size}}
        if lfs
        else {**file_entry("a"), "size": size}
    )
    with pytest.raises(ServerError, match=r"the listing of models/org/name cannot be read: 1\.(lfs\.)?size"):
        listed(in_turn(tree_page([file_entry("x"), entry])))


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"error": "no"},
        "x",
        7,
        [None],
        ["a"],
        [{}],
        [{"type": "file"}],
        [{"path": "a"}],
        [{**file_entry("a"), "path": ""}],
        [{**file_entry("a"), "path": None}],
        [{**file_entry("a"), "path": "\udc80"}],
        [{**file_entry("a"), "lfs": "yes"}],
        [{**file_entry("a"), "oid": 7}],
    ],
)
def test_a_page_of_another_shape_is_the_servers_fault_and_named(data: object) -> None:
    with pytest.raises(ServerError, match="the listing of models/org/name cannot be read"):
        listed(in_turn(FakeResponse(data=data)))


def test_a_summary_of_another_shape_is_the_servers_fault_and_named() -> None:
    page = tree_page([file_entry("a")], "cursor=1")
    with pytest.raises(ServerError, match="cannot be read: siblings"):
        listed(in_turn(page, page, FakeResponse(data={"siblings": None})))


def test_an_error_on_a_later_page_comes_after_the_pages_before() -> None:
    http = in_turn(tree_page([file_entry("a")], "cursor=1"), FakeResponse(404))
    pages = hub_over(http).pages(RepoType.MODEL, "org/name", COMMIT)
    assert [file.path for file in next(pages)] == ["a"]
    with pytest.raises(NotFoundError):
        next(pages)


def test_a_hub_that_goes_away_in_the_middle_is_unavailable() -> None:
    http = FakeHttp(
        lambda sent: FakeResponse(502) if "cursor" in sent.url else tree_page([file_entry("a")], "cursor=1")
    )
    with pytest.raises(HubUnavailableError):
        listed(http)


def test_the_next_page_is_fetched_while_this_one_is_used() -> None:
    second = threading.Event()

    def script(sent: Sent) -> FakeResponse:
        if "cursor" in sent.url:
            second.set()
            return tree_page([file_entry("b")])
        return tree_page([file_entry("a")], "cursor=1")

    pages = hub_over(FakeHttp(script)).pages(RepoType.MODEL, "org/name", COMMIT)
    next(pages)
    assert second.wait(60), "nobody has asked for the second page yet"
    assert [file.path for page in pages for file in page] == ["b"]


def test_leaving_a_listing_does_not_wait_for_the_hub() -> None:
    asked = threading.Event()

    def script(sent: Sent) -> FakeResponse:
        if "cursor" in sent.url:
            asked.set()
            return FakeResponse(429, headers={"Retry-After": "600"})
        return tree_page([file_entry("a")], "cursor=1")

    hub = hub_over(FakeHttp(script), Patience())
    before = threading.active_count()
    with closing(hub.pages(RepoType.MODEL, "org/name", COMMIT)) as pages:
        next(pages)
        asked.wait()
    assert threading.active_count() == before
    # And the hub is still there for others.
    with closing(hub.pages(RepoType.MODEL, "org/name", COMMIT)) as pages:
        assert next(pages)


def peak_of(pages: int) -> int:
    """Return the most memory that listing and planning so many pages of a hundred files takes, in bytes."""
    count = 100 * pages

    def script(sent: Sent) -> FakeResponse:
        start = int(dict(parse_qsl(urlsplit(sent.url).query)).get("cursor", "0"))
        entries = [
            lfs_entry(f"data/train/{number:012}.parquet", number) for number in range(start, start + 100)
        ]
        return tree_page(entries, f"cursor={start + 100}" if start + 100 < count else "")

    http = FakeHttp(script)
    http.sent = cast(list[Sent], _Forgetful())
    tracemalloc.start()
    planned = Plan(["data/"]).pages(hub_over(http).pages(RepoType.MODEL, "org/name", COMMIT))
    assert sum(map(len, planned)) == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


class _Forgetful(list[Sent]):
    def append(self, _: Sent) -> None:
        self[:] = [_]


def test_memory_does_not_grow_with_the_number_of_pages() -> None:
    peak_of(3)  # imports, caches
    assert peak_of(200) < 2 * peak_of(20)
