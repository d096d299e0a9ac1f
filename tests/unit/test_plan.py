from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from huggingface_hub.utils._paths import filter_repo_objects
from hypothesis import example, given
from hypothesis import strategies as st

from distributed_downloader.models import JobSpec, RepoFile, RepoType
from distributed_downloader.nas_names import nas_parts
from distributed_downloader.plan import (
    BLOCK,
    LARGEST_PART,
    MIB,
    PARTS_PER_SLOT,
    SKIPPED_SHOWN,
    SMALLEST_PART,
    Plan,
    Skipped,
    biggest_first,
    danger,
    part_size,
    path_filter,
)

# Few letters, so that patterns hit; no backslash, which hub 1.x takes in another way.
_PATHS = st.text("abA.*[]!-/?_", min_size=1, max_size=12)
_PATTERNS = st.lists(st.text("abA.*[]!-/?_", max_size=6), max_size=4)


def some(*paths: str, size: int = 1, git_sha1: str | None = "a" * 40) -> list[RepoFile]:
    return [RepoFile(path=path, size=size, git_sha1=git_sha1) for path in paths]


def paths_of(pages: Sequence[Sequence[RepoFile]]) -> list[list[str]]:
    return [[file.path for file in page] for page in pages]


@given(st.lists(_PATHS, max_size=8), _PATTERNS, _PATTERNS)
@example(["a/b/c"], ["a/"], ["*c"])
@example(["[", "[]"], ["["], [])
@example(["a\nb"], ["a*"], [])
def test_filters_as_huggingface_hub_does(paths: list[str], include: list[str], exclude: list[str]) -> None:
    accepts = path_filter(include, exclude)
    theirs = filter_repo_objects(paths, allow_patterns=include or None, ignore_patterns=exclude or None)
    assert list(filter(accepts, paths)) == list(theirs)


@pytest.mark.parametrize(
    ("include", "exclude", "accepted"),
    [
        ([], [], "README.md data/a.json data/sub/b.json data2/c.json x.JSON"),
        (["*.json"], [], "data/a.json data/sub/b.json data2/c.json"),
        (["data/*.json"], [], "data/a.json data/sub/b.json"),
        (["data/"], [], "data/a.json data/sub/b.json"),
        (["data"], [], ""),
        (["data\\*"], [], "data/a.json data/sub/b.json"),
        (["data/", "README.md"], [], "README.md data/a.json data/sub/b.json"),
        ([], ["data/"], "README.md data2/c.json x.JSON"),
        (["*.json"], ["*/sub/*"], "data/a.json data2/c.json"),
        (["*"], ["*"], ""),
        ([""], [], ""),
        (["[dx]*"], [], "data/a.json data/sub/b.json data2/c.json x.JSON"),
        (["data?/*"], [], "data2/c.json"),
    ],
)
def test_filters(include: list[str], exclude: list[str], accepted: str) -> None:
    paths = ["README.md", "data/a.json", "data/sub/b.json", "data2/c.json", "x.JSON"]
    assert list(filter(path_filter(include, exclude), paths)) == accepted.split()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("//x", "absolute"),
        ("..", "component"),
        ("../x", "component"),
        ("a/../../x", "component"),
        ("a/..", "component"),
        (".", "component"),
        ("./a", "component"),
        ("a/./b", "component"),
        ("a//b", "component"),
        ("a/", "component"),
        ("a\\b", "backslash"),
        ("..\\x", "backslash"),
        ("C:/x", "drive"),
        ("c:x", "drive"),
        ("a/D:foo", "drive"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\tb", "control"),
        ("a\x1b[2Jb", "control"),
        ("a\x7f", "control"),
        ("a\x85b", "control"),
        ("a\udc80", "control"),
        ("x" * 256, "255 bytes"),
        ("d/" + "é" * 128, "255 bytes"),
        ("/".join(["x" * 200] * 21), "4096 bytes"),
        (".hf-downloader", "own folder"),
        (".hf-downloader/x", "own folder"),
        (".HF-Downloader/x", "own folder"),
    ],
)
def test_dangerous_paths(path: str, reason: str) -> None:
    assert reason in danger(path)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        ".gitattributes",
        "a/.hf-downloader",
        ".hf-downloader2/x",
        "a b/c#d/e%20f/g?h",
        "...",
        "a..b/..c/d..",
        "10:30.txt",
        "ünï/日本語/😀.bin",
        "x" * 255,
        "é" * 127,
        "/".join(["x" * 200] * 20),
        "-rf",
        "~/x",
        "$(rm)",
    ],
)
def test_paths_that_are_only_unusual(path: str) -> None:
    assert danger(path) == ""


