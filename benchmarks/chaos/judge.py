"""What must never happen: looked for while a round runs, and at its end."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import redis

from benchmarks.chaos.mounts import unmount_all
from benchmarks.chaos.world import World
from distributed_downloader.models import JobState, JobStatus
from distributed_downloader.storage.place import STATE
from tests.queue import invariants

#: What nobody should have to read, in the log of a worker or on a command's standard error.
_TRACE = re.compile("^(?:Traceback|Fatal Python error)(?s:.*)|^.*(?:internal error|panicked).*", re.MULTILINE)
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
    """What was found; all of it should be empty, but for what is excused."""

    lost: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    counters: set[str] = field(default_factory=set)
    hung: list[str] = field(default_factory=list)
    traces: set[str] = field(default_factory=set)
    #: Complete files that somebody else damaged, and that were seen so.
    excused: set[str] = field(default_factory=set)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.lost or self.wrong or self.counters or self.hung or self.traces)


class Judge:
    """Watches over one round."""

    def __init__(self, world: World, truth: Truth) -> None:
        self._world, self._truth = world, truth
        self._seen: set[tuple[str, int, int, int]] = set()
        self._is_over = False
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
            if self._is_excused(path, info):
                # Before it was complete, or since: after its bytes were proven, nobody looks at them again.
                self._world.spoiled.add(repo)
                self.verdict.excused.add(str(path))
            else:
                self._world.note(f"wrong: {path}, {info.st_size} bytes, inode {info.st_ino}")
                shutil.copy(path, self._world.folder / f"wrong-{len(self.verdict.wrong)}")
                self.verdict.wrong.add(str(path))

    def _is_excused(self, path: Path, info: os.stat_result) -> bool:
        """Return whether somebody changed the file; in the end only in a folder that need not have it."""
        needed = any(path.is_relative_to(root) for root in self._world.roots)
        return (info.st_dev, info.st_ino) in self._world.changed and not (self._is_over and needed)

    def look_into(self, client: redis.Redis, namespace: str) -> None:
        """Check what lies in Redis against the invariants of the queue, I1 to I13 in docs/queue.md."""
        try:
            invariants.check(invariants.take(client, namespace))
        except (AssertionError, LookupError, ValueError) as error:
            self.verdict.counters.add(f"{traceback.extract_tb(error.__traceback__)[-1].line}: {error}")

    def conclude(self, jobs: Mapping[str, JobStatus]) -> None:
        """Check everything, when all is said to be done."""
        self._seen.clear()
        self._is_over = True
        self.look()
        for repo, files in self._truth.items():
            for folder in (root / repo.partition("/")[2] for root in self._world.roots):
                self.verdict.lost |= {str(folder / name) for name in files if not (folder / name).is_file()}
            self.verdict.counters |= set(self._disagreements(repo, jobs.get(repo)))
        self._look_elsewhere()
        for log in self._world.folder.glob("*.err"):
            text = log.read_text()
            if found := _TRACE.search(text):
                self.verdict.traces.add(f"{log}:\n{found.group()[:_EXCERPT]}")

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

    def _look_elsewhere(self) -> None:
        """Find files where disks are not mounted, and in folders that nobody named.

        A worker makes its own folder where there is none, for that may be what its user wants.
        """
        for folder, _ in self._world.mounted:
            unmount_all(folder)
        for folder in self._world.forbidden:
            self.verdict.wrong |= {str(path) for path in folder.rglob("*") if _is_content(path)}


def _is_content(path: Path) -> bool:
    """Return whether it is a file that we write, and none of our marks, which tell whose a folder is.

    huggingface_hub's own folder does not count: it knows its path only, and makes it anew in mid-transfer.
    """
    inner = path.parts[path.parts.index(STATE) + 1 :] if STATE in path.parts else ()
    is_mark = inner[:1] in (("place",), ("repos",))
    return path.is_file() and not is_mark and not any(part.endswith(".staging") for part in inner)
