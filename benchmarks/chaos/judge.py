"""What must never happen: looked for while a round runs, and at its end."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.mounts import unmount
from benchmarks.chaos.world import World
from distributed_downloader.models import JobState, JobStatus

#: What nobody should have to read, in the log of a worker or on a command's standard error.
_TRACE = re.compile("^Traceback|internal error|^Fatal Python error|panicked", re.MULTILINE)
#: Characters shown of it: who reads a report elsewhere has no logs.
_EXCERPT = 3000
#: Repo -> path -> sha256.
Truth = Mapping[str, Mapping[str, str]]


def truth_of(repos: Mapping[str, Path]) -> Truth:
    """Return the hash of each file of each repo."""
    return {
        repo: {str(path.relative_to(folder)): _digest(path) for path in folder.rglob("*") if path.is_file()}
        for repo, folder in repos.items()
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@dataclass
class Verdict:
    """What was found; all of it should be empty."""

    lost: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    counters: set[str] = field(default_factory=set)
    hung: list[str] = field(default_factory=list)
    traces: set[str] = field(default_factory=set)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.lost or self.wrong or self.counters or self.hung or self.traces)


class Judge:
    """Watches over one round."""

    def __init__(self, world: World, truth: Truth) -> None:
        self._world, self._truth = world, truth
        self._seen: set[tuple[str, int, int, int]] = set()
        self.verdict = Verdict()

    def look(self) -> None:
        """Check each final name that has appeared since the last look."""
        for repo, name, path in self._names():
            info = path.stat()
            mark = (str(path), info.st_ino, info.st_mtime_ns, info.st_size)
            if mark in self._seen:
                continue
            self._seen.add(mark)
            if _digest(path) == self._truth[repo].get(name):
                continue
            if (info.st_dev, info.st_ino) in self._world.changed:
                # Before it was complete, or since: after its bytes were proven, nobody looks at them again.
                self._world.spoiled.add(repo)
            else:
                self._world.note(f"wrong: {path}, {info.st_size} bytes, inode {info.st_ino}")
                shutil.copy(path, self._world.folder / f"wrong-{len(self.verdict.wrong)}")
                self.verdict.wrong.add(str(path))

    def conclude(self, jobs: Mapping[str, JobStatus]) -> None:
        """Check everything, when all is said to be done."""
        self._seen.clear()
        self._world.changed.clear()
        self.look()
        for repo, files in self._truth.items():
            for folder in (root / repo.partition("/")[2] for root in self._world.roots):
                self.verdict.lost |= {str(folder / name) for name in files if not (folder / name).is_file()}
            self.verdict.counters |= set(self._disagreements(repo, jobs.get(repo)))
        self._look_below_the_nas()
        for log in self._world.folder.glob("*.err"):
            text = log.read_text()
            if found := _TRACE.search(text):
                self.verdict.traces.add(f"{log}:\n{text[found.start() :][:_EXCERPT]}")

    def _names(self) -> Iterator[tuple[str, str, Path]]:
        for repo in self._truth:
            for top in (*self._world.outputs, self._world.real_nas):
                folder = top / repo.partition("/")[2]
                for root, _, names in os.walk(folder):
                    for path in (Path(root, name) for name in names):
                        yield repo, str(path.relative_to(folder)), path

    def _disagreements(self, repo: str, job: JobStatus | None) -> Iterator[str]:
        if job is None:
            yield f"{repo}: there is no job"
            return
        count = len(self._truth[repo])
        source = self._world.sources[repo]
        size = sum((source / name).stat().st_size for name in self._truth[repo])
        expected = {
            "state": JobState.DONE,
            "files": count,
            "files_done": count,
            "bytes_total": size,
            "bytes_done": size,
            "delivered": count,
            "bytes_delivered": size,
            **dict.fromkeys(("owed", "pending", "active", "delayed", "held", "failed"), 0),
        }
        for name, value in expected.items():
            if (found := getattr(job, name)) != value:
                yield f"{repo}: {name} is {found}, not {value}"

    def _look_below_the_nas(self) -> None:
        """Find what was written where the NAS is not mounted."""
        if self._world.mounts:
            unmount(self._world.nas)
            self.verdict.wrong |= {str(path) for path in self._world.nas.rglob("*")}
