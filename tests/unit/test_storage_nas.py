"""Files on the NAS: there or not, copied and proved, and never anywhere else."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    CorruptError,
    LocalError,
    PlaceError,
    PlaceUnseenError,
    RefusedError,
    RoomError,
    StoppedError,
)
from distributed_downloader.models import JobSpec, RepoFile, RepoType
from distributed_downloader.storage import copying
from distributed_downloader.storage.copying import sweep_copies
from distributed_downloader.storage.nas import Delivery, NasFolder, Progress
from distributed_downloader.storage.place import make_place, read_place
from tests.mounts import mounted, needs_mount

CONTENT = b"0123456789" * 1000
OLD = time.time() - 30 * 24 * 3600


def has(nas: NasFolder, what: RepoFile, cancel: Cancel, progress: Progress = lambda _: None) -> bool:
    """Return whether the file is found; what cannot be told or is refused is not."""
    with suppress(LocalError, RefusedError):
        return nas.look(what, cancel, progress)
    return False


def spec(*, repo_id: str = "org/name", flat: bool = False, nas: str = "", kind: str = "model") -> JobSpec:
    return JobSpec(
        repo_type=RepoType(kind),
        repo_id=repo_id,
        revision="main",
        commit="a" * 40,
        endpoint="https://hub.invalid",
        flat=flat,
        nas=nas,
    )


def file(path: str = "a/f.bin", content: bytes = CONTENT, *, masked: bool = False) -> RepoFile:
    digest = None if masked else hashlib.sha256(content).hexdigest()
    return RepoFile(path=path, size=len(content), sha256=digest)


class Stage:
    """An output folder, a marked NAS, and one file that goes from here to there."""

    def __init__(self, folder: Path) -> None:
        self.out, self.root = folder / "out", folder / "nas"
        self.root.mkdir()
        self.id = make_place(self.root, create_root=False)

    def put(self, path: str = "a/f.bin", content: bytes = CONTENT, repo_id: str = "org/name") -> Path:
        where = self.out / repo_id / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(content)
        return where

    def deliver(
        self,
        what: RepoFile | None = None,
        job: JobSpec | None = None,
        *,
        by_size: bool = False,
        read_back: bool = False,
    ) -> Delivery:
        nas, verify = NasFolder(self.root, job or spec()), "size" if by_size else "hash"
        return nas.deliver(self.out, what or file(), Cancel(), verify=verify, read_back=read_back)

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the NAS, without our own."""
        found = (
            path for path in self.root.rglob("*") if path.is_file() and ".hf-downloader" not in path.parts
        )
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}

    @property
    def copies(self) -> list[Path]:
        where = self.root / ".hf-downloader" / "partial"
        return sorted(where.iterdir()) if where.exists() else []


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


# -- the way there --------------------------------------------------------------------------------


@pytest.mark.parametrize("by_size", [False, True])
@pytest.mark.parametrize("read_back", [False, True])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT * 300])
def test_a_file_is_copied(stage: Stage, by_size: bool, read_back: bool, content: bytes) -> None:
    local = stage.put(content=content)
    delivery = stage.deliver(file(content=content), by_size=by_size, read_back=read_back)
    assert delivery.copied
    assert stage.files == {"org/name/a/f.bin": content}
    assert local.read_bytes() == content
    assert stage.copies == []


@pytest.mark.parametrize(
    ("job", "where"),
    [
        (spec(), "org/name/a/f.bin"),
        (spec(flat=True), "org/name_f.bin"),
        (spec(repo_id="gpt2"), "gpt2/a/f.bin"),
        (spec(repo_id="gpt2", flat=True), "gpt2_f.bin"),
    ],
)
def test_each_layout(stage: Stage, job: JobSpec, where: str) -> None:
    stage.put(repo_id=job.repo_id)
    stage.deliver(job=job)
    assert stage.files == {where: CONTENT}
    assert NasFolder(stage.root, job).path_of(file()) == stage.root / where


def test_two_files_of_one_name_lie_side_by_side(stage: Stage) -> None:
    for folder in "ab":
        content = folder.encode() * 10
        stage.put(f"{folder}/f.bin", content)
        what = file(f"{folder}/f.bin", content).model_copy(update={"clash": True})
        stage.deliver(what, spec(flat=True))
    assert sorted(stage.files.values()) == [b"a" * 10, b"b" * 10]


def test_the_mode_is_that_of_the_umask(stage: Stage) -> None:
    stage.put()
    before = os.umask(0o027)
    try:
        stage.deliver()
    finally:
        os.umask(before)
    assert stat.S_IMODE((stage.root / "org/name/a/f.bin").stat().st_mode) == 0o640