@given(st.text(min_size=1, max_size=30))
def test_a_path_without_danger_stays_below_its_folder(path: str) -> None:
    if not danger(path):
        assert not path.startswith("/")
        assert {"..", ".", ""}.isdisjoint(path.split("/"))
        assert path.isprintable() or not set(path) & set(map(chr, range(32)))
        assert path.encode()


@given(st.lists(st.tuples(st.sampled_from(string.ascii_letters), st.integers(0, 5)), max_size=20))
def test_the_biggest_come_first_and_equals_by_path(items: list[tuple[str, int]]) -> None:
    files = [RepoFile(path=path, size=size) for path, size in items]
    ordered = biggest_first(files)
    assert sorted(files, key=str) == sorted(ordered, key=str)
    for one, other in pairwise(ordered):
        assert one.size > other.size or (one.size == other.size and one.path <= other.path)


def test_pages_stay_pages_in_their_order_and_none_is_empty() -> None:
    listing = [some("c", "a.txt"), [], some("x.bin"), some("b.txt")]
    assert paths_of(list(Plan(["*.txt"]).pages(listing))) == [["a.txt"], ["b.txt"]]


def test_a_page_is_passed_on_before_the_next_is_asked_for() -> None:
    asked = []

    def listing() -> Iterator[list[RepoFile]]:
        for name in "ab":
            asked.append(name)
            yield some(name)

    pages = Plan().pages(listing())
    next(pages)
    assert asked == ["a"]


@pytest.mark.parametrize(
    ("pages", "kept"),
    [
        (["aab"], ["ab"]),
        (["ab", "bc"], ["ab", "c"]),
        (["ab", "ab", "ab"], ["ab"]),
        # Far away, a repetition is passed on; the worker then finds the file there.
        (["a", "b", "a"], ["a", "b", "a"]),
    ],
)
def test_repetitions_nearby_are_dropped(pages: list[str], kept: list[str]) -> None:
    found = paths_of(list(Plan().pages([some(*page) for page in pages])))
    assert ["".join(page) for page in found] == kept


@given(st.lists(st.lists(st.sampled_from("aAbBcß"), max_size=8), max_size=8))
def test_nothing_is_lost_and_neighbours_have_nothing_twice(listing: list[list[str]]) -> None:
    pages = paths_of(list(Plan().pages([some(*page) for page in listing])))
    assert {path for page in pages for path in page} == {path for page in listing for path in page}
    for page in pages:
        assert len(page) == len(set(page))


def test_dangerous_files_are_told_and_not_passed_on() -> None:
    plan = Plan()
    assert paths_of(list(plan.pages([some("a", "../b", "/c"), some("d")]))) == [["a"], ["d"]]
    assert [skipped.path for skipped in plan.skipped] == ["../b", "/c"]
    assert plan.skipped_count == 2
    assert plan.skipped[1] == Skipped("/c", "an absolute path")


def test_what_no_filter_wants_is_not_worth_a_word() -> None:
    plan = Plan(exclude=["../*"])
    list(plan.pages([some("a", "../b")]))
    assert plan.skipped == []


def test_many_dangerous_files_are_counted_and_the_first_are_told() -> None:
    plan = Plan()
    assert list(plan.pages([some(*(f"../{i}" for i in range(500)))])) == []
    assert plan.skipped_count == 500
    assert len(plan.skipped) == SKIPPED_SHOWN


def test_names_that_differ_only_in_case_are_kept_and_noted() -> None:
    plan = Plan()
    pages = paths_of(list(plan.pages([some("Read", "read", "x"), some("X", "y")])))
    assert pages == [["Read", "read", "x"], ["X", "y"]]
    assert plan.alike == [("Read", "read"), ("x", "X")]


def test_files_without_a_hash_are_counted() -> None:
    plan = Plan(exclude=["b"])
    list(plan.pages([some("a", "b", git_sha1=None), some("c")]))
    assert plan.unhashed == 1


# -- flat names ---------------------------------------------------------------------------------------

FLAT = JobSpec(
    repo_type=RepoType.MODEL,
    repo_id="org/name",
    revision="main",
    commit="c" * 40,
    endpoint="http://x",
    flat=True,
)


def flat_name(file: RepoFile) -> bytes:
    return nas_parts(FLAT, file)[-1]


def flat(*pages: Sequence[str]) -> tuple[list[RepoFile], Plan]:
    plan = Plan(flat_name=flat_name)
    return [file for page in plan.pages([some(*page) for page in pages]) for file in page], plan


def hashed(path: str) -> str:
    """Return the basename that a file gets where another one has its own."""
    return flat_name(RepoFile(path=path, size=1, clash=True)).decode().removeprefix("name_")


