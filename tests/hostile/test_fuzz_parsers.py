"""Whatever comes in gives a value or an error of ours, and what we write is read as it was meant."""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import SETTINGS, ConfigManager, write
from distributed_downloader.errors import (
    ConfigError,
    DownloaderError,
    RefusedError,
    ServerError,
    TransferError,
    UsageError,
)
from distributed_downloader.hub import parse_repo, problem
from distributed_downloader.hub.lister import _next_query
from distributed_downloader.hub.problems import LONGEST_PAUSE, asked_pause, existence
from distributed_downloader.hub.xet_token import XetTokens
from distributed_downloader.models import (
    Descriptor,
    DownloadTask,
    JobSpec,
    Part,
    RepoFile,
    RepoType,
    Token,
)
from distributed_downloader.plan import Plan
from distributed_downloader.reach import Depth, depth_of, resolved_depth, spelled_depth
from distributed_downloader.ssl_config import HttpClient, _absolute
from distributed_downloader.storage.records import _parse
from distributed_downloader.transfer.answer import accept, check_commit, described
from tests.unit.fake_http import COMMIT, FakeHttp, FakeResponse, as_response, file_entry, hub_over

few = settings(max_examples=60, deadline=None)
many = settings(max_examples=200, deadline=None)
#: Characters that mean something to one of our parsers.
PIECES = st.sampled_from(
    [
        *"\t\n\r\0 .,;:=+-_*/\\\"'<>[]{}()#%&?@~$aAfF019",
        *"\u0661\uff11\u00b2\ud800\u202e\u0130\u00df",
        "bytes",
    ]
)
text = st.text(max_size=40) | st.lists(PIECES, max_size=30).map("".join)
digits = st.text("0123456789", max_size=25) | st.sampled_from(
    ["9" * 5000, "0" * 5000, "-1", "1e9", "\u0661", "\u00b2"]
)
hexes = st.text("0123456789abcdefABCDEF*", max_size=70) | st.sampled_from(["a" * 40, "b" * 64])
header = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=60) | text


def spec(**fields: object) -> JobSpec:
    base = {
        "repo_type": "model",
        "repo_id": "a/b",
        "revision": "main",
        "commit": COMMIT,
        "endpoint": "http://h",
    }
    return JobSpec.model_validate({**base, **fields})


# -- what lies in Redis -------------------------------------------------------------------------------

words = st.sampled_from(["clash", "part=", "seal=", "place=", "part=0+1", "seal=0", "place=ab", "x", ""])
lines = text | st.lists(digits | hexes | text | words, max_size=8).map("\t".join)


@many
@given(lines)
@example("1\t\ta\tpart=0+1\tseal=0\tplace=ab")
@example("9" * 5000 + "\t\ta")
@example("\u0661\t\ta")
@example("1_0\t\ta")
def test_descriptors(line: str) -> None:
    with suppress(ValueError):
        found = Descriptor.from_line(line)
        assert 0 <= found.size <= found.file.size
        assert "\t" not in found.file.path


paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
files = st.builds(
    RepoFile,
    path=paths,
    size=st.integers(0, 2**50),
    sha256=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    clash=st.booleans(),
)


@many
@given(files)
def test_descriptors_there_and_back(file: RepoFile) -> None:
    assert Descriptor.from_line(file.to_line()).file == file


@many
@given(files.filter(lambda file: file.size > 0), st.data())
def test_parts_there_and_back(file: RepoFile, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, file.size - 1))
    length = data.draw(st.integers(1, file.size - start))
    line = f"{file.to_line()}\tpart={start}+{length}\tseal=3\tplace=ab"
    found = Descriptor.from_line(line)
    assert (found.file, found.part) == (file, Part(start=start, length=length, seal=3))


@many
@given(text | st.lists(digits, max_size=5).map(".".join))
@example("9" * 5000 + ".1.1")
def test_tokens(written: str) -> None:
    with suppress(RefusedError):
        token = Token.parse(written)
        assert min(token) >= 0


@many
@given(st.tuples(*[st.integers(0, 2**53)] * 3))
def test_tokens_there_and_back(numbers: tuple[int, int, int]) -> None:
    assert Token.parse(str(Token(*numbers))) == Token(*numbers)


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | hexes,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
SPEC_KEYS = sorted(JobSpec.model_fields)


@many
@given(st.dictionaries(st.sampled_from(SPEC_KEYS) | text, anything | text, max_size=12))
def test_job_specs(fields: dict[str, Any]) -> None:
    with suppress(ValidationError):
        found = spec(**fields)
        assert JobSpec.model_validate_json(found.model_dump_json()) == found
        assert re.fullmatch("[0-9a-f]{32}", found.identity())


