"""A folder opened in one call is the one that a walk finds, or none."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed_downloader.errors import RefusedError
from distributed_downloader.storage import openat2

#: Not by its name: the package has a function that is called so.
disk = importlib.import_module("distributed_downloader.storage.disk")
WORDS = st.sampled_from([b"a", b"b", b"link", b"out", b"up", b"file", b"loop", b"gone"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose folders hold links inside and out, to themselves and up, and files."""
    top = tmp_path_factory.mktemp("top")
    root = top / "root"
    for folder in (root, root / "a", root / "a/b", root / "b", top / "outside", top / "outside/a"):
        folder.mkdir(exist_ok=True)
    for folder in (root, root / "a", root / "b"):
        (folder / "link").symlink_to(root / "b")
        (folder / "out").symlink_to(top / "outside")
        (folder / "up").symlink_to("..")
        (folder / "loop").symlink_to("loop")
        (folder / "file").touch()
    return root


def identity(root: Path, parts: list[bytes]) -> tuple[int, int] | str:
    """Return which folder is opened, or how that is refused."""
    try:
        with disk.open_folder(root, parts, create=False) as fd:
            info = os.fstat(fd)
            return info.st_dev, info.st_ino
    except (RefusedError, OSError) as error:
        return f"{type(error).__name__}: {error}"


@contextmanager
def walking() -> Iterator[None]:
    """Do as on a system that opens folders one by one only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "open_beneath", lambda root, parts: None)
        yield


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(WORDS, max_size=4))
def test_it_is_the_folder_that_a_walk_finds(tree: Path, parts: list[bytes]) -> None:
    with walking():
        expected = identity(tree, parts)
    assert identity(tree, parts) == expected


@pytest.mark.parametrize(
    "path", [b"link", b"a/link", b"out/a", b"up", b"a/up/b", b"loop", b"file", b"..", b"a\0b"]
)
def test_it_goes_through_no_link_and_never_out(tree: Path, path: bytes) -> None:
    root = os.open(tree, os.O_RDONLY)
    try:
        assert openat2.open_beneath(root, [path]) is None
    finally:
        os.close(root)


def test_what_is_not_known_here_is_walked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openat2, "_find", lambda: None)
    with disk.open_folder(tree, [b"a", b"b"], create=False) as fd:
        assert os.path.samestat(os.fstat(fd), (tree / "a/b").stat())


def test_what_is_missing_is_made(tree: Path) -> None:
    with disk.open_folder(tree, [b"b", b"new", b"newer"]) as fd:
        assert os.path.samestat(os.fstat(fd), (tree / "b/new/newer").stat())
    assert openat2._find() is None or os.uname().sysname == "Linux"
