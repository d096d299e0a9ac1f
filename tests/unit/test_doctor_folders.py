"""What the doctor finds of folders, on real disks and on played ones; nothing stays there."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from distributed_downloader.config import AppConfig
from distributed_downloader.doctor import at_start, look, probe
from distributed_downloader.doctor.at_start import require_worker
from distributed_downloader.doctor.folders import NAS, OUTPUT, SPOOL, Surroundings, looks
from distributed_downloader.doctor.hub import Need
from distributed_downloader.errors import ConfigError, TransferError
from distributed_downloader.findings import Finding, Subject, Verdict
from distributed_downloader.models import WorkerStatus
from distributed_downloader.storage.leftovers import sweep
from distributed_downloader.storage.place import make_place
from tests.mounts import mounted, needs_mount
from tests.unit.test_master import SPEC

ALONE = Surroundings(None, None)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def examine(
    output: Path,
    around: Surroundings = ALONE,
    **sections: Any,  # noqa: ANN401 settings
) -> dict[tuple[Subject, str], Finding]:
    """Return the findings by subject and name."""
    sections = {"app": {"output_dir": str(output), **sections.pop("app", {})}, **sections}
    config = AppConfig.model_validate(sections)
    found = look(looks(config, output, around))
    return {(Subject(finding.subject), finding.name): finding for finding in found}


def bad(found: dict[tuple[Subject, str], Finding]) -> dict[str, str]:
    """Return the advice about what is not good, by name."""
    return {name: each.advice for (_, name), each in found.items() if each.advice}


def worker(**about: Any) -> WorkerStatus:  # noqa: ANN401 fields
    return WorkerStatus(id="w", host="h", pid=1, version="0", slots=1, started_at=0, **about)


def need(size: int, output_dir: str = "") -> Surroundings:
    spec = SPEC.model_copy(update={"output_dir": output_dir})
    return Surroundings(None, Need(spec, 3, size, whole=True))


def test_a_good_folder_is_left_as_it_was(tmp_path: Path) -> None:
    found = examine(tmp_path)
    assert not bad(found)
    assert found[OUTPUT, "writing"].value == "write, fsync and rename work"
    assert found[OUTPUT, "long names"].verdict is found[OUTPUT, "locks"].verdict is Verdict.GOOD
    assert found[OUTPUT, "shared"].verdict is Verdict.UNKNOWN
    assert not names(tmp_path)
    place = make_place(tmp_path, create_root=False)
    assert not bad(examine(tmp_path))
    assert names(tmp_path / ".hf-downloader") == ["place"]
    assert make_place(tmp_path, create_root=False) == place


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = examine(tmp_path / "a" / "b")
    assert not bad(found)
    assert found[OUTPUT, "folder"].value == f"{tmp_path}/a/b, which is made when it is needed"
    assert not names(tmp_path)


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "a file is where a folder should be" in bad(examine(path))["folder"]


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "supports_effective_ids", set())
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    found = examine(tmp_path)
    assert bad(found)["folder"] == (
        f"{tmp_path}: permission denied; the worker's user needs write permission there"
    )
    assert found[OUTPUT, "folder"].verdict is Verdict.BROKEN


@needs_mount
def test_a_disk_that_is_read_only_and_one_that_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "-o", "size=1m,nr_inodes=100", "tmpfs"):
        found = examine(tmp_path)
        assert found[OUTPUT, "file system"].value == "tmpfs, mounted"
        assert "can take only" in bad(found)["inodes"]
        (tmp_path / "ballast").write_bytes(bytes((1 << 20) - (1 << 14)))
        assert "no file fits beside" in bad(examine(tmp_path))["space"]
    with mounted(tmp_path, "-t", "tmpfs", "-o", "ro", "tmpfs"):
        assert "the disk is mounted read-only" in bad(examine(tmp_path))["folder"]


def test_what_a_disk_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "function not implemented")

    real_open, real_stat = os.open, os.stat

    def short_names(path: Any, *rest: Any, **named: Any) -> int:  # noqa: ANN401 as os has it
        if len(str(path)) == 255:
            raise OSError(errno.ENAMETOOLONG, "file name too long")
        return real_open(path, *rest, **named)

    def no_case(path: Any, *rest: Any, **named: Any) -> os.stat_result:  # noqa: ANN401 as os has it
        return real_stat("Renamed" if path == "rENAMED" else path, *rest, **named)

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(os, "open", short_names)
    monkeypatch.setattr(os, "stat", no_case)
    assert bad(examine(tmp_path)).keys() == {"long names", "case", "locks"}
    assert not names(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "rename", "write"])
def test_a_disk_that_fails_is_broken_and_left_as_it_was(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(TransferError):
            probe.probe(tmp_path)
        assert "the disk fails" in bad(examine(tmp_path))["writing"]
    assert not names(tmp_path)


def test_what_a_killed_doctor_leaves_is_swept_as_partial_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException): ...

    def die(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(os, "rename", die)
        patch.setattr(probe, "remove_tree", lambda *_: None)
        probe.probe(tmp_path)
    assert len(names(tmp_path / ".hf-downloader/partial")) == 1
    assert sweep(tmp_path, older_than=-60) == 1
    assert not names(tmp_path / ".hf-downloader/partial")


def test_a_link_in_place_of_our_own_folder_is_not_followed(tmp_path: Path) -> None:
    output, other = tmp_path / "output", tmp_path / "other"
    output.mkdir()
    other.mkdir()
    (output / ".hf-downloader").symlink_to(other)
    assert "symbolic link" in bad(examine(output))["writing"]
    assert not names(other)


def test_somebody_elses_partial_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".hf-downloader/partial").mkdir(parents=True)
    assert not bad(examine(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert "have to run as one user" in bad(examine(tmp_path))["user"]


def test_a_job_that_does_not_fit(tmp_path: Path) -> None:
    found = examine(tmp_path, need(1 << 60, str(tmp_path)))
    assert found[OUTPUT, "space"].verdict is Verdict.BROKEN
    # Without a folder for all, the job is spread over the workers' own.
    assert examine(tmp_path, need(1 << 60))[OUTPUT, "space"].verdict is Verdict.WARNING
    assert "org/name needs 1.2 EB, and " in found[OUTPUT, "space"].advice
    assert not bad(examine(tmp_path, need(1000)))


def test_a_disk_with_less_than_the_limit(tmp_path: Path) -> None:
    found = examine(tmp_path, limits={"min_free_disk": 1 << 60})
    assert "[limits] min_free_disk wants 1.2 EB" in bad(found)["space"]


# -- with others ----------------------------------------------------------------------------------


def test_who_shares_it(tmp_path: Path) -> None:
    place = make_place(tmp_path, create_root=False)

    def shared(*workers: WorkerStatus) -> str:
        return examine(tmp_path, Surroundings(list(workers), None))[OUTPUT, "shared"].value

    assert shared() == "no worker lives"
    both = worker(folder=place), worker(nas=place)
    assert shared(*both, worker(folder="else")) == "with 2 of 3 living workers"
    assert shared(worker(folder="else")).startswith("of 1 living worker, none has it")


def nas(folder: Path) -> dict[str, Any]:
    return {"nas": {"enabled": "true", "path": str(folder)}}


def test_a_nas(tmp_path: Path) -> None:
    folder = tmp_path / "nas"
    missing = examine(tmp_path, **nas(folder))
    assert missing[NAS, "answer"].verdict is Verdict.BROKEN
    assert "is not marked as the NAS: mount it, or mark it" in missing[NAS, "answer"].advice
    folder.mkdir()
    assert "is not marked as the NAS" in bad(examine(tmp_path, **nas(folder)))["answer"]
    assert not names(folder)  # nothing is written to a mount that is missing
    place = make_place(folder, create_root=False)
    found = examine(tmp_path, Surroundings([worker(nas=place), worker()], None), **nas(folder))
    assert not bad(found)
    assert found[NAS, "workers"].value == "1 of 2 deliver to it"
    found = examine(tmp_path, Surroundings([worker(nas="another")], None), **nas(folder))
    assert "deliver to another NAS" in bad(found)["workers"]


def test_a_spool_has_to_be_there(tmp_path: Path) -> None:
    found = examine(tmp_path, app={"spool_dir": str(tmp_path / "spool")})
    assert "is not there; make the folder" in found[SPOOL, "folder"].advice
    (tmp_path / "spool").mkdir()
    assert not bad(examine(tmp_path, app={"spool_dir": str(tmp_path / "spool")}))


# -- at the start of a worker ---------------------------------------------------------------------


def start(output: Path, source: str) -> None:
    config = AppConfig.model_validate({"app": {"output_dir": str(output)}})
    require_worker(config, {"app.output_dir": source, "app.spool_dir": "default"})


def test_a_worker_refuses_a_folder_that_never_can_be_written_in_the_words_of_the_doctor(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    words = bad(examine(tmp_path / "file"))["folder"]
    with pytest.raises(ConfigError) as refused:
        start(tmp_path / "file", "environment OUTPUT_DIR")
    assert str(refused.value) == f"environment OUTPUT_DIR: [app] output_dir: {words}"
    start(tmp_path / "file", "default")  # which no job may need
    start(tmp_path / "not there", "environment OUTPUT_DIR")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOENT])
def test_a_trouble_that_may_pass_is_no_reason(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_start, "objection", lambda _: OSError(number, os.strerror(number)))
    start(tmp_path, "environment OUTPUT_DIR")


def test_few_open_files_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 4096))
    start(tmp_path, "default")
    assert "lets a worker open 100 files, and 4 slots may need 128: raise `ulimit -n`" in caplog.text
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, 0))
    caplog.clear()
    start(tmp_path, "default")
    assert not caplog.text
