"""Where files lie: partials, publishing, folders that are not ours, and what disks say."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    CorruptError,
    LocalError,
    PlaceError,
    PlaceUnseenError,
    RefusedError,
    StoppedError,
    TransferError,
)
from distributed_downloader.models import JobSpec, RepoFile, RepoType
from distributed_downloader.storage import RepoFolder
from distributed_downloader.storage import partial as partial_module
from distributed_downloader.storage.disk import disk_error, names, open_folder
from distributed_downloader.storage.leftovers import sweep
from distributed_downloader.storage.partial import Partial, host_tag, is_held
from distributed_downloader.storage.place import make_place

CONTENT = b"0123456789" * 100
LONGEST = "n" * 255
OLD = time.time() - 30 * 24 * 3600


def spec(repo_type: RepoType = RepoType.MODEL, repo_id: str = "org/name", commit: str = "a" * 40) -> JobSpec:
    return JobSpec(
        repo_type=repo_type, repo_id=repo_id, revision="main", commit=commit, endpoint="https://hub.invalid"
    )


def file(path: str = "f.bin", content: bytes = CONTENT, *, masked: bool = False) -> RepoFile:
    digest = None if masked else hashlib.sha256(content).hexdigest()
    return RepoFile(path=path, size=len(content), sha256=digest)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "out"


@pytest.fixture
def folder(root: Path) -> RepoFolder:
    return RepoFolder(root, spec())


def put(folder: RepoFolder, repo_file: RepoFile, content: bytes = CONTENT) -> None:
    with folder.partial(repo_file, Cancel()) as partial:
        partial.write(content)
        folder.publish(partial, repo_file)


def state(root: Path, part: str = "partial") -> list[Path]:
    where = root / ".hf-downloader" / part
    return sorted(where.iterdir()) if where.exists() else []


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *, after: int = 0) -> Iterator[None]:
    """Let `os.<name>` fail with that errno, after some calls that work."""
    real: Callable[..., object] = getattr(os, name)
    calls = list[int]()

    def call(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) > after:
            raise OSError(number, os.strerror(number))
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, call)
        yield


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a", "a/b/c", ".hidden", "..a", "a..", "a b", "#?%", "日本語", "a\\b", "C:x", "\n", LONGEST]
)
def test_names_that_are_safe(path: str) -> None:
    assert b"/".join(names(path)).decode() == path


@pytest.mark.parametrize(
    "path", ["..", ".", "../a", "a/../b", "a/..", "a/./b", "/a", "a//b", "a/", "", "a\0b", "a/\0", "\ud800"]
)
def test_names_that_are_not(path: str) -> None:
    with pytest.raises(RefusedError, match="not written"):
        names(path)


# -- the way from nothing to a published file -----------------------------------------------------


def test_a_file_is_published(root: Path, folder: RepoFolder) -> None:
    put(folder, file("a/b/f.bin"))
    assert (root / "org" / "name" / "a" / "b" / "f.bin").read_bytes() == CONTENT
    assert folder.path == root / "org" / "name"
    assert state(root) == []


def test_only_the_repos_files_lie_in_its_folder(root: Path, folder: RepoFolder) -> None:
    folder.claim_folder()
    put(folder, file("a/f.bin"))
    found = [path for path in (root / "org" / "name").rglob("*") if path.is_file()]
    assert [path.name for path in found] == ["f.bin"]


def test_a_repo_without_an_organisation(root: Path) -> None:
    folder = RepoFolder(root, spec(repo_id="gpt2"))
    folder.claim_folder()
    put(folder, file())
    assert (root / "gpt2" / "f.bin").exists()


@pytest.mark.parametrize("path", [LONGEST, "é" * 127, "日" * 85, "with space", "100%#?&", "deep/" * 20 + "f"])
def test_names_that_disks_take(root: Path, folder: RepoFolder, path: str) -> None:
    put(folder, file(path))
    assert (root / "org" / "name" / path).read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["n" * 256, "d" * 256 + "/f", "日" * 86])
def test_names_that_disks_do_not_take(folder: RepoFolder, path: str) -> None:
    with pytest.raises(RefusedError, match="cannot hold a file of that name"):
        put(folder, file(path))


def test_an_empty_file(root: Path, folder: RepoFolder) -> None:
    put(folder, file("empty", b""), b"")
    assert (root / "org" / "name" / "empty").read_bytes() == b""


def test_what_does_not_lie_in_the_jobs_own_folder_is_not_begun(root: Path) -> None:
    """The disk went away after the worker had looked whether it is there."""
    there = spec().model_copy(update={"place": make_place(root, create_root=True)})
    put(RepoFolder(root, there), file())
    root.rename(root.with_name("unmounted"))
    with pytest.raises(PlaceUnseenError, match="not the folder any more"):
        put(RepoFolder(root, there), file())
    make_place(root, create_root=True)
    with pytest.raises(PlaceUnseenError, match="not the folder any more"):
        put(RepoFolder(root, there), file())
    assert not [path for path in root.rglob("*") if path.is_file() and path.name != "place"]


def test_a_wrong_file_is_replaced(root: Path, folder: RepoFolder) -> None:
    target = root / "org" / "name" / "f.bin"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"something else")
    put(folder, file())
    assert target.read_bytes() == CONTENT


def test_who_reads_the_old_file_keeps_it(root: Path, folder: RepoFolder) -> None:
    target = root / "org" / "name" / "f.bin"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"something else")
    with target.open("rb") as reader:
        put(folder, file())
        assert reader.read() == b"something else"


def test_an_unsafe_name_touches_nothing(root: Path, folder: RepoFolder) -> None:
    for path in ("../escaped", "/escaped", "a/../../escaped"):
        with pytest.raises(RefusedError):
            put(folder, file(path))
        with pytest.raises(RefusedError):
            folder.has(file(path), Cancel())
    assert list(root.parent.rglob("escaped")) == []


UMASKS = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from tests.unit.test_storage import RepoFolder, file, put, spec
put(RepoFolder(Path(sys.argv[1]), spec()), file())
"""


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o644), ("077", 0o600), ("002", 0o664), ("027", 0o640)])
def test_the_umask_decides_the_mode(tmp_path: Path, umask: str, mode: int) -> None:
    subprocess.run([sys.executable, "-c", UMASKS, tmp_path, umask], check=True)
    published = tmp_path / "org" / "name" / "f.bin"
    assert stat.S_IMODE(published.stat().st_mode) == mode


