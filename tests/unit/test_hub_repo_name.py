from __future__ import annotations

import fnmatch
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.errors import UsageError
from distributed_downloader.hub.repo_name import RepoName, parse_repo
from distributed_downloader.models import RepoType
from distributed_downloader.plan import path_filter

HUB = "https://huggingface.co"
MIRROR = "http://mirror.lan:8090/hf"
MODEL, DATASET, SPACE = RepoType.MODEL, RepoType.DATASET, RepoType.SPACE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt2", RepoName(None, "gpt2", None)),
        ("org/name", RepoName(None, "org/name", None)),
        ("  org/name/ ", RepoName(None, "org/name", None)),
        ("org/name.with-dots_1.5", RepoName(None, "org/name.with-dots_1.5", None)),
        ("0-org/0", RepoName(None, "0-org/0", None)),
        ("models/org/name", RepoName(MODEL, "org/name", None)),
        ("datasets/org/name", RepoName(DATASET, "org/name", None)),
        ("spaces/org/name", RepoName(SPACE, "org/name", None)),
        ("datasets/squad", RepoName(DATASET, "squad", None)),
        # `models/x` is the model x: the hub gives these three names to nobody.
        ("models/x", RepoName(MODEL, "x", None)),
        ("org/name/tree/v1", RepoName(None, "org/name", "v1")),
        # An organisation may be called what is a view elsewhere.
        ("tree/blob", RepoName(None, "tree/blob", None)),
    ],
)
def test_reads_names(text: str, expected: RepoName) -> None:
    assert parse_repo(text, None, HUB) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("org/name", RepoName(MODEL, "org/name", None)),
        ("gpt2", RepoName(MODEL, "gpt2", None)),
        ("models/org/name", RepoName(MODEL, "org/name", None)),
        ("datasets/org/name/", RepoName(DATASET, "org/name", None)),
        ("spaces/org/name?logs=container", RepoName(SPACE, "org/name", None)),
        ("org/name#usage", RepoName(MODEL, "org/name", None)),
        ("datasets/org/name/tree/main", RepoName(DATASET, "org/name", "main")),
        ("gpt2/tree/main", RepoName(MODEL, "gpt2", "main")),
        ("org/name/commit/0123abc", RepoName(MODEL, "org/name", "0123abc")),
        ("org/name/commits/main", RepoName(MODEL, "org/name", "main")),
        ("org/name/tree/refs%2Fpr%2F1", RepoName(MODEL, "org/name", "refs/pr/1")),
        ("org/name/tree/refs/pr/1", RepoName(MODEL, "org/name", "refs/pr/1")),
        ("org/name/tree/feature%2Fx", RepoName(MODEL, "org/name", "feature/x")),
        ("org/name/tree/main/sub/dir", RepoName(MODEL, "org/name", "main", ("sub/dir/",))),
        ("org/name/tree/refs%2Fpr%2F1/sub", RepoName(MODEL, "org/name", "refs/pr/1", ("sub/",))),
        ("org/name/blob/main/a/b.txt", RepoName(MODEL, "org/name", "main", ("a/b.txt",))),
        (
            "org/name/resolve/refs/pr/7/b.txt?download=true",
            RepoName(MODEL, "org/name", "refs/pr/7", ("b.txt",)),
        ),
        ("org/name/raw/main/a%20b%23.txt", RepoName(MODEL, "org/name", "main", ("a b#.txt",))),
        ("org/name/commit/0123abc/x", RepoName(MODEL, "org/name", "0123abc")),
    ],
)
@pytest.mark.parametrize(
    ("root", "endpoint"),
    [
        (HUB, HUB),
        ("https://hf.co", HUB),
        ("https://www.huggingface.co", MIRROR),
        ("http://huggingface.co:80", HUB),
        (MIRROR, MIRROR),
        ("http://user:secret@mirror.lan:8090/hf", MIRROR),
        ("https://mirror.lan", "https://mirror.lan:443/"),
        ("huggingface.co", HUB),
        ("mirror.lan:8090/hf", MIRROR),
    ],
)
def test_reads_addresses(root: str, endpoint: str, path: str, expected: RepoName) -> None:
    assert parse_repo(f"{root}/{path}", None, endpoint) == expected


