"""Whether the folders of this machine can do what they are for: the output folder, the NAS and the spool."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distributed_downloader.display import units
from distributed_downloader.doctor import Looks
from distributed_downloader.doctor.at_start import objection
from distributed_downloader.doctor.probe import probe
from distributed_downloader.findings import Finding, Subject
from distributed_downloader.fit import Goal, nas_goal, output_goal
from distributed_downloader.headroom import scarce_disk
from distributed_downloader.storage.disk import disk, disk_error
from distributed_downloader.storage.mounts import file_system, is_elsewhere
from distributed_downloader.storage.place import STATE, read_place, unmarked
from distributed_downloader.storage.room import Space, nearest, space

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig
    from distributed_downloader.doctor.hub import Need
    from distributed_downloader.models import WorkerStatus

OUTPUT, NAS, SPOOL = Subject("output folder"), Subject("nas"), Subject("spool")
#: Files that a disk can still take, below which it is worth a word.
_FEW_FILES = 1000


class _Lack(NamedTuple):
    """What is said of one of the Abilities, whether or not a folder has it."""

    name: str
    good: str
    advice: str


_LACKS = {
    "long_names": _Lack(
        "long names", "up to 255 bytes", "holds no names of 255 bytes: files with such names will fail"
    ),
    "tells_case": _Lack(
        "case", "A is not a", "makes no difference between A and a: files that differ in that are one file"
    ),
    "locks": _Lack(
        "locks",
        "flock works",
        "has no locks (Lustre: mount it with -o flock): after a kill, incomplete files begin anew",
    ),
}


class Surroundings(NamedTuple):
    """What folders are compared with; None where it is not known."""

    workers: list[WorkerStatus] | None
    need: Need | None


def looks(config: AppConfig, output: Path, around: Surroundings) -> Looks:
    """Return how to look at each folder that these settings use; `output` in place of `[app] output_dir`."""
    nas, spool = Path(config.nas.path), Path(config.app.spool_dir)
    found: Looks = {OUTPUT: lambda: _output(config, output, around)}
    if config.nas.enabled:
        found = {**found, NAS: lambda: _nas(nas, around)}
    if config.app.spool_dir:
        found = {**found, SPOOL: lambda: _spool(config, spool)}
    return found


def _output(config: AppConfig, folder: Path, around: Surroundings) -> Iterator[Finding]:
    if not (yield from _standing(OUTPUT, folder)):
        return
    goal = None
    if around.need and not (config.nas.enabled and config.nas.delete_after_copy):
        goal = output_goal(around.need.spec, folder, config.app.disk_reserve)
    yield from OUTPUT.attempt("space", _space(OUTPUT, config, folder, goal, around.need))
    yield _shared(folder, around.workers)


def _nas(folder: Path, around: Surroundings) -> Iterator[Finding]:
    place = read_place(folder)
    if not place:
        raise unmarked(folder)
    yield NAS.good("id", place)
    if not (yield from _standing(NAS, folder)):
        return
    goal = nas_goal(around.need.spec, folder) if around.need else None
    yield from NAS.attempt("space", _space(NAS, None, folder, goal, around.need))
    yield _delivering(place, around.workers)


def _spool(config: AppConfig, folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        advice = f"[app] spool_dir: {folder} is not there; make the folder, or set another one"
        yield SPOOL.broken("folder", str(folder), advice)
        return
    if (yield from _standing(SPOOL, folder)):
        yield from SPOOL.attempt("space", _space(SPOOL, config, folder, None, None))


def _standing(subject: Subject, folder: Path) -> Generator[Finding, None, bool]:
    """Yield whether a folder is there, or can be made, where it lies, and what it can do.

    Returns whether there is more to be looked at.
    """
    if error := objection(folder):
        yield subject.broken("folder", str(folder), str(disk_error(error, folder, whole=True)))
        return False
    exists = nearest(folder) == folder
    yield subject.good("folder", str(folder) if exists else f"{folder}, which is made when it is needed")
    yield from subject.attempt("file system", _mount(subject, nearest(folder)))
    if exists:
        yield from subject.attempt("writing", _abilities(subject, folder))
    return True


def _mount(subject: Subject, folder: Path) -> Iterator[Finding]:
    """Say where a folder lies; raises TransferError where it cannot be read."""
    with disk(folder, whole=True):
        kind, elsewhere = file_system(folder) or "unknown", is_elsewhere(folder)
    yield subject.good("file system", f"{kind}, {'mounted' if elsewhere else 'on this machine'}")


def _abilities(subject: Subject, folder: Path) -> Iterator[Finding]:
    """Try a folder out; raises TransferError where it cannot be written to."""
    found = probe(folder)
    yield subject.good("writing", "write, fsync and rename work")
    for ability, lacks in _LACKS.items():
        if getattr(found, ability):
            yield subject.good(lacks.name, lacks.good)
        else:
            yield subject.warning(lacks.name, "no", f"{folder} {lacks.advice}")
    if (other := _owner(folder)) is not None:
        advice = (
            f"{folder}/{STATE} belongs to the user with uid {other}, and this is {os.geteuid()}: all workers "
            "that write into one folder have to run as one user"
        )
        yield subject.warning("user", str(other), advice)


def _owner(folder: Path) -> int | None:
    """Return whose partial files lie there, if not ours."""
    with disk(folder):
        partial = folder / STATE / "partial"
        owner = partial.stat().st_uid if partial.is_dir() else os.geteuid()
    return owner if owner != os.geteuid() else None


def _space(
    subject: Subject, config: AppConfig | None, folder: Path, goal: Goal | None, need: Need | None
) -> Iterator[Finding]:
    """Yield how much room there is, for a job if there is one; `config` of who writes there directly."""
    with disk(folder, whole=True):
        found = space(nearest(folder))
        files = os.statvfs(nearest(folder))
        shortage = goal.shortage(need.spec, need.size) if goal and need else ""
    if found is None:
        yield subject.unknown("space", "the disk does not know its size")
        return
    value = f"{units.sizes(found.free, found.total)} free"
    if shortage and need:  # where no folder is named, the workers' own disks share the job
        named = need.spec.output_dir or subject is NAS
        yield (subject.broken if named else subject.warning)("space", value, shortage)
    elif reason := _scarce(config, folder, found):
        yield subject.warning("space", value, reason)
    else:
        yield subject.good("space", value)
    if files.f_files and files.f_favail < max(_FEW_FILES, need.files if need and goal else 0):
        advice = f"{folder}: its disk can take only {files.f_favail:,} more files: remove some"
        yield subject.warning("inodes", f"{files.f_favail:,} free", advice)


def _scarce(config: AppConfig | None, folder: Path, found: Space) -> str:
    """Return why nothing would be fetched to a disk, or ""."""
    if config is None:
        return "" if found.free else f"{folder}: no space is left on it: free some space"
    if found.free <= found.kept(config.app.disk_reserve):
        kept = units.size(found.kept(config.app.disk_reserve))
        return f"{folder}: no file fits beside the {kept} that are kept free (disk_reserve): free some space"
    return scarce_disk(config.limits, folder, found)


def _shared(folder: Path, workers: list[WorkerStatus] | None) -> Finding:
    """Say how many of the living workers write to a folder, or deliver to it."""
    if not workers:
        return OUTPUT.unknown("shared", "no worker lives" if workers == [] else "Redis does not tell")
    place = read_place(folder)
    here = sum(place in (worker.folder, worker.nas) for worker in workers) if place else 0
    if here:
        return OUTPUT.good("shared", f"with {here} of {units.count(len(workers), 'living worker')}")
    apart = f"of {units.count(len(workers), 'living worker')}, none has it as its own output folder or NAS"
    return OUTPUT.good("shared", apart)


def _delivering(place: str, workers: list[WorkerStatus] | None) -> Finding:
    """Say how many of the living workers deliver to the NAS."""
    if not workers:
        return NAS.unknown("workers", "none lives" if workers == [] else "Redis does not tell")
    others = [worker for worker in workers if worker.nas not in ("", place)]
    value = f"{sum(worker.nas == place for worker in workers)} of {len(workers)} deliver to it"
    if not others:
        return NAS.good("workers", value)
    advice = f"some, such as {others[0].id}, deliver to another NAS: mount the same one everywhere"
    return NAS.warning("workers", value, advice)