def test_unpublished_bytes_are_private(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(b"secret")
        [path] = state(root)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_is_on_disk_before_it_has_its_name(
    folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = list[str]()

    def noted(name: str) -> Callable[..., object]:
        real: Callable[..., object] = getattr(os, name)

        def call(*args: object, **options: object) -> object:
            order.append(name)
            return real(*args, **options)

        return call

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, noted(name))
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT)
        order.clear()
        folder.publish(partial, file())
    assert order == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_that_knows_no_modes(folder: RepoFolder, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "fchmod", number):
        put(folder, file())
    assert folder.has(file(), Cancel())


# -- has ------------------------------------------------------------------------------------------


def test_nothing_is_there(root: Path, folder: RepoFolder) -> None:
    assert not folder.has(file("a/b"), Cancel())
    assert not root.exists()


def test_a_published_file_is_there(folder: RepoFolder) -> None:
    put(folder, file("a/b"))
    assert folder.has(file("a/b"), Cancel())
    assert not folder.has(file("a"), Cancel())
    assert not folder.has(file("a/c"), Cancel())


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"x", b"x" * len(CONTENT)])
def test_a_wrong_file_is_not_there(root: Path, folder: RepoFolder, content: bytes) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "f.bin").write_bytes(content)
    assert not folder.has(file(), Cancel())


def test_without_a_hash_only_an_empty_file_is_there(folder: RepoFolder) -> None:
    put(folder, file())
    put(folder, file("empty", b""), b"")
    assert not folder.has(file(masked=True), Cancel())
    assert folder.has(file("empty", b"", masked=True), Cancel())


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "dangling"])
def test_other_things_are_not_there(folder: RepoFolder, tmp_path: Path, kind: str) -> None:
    folder.path.mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    target = folder.path / "f.bin"
    plant: dict[str, Callable[[], object]] = {
        "link": lambda: target.symlink_to(tmp_path / "elsewhere"),
        "dangling": lambda: target.symlink_to(tmp_path / "nowhere"),
        "folder": target.mkdir,
        "fifo": lambda: os.mkfifo(target),
    }
    plant[kind]()
    assert not folder.has(file(), Cancel())