@many
@given(text | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_job_specs_from_text(written: str) -> None:
    with suppress(ValidationError):
        JobSpec.model_validate_json(written.encode(errors="replace"))


@many
@given(text | st.builds("{}+{}.{}".format, digits, digits, hexes))
def test_names_of_records(name: str) -> None:
    found = _parse(name)
    assert found is None or str(found) == name


# -- the configuration --------------------------------------------------------------------------------

ini_lines = st.one_of(
    text,
    st.builds("[{}]".format, st.sampled_from(["redis", "app", "nas", "huggingface", "security", "x"]) | text),
    st.builds(
        "{} = {}".format,
        st.sampled_from(sorted({setting.key for setting in SETTINGS.values()})),
        text | digits | st.sampled_from(["true", "no", "64MB", "-1", "nan", "inf", "1e400", "auto", "/x"]),
    ),
)


def load(content: bytes, environ: dict[str, str] | None = None) -> None:
    with tempfile.NamedTemporaryFile(suffix=".ini") as file:
        file.write(content)
        file.flush()
        with suppress(ConfigError):
            manager = ConfigManager(Path(file.name), environ=environ or {})
            manager.load()


@few
@given(st.lists(ini_lines, max_size=12).map("\n".join))
def test_configuration_files(content: str) -> None:
    load(content.encode(errors="surrogatepass"))


@few
@given(st.binary(max_size=200))
@example(b"\xff\xfe[\0a\0]\0")
@example(b"[app]\nconcurrency = " + b"9" * 5000)
@example("[app]\nconcurrency = \u0661".encode())
def test_configuration_files_of_bytes(content: bytes) -> None:
    load(content)


@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("name", sorted(SETTINGS))
@given(value=text | digits)
@example(value="9" * 5000)
@example(value="\ud800")
def test_each_value(name: str, value: str) -> None:
    section, _, key = name.partition(".")
    load(f"[{section}]\n{key} = {value}\n".encode(errors="surrogatepass"))
    with suppress(ConfigError):
        config = ConfigManager(flags={name: value}, environ={"HOME": "/nowhere"}).load()
        setting = SETTINGS[name]
        if not setting.secret:
            write(getattr(getattr(config, section), key), setting.source)


@many
@given(text, st.sampled_from([None, *RepoType]), st.sampled_from(["https://huggingface.co", "http://h:1/x"]))
@example("https://[::1", None, "https://huggingface.co")
@example("http://h:99999/a/b", None, "http://h:1/x")
def test_names_of_repos(name: str, kind: RepoType | None, endpoint: str) -> None:
    with suppress(UsageError):
        spec(repo_id=parse_repo(name, kind, endpoint).id)


# -- what a hub says in JSON --------------------------------------------------------------------------

entries = st.dictionaries(
    st.sampled_from(["type", "path", "size", "oid", "lfs", "xetHash", "lastCommit"]) | text,
    anything | hexes | st.sampled_from(["file", "directory"]) | st.dictionaries(text, anything, max_size=3),
    max_size=6,
)
good = st.builds(file_entry, paths, st.integers(0, 2**50))
bodies = anything | st.lists(entries | good, max_size=4)


def answering(data: object, link: str = "") -> FakeHttp:
    first = [FakeResponse(data=data, headers={"Link": link} if link else {})]
    return FakeHttp(lambda _: first.pop() if first else FakeResponse(data=data))


@many
@given(bodies, header)
def test_pages_of_a_listing(data: object, link: str) -> None:
    with suppress(TransferError, DownloaderError):
        plan = Plan()
        for page in plan.pages(hub_over(answering(data, link)).pages(RepoType.MODEL, "a/b", COMMIT)):
            for file in page:
                assert Descriptor.from_line(file.to_line()).file == file


@many
@given(bodies | st.dictionaries(st.sampled_from(["id", "sha", "siblings"]), anything | text, max_size=3))
def test_summaries(data: object) -> None:
    with suppress(ServerError):
        name, commit = hub_over(answering(data)).pin(RepoType.MODEL, "a/b", "main")
        spec(repo_id=name, commit=commit)


@many
@given(bodies, st.lists(paths, max_size=3))
def test_other_ways_to_list(data: object, names: list[str]) -> None:
    """A first page without sizes is asked for again, and a full one summed up."""
    pages = [[{"type": "file", "path": name} for name in names], data, data]
    left = [FakeResponse(data=page) for page in pages]
    http = FakeHttp(lambda _: left.pop(0) if left else FakeResponse(data=data))
    with suppress(DownloaderError):
        for _ in hub_over(http).pages(RepoType.MODEL, "a/b", COMMIT):
            pass


keys = st.sampled_from(["casUrl", "accessToken", "exp"])


@many
@given(anything | st.dictionaries(keys, anything | text, max_size=3))
@example({"casUrl": "http://[::1", "accessToken": "x", "exp": 1})
@example({"casUrl": "http://h:99999", "accessToken": "x", "exp": float("nan")})
def test_rights_to_the_storage(data: object) -> None:
    response = FakeResponse(data=data)
    response.depth = Depth.PUBLIC  # type: ignore[attr-defined]
    with suppress(TransferError):
        XetTokens(cast(HttpClient, FakeHttp(lambda _: response))).get(spec(), Cancel())


# -- headers ------------------------------------------------------------------------------------------

NAMES = [
    *("Link", "Content-Range", "Content-Length", "Content-Encoding", "Content-Type", "ETag", "Location"),
    *("RateLimit", "Retry-After", "X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size", "X-Error-Code"),
    *("X-Error-Message", "X-Xet-Hash"),
]
VALUES = st.sampled_from(
    [
        *(
            "0",
            "-1",
            "300",
            "bytes 0-2/3",
            "bytes 0-2/*",
            '"a"',
            'W/"a"',
            "text/html",
            "gzip",
            "RepoNotFound",
        ),
        *(COMMIT, f'"{"a" * 64}"', '"resolvers";r=0;t=9', "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 1 Jan 1"),
        *(
            "Thu, 01 Jan 0001 00:00:00 +2359",
            "Sat, 1 Jan 99999999999 0:0:0 GMT",
            "1 Jan 2020 0:0 +99999999999999",
        ),
    ]
)
headers = st.dictionaries(st.sampled_from(NAMES), header | VALUES | digits, max_size=8)
statuses = st.integers(100, 599) | st.sampled_from([200, 206, 302, 401, 403, 404, 416, 429, 503])


@settings(max_examples=400, deadline=None)
@given(statuses, headers, st.booleans(), st.booleans())
def test_problems(status: int, said: dict[str, str], from_hub: bool, sent_token: bool) -> None:
    response = as_response(FakeResponse(status, None, said, from_hub=from_hub, sent_token=sent_token))
    error = problem(response, "a/b")
    assert isinstance(error, TransferError)
    assert str(error).isprintable()
    with suppress(TransferError):
        existence(response, "a/b")


@settings(max_examples=400, deadline=None)
@given(header | VALUES | digits, header | VALUES)
@example("Fri, 31 Dec 9999 23:59:59 -2359", "")
@example("Thu, 01 Jan 0001 00:00:00 +2359", "")
@example("1 Jan 2020 0:0 +99999999999999", "")
@example("\u0661", "")
def test_pauses(retry_after: str, limit: str) -> None:
    assert 0 <= asked_pause({"Retry-After": retry_after, "RateLimit": limit}) <= LONGEST_PAUSE


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([200, 206, 204, 304, 100]), headers, st.integers(0, 3), st.booleans())
@example(206, {"Content-Range": "bytes " + "9" * 5000 + "-3/3"}, 0, False)
def test_answers(status: int, said: dict[str, str], offset: int, is_part: bool) -> None:
    file, task_spec = RepoFile(path="a", size=3), spec()
    response = as_response(FakeResponse(status, None, said))
    response.hops = []
    with suppress(TransferError):
        body = accept(response, offset, file, is_part=is_part)
        assert 0 <= body.start < body.end <= 3 or (body.start, body.end) == (0, 3)
        assert body.start in (0, offset)
    with suppress(TransferError):
        task = DownloadTask(token=Token(1, 1, 1), spec=task_spec, about=Descriptor(file=file))
        check_commit(response, task)
    found = described(response, file)
    assert found is None or RepoFile.model_validate(found.model_dump()) == found


@settings(max_examples=400, deadline=None)
@given(header | st.builds('<{}>; rel="next"'.format, header))
@example('<http://[::1>; rel="next"')
def test_links(link: str) -> None:
    found = _next_query(link)
    assert found is None or found


locations = header | st.builds(
    "{}://{}{}".format, st.sampled_from(["http", "https", "file", ""]), header, header
)


@settings(max_examples=400, deadline=None)
@given(locations)
@example("http://[::1")
@example("http://h:\u0661/")
@example("http://[v1.x]/")
def test_locations(location: str) -> None:
    with suppress(ServerError):
        target = _absolute("https://hub.test/a/b?c=d", location)
        spelled_depth(target)


@many
@given(st.ip_addresses().map(str))
def test_any_address_lies_somewhere(address: str) -> None:
    depth = depth_of(address)
    host = f"[{address}]" if ":" in address else address
    assert spelled_depth(f"http://{host}/") is depth
    assert resolved_depth(f"http://{host}/") is depth