def test_progress_is_told(stage: Stage) -> None:
    content = CONTENT * 300
    stage.put(content=content)
    told = list[int]()
    NasFolder(stage.root, spec()).deliver(stage.out, file(content=content), Cancel(), progress=told.append)
    assert told == sorted(told)
    assert len(told) > 2
    assert told[-1] == len(content)


@pytest.mark.parametrize("by_size", [False, True])
def test_a_stop_leaves_nothing_behind(stage: Stage, by_size: bool) -> None:
    content = CONTENT * 300
    stage.put(content=content)
    cancel = Cancel()
    with pytest.raises(StoppedError):
        NasFolder(stage.root, spec()).deliver(
            stage.out,
            file(content=content),
            cancel,
            verify="size" if by_size else "hash",
            progress=lambda _: cancel.set(),
        )
    assert stage.files == {}
    assert stage.copies == []


def test_a_long_file_is_synced_on_the_way(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[int]()
    monkeypatch.setattr(copying, "_SYNC_EVERY", 1 << 20)
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    content = bytes(4 << 20)
    stage.put(content=content)
    stage.deliver(file(content=content))
    assert {1 << 20, 2 << 20, 3 << 20, 4 << 20} <= set(synced)


# -- what the kernel copies -----------------------------------------------------------------------


@pytest.mark.parametrize("missing", [["copy_file_range"], ["copy_file_range", "sendfile"]])
@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_what_the_kernel_cannot_copy_is_copied_otherwise(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, missing: list[str], number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    for name in missing:
        monkeypatch.setattr(os, name, refuse)
    stage.put()
    stage.deliver(by_size=True)
    assert stage.files == {"org/name/a/f.bin": CONTENT}


def test_a_copy_goes_on_where_the_kernel_stops(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.copy_file_range, list[int]()

    def once(source: int, target: int, count: int) -> int:
        calls.append(count)
        return real(source, target, 100) if len(calls) == 1 else 0

    monkeypatch.setattr(os, "copy_file_range", once)
    stage.put()
    stage.deliver(by_size=True, read_back=True)
    assert len(calls) == 2
    assert stage.files == {"org/name/a/f.bin": CONTENT}


def test_the_kernel_copies_without_us(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.put()
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("the bytes were read"))
    stage.deliver(by_size=True)
    assert stage.files == {"org/name/a/f.bin": CONTENT}


# -- what is there already ------------------------------------------------------------------------


def test_a_right_file_is_not_copied_again(stage: Stage) -> None:
    stage.put()
    stage.deliver()
    before = (stage.root / "org/name/a/f.bin").stat()
    again = stage.deliver()
    assert not again.copied
    assert again.source is not None
    assert (stage.root / "org/name/a/f.bin").stat() == before


@pytest.mark.parametrize("wrong", [b"", CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_a_wrong_file_is_replaced(stage: Stage, wrong: bytes) -> None:
    stage.put()
    where = stage.root / "org/name/a/f.bin"
    where.parent.mkdir(parents=True)
    where.write_bytes(wrong)
    assert stage.deliver().copied
    assert stage.files == {"org/name/a/f.bin": CONTENT}


def test_a_file_without_a_hash_is_copied_again(stage: Stage) -> None:
    stage.put()
    assert stage.deliver(file(masked=True)).copied
    assert stage.deliver(file(masked=True)).copied


def test_has(stage: Stage) -> None:
    nas = NasFolder(stage.root, spec(nas=stage.id))
    assert not has(nas, file(), Cancel())
    stage.put()
    stage.deliver()
    assert has(nas, file(), Cancel())
    assert not has(nas, file(masked=True), Cancel())
    (stage.root / "org/name/a/f.bin").write_bytes(CONTENT[:-1] + b"x")
    assert not has(nas, file(), Cancel())


def test_has_gives_signs_of_life(stage: Stage) -> None:
    content, told = bytes(3 << 20), list[int]()
    stage.put(content=content)
    stage.deliver(file(content=content))
    assert has(NasFolder(stage.root, spec()), file(content=content), Cancel(), told.append)
    assert len(told) >= 3


def test_has_is_false_where_the_nas_does_not_help(stage: Stage) -> None:
    stage.put()
    stage.deliver()
    assert not has(NasFolder(stage.root, spec(nas="0" * 32)), file(), Cancel())
    where = stage.root / "org/name/a/f.bin"
    where.rename(where.with_name("g.bin"))
    where.symlink_to("g.bin")
    assert not has(NasFolder(stage.root, spec()), file(), Cancel())
    where.unlink()
    os.mkfifo(where)
    assert not has(NasFolder(stage.root, spec()), file(content=b""), Cancel())
    shutil.rmtree(stage.root)
    assert not has(NasFolder(stage.root, spec()), file(), Cancel())


def test_has_can_be_stopped(stage: Stage) -> None:
    stage.put()
    stage.deliver()
    cancel = Cancel()
    cancel.set()
    with pytest.raises(StoppedError):
        has(NasFolder(stage.root, spec()), file(), cancel)


def test_an_unsafe_path_is_refused(stage: Stage) -> None:
    with pytest.raises(RefusedError):
        NasFolder(stage.root, spec()).look(file("../f"), Cancel())
    assert not has(NasFolder(stage.root, spec()), file("../f"), Cancel())


def test_a_look_tells_what_is_not_there_from_what_nobody_can_tell(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    nas = NasFolder(stage.root, spec(nas=stage.id))
    assert not nas.look(file(), Cancel())
    stage.put()
    stage.deliver()
    assert nas.look(file(), Cancel())
    assert not nas.look(file(content=b"other"), Cancel())
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "samestat", broken)
        with pytest.raises(LocalError, match="see to the NAS"):
            nas.look(file(), Cancel())
    (stage.root / "org/name/a/f.bin").unlink()
    (stage.root / "org/name/a/f.bin").mkdir()
    with pytest.raises(RefusedError, match="in the way"):
        nas.look(file(), Cancel())
    shutil.rmtree(stage.root)
    with pytest.raises(PlaceUnseenError):
        nas.look(file(), Cancel())


# -- one place ------------------------------------------------------------------------------------


def test_a_folder_that_is_the_nas_needs_no_copy(stage: Stage) -> None:
    stage.out = stage.root
    local = stage.put()
    before = local.stat()
    assert stage.deliver() == Delivery(copied=False, source=None)
    assert local.stat() == before


def test_a_folder_that_is_the_nas_through_another_mount_needs_no_copy(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.out = tmp_path / "other"
    stage.out.symlink_to(stage.root)
    local = stage.put()
    # Two mounts of one disk have two device numbers.
    monkeypatch.setattr(os.path, "samestat", lambda one, other: stat.S_ISDIR(one.st_mode))
    assert stage.deliver(file(masked=True)) == Delivery(copied=False, source=None)
    assert local.read_bytes() == CONTENT


def test_one_file_with_two_names_needs_no_copy(stage: Stage) -> None:
    local = stage.put()
    where = stage.root / "org/name/a/f.bin"
    where.parent.mkdir(parents=True)
    where.hardlink_to(local)
    assert stage.deliver(file(masked=True)) == Delivery(copied=False, source=None)


def test_in_one_place_the_flat_layout_is_a_copy_and_the_source_stays(stage: Stage) -> None:
    stage.out = stage.root
    stage.put()
    delivery = stage.deliver(job=spec(flat=True))
    assert delivery == Delivery(copied=True, source=None)
    assert stage.files == {"org/name/a/f.bin": CONTENT, "org/name_f.bin": CONTENT}
    assert not NasFolder(stage.root, spec(flat=True)).remove_source(stage.out, file(), delivery, Cancel())


def test_a_marker_that_was_copied_with_its_folder_misleads_nobody(stage: Stage) -> None:
    stage.put()
    shutil.copytree(stage.root / ".hf-downloader", stage.out / ".hf-downloader")
    assert stage.deliver() == Delivery(copied=True, source=None)
    assert stage.files == {"org/name/a/f.bin": CONTENT}


@pytest.mark.parametrize("flat", [False, True])
def test_a_copied_marker_does_not_make_a_wrong_file_right(stage: Stage, flat: bool) -> None:
    stage.put()
    shutil.copytree(stage.root / ".hf-downloader", stage.out / ".hf-downloader")
    where = NasFolder(stage.root, spec(flat=flat)).path_of(file())
    where.parent.mkdir(parents=True)
    where.write_bytes(b"wrong")
    assert stage.deliver(job=spec(flat=flat)) == Delivery(copied=True, source=None)
    assert where.read_bytes() == CONTENT


def test_a_folder_that_was_copied_with_its_times_proves_nothing(stage: Stage) -> None:
    """As `rsync -a` does it: another file may have the size and the time of ours."""
    local = stage.put()
    shutil.copytree(stage.root / ".hf-downloader", stage.out / ".hf-downloader")
    there = stage.root / "org/name/a/f.bin"
    there.parent.mkdir(parents=True)
    there.write_bytes(bytes(len(CONTENT)))
    info = local.stat()
    os.utime(there, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert stage.deliver() == Delivery(copied=True, source=None)
    assert stage.files == {"org/name/a/f.bin": CONTENT}


# -- the source -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"x", CONTENT[:-1], CONTENT + b"x"])
def test_a_damaged_source_is_not_delivered(stage: Stage, wrong: bytes) -> None:
    stage.put(content=wrong)
    with pytest.raises(CorruptError, match=r"f\.bin is damaged"):
        stage.deliver()
    assert stage.files == {}
    assert stage.copies == []


def test_another_commits_file_of_the_same_size_is_not_delivered_by_size(stage: Stage) -> None:
    """As it often is with the weights of a model."""
    local = stage.put(content=bytes(len(CONTENT)))
    with pytest.raises(CorruptError, match="another commit's"):
        stage.deliver(by_size=True)
    assert stage.files == {}
    assert stage.copies == []
    assert stage.deliver(file(masked=True), by_size=True).copied  # nobody can tell
    assert stage.files == {"org/name/a/f.bin": local.read_bytes()}


@pytest.mark.parametrize("by_size", [False, True])
def test_a_suspect_is_proved_before_it_is_copied(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, by_size: bool
) -> None:
    nas, verify = NasFolder(stage.root, spec()), "size" if by_size else "hash"
    stage.put(content=bytes(len(CONTENT)))
    with monkeypatch.context() as patch:
        patch.setattr(copying, "temporary", lambda *_: pytest.fail("something was written"))
        patch.setattr("distributed_downloader.storage.nas.temporary", copying.temporary)
        with pytest.raises(CorruptError, match="damaged"):
            nas.deliver(stage.out, file(), Cancel(), verify=verify, suspect=True)
    assert not (stage.root / "org").exists()
    stage.put()
    assert nas.deliver(stage.out, file(), Cancel(), verify=verify, suspect=True).copied
    assert stage.files == {"org/name/a/f.bin": CONTENT}


def test_by_size_a_source_of_the_wrong_size_is_not_delivered(stage: Stage) -> None:
    stage.put(content=CONTENT + b"x")
    with pytest.raises(CorruptError, match="damaged"):
        stage.deliver(by_size=True)


@pytest.mark.parametrize("by_size", [False, True])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_source_that_changes_on_the_way_is_not_delivered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, by_size: bool, change: int
) -> None:
    local = stage.put()
    real = copying.Copying.check_room

    def change_it(self: copying.Copying, folder: int) -> None:
        os.truncate(local, len(CONTENT) + change)
        real(self, folder)

    monkeypatch.setattr(copying.Copying, "check_room", change_it)
    if by_size and change > 0:  # then what was copied is the file
        stage.deliver(by_size=True)
        assert stage.files == {"org/name/a/f.bin": CONTENT}
        return
    with pytest.raises((CorruptError, PlaceError)):
        stage.deliver(by_size=by_size)
    assert stage.files == {}
    assert stage.copies == []


def test_a_source_that_is_gone_is_said_so(stage: Stage) -> None:
    with pytest.raises(PlaceError, match="is not there any more"):
        stage.deliver()
    assert stage.files == {}


def test_a_source_that_is_gone_does_not_matter_once_it_is_delivered(stage: Stage) -> None:
    local = stage.put()
    stage.deliver()
    local.unlink()
    assert stage.deliver() == Delivery(copied=False, source=None)


def test_a_source_that_is_a_link_is_refused(stage: Stage, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    local = stage.put()
    local.unlink()
    local.symlink_to(secret)
    with pytest.raises(RefusedError, match="symbolic link"):
        stage.deliver()
    assert stage.files == {}


def test_a_source_that_cannot_be_read_concerns_this_file_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    stage.put()
    monkeypatch.setattr(os, "read", broken)
    with pytest.raises(PlaceError, match="cannot be copied to the NAS"):
        stage.deliver()


# -- removing the local file ----------------------------------------------------------------------


def remove(stage: Stage, delivery: Delivery, what: RepoFile | None = None) -> bool:
    return NasFolder(stage.root, spec()).remove_source(stage.out, what or file(), delivery, Cancel())


@pytest.mark.parametrize("times", [1, 2])
def test_the_source_is_removed_when_asked(stage: Stage, times: int) -> None:
    local = stage.put()
    for _ in range(times):
        delivery = stage.deliver()
    assert remove(stage, delivery)
    assert not local.exists()
    assert not remove(stage, delivery)


def test_a_source_that_was_replaced_stays(stage: Stage) -> None:
    local = stage.put()
    delivery = stage.deliver()
    local.rename(local.with_name("old"))
    stage.put()
    assert not remove(stage, delivery)
    assert local.exists()


def test_a_source_that_was_written_to_stays(stage: Stage) -> None:
    local = stage.put()
    delivery = stage.deliver()
    os.utime(local, ns=(0, 0))
    assert not remove(stage, delivery)
    assert local.exists()


def test_another_commits_file_stays_though_ours_is_on_the_nas(stage: Stage) -> None:
    local = stage.put()
    stage.deliver()
    other = bytes(len(CONTENT))
    local.write_bytes(other)
    delivery = stage.deliver()  # the report on the first one was lost
    assert not delivery.copied
    assert not remove(stage, delivery)
    assert local.read_bytes() == other


def replaced_at_the_last_moment(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, *, again: bool = False, links: bool = True
) -> None:
    """Let another commit's file be published between the look at ours and its removal."""
    real, where = os.rename, stage.out / "org/name/a/f.bin"

    def rename(source: str | bytes, target: str | bytes, **options: int) -> None:
        monkeypatch.setattr(os, "rename", real)
        new = where.with_name("new")
        new.write_bytes(b"another")
        new.replace(where)
        real(source, target, **options)
        if again:
            where.write_bytes(b"the third")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "rename", rename)
    if not links:
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("links", [False, True])
def test_a_source_that_is_replaced_at_the_last_moment_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    local = stage.put()
    delivery = stage.deliver()
    replaced_at_the_last_moment(stage, monkeypatch, links=links)
    assert not remove(stage, delivery)
    assert local.read_bytes() == b"another"
    assert list((stage.out / ".hf-downloader/partial").iterdir()) == []


def test_what_comes_while_a_source_is_put_back_wins(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    local = stage.put()
    delivery = stage.deliver()
    replaced_at_the_last_moment(stage, monkeypatch, again=True)
    assert not remove(stage, delivery)
    assert local.read_bytes() == b"the third"
    assert list((stage.out / ".hf-downloader/partial").iterdir()) == []


def test_a_source_that_cannot_be_removed_is_said_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    local = stage.put()
    delivery = stage.deliver()
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(PlaceError, match="permission denied"):
        remove(stage, delivery)
    assert local.read_bytes() == CONTENT


# -- the NAS is not there, or another one ---------------------------------------------------------


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_an_unmarked_folder_is_never_written_to(stage: Stage, tmp_path: Path) -> None:
    stage.put()
    shutil.rmtree(stage.root)
    stage.root.mkdir()  # what is seen where a mount is missing
    before = everything(tmp_path)
    with pytest.raises(PlaceUnseenError, match="init-nas"):
        stage.deliver()
    with pytest.raises(PlaceUnseenError, match="mount"):
        stage.deliver(job=spec(nas=stage.id))
    assert everything(tmp_path) == before


def test_a_missing_folder_is_never_made(stage: Stage, tmp_path: Path) -> None:
    stage.put()
    shutil.rmtree(stage.root)
    before = everything(tmp_path)
    with pytest.raises(PlaceUnseenError, match="mounted"):
        stage.deliver()
    assert everything(tmp_path) == before


def test_another_nas_is_never_written_to(stage: Stage, tmp_path: Path) -> None:
    stage.put()
    before = everything(tmp_path)
    with pytest.raises(PlaceUnseenError, match="another folder"):
        stage.deliver(job=spec(nas="0" * 32))
    with pytest.raises(PlaceUnseenError, match="another folder"):
        NasFolder(stage.root, spec(), "0" * 32).deliver(stage.out, file(), Cancel())
    assert everything(tmp_path) == before
    stage.deliver(job=spec(nas=stage.id))


def test_a_mount_that_changes_between_the_look_and_the_write_is_noticed(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(root: Path) -> str:
        monkeypatch.undo()
        stage.root.rename(tmp_path / "real")
        shutil.copytree(tmp_path / "real", stage.root)
        return read_place(root)

    stage.put()
    monkeypatch.setattr("distributed_downloader.storage.nas.read_place", swap)
    with pytest.raises(PlaceUnseenError, match="this moment"):
        stage.deliver()
    assert stage.files == {}


def test_a_mount_that_goes_away_while_we_copy_gets_nothing_here(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = copying.Copying.with_hash

    def vanish(self: copying.Copying, source: int, target: int) -> None:
        stage.root.rename(tmp_path / "real")
        stage.root.mkdir()
        real(self, source, target)

    stage.put()
    monkeypatch.setattr(copying.Copying, "with_hash", vanish)
    stage.deliver()
    assert everything(stage.root) == []
    assert (tmp_path / "real/org/name/a/f.bin").read_bytes() == CONTENT


# -- what is in the way on the NAS ----------------------------------------------------------------


def test_a_link_in_place_of_the_file_is_not_followed(stage: Stage, tmp_path: Path) -> None:
    stage.put()
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    where = stage.root / "org/name/a/f.bin"
    where.parent.mkdir(parents=True)
    where.symlink_to(victim)
    with pytest.raises(RefusedError, match="symbolic link"):
        stage.deliver()
    assert victim.read_bytes() == b"mine"
    assert where.is_symlink()


def test_a_link_that_appears_while_we_copy_is_not_replaced(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = copying.Copying.with_hash
    where = stage.root / "org/name/a/f.bin"

    def link_it(self: copying.Copying, source: int, target: int) -> None:
        where.symlink_to("nowhere")
        real(self, source, target)

    stage.put()
    monkeypatch.setattr(copying.Copying, "with_hash", link_it)
    with pytest.raises(RefusedError, match="symbolic link"):
        stage.deliver()
    assert where.is_symlink()
    assert stage.copies == []


@pytest.mark.parametrize("link", ["org", "org/name", "org/name/a", ".hf-downloader/partial"])
def test_a_link_in_place_of_a_folder_is_not_followed(stage: Stage, tmp_path: Path, link: str) -> None:
    stage.put()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    where = stage.root / link
    where.parent.mkdir(parents=True, exist_ok=True)
    where.symlink_to(elsewhere)
    with pytest.raises(RefusedError, match=f"{link} is a symbolic link"):
        stage.deliver()
    assert everything(elsewhere) == []


def test_a_folder_in_place_of_the_file_is_left_alone(stage: Stage) -> None:
    stage.put()
    (stage.root / "org/name/a/f.bin").mkdir(parents=True)
    with pytest.raises(RefusedError, match="in the way"):
        stage.deliver()


def test_a_file_in_place_of_a_folder_is_left_alone(stage: Stage) -> None:
    stage.put()
    (stage.root / "org").write_bytes(b"mine")
    with pytest.raises(RefusedError, match="org is in the way"):
        stage.deliver()
    assert stage.files == {"org": b"mine"}


def test_repos_of_one_name_do_not_mix(stage: Stage) -> None:
    stage.put()
    stage.deliver()
    other = stage.put("b.bin", b"other")
    with pytest.raises(RefusedError, match=r"holds the model org/name .* dataset org/name"):
        stage.deliver(file("b.bin", b"other"), spec(kind="dataset"))
    assert other.exists()
    assert set(stage.files) == {"org/name/a/f.bin"}


def test_flat_files_of_two_repos_do_not_replace_each_other(stage: Stage) -> None:
    stage.put("b_c", b"one", repo_id="org/a")
    stage.deliver(file("b_c", b"one"), spec(repo_id="org/a", flat=True))
    stage.put("c", b"two", repo_id="org/a_b")
    with pytest.raises(RefusedError, match="may be a file of org/a;"):
        stage.deliver(file("c", b"two"), spec(repo_id="org/a_b", flat=True))
    assert stage.files == {"org/a_b_c": b"one"}
    stage.put("d", b"two", repo_id="org/a_b")
    stage.deliver(file("d", b"two"), spec(repo_id="org/a_b", flat=True))
    assert stage.files == {"org/a_b_c": b"one", "org/a_b_d": b"two"}


# -- what NAS say ---------------------------------------------------------------------------------


def test_bytes_that_come_back_wrong_are_noticed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.put()
    monkeypatch.setattr(copying, "_write", lambda fd, data: os.write(fd, bytes(len(data))))
    with pytest.raises(PlaceError, match="read back"):
        stage.deliver(read_back=True)
    assert stage.files == {}
    assert stage.copies == []


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, LocalError, "no space left on device; free some space on the NAS"),
        (errno.EDQUOT, LocalError, "quota"),
        (errno.EROFS, LocalError, "read-only"),
        (errno.EIO, LocalError, "see to the NAS"),
        (errno.ESTALE, LocalError, "mount it again"),
        (errno.EFBIG, PlaceError, "cannot hold a file of that size"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_what_the_nas_says_is_said(  # noqa: PLR0917
    stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[LocalError], text: str
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    stage.put()
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(LocalError, match=f"(?i){text}") as caught:
        stage.deliver()
    monkeypatch.undo()
    assert type(caught.value) is kind
    assert "output-dir" not in str(caught.value)
    assert stage.files == {}
    assert stage.copies == []


def test_a_file_that_will_not_fit_is_not_begun(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstatvfs

    def full(fd: int) -> os.statvfs_result:
        found = list(real(fd))
        found[4] = 0
        return os.statvfs_result(found)

    stage.put()
    monkeypatch.setattr(os, "fstatvfs", full)
    with pytest.raises(LocalError, match=r"10.0 kB are needed and 0 B are free") as caught:
        stage.deliver()
    assert type(caught.value) is LocalError  # for no other file will fit either


def test_a_file_that_is_too_large_is_the_only_one_that_is(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs

    def small(fd: int) -> os.statvfs_result:
        found = list(real(fd))
        found[1], found[2], found[4] = 1, 20000, 9999
        return os.statvfs_result(found)

    stage.put()
    monkeypatch.setattr(os, "fstatvfs", small)
    with pytest.raises(RoomError, match=r"10.0 kB are needed and 10.0 kB are free"):
        stage.deliver()
    stage.put("b", b"small")
    stage.deliver(file("b", b"small"))
    assert stage.files == {"org/name/b": b"small"}


@needs_mount
@pytest.mark.parametrize("by_size", [False, True])
def test_a_nas_that_is_full(stage: Stage, monkeypatch: pytest.MonkeyPatch, by_size: bool) -> None:
    content = bytes(2 << 20)
    stage.put(content=content)
    with mounted(stage.root, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        make_place(stage.root, create_root=False)
        with pytest.raises(PlaceError, match="are needed"):
            stage.deliver(file(content=content), by_size=by_size)
        monkeypatch.setattr(copying.Copying, "check_room", lambda *_: None)  # somebody else was faster
        with pytest.raises(LocalError, match="free some space on the NAS"):
            stage.deliver(file(content=content), by_size=by_size)
        assert stage.files == {}
        assert stage.copies == []


@needs_mount
def test_a_nas_that_is_read_only(stage: Stage) -> None:
    stage.put()
    with mounted(stage.root, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        make_place(stage.root, create_root=False)
        subprocess.run(["mount", "-o", "remount,ro", str(stage.root)], check=True)
        with pytest.raises(LocalError, match="read-only") as caught:
            stage.deliver()
        assert type(caught.value) is LocalError
        assert stage.files == {}


def test_a_nas_with_a_limit_on_file_sizes(stage: Stage) -> None:
    stage.put()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(PlaceError, match="size"):
            stage.deliver()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert stage.files == {}
    assert stage.copies == []


def test_an_advice_that_is_not_taken_is_no_trouble(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    stage.put()
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    assert stage.deliver(read_back=True).copied


# -- folders of the NAS that are closed -----------------------------------------------------------


def nothing_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying.Copying, "with_hash", lambda *_: pytest.fail("bytes were copied"))


def refused(stage: Stage, match: str) -> None:
    """Both ways to the NAS end before a byte is moved, and that says nothing about other files."""
    for way in (stage.deliver, lambda: NasFolder(stage.root, spec()).claim(file())):
        with pytest.raises(PlaceError, match=match):
            way()
    assert stage.copies == []


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_a_closed_folder_is_noticed_before_the_copy(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with tempfile.TemporaryDirectory() as name:
        stage = Stage(Path(name))
        stage.put()
        where = stage.root / "org/name/a"
        where.mkdir(parents=True)
        for folder in (Path(name), stage.root, stage.root / ".hf-downloader"):
            folder.chmod(0o777)
        where.chmod(0o555)
        request.getfixturevalue("unprivileged")
        nothing_is_copied(monkeypatch)
        refused(stage, r"f\.bin: permission denied; the worker's user needs write permission")
        os.seteuid(os.getuid())


@needs_mount
def test_a_mount_in_a_repos_folder_is_noticed_before_the_copy(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.put()
    where = stage.root / "org/name"
    where.mkdir(parents=True)
    with mounted(where, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        nothing_is_copied(monkeypatch)
        refused(stage, "must not be a mount point of its own")


def test_a_mount_that_only_the_rename_shows_concerns_this_file_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    stage.put()
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PlaceError, match="mount point"):
        stage.deliver()


def test_a_name_that_is_free_can_be_claimed(stage: Stage) -> None:
    nas = NasFolder(stage.root, spec())
    nas.claim(file())
    assert stage.files == {}
    with pytest.raises(RefusedError, match="already holds the model"):
        NasFolder(stage.root, spec(kind="dataset")).claim(file())


# -- a NAS that makes no difference between some names --------------------------------------------


def fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def folding(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let everything below `root` be found by each spelling of its name; it keeps the first one."""

    def entry(name: str | bytes, folder: int | None) -> str | bytes:
        where = Path(f"/proc/self/fd/{folder}").readlink() if folder is not None else None
        if where is None or not where.is_relative_to(root):
            return name
        wanted = fold(os.fsdecode(name))
        return next((found.name for found in where.iterdir() if fold(found.name) == wanted), name)

    def wrap(call: str) -> None:
        real = getattr(os, call)

        def folded(name: str | bytes, *args: object, dir_fd: int | None = None, **options: object) -> object:
            return real(entry(name, dir_fd), *args, dir_fd=dir_fd, **options)

        monkeypatch.setattr(os, call, folded)

    for call in ("stat", "open", "mkdir", "unlink"):
        wrap(call)
    real = os.rename

    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        real(source, entry(target, dst_dir_fd), src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", rename)


TWINS = [("a/F.bin", "a/f.bin"), ("A/f.bin", "a/f.bin"), ("\u00e9", "e\u0301"), ("stra\u00dfe", "STRASSE")]


@pytest.mark.parametrize(("first", "second"), TWINS)
@pytest.mark.parametrize("content", [CONTENT, b"other"])
def test_a_file_never_replaces_another_one_whose_name_the_nas_takes_for_its_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, first: str, second: str, content: bytes
) -> None:
    folding(monkeypatch, stage.root)
    stage.put(first)
    stage.put(second, content)
    stage.deliver(file(first))
    with pytest.raises(RefusedError, match="in another spelling"):
        stage.deliver(file(second, content))
    with pytest.raises(RefusedError, match="they would be one there"):
        NasFolder(stage.root, spec()).claim(file(second, content))
    assert not has(NasFolder(stage.root, spec()), file(second, content), Cancel())
    assert stage.files == {f"org/name/{first}": CONTENT}
    assert has(NasFolder(stage.root, spec()), file(first), Cancel())


@pytest.mark.parametrize(("first", "second"), [pair for pair in TWINS if "A/f" not in pair[0]])
def test_a_twin_that_comes_while_we_copy_is_not_replaced(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    folding(monkeypatch, stage.root)
    real = copying.Copying.with_hash

    def come(self: copying.Copying, source: int, target: int) -> None:
        monkeypatch.setattr(copying.Copying, "with_hash", real)
        stage.deliver(file(first))
        real(self, source, target)

    stage.put(first)
    stage.put(second, b"other")
    monkeypatch.setattr(copying.Copying, "with_hash", come)
    with pytest.raises(RefusedError, match="in another spelling"):
        stage.deliver(file(second, b"other"))
    assert list(stage.files.values()) == [CONTENT]
    assert stage.copies == []


@pytest.mark.parametrize("path", ["a/f.bin", "\u00e9", "123"])
def test_on_such_a_nas_our_own_file_is_found_and_replaced(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    folding(monkeypatch, stage.root)
    stage.put(path)
    stage.deliver(file(path))
    assert not stage.deliver(file(path)).copied
    (stage.root / "org/name" / path).write_bytes(b"wrong")
    assert stage.deliver(file(path)).copied
    assert stage.files == {f"org/name/{path}": CONTENT}


def test_a_twin_is_noticed_where_one_file_has_two_numbers(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CIFS mount with `noserverino` gives them."""
    folding(monkeypatch, stage.root)
    stage.put("F")
    stage.deliver(file("F"))
    stage.put("f", b"other")
    root = stage.root.stat()
    monkeypatch.setattr(
        os.path, "samestat", lambda one, _: (one.st_dev, one.st_ino) == (root.st_dev, root.st_ino)
    )
    with pytest.raises(RefusedError, match="in another spelling"):
        stage.deliver(file("f", b"other"))
    assert stage.files == {"org/name/F": CONTENT}


def test_a_nas_that_keeps_both_spellings_of_an_accent_has_no_twins(stage: Stage) -> None:
    for path in ("\u00e9", "e\u0301"):
        stage.put(path)
        assert stage.deliver(file(path)).copied
        assert not stage.deliver(file(path)).copied
    assert len(stage.files) == 2


def test_on_another_nas_no_folder_is_listed_and_nobody_waits(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", lambda *_: pytest.fail("listed"))
    monkeypatch.setattr("distributed_downloader.storage.nas._publishing", None)
    for path in ("a/f.bin", "A/f.bin", "a/F.BIN"):
        stage.put(path)
        assert stage.deliver(file(path)).copied
        assert not stage.deliver(file(path)).copied
    monkeypatch.undo()
    assert len(stage.files) == 3


# -- what killed workers leave --------------------------------------------------------------------


def leave(stage: Stage, name: str, *, old: bool = True) -> Path:
    where = stage.root / ".hf-downloader" / "partial" / name
    where.parent.mkdir(exist_ok=True)
    where.write_bytes(b"half")
    if old:
        os.utime(where, (OLD, OLD))
    return where


def test_old_copies_are_swept(stage: Stage) -> None:
    old = leave(stage, f"{'0' * 32}.{'1' * 12}.copy")
    young = leave(stage, f"{'0' * 32}.{'2' * 12}.copy", old=False)
    part = leave(stage, f"{'0' * 32}.host.part")
    other = leave(stage, "mine.copy")
    assert sweep_copies(stage.root) == 1
    assert not old.exists()
    assert all(path.exists() for path in (young, part, other))


def test_a_link_is_swept_and_not_followed(stage: Stage, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    name = f"{'0' * 32}.{'1' * 12}.copy"
    link = leave(stage, name)
    link.unlink()
    link.symlink_to(victim)
    os.utime(link, (OLD, OLD), follow_symlinks=False)
    assert sweep_copies(stage.root) == 1
    assert victim.read_bytes() == b"mine"


def test_nothing_to_sweep(stage: Stage) -> None:
    assert sweep_copies(stage.root) == 0
    shutil.rmtree(stage.root)
    assert sweep_copies(stage.root) == 0
    assert not stage.root.exists()


def test_a_sweep_that_fails_is_said(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    leave(stage, f"{'0' * 32}.{'1' * 12}.copy")
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(LocalError, match="see to the NAS"):
        sweep_copies(stage.root)