@pytest.mark.parametrize("name", ["a[1].txt", "a*.txt", "what?.txt", "[!x]"])
def test_a_file_in_an_address_means_just_that_file(name: str) -> None:
    (glob,) = parse_repo(f"{HUB}/o/n/blob/main/{quote(name)}", None, HUB).include
    assert fnmatch.fnmatchcase(name, glob)
    assert not fnmatch.fnmatchcase("a1.txt", glob)
    assert not path_filter([glob], [])("wha.txt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no repo"),
        ("   ", "names no repo"),
        ("/", "names no repo"),
        ("a/b/c", "names no repo"),
        ("org//name", "names no repo"),
        ("org name", "names no repo"),
        ("datasets", "names no repo"),
        ("datasets/", "names no repo"),
        ("models/a/b/c", "names no repo"),
        ("org/näme", "names no repo"),
        ("org/name\n", None),
        ("org/na\nme", "names no repo"),
        ("org/name@main", "--revision"),
        ("..", "cannot be a repo"),
        ("../etc", "cannot be a repo"),
        ("org/..", "cannot be a repo"),
        ("org/a..b", "cannot be a repo"),
        ("org/a--b", "cannot be a repo"),
        ("org/.hidden", "cannot be a repo"),
        ("org/_x", "cannot be a repo"),
        ("-x/name", "cannot be a repo"),
        ("org/name.", "cannot be a repo"),
        ("org/" + "x" * 97, "cannot be a repo"),
        ("org/name/tree", "ends before the revision"),
        ("https://huggingface.co", "names no repo"),
        ("https://huggingface.co/", "names no repo"),
        ("https://huggingface.co/datasets", "names no repo"),
        ("https://huggingface.co/org/name/tree/", "names no repo|ends before the revision"),
        ("https://huggingface.co/org/name/discussions/1", "names no repo"),
        ("https://evil.test/org/name", "add --endpoint https://evil.test before"),
        ("http://evil.test:81/org/name", "add --endpoint http://evil.test:81 before"),
        ("https://huggingface.co.evil.test/org/name", "not the hub that is set up"),
        ("https://huggingface.co:444/org/name", None),
        ("https://huggingface.co@evil.test/org/name", "evil.test is not the hub"),
        ("ftp://huggingface.co/org/name", "no address of a hub"),
        ("hf://org/name", "no address of a hub"),
        ("https://[::1/org/name", "is not an address"),
        ("https://huggingface.co:port/org/name", "is not an address|names no repo"),
    ],
)
def test_refuses_nonsense(text: str, words: str | None) -> None:
    if words is None:
        assert parse_repo(text, None, HUB).id == "org/name"
        return
    with pytest.raises(UsageError, match=words):
        parse_repo(text, None, HUB)


def test_another_port_of_the_mirror_is_another_hub() -> None:
    with pytest.raises(UsageError, match=re.escape("--endpoint http://mirror.lan:9000")):
        parse_repo("http://mirror.lan:9000/hf/org/name", None, MIRROR)


def test_a_bare_host_name_is_no_address() -> None:
    assert parse_repo("hub/name", None, "http://hub").id == "hub/name"


@pytest.mark.parametrize("text", ["org/name", "datasets/org/name", f"{HUB}/datasets/org/name"])
def test_takes_a_type_that_fits(text: str) -> None:
    assert parse_repo(text, DATASET, HUB) == RepoName(DATASET, "org/name", None)


@pytest.mark.parametrize("text", ["datasets/org/name", f"{HUB}/datasets/org/name", f"{HUB}/org/name"])
def test_refuses_a_type_that_contradicts(text: str) -> None:
    with pytest.raises(UsageError, match="--repo-type says space"):
        parse_repo(text, SPACE, HUB)


@pytest.mark.parametrize("path", ["a/b/c", "org/..", "org/name/tree", "org/n@me"])
def test_an_error_shows_no_secret_of_an_address(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_repo(f"https://me:hunter2@huggingface.co/{path}?token=hf_secret", None, HUB)
    assert "hunter2" not in str(caught.value)
    assert "hf_secret" not in str(caught.value)


def check_any_text(text: str) -> None:
    try:
        name = parse_repo(text, None, MIRROR)
    except UsageError:
        return
    assert 1 <= len(name.id.split("/")) <= 2
    assert ".." not in name.id


@given(st.text(max_size=40))
def test_any_text_is_a_repo_or_a_usage_error(text: str) -> None:
    check_any_text(text)


@given(st.from_regex(r"(https?://)?(huggingface\.co|mirror\.lan:8090)/[a-z./%:?#@-]{0,30}", fullmatch=True))
def test_any_address_is_a_repo_or_a_usage_error(text: str) -> None:
    check_any_text(text)
