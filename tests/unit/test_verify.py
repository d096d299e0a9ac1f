"""The proof of a file's content."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader import verify
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import CorruptError, StoppedError
from distributed_downloader.models import RepoFile
from distributed_downloader.verify import Hasher, feed

CONTENT = b"the whole content\n"


def file(content: bytes = CONTENT, kind: str = "sha256") -> RepoFile:
    digests = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "git_sha1": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
    }
    hashes = {kind: digests[kind]} if kind else {}
    return RepoFile.model_validate({"path": "f.bin", "size": len(content), **hashes})


def hashed(repo_file: RepoFile, *parts: bytes) -> Hasher:
    hasher = Hasher(repo_file)
    for part in parts:
        hasher.update(part)
    return hasher


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "f"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("kind", ["sha256", "git_sha1", ""])
@pytest.mark.parametrize("parts", [[CONTENT], [CONTENT[:5], CONTENT[5:]], [b"", CONTENT, b""]])
def test_the_right_content_passes(kind: str, parts: list[bytes]) -> None:
    hashed(file(kind=kind), *parts).check()


@pytest.mark.parametrize("kind", ["sha256", "git_sha1"])
def test_one_wrong_bit_does_not(kind: str) -> None:
    wrong = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    with pytest.raises(CorruptError, match=r"f\.bin.*lists"):
        hashed(file(kind=kind), wrong).check()


@pytest.mark.parametrize("kind", ["sha256", "git_sha1", ""])
@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x"])
def test_a_wrong_size_does_not(kind: str, content: bytes) -> None:
    with pytest.raises(CorruptError, match=f"{len(content)} bytes came"):
        hashed(file(kind=kind), content).check()


@pytest.mark.parametrize("kind", ["sha256", "git_sha1", ""])
def test_an_empty_file(kind: str) -> None:
    hashed(file(b"", kind)).check()


def test_the_empty_file_that_git_knows() -> None:
    repo_file = RepoFile(path="e", size=0, git_sha1="e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    Hasher(repo_file).check()


def test_git_agrees(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(CONTENT)
    said = subprocess.run(["git", "hash-object", tmp_path / "f"], capture_output=True, text=True, check=True)
    assert file(kind="git_sha1").git_sha1 == said.stdout.strip()


def test_what_proves() -> None:
    assert [Hasher(file(kind=kind)).proves for kind in ("sha256", "git_sha1", "")] == [True, True, False]


def test_without_a_hash_only_the_size_counts() -> None:
    hashed(file(kind=""), b"x" * len(CONTENT)).check()


def test_the_order_of_the_parts_counts() -> None:
    with pytest.raises(CorruptError):
        hashed(file(), CONTENT[5:], CONTENT[:5]).check()


def test_check_can_be_asked_again() -> None:
    hasher = hashed(file(), CONTENT)
    hasher.check()
    hasher.check()


@given(st.binary(max_size=300), st.integers(1, 50), st.sampled_from(["sha256", "git_sha1"]))
def test_any_content_in_any_parts(content: bytes, size: int, kind: str) -> None:
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    hashed(file(content, kind), *parts).check()


def test_feed(opened: int) -> None:
    hasher = Hasher(file())
    feed(opened, hasher, Cancel())
    hasher.check()


def test_feed_reads_from_the_start_wherever_the_file_is(opened: int) -> None:
    os.lseek(opened, 5, os.SEEK_SET)
    hasher = Hasher(file())
    feed(opened, hasher, Cancel())
    hasher.check()
    assert os.lseek(opened, 0, os.SEEK_CUR) == 5


def test_feed_in_many_reads(opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "READ_SIZE", 4)
    hasher = Hasher(file())
    feed(opened, hasher, Cancel())
    hasher.check()


def test_feed_stops(opened: int) -> None:
    cancel = Cancel()
    cancel.set("shutdown")
    with pytest.raises(StoppedError, match="shutdown"):
        feed(opened, Hasher(file()), cancel)


def test_feed_stops_in_the_middle(opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "READ_SIZE", 4)
    cancel, hasher = Cancel(), Hasher(file())
    take = hasher.update

    def take_one(data: bytes | memoryview) -> None:
        take(data)
        cancel.set()

    monkeypatch.setattr(hasher, "update", take_one)
    with pytest.raises(StoppedError):
        feed(opened, hasher, cancel)
    with pytest.raises(CorruptError, match="4 bytes came"):
        hasher.check()
