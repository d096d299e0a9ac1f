"""One `download` of a repo at a time in a folder: each has a private Redis and knows nothing of the other."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_downloader.errors import ConflictError, LocalError, RefusedError
from distributed_downloader.storage import RepoFolder
from tests.unit.test_storage import failing, spec

HOLDER = """
import sys
from pathlib import Path
from tests.unit.test_storage import RepoFolder, spec
with RepoFolder(Path(sys.argv[1]), spec()).alone():
    print("alone", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RepoFolder:
    return RepoFolder(tmp_path, spec())


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    assert child.stdout.readline() == "alone\n"
    return child


@pytest.mark.parametrize("end", ["leaves", "killed"])
def test_another_process(folder: RepoFolder, holder: subprocess.Popen[str], end: str) -> None:
    with pytest.raises(ConflictError, match="another `download` of org/name"), folder.alone():
        pytest.fail("we are two")
    if end == "killed":
        holder.send_signal(signal.SIGKILL)
    holder.communicate("\n")
    with folder.alone():
        pass


def test_other_repos_and_other_folders(
    tmp_path: Path, folder: RepoFolder, holder: subprocess.Popen[str]
) -> None:
    with RepoFolder(tmp_path, spec(repo_id="org/other")).alone(), RepoFolder(tmp_path / "b", spec()).alone():
        pass
    # All commits of a repo have one folder.
    with pytest.raises(ConflictError), RepoFolder(tmp_path, spec(commit="b" * 40)).alone():
        pytest.fail("we are two")
    holder.communicate("\n")


def test_twice_in_one_process(folder: RepoFolder) -> None:
    with folder.alone(), pytest.raises(ConflictError), folder.alone():
        pytest.fail("we are two")
    with folder.alone():
        pass


def test_a_child_does_not_keep_it(folder: RepoFolder) -> None:
    with folder.alone():
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with folder.alone():
            pass
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_locks(folder: RepoFolder, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_fd: int, _how: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with folder.alone():
        pass


def test_the_blocks_own_errors_are_not_taken_for_the_disks(folder: RepoFolder) -> None:
    with pytest.raises(BlockingIOError), folder.alone():
        raise BlockingIOError


def test_what_is_in_the_way(tmp_path: Path, folder: RepoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder.alone():
        pass
    [lock] = (tmp_path / ".hf-downloader" / "alone").iterdir()
    lock.unlink()
    lock.symlink_to(tmp_path / "nowhere")
    with pytest.raises(RefusedError), folder.alone():
        pytest.fail("it is a link")
    assert not (tmp_path / "nowhere").exists()
    with failing(monkeypatch, "open", errno.EROFS), pytest.raises(LocalError), folder.alone():
        pytest.fail("it cannot be written")
