"""A server that answers anything: no wrong byte gets a final name, and no more is written than was told."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import HuggingFaceConfig
from distributed_downloader.errors import TransferError
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, Part, RepoFile, RepoType, Token
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.storage import RepoFolder
from distributed_downloader.throttle import Throttle
from distributed_downloader.transfer.engine import Context
from distributed_downloader.transfer.engines import Engines
from distributed_downloader.transfer.http import HttpEngine
from tests.net.kit import QUICK, RangeSink, RawServer, Say

CONTENT = b"the quick brown fox jumps over the lazy dog\n"
SIZE = len(CONTENT)
COMMIT = "a" * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(RawServer):
    """Says what an example wants."""

    def plan(self, says: list[Say]) -> None:
        self.heads.clear()
        self.says[:] = says

    def __enter__(self) -> Server:
        super().__enter__()
        return self


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(Say(b"", "close")) as server:
        yield server


statuses = st.sampled_from(
    [
        *("200 OK", "206 Partial Content", "204 No Content", "100 Continue", "103 Early Hints", "302 Found"),
        *("301 Moved", "403 Forbidden", "404 Not Found", "416 Range", "500 Oops", "999 Odd", "0 Zero", "abc"),
    ]
)
numbers = st.sampled_from(
    ["0", "1", str(SIZE), str(SIZE - 1), str(SIZE + 1), "-1", "99999999999", "9" * 5000, "x", ""]
)
ranges = st.builds("bytes {}-{}/{}".format, numbers, numbers, numbers | st.just("*"))
bodies = st.sampled_from([b"", CONTENT, CONTENT[:9], CONTENT[9:], CONTENT * 2, b"evil" * 20]) | st.binary(
    max_size=80
)
values = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=20)
lines = st.one_of(
    st.builds("Content-Length: {}".format, numbers),
    st.builds("Content-Range: {}".format, ranges | values),
    st.builds(
        "Location: {}".format, values | st.sampled_from(["/", "/x", "http://[::1", "file:///etc/passwd"])
    ),
    st.builds("ETag: {}".format, values | st.sampled_from([f'"{SHA256}"', f'"{"b" * 64}"', f'"{"b" * 40}"'])),
    st.sampled_from(
        [
            *(
                "Transfer-Encoding: chunked",
                "Content-Encoding: gzip",
                "Connection: close",
                "Content-Type: text/html",
            ),
            *(f"X-Repo-Commit: {COMMIT}", "X-Repo-Commit: b", f"X-Linked-Etag: {SHA256}", "X-Linked-Size: 3"),
        ]
    ),
    st.builds("{}: {}".format, values, values),
    values,
)


@st.composite
def answers(draw: st.DrawFn) -> Say:
    """One answer: half of the time a plausible one, with a lie or two in it."""
    body = draw(bodies)
    said = draw(st.lists(lines, max_size=4))
    if draw(st.booleans()):
        said.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"HTTP/1.1 {draw(statuses)}", *said, "", ""]).encode("latin-1")
    noise = draw(st.sampled_from([b"", b"", b"", b"\r\n", b"5\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    return Say(noise + head + body, draw(st.sampled_from(["close", "close", "close", "keep"])))


def honest(offset: int, then: bytes) -> Say:
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {offset}-{SIZE - 1}/{SIZE}\r\n"
    return Say(f"{head}Content-Length: {len(then)}\r\n\r\n".encode() + then, "close")


scripts = st.lists(answers(), min_size=1, max_size=4).map(lambda says: [*says, Say(b"", "close")])


def spec(server: RawServer) -> JobSpec:
    return JobSpec(
        repo_type=RepoType.MODEL, repo_id="org/name", revision="main", commit=COMMIT, endpoint=server.url
    )


@pytest.fixture(scope="module")
def engines(server: Server) -> Iterator[Engines]:
    config = HuggingFaceConfig.model_validate({"endpoint": server.url, "engine": "http"})
    http = HttpClient(config, connect_timeout=5, read_timeout=0.05)
    engines = Engines(config, http, HttpEngine(http, QUICK))
    yield engines
    engines.close()


def context(task: DownloadTask, sink: object, told: list[int]) -> Context:
    return Context(task, sink, Cancel(), Throttle(), told.append)  # type: ignore[arg-type]


@contextmanager
def printable() -> Iterator[None]:
    """Let the block fail with an error of ours, whose words nobody else's bytes may spoil."""
    words = ""
    try:
        yield
    except TransferError as error:
        words = str(error)
    assert words.isprintable()


@settings(max_examples=120, deadline=None)
@given(says=scripts, hashed=st.booleans(), prefix=st.sampled_from([b"", CONTENT[:9], b"evil", CONTENT]))
@example(says=[honest(9, CONTENT[9:])], hashed=True, prefix=CONTENT[:9])
@example(says=[honest(4, CONTENT[4:]), Say(b"", "close")], hashed=True, prefix=b"evil")
def test_a_whole_file(server: Server, engines: Engines, says: list[Say], hashed: bool, prefix: bytes) -> None:
    server.plan(says)
    file = RepoFile(path="a.bin", size=SIZE, sha256=SHA256 if hashed else None)
    task = DownloadTask(token=Token(1, 0, 0), spec=spec(server), about=Descriptor(file=file))
    root, told = Path(tempfile.mkdtemp()), list[int]()
    folder = RepoFolder(root, task.spec)
    try:
        with folder.partial(file, Cancel()) as partial:
            partial.write(prefix)
        with printable(), folder.partial(file, Cancel()) as partial:
            engines.fill(context(task, partial, told))
            folder.publish(partial, file)
        sizes = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
        assert max([0, *sizes, *told]) <= SIZE
        published = folder.path / file.path
        if published.exists():
            assert published.stat().st_size == SIZE
            assert published.read_bytes() == CONTENT or not hashed
    finally:
        shutil.rmtree(root)


@settings(max_examples=80, deadline=None)
@given(says=scripts, start=st.integers(0, SIZE - 1), data=st.data())
def test_a_part_of_one(
    server: Server, engines: Engines, says: list[Say], start: int, data: st.DataObject
) -> None:
    end = data.draw(st.integers(start + 1, SIZE))
    server.plan(says)
    file = RepoFile(path="a.bin", size=SIZE, sha256=SHA256)
    part = Part(start=start, length=end - start, seal=0)
    about = Descriptor(file=file, part=part, place="ab")
    task = DownloadTask(token=Token(1, 1, 0), spec=spec(server), about=about)
    sink = RangeSink(start, end)  # which asserts that no byte is too much
    with printable():
        engines.fill(context(task, sink, []))
        assert sink.size == end - start