def test_in_folders_no_names_clash() -> None:
    (page,) = Plan().pages([some("a/x", "b/x")])
    assert [file.clash for file in page] == [False, False]


def test_flat_the_first_keeps_its_name_and_later_ones_are_marked() -> None:
    files, _ = flat(["a/x.bin", "y"], ["b/x.bin", "c/X.bin"], ["z", "d/y"])
    assert [(file.path, file.clash) for file in files] == [
        ("a/x.bin", False),
        ("y", False),
        ("b/x.bin", True),
        ("c/X.bin", True),
        ("z", False),
        ("d/y", True),
    ]


def test_a_name_that_looks_like_a_hashed_one_gives_way_to_it() -> None:
    files, plan = flat(["a/x.bin", "b/x.bin", hashed("b/x.bin")])
    assert [file.clash for file in files] == [False, True, True]
    assert plan.skipped == []


def test_a_file_whose_two_names_are_taken_is_refused_and_told() -> None:
    files, plan = flat([hashed("b/x.bin"), "a/x.bin", "b/x.bin"])
    assert [file.path for file in files] == [hashed("b/x.bin"), "a/x.bin"]
    assert plan.skipped == [
        Skipped("b/x.bin", "its name on the NAS is taken, and [nas] preserve_structure is off")
    ]
    assert plan.skipped_count == 1


@pytest.mark.parametrize("filters", [{"include": ["b/*"]}, {"exclude": ["a/*"]}])
def test_a_job_with_other_filters_gives_the_same_flat_names(filters: dict[str, list[str]]) -> None:
    plan = Plan(**filters, flat_name=flat_name)
    (page,) = plan.pages([some("a/x.bin", "b/x.bin")])
    assert [(file.path, file.clash) for file in page] == [("b/x.bin", True)]
    assert plan.skipped == []


_FLAT_PATHS = st.lists(st.sampled_from(["a", "b", "c", "X"]), min_size=1, max_size=3).map("/".join)
_LONG = st.sampled_from(["x" * 250, "X" * 250, "d/" + "x" * 250, "\u00e9" * 125])
_HASHED = _FLAT_PATHS.map(hashed)


@given(st.lists(st.lists(_FLAT_PATHS | _LONG | _HASHED, max_size=6), max_size=6))
def test_no_two_files_get_one_name_on_a_flat_nas(pages: list[list[str]]) -> None:
    files, plan = flat(*pages)
    names = [flat_name(file).decode().casefold() for file in files]
    assert len(names) == len(set(names))
    distinct = {path for page in pages for path in page}
    told = {skipped.path for skipped in plan.skipped}
    assert {file.path for file in files} | told == distinct


@given(st.lists(st.lists(_FLAT_PATHS, max_size=6), max_size=6))
def test_a_listing_that_is_read_again_decides_alike(pages: list[list[str]]) -> None:
    one, other = flat(*pages)[0], flat(*pages)[0]
    assert [file.to_line() for file in one] == [file.to_line() for file in other]


# -- parts --------------------------------------------------------------------------------------------

_SIZES, _SLOTS = st.integers(1, 2**50), st.integers(0, 4096)


@given(_SIZES, _SLOTS)
def test_parts_are_neither_small_nor_large_and_aligned(size: int, slots: int) -> None:
    part = part_size(size, slots)
    assert SMALLEST_PART <= part <= LARGEST_PART
    assert part % (BLOCK if part >= BLOCK else MIB) == 0


@given(_SIZES, _SLOTS)
def test_no_part_is_larger_than_the_fleet_needs(size: int, slots: int) -> None:
    part = part_size(size, slots)
    wanted = size / (PARTS_PER_SLOT * max(slots, 1))
    assert part == SMALLEST_PART or part < wanted + (BLOCK if part >= BLOCK else MIB)
    assert part == LARGEST_PART or part >= wanted


@given(_SIZES, _SIZES, _SLOTS)
def test_larger_files_have_no_smaller_parts(one: int, other: int, slots: int) -> None:
    assert part_size(min(one, other), slots) <= part_size(max(one, other), slots)


@pytest.mark.parametrize(
    ("size", "slots", "part"),
    [
        (64_000_000, 32, 16),
        (5 * 10**9, 16, 128),
        (5 * 10**9, 64, 19),
        (16 * 10**9, 32, 128),
        (40 * 10**9, 8, 256),
        (2**26 * 16, 4, 64),
    ],
)
def test_parts_of_some_files(size: int, slots: int, part: int) -> None:
    assert part_size(size, slots) == part * MIB
