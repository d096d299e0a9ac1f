"""Whether a job fits where it goes: its bytes are compared with the free space as its listing comes in.

Only what cannot fit is refused: all that lies there of the repo counts as bytes that are there already, other
files of it and unfinished ones included, for these make room when they are replaced or go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from distributed_downloader.config import NASConfig
from distributed_downloader.display import units
from distributed_downloader.errors import NoSpaceError
from distributed_downloader.layout import folder_of
from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.storage.place import STATE, read_place
from distributed_downloader.storage.room import nearest, space


@dataclass
class Goal:
    """A folder that a job goes to."""

    folder: Path
    #: Bytes that are kept free there.
    reserve: int
    #: Where what is there of the job lies.
    repo: Path
    partial: Path
    #: Bytes of it that were there at the last look, which takes long where there are a million files.
    _there: int = field(default=0, init=False)

    def shortage(self, spec: JobSpec, size: int) -> str:
        """Return what is wrong if so many bytes cannot fit, else ""; raises OSError."""
        found = space(nearest(self.folder))
        kept = found.kept(self.reserve) if found else 0
        if found is None or size <= self._there + found.free - kept:
            return ""
        there = self._there = _bytes_below(self.repo, _length) + _bytes_below(self.partial, _blocks)
        if size <= there + found.free - kept:
            return ""
        beside = f", of which {units.size(there)} are there" if there else ""
        reserved = f" ({units.size(kept)} of it are kept free: disk_reserve)" if kept else ""
        return (
            f"{units.repo(spec)} needs {units.size(size)}{beside}, and {self.folder} has "
            f"{units.size(found.free)} free{reserved}: free some space, use another --output-dir, or take "
            "less with --include"
        )


def output_goal(spec: JobSpec, folder: Path, reserve: int) -> Goal:
    """Return the goal that an output folder is."""
    return Goal(folder, reserve, folder / folder_of(spec), folder / STATE / "partial")


def nas_goal(spec: JobSpec, nas: Path) -> Goal:
    """Return the goal that the NAS is; where its files lie flat, all of the organisation count as there."""
    repo = nas / spec.repo_id
    return Goal(nas, 0, repo.parent if spec.flat else repo, nas / STATE / "partial")


def goals_of(spec: JobSpec, nas: NASConfig, reserve: int) -> list[Goal]:
    """Return the goals of a job that are seen from here.

    An output folder that files leave again for the NAS may be smaller than the job; those of the workers are
    not known here; and one that is not there counts if it can be made.
    """
    found = []
    if spec.output_dir and not (nas.enabled and nas.delete_after_copy):
        folder = Path(spec.output_dir).expanduser()
        if folder.exists() or os.access(nearest(folder), os.W_OK | os.X_OK):
            found.append(output_goal(spec, folder, reserve))
    if nas.enabled and read_place(Path(nas.path)):
        found.append(nas_goal(spec, Path(nas.path)))
    return found


def fitting(
    pages: Iterable[list[RepoFile]], spec: JobSpec, goals: Iterable[Goal]
) -> Iterator[list[RepoFile]]:
    """Yield the pages of a listing as long as all that was listed fits; raises NoSpaceError."""
    size, goals = 0, list(goals)
    for page in pages:
        size += sum(file.size for file in page)
        for goal in goals:
            if shortage := _shortage(goal, spec, size):
                raise NoSpaceError(f"{shortage}; --no-space-check queues it all the same")
        yield page


def _shortage(goal: Goal, spec: JobSpec, size: int) -> str:
    try:
        return goal.shortage(spec, size)
    except OSError:  # a disk that does not tell is told of by those who write there
        return ""


def _bytes_below(folder: Path, measure: Callable[[os.stat_result], int]) -> int:
    """Return the bytes of all files in a folder and those in it; what cannot be looked at has none."""
    found = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                found += measure(os.stat(os.path.join(where, name), follow_symlinks=False))  # noqa: PTH116, PTH118 - a million
            except OSError:  # gone this moment
                continue
    return found


def _length(info: os.stat_result) -> int:
    return info.st_size


def _blocks(info: os.stat_result) -> int:
    """Return what an unfinished file takes: it may have its full length from the beginning."""
    return info.st_blocks * 512