def test_looking_can_be_stopped(folder: RepoFolder) -> None:
    put(folder, file())
    cancel = Cancel()
    cancel.set("shutdown")
    with pytest.raises(StoppedError, match="shutdown"):
        folder.has(file(), cancel)


# -- links and things in the way ------------------------------------------------------------------


@pytest.mark.parametrize("link", ["org", "org/name", "org/name/a", "org/name/a/b"])
def test_a_linked_folder_is_refused(root: Path, folder: RepoFolder, tmp_path: Path, link: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(elsewhere)
    with pytest.raises(RefusedError, match="symbolic link") as caught:
        put(folder, file("a/b/f.bin"))
    assert str(root / link) in str(caught.value)
    assert list(elsewhere.iterdir()) == []


def test_a_linked_state_folder_is_refused(root: Path, folder: RepoFolder, tmp_path: Path) -> None:
    root.mkdir(parents=True)
    (root / ".hf-downloader").symlink_to(tmp_path)
    with pytest.raises(RefusedError, match="symbolic link"):
        folder.claim_folder()
    with pytest.raises(RefusedError, match="symbolic link"):
        put(folder, file())


def test_a_linked_file_is_refused_before_a_byte_is_fetched(folder: RepoFolder, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder.path.mkdir(parents=True)
    (folder.path / "f.bin").symlink_to(victim)
    with pytest.raises(RefusedError, match="symbolic link"), folder.partial(file(), Cancel()):
        pytest.fail("nothing may be fetched")
    assert victim.read_bytes() == b"precious"


def test_a_link_that_appears_later_is_refused_too(folder: RepoFolder, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT)
        (folder.path / "f.bin").symlink_to(victim)
        with pytest.raises(RefusedError, match="symbolic link"):
            folder.publish(partial, file())
    assert victim.read_bytes() == b"precious"


def test_the_output_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big-disk")
    put(RepoFolder(tmp_path / "out", spec()), file())
    assert (tmp_path / "big-disk" / "org" / "name" / "f.bin").read_bytes() == CONTENT


def test_a_file_where_a_folder_is_needed(folder: RepoFolder) -> None:
    put(folder, file("a"))
    with pytest.raises(RefusedError, match="the repo has a folder of that name"):
        put(folder, file("a/b"))


def test_a_folder_where_a_file_is_needed(folder: RepoFolder) -> None:
    put(folder, file("a/b"))
    with pytest.raises(RefusedError, match="the repo has a file of that name"):
        put(folder, file("a"))


def test_an_output_folder_that_is_a_file(root: Path, folder: RepoFolder) -> None:
    root.parent.mkdir(parents=True)
    root.write_text("")
    with pytest.raises(LocalError):
        folder.claim_folder()


# -- whose folder it is ---------------------------------------------------------------------------


def test_a_folder_is_claimed_once_and_for_all(root: Path, folder: RepoFolder) -> None:
    folder.claim_folder()
    folder.claim_folder()
    RepoFolder(root, spec(commit="b" * 40)).claim_folder()
    [marker] = state(root, "repos")
    assert (marker.name, marker.read_text()) == ("org--name", "model org/name\n")


@pytest.mark.parametrize("other", [RepoType.DATASET, RepoType.SPACE])
def test_another_type_of_the_same_name_is_refused(root: Path, folder: RepoFolder, other: RepoType) -> None:
    folder.claim_folder()
    with pytest.raises(RefusedError) as caught:
        RepoFolder(root, spec(other)).claim_folder()
    assert "already holds the model org/name" in str(caught.value)
    assert "another --output-dir" in str(caught.value)


def test_other_repos_are_welcome(root: Path, folder: RepoFolder) -> None:
    folder.claim_folder()
    RepoFolder(root, spec(repo_id="org/other")).claim_folder()
    RepoFolder(root, spec(RepoType.DATASET, repo_id="name")).claim_folder()
    assert len(state(root, "repos")) == 3


def test_names_that_share_a_marker_do_not_share_a_folder(root: Path) -> None:
    RepoFolder(root, spec(repo_id="a--b")).claim_folder()
    with pytest.raises(RefusedError):
        RepoFolder(root, spec(repo_id="a/b")).claim_folder()


def test_the_first_of_two_at_once_wins(
    root: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def overtaken(*args: object, **options: object) -> None:
        monkeypatch.setattr(os, "link", link)
        RepoFolder(root, spec(RepoType.DATASET)).claim_folder()
        link(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(RefusedError, match="dataset org/name"):
        folder.claim_folder()
    assert len(state(root, "repos")) == 1


def test_disks_without_hard_links(root: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "link", errno.EPERM):
        folder.claim_folder()
    [marker] = state(root, "repos")
    assert marker.read_text() == "model org/name\n"


def test_an_empty_marker_is_nobodys(root: Path, folder: RepoFolder) -> None:
    folder.claim_folder()
    [marker] = state(root, "repos")
    marker.write_text("")
    with pytest.raises(RefusedError, match="unknown repo"):
        folder.claim_folder()


# -- partials -------------------------------------------------------------------------------------


def test_bytes_survive_their_writer(folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT[:300])
    with folder.partial(file(), Cancel()) as partial:
        assert (partial.size, partial.inherited) == (300, 300)
        partial.write(CONTENT[300:])
        partial.check()
        folder.publish(partial, file())
    assert folder.has(file(), Cancel())


def test_a_wrong_beginning_is_found_at_the_end(folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(b"x" * 300)
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT[300:])
        with pytest.raises(CorruptError):
            partial.check()


def test_too_much_is_no_beginning(folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT)
    with folder.partial(file(content=CONTENT[:10]), Cancel()) as partial:
        assert (partial.size, partial.inherited) == (0, 0)


def test_an_empty_partial_does_not_stay(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()):
        assert len(state(root)) == 1
    assert state(root) == []


def test_a_reset_partial_does_not_stay(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT)
        partial.reset()
        assert (partial.size, partial.inherited) == (0, 0)
    assert state(root) == []


def test_reset_forgets_the_hash(folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(b"wrong")
        partial.reset()
        partial.write(CONTENT)
        partial.check()


@pytest.mark.parametrize(
    "other",
    [
        (spec(commit="b" * 40), file()),
        (spec(RepoType.DATASET), file()),
        (spec(repo_id="org/other"), file()),
        (spec(), file("other.bin")),
    ],
)
def test_nothing_else_shares_a_partial(
    root: Path, folder: RepoFolder, other: tuple[JobSpec, RepoFile]
) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT[:300])
    with RepoFolder(root, other[0]).partial(other[1], Cancel()) as partial:
        assert partial.size == 0


def test_each_host_has_its_own(root: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT[:300])
    monkeypatch.setattr("distributed_downloader.storage.host_tag", lambda: "another-host")
    with folder.partial(file(), Cancel()) as partial:
        assert (partial.size, partial.private) == (0, False)
        assert any("another-host" in path.name for path in state(root))


@pytest.mark.parametrize(
    ("name", "tag"),
    [("node1.cluster", "node1-cluster"), ("", "host"), ("x" * 99, "x" * 64), ("a/../b c", "a----b-c")],
)
def test_host_tag(name: str, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert host_tag.__wrapped__() == tag  # each process asks once


def test_two_writers_have_two_files(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as first, folder.partial(file(), Cancel()) as second:
        assert (first.private, second.private) == (False, True)
        first.write(CONTENT[:300])
        second.write(b"x" * 5)
        assert [path.stat().st_size for path in state(root)] == [300, 5]
    assert len(state(root)) == 1


def test_both_may_publish(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as first, folder.partial(file(), Cancel()) as second:
        for partial in (second, first):
            partial.write(CONTENT)
            folder.publish(partial, file())
            assert folder.has(file(), Cancel())
    assert state(root) == []


def test_a_zombie_does_not_touch_what_is_published(folder: RepoFolder) -> None:
    target = folder.path / "f.bin"
    with folder.partial(file(), Cancel()) as zombie:
        zombie.write(CONTENT[:300])
        put(folder, file())  # another worker took over meanwhile
        inode = target.stat().st_ino
        zombie.write(b"late and wrong")
        assert (target.stat().st_ino, target.read_bytes()) == (inode, CONTENT)
        zombie.reset()
        assert target.read_bytes() == CONTENT


def test_the_next_writer_of_a_published_file_starts_anew(folder: RepoFolder) -> None:
    put(folder, file())
    with folder.partial(file(), Cancel()) as partial:
        assert partial.size == 0
        partial.write(b"x")
        assert (folder.path / "f.bin").read_bytes() == CONTENT


def test_who_published_does_not_remove_the_next_writers_partial(root: Path, folder: RepoFolder) -> None:
    empty = file(content=b"")
    with folder.partial(empty, Cancel()) as first:
        folder.publish(first, empty)
        with folder.partial(file(), Cancel()) as second:
            second.write(CONTENT[:300])
        assert first.size == 0
    assert [path.stat().st_size for path in state(root)] == [300]


def test_a_partial_that_is_published_between_open_and_lock(
    root: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptor that was opened is the published file's by then, and must not be written."""
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT)
    lock = fcntl.flock
    calls = list[int]()

    def publish_first(fd: int, how: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            [path] = state(root)
            path.rename(folder.path / "f.bin")
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", publish_first)
    with folder.partial(file(), Cancel()) as partial:
        assert (partial.size, partial.private) == (0, False)
        partial.write(b"x")
    assert (folder.path / "f.bin").read_bytes() == CONTENT
    assert len(calls) == 2


def test_a_disk_without_locks(root: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with folder.partial(file(), Cancel()) as partial:
        assert partial.private
        partial.write(CONTENT[:300])
    # The lockable name was only tried; what is left of it is empty.
    assert [path.stat().st_size for path in state(root)] == [0]
    put(folder, file())
    assert folder.has(file(), Cancel())


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "hard link"])
def test_a_planted_partial_is_not_written(root: Path, folder: RepoFolder, tmp_path: Path, kind: str) -> None:
    with folder.partial(file(), Cancel()):
        [path] = state(root)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    plant: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to(victim),
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "hard link": lambda: path.hardlink_to(victim),
    }
    plant[kind]()
    with folder.partial(file(), Cancel()) as partial:
        assert partial.private
        partial.write(CONTENT)
        folder.publish(partial, file())
    assert victim.read_bytes() == b"precious"
    assert folder.has(file(), Cancel())


def test_taking_over_can_be_stopped_and_keeps_the_bytes(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT[:300])
    cancel = Cancel()
    cancel.set("shutdown")
    with pytest.raises(StoppedError, match="shutdown"), folder.partial(file(), cancel):
        pytest.fail("it was stopped")
    assert [path.stat().st_size for path in state(root)] == [300]


def test_an_error_in_the_block_keeps_the_bytes(root: Path, folder: RepoFolder) -> None:
    with pytest.raises(KeyError), folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT[:300])
        raise KeyError
    assert [path.stat().st_size for path in state(root)] == [300]


def test_the_blocks_own_errors_are_not_taken_for_the_disks(folder: RepoFolder) -> None:
    with pytest.raises(ConnectionResetError), folder.partial(file(), Cancel()):
        raise ConnectionResetError


def test_a_hash_that_becomes_known_late(folder: RepoFolder) -> None:
    with folder.partial(file(masked=True), Cancel()) as partial:
        partial.write(CONTENT[:300])
        assert not partial.proves
        partial.expect(file())
        assert partial.proves
        partial.write(CONTENT[300:])
        partial.check()
    with folder.partial(file(masked=True), Cancel()) as partial:
        partial.expect(file(content=b"x" * len(CONTENT)))
        with pytest.raises(CorruptError):
            partial.check()


def test_adopt_moves_a_file_in(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(b"an unfinished try")
        assert partial.staging.parent == root / ".hf-downloader" / "partial"
        partial.make_staging()
        done = partial.staging / "done"
        done.write_bytes(CONTENT)
        partial.adopt(done)
        assert not done.exists()
        assert partial.size == len(CONTENT)
        partial.check()
        partial.remove_staging()
        assert held(state(root)[0])
        folder.publish(partial, file())
    assert folder.has(file(), Cancel())


def test_what_is_adopted_is_nobodys_inheritance(root: Path, folder: RepoFolder) -> None:
    masked = file(masked=True)
    with folder.partial(masked, Cancel()) as partial:
        partial.write(b"x")
    with folder.partial(masked, Cancel()) as partial:
        assert partial.unproven
        (root / "done").write_bytes(CONTENT)
        partial.adopt(root / "done")
        assert (partial.inherited, partial.unproven) == (0, False)


def test_adopt_checks_nothing_by_itself(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        (root / "wrong").write_bytes(b"x" * len(CONTENT))
        partial.adopt(root / "wrong")
        with pytest.raises(CorruptError):
            partial.check()


def test_adopt_follows_no_link(root: Path, folder: RepoFolder, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(CONTENT)
    with folder.partial(file(), Cancel()) as partial:
        (root / "link").symlink_to(tmp_path / "victim")
        with pytest.raises(TransferError):
            partial.adopt(root / "link")


def test_copy_leaves_the_source(folder: RepoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_module, "READ_SIZE", 64)
    (tmp_path / "cached").write_bytes(CONTENT)
    with folder.partial(file(), Cancel()) as partial:
        partial.write(b"an unfinished try")
        partial.copy(tmp_path / "cached")
        partial.check()
    assert (tmp_path / "cached").read_bytes() == CONTENT


def test_copy_stops(folder: RepoFolder, tmp_path: Path) -> None:
    (tmp_path / "cached").write_bytes(CONTENT)
    cancel = Cancel()
    with folder.partial(file(), cancel) as partial:
        cancel.set()
        with pytest.raises(StoppedError):
            partial.copy(tmp_path / "cached")


# -- what disks say -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, LocalError),
        (errno.EDQUOT, LocalError),
        (errno.EROFS, LocalError),
        (errno.EACCES, PlaceError),
        (errno.EPERM, PlaceError),
        (errno.EIO, LocalError),
        (errno.ESTALE, LocalError),
        (errno.EMFILE, LocalError),
        (errno.ENAMETOOLONG, RefusedError),
        (errno.EILSEQ, RefusedError),
        (errno.EINVAL, RefusedError),
        (errno.EFBIG, PlaceError),
    ],
)
def test_disk_error(number: int, error: type[TransferError]) -> None:
    found = disk_error(OSError(number, os.strerror(number), "f"), "/data/f")
    assert type(found) is error
    assert str(found).startswith(f"/data/f: {os.strerror(number).lower()}; ")


def test_a_missing_permission_may_stand_for_the_whole_disk() -> None:
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert type(disk_error(denied, "/data", whole=True)) is LocalError


def test_a_file_that_is_too_large_for_the_disk() -> None:
    large = OSError(errno.EFBIG, "File too large")
    for whole in (False, True):
        found = disk_error(large, "/data", whole=whole)
        assert type(found) is PlaceError
        assert "this disk cannot hold a file of that size" in str(found)


def test_einval_is_only_about_a_name_where_there_is_one() -> None:
    assert type(disk_error(OSError(errno.EINVAL, "Invalid argument"), "/data/f")) is LocalError


def test_which_errors_have_a_name(tmp_path: Path) -> None:
    for end in os.pipe():
        with pytest.raises(OSError, match="Invalid argument") as caught:
            os.fsync(end)
        assert caught.value.filename is None
        os.close(end)
    with open_folder(tmp_path, []) as fd, pytest.raises(FileNotFoundError) as missing:
        os.rename(b"a", b"b", src_dir_fd=fd, dst_dir_fd=fd)
    assert missing.value.filename == b"a"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_that_cannot_sync_folders(
    folder: RepoFolder, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    put(folder, file("a/b"))
    assert folder.has(file("a/b"), Cancel())


def test_a_folder_that_the_disk_fails_to_sync(folder: RepoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, "fsync", errno.EIO), pytest.raises(LocalError, match="the disk fails"):
        put(folder, file("a/b"))


def test_a_disk_that_does_not_know_its_size(folder: RepoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((4096, 4096, *[0] * 8)))
    put(folder, file())
    assert folder.has(file(), Cancel())


def test_an_error_without_a_number() -> None:
    assert isinstance(disk_error(OSError("odd"), "/data"), LocalError)


@pytest.mark.parametrize("name", ["pwrite", "ftruncate", "fsync", "rename", "fchmod"])
def test_a_full_disk(folder: RepoFolder, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = pytest.raises(LocalError, match="free some space")
    with folder.partial(file(), Cancel()) as partial, failing(monkeypatch, name, errno.ENOSPC), refused:
        partial.reset()
        partial.write(CONTENT)
        folder.publish(partial, file())
    assert not folder.has(file(), Cancel())


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_does_not_let_us_in(
    folder: RepoFolder, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, "open", number):
        for use in (folder.claim_folder, lambda: put(folder, file()), lambda: folder.has(file(), Cancel())):
            with pytest.raises(LocalError):
                use()


def test_a_half_written_piece_counts_as_what_was_written(
    folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    sizes = list[int]()

    def short(fd: int, data: bytes, offset: int) -> int:
        sizes.append(len(data))
        return write(fd, data[:7], offset)

    monkeypatch.setattr(os, "pwrite", short)
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT)
        partial.check()
    assert len(sizes) == len(CONTENT) // 7 + 1


def test_the_hash_covers_what_was_written_before_the_disk_was_full(
    folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(CONTENT[:300])
        with failing(monkeypatch, "pwrite", errno.ENOSPC), pytest.raises(LocalError):
            partial.write(CONTENT[300:])
        assert partial.size == 300
        partial.write(CONTENT[300:])
        partial.check()


def test_too_little_room_is_said_before_the_download(folder: RepoFolder) -> None:
    huge = RepoFile(path="huge", size=1 << 52)
    with pytest.raises(LocalError, match=r"are needed and .* are free"), folder.partial(huge, Cancel()):
        pytest.fail("nothing may be fetched")


def test_no_descriptor_is_left_open(folder: RepoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    put(folder, file("a/b/c"))
    folder.claim_folder()
    folder.has(file("a/b/c"), Cancel())
    folder.has(file("a/x/c"), Cancel())
    with pytest.raises(RefusedError):
        put(folder, file("a/b"))
    with failing(monkeypatch, "pread", errno.EIO), pytest.raises(LocalError):
        folder.has(file("a/b/c"), Cancel())
    with pytest.raises(LocalError), folder.partial(RepoFile(path="huge", size=1 << 52), Cancel()):
        pass
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO])
def test_no_descriptor_is_left_open_by_a_close_that_fails(
    folder: RepoFolder, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    gone = number == errno.ENOENT
    refused = nullcontext() if gone else pytest.raises(LocalError)
    with failing(monkeypatch, "unlink", number), refused, folder.partial(file(), Cancel()):
        pass
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_no_descriptor_is_left_open_by_an_adoption_that_fails(
    root: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folder.partial(file(), Cancel()) as partial:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        (root / "done").write_bytes(CONTENT)
        with failing(monkeypatch, "rename", errno.EIO), pytest.raises(LocalError):
            partial.adopt(root / "done")
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_no_descriptor_is_left_open_by_a_look_that_fails(
    folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Partial, _name: str, _fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    put(folder, file())
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    monkeypatch.setattr(Partial, "_if_ours", fail)
    with pytest.raises(LocalError), folder.partial(file(), Cancel()):
        pass
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_open_folder_makes_nothing_unless_told_to(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_folder(tmp_path, [b"a", b"b"], create=False):
        pytest.fail("there is none")
    assert list(tmp_path.iterdir()) == []


def test_two_may_make_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = os.mkdir

    def overtaken(*args: object, **options: object) -> None:
        if options:
            mkdir(*args, **options)  # type: ignore[arg-type]
        mkdir(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", overtaken)
    with open_folder(tmp_path, [b"a"]) as fd:
        assert stat.S_ISDIR(os.fstat(fd).st_mode)


# -- leftovers ------------------------------------------------------------------------------------


def held(path: Path) -> bool:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        return is_held(folder, path.name)
    finally:
        os.close(folder)


def age(path: Path) -> None:
    os.utime(path, (OLD, OLD), follow_symlinks=False)


def test_old_leftovers_are_swept(root: Path, folder: RepoFolder) -> None:
    for name in ("old", "new", "held"):
        with folder.partial(file(name), Cancel()) as partial:
            partial.write(name.encode())
    by_content = {path.read_bytes(): path for path in state(root)}
    with folder.partial(file("held"), Cancel()):
        age(by_content[b"old"])
        age(by_content[b"held"])
        assert sweep(root) == 1
        assert sorted(path.read_bytes() for path in state(root)) == [b"held", b"new"]


def test_leftovers_on_a_disk_without_locks_are_swept_too(
    root: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(b"x")
    age(state(root)[0])

    def no_locks(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert sweep(root) == 1
    assert state(root) == []


def test_a_staging_folder_goes_with_its_partial(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(b"x")
        staging = partial.staging
    staging.mkdir()
    (staging / "half").write_bytes(b"x")
    age(staging)
    assert sweep(root) == 0  # its partial is still there
    [path] = [path for path in state(root) if path.is_file()]
    age(path)
    assert sweep(root) + sweep(root) == 2
    assert state(root) == []


@pytest.mark.parametrize("part", ["", "repos"])
def test_markers_that_were_never_claimed_are_swept(root: Path, folder: RepoFolder, part: str) -> None:
    folder.claim_folder()
    make_place(root, create_root=False)
    new, old = ((root / ".hf-downloader" / part / f"~{name * 12}") for name in "ab")
    for path in (new, old, *state(root, "repos"), root / ".hf-downloader" / "place"):
        path.touch()
        age(path)
    new.touch()
    assert sweep(root) == 1
    assert new.exists()
    assert len(state(root, "repos")) == 1 + (part == "repos")
    assert (root / ".hf-downloader" / "place").exists()


@pytest.mark.parametrize("call", ["unlink", "stat"])
def test_what_cannot_be_swept_does_not_keep_the_rest(
    root: Path,
    folder: RepoFolder,
    call: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody else's file in a folder with a sticky bit, a disk that fails at one place."""
    for name in "abcde":
        with folder.partial(file(name), Cancel()) as partial:
            partial.write(name.encode())
        age(state(root)[-1])
    for path in state(root):
        age(path)
    stuck = {path.name for path in state(root)[:3]}
    real = getattr(os, call)

    def refuse(path: str, **options: object) -> object:
        if os.fsdecode(path) in stuck:
            raise PermissionError(errno.EPERM, "Operation not permitted", path)
        return real(path, **options)

    monkeypatch.setattr(os, call, refuse)
    assert sweep(root) == 2
    monkeypatch.undo()
    assert {path.name for path in state(root)} == stuck
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("3 old leftovers stay: ")
    assert "operation not permitted" in said


def test_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path / "nowhere") == 0


def test_the_leftovers_of_other_users_are_not_ours(
    root: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with folder.partial(file(), Cancel()) as partial:
        partial.write(b"x")
    age(state(root)[0])
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert sweep(root) == 0


def test_links_are_swept_and_not_followed(root: Path, folder: RepoFolder, tmp_path: Path) -> None:
    put(folder, file())
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    link = root / ".hf-downloader" / "partial" / "link.part"
    link.symlink_to(victim)
    age(link)
    sweep(root)
    assert victim.read_bytes() == b"precious"


def test_leftovers_are_kept_for_a_week(root: Path, folder: RepoFolder) -> None:
    for name, days in (("young", 6.9), ("old", 7.1)):
        with folder.partial(file(name), Cancel()) as partial:
            partial.write(name.encode())
        [path] = [path for path in state(root) if path.read_bytes() == name.encode()]
        os.utime(path, (time.time() - days * 24 * 3600,) * 2)
    assert sweep(root) == 1
    assert [path.read_bytes() for path in state(root)] == [b"young"]


KILLED = """
import sys, time
from pathlib import Path
from tests.unit.test_storage import CONTENT, Cancel, RepoFolder, file, spec
with RepoFolder(Path(sys.argv[1]), spec()).partial(file(), Cancel()) as partial:
    partial.write(CONTENT[:300])
    print("written", flush=True)
    time.sleep(600)
"""


def test_a_killed_process_leaves_its_bytes_and_no_lock(root: Path, folder: RepoFolder) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, root], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    with child.stdout:
        assert child.stdout.readline() == "written\n"
        with folder.partial(file(), Cancel()) as partial:
            assert partial.private  # it lives, and writes
        child.kill()
        child.wait()
    with folder.partial(file(), Cancel()) as partial:
        assert (partial.private, partial.inherited) == (False, 300)


def test_a_partial_is_closed_once(root: Path, folder: RepoFolder) -> None:
    with folder.partial(file(), Cancel()) as partial:
        assert isinstance(partial, Partial)
        partial.write(b"x")
    assert not held(state(root)[0])
