"""The product's nouns: what lies in Redis, and what `status` shows."""

from __future__ import annotations

import enum
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import StringConstraints

from distributed_downloader.checks import Count, Endpoint, Folder, Model, PlaceId
from distributed_downloader.descriptor import Descriptor, GitSha1, Part, RepoFile, Sha256
from distributed_downloader.errors import RefusedError
from distributed_downloader.outage import Absence

__all__ = [
    "Commit",
    "Descriptor",
    "DownloadTask",
    "Failure",
    "JobSpec",
    "JobState",
    "JobStatus",
    "Layout",
    "Model",
    "Part",
    "RepoFile",
    "RepoId",
    "RepoType",
    "Sha256",
    "TaskStatus",
    "Token",
    "Transfer",
    "WorkerStatus",
]

Commit = GitSha1
#: Repo ids as the hub allows them: `name` or `org/name` (huggingface_hub utils/_validators.py).
#: ASCII classes, because a Unicode `\w{0,95}` takes a quarter of a second to compile.
RepoId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?$")
]

_TOKEN = re.compile(r"(\d{1,16})\.(\d{1,16})\.(\d{1,16})", re.ASCII)


class RepoType(str, enum.Enum):
    """What kind of repo; decides the address and nothing else."""

    MODEL = "model"
    DATASET = "dataset"
    SPACE = "space"


class Layout(str, enum.Enum):
    """How a repo's files lie in an output folder; layout.py has the names."""

    #: `<org>/<name>/<path>`, and nothing else.
    TREE = "tree"
    #: The same, as `hf download --local-dir <org>/<name>` leaves it.
    LOCAL_DIR = "local-dir"
    #: As huggingface_hub keeps its cache.
    HF_CACHE = "hf-cache"


class JobState(str, enum.Enum):
    """Where a job stands."""

    RUNNING = "running"
    PAUSED = "paused"
    #: All is downloaded, and not all of it is on the NAS yet.
    DELIVERING = "delivering"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens unless somebody asks for it."""
        return self in (JobState.CANCELLED, JobState.DONE, JobState.FAILED)


class TaskStatus(str, enum.Enum):
    """Where a task stands; see docs/architecture.md for the arrows between them."""

    PENDING = "pending"
    ACTIVE = "active"
    DELAYED = "delayed"
    HELD = "held"
    FAILED = "failed"
    DONE = "done"


class JobSpec(Model):
    """What a job fetches and where it puts it."""

    repo_type: RepoType
    repo_id: RepoId
    #: The revision as the user named it; `commit` is what it was pinned to.
    revision: str
    commit: Commit
    #: Where to fetch from; not part of the job's identity, for the commit pins the content.
    endpoint: Endpoint
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    #: Absolute folder for all workers, or "" for each worker's own `[app] output_dir`.
    output_dir: Folder = ""
    #: Id of `output_dir`, which the master has left there for the workers to see; "" where it could not.
    place: PlaceId = ""
    #: Id of the NAS as the master sees it; "" if it sees none.
    nas: PlaceId = ""
    #: Whether the NAS holds `<org>/<name>_<basename>` instead of `<org>/<name>/<path>`.
    flat: bool = False
    #: Files of more bytes are fetched in parts where the workers share a folder; 0 = none.
    split_over: Count = 0
    #: Bytes of a part; 0 = as it suits file and fleet.
    part_size: Count = 0
    layout: Layout = Layout.TREE
    #: Whether files are fetched that are there already.
    force: bool = False
    #: How the files are checked that are there, by hash or by size; "" = the job fetches files.
    check: Literal["", "hash", "size"] = ""
    #: What makes this a job of its own, whatever ran before; "" for a job that is found again.
    run: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{0,32}$")] = ""

    def identity(self) -> str:
        """Return a digest that is equal for the same repo, commit, filters, output and layout."""
        only_how = {"revision", "endpoint", "place", "nas", "split_over", "part_size"}
        only_how |= {"force", "check"}  # `run` tells such a job from any other
        usual = {"flat": False, "layout": Layout.TREE, "run": ""}
        only_how |= {name for name, value in usual.items() if getattr(self, name) == value}
        parts = self.model_dump(mode="json", exclude=only_how)
        parts["include"], parts["exclude"] = sorted(self.include), sorted(self.exclude)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class Token(NamedTuple):
    """`<job>.<task>.<epoch>`: what lies in the queues; the epoch is the fence."""

    job: int
    task: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.job}.{self.task}.{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Parse a token; raises RefusedError for anything else."""
        match = _TOKEN.fullmatch(text)
        if not match:
            raise RefusedError(f"{text[:80]!a} in Redis is not a task token; something else writes there")
        return cls(*map(int, match.groups()))


@dataclass(frozen=True, slots=True)
class DownloadTask:
    """One claimed task: the unit that a worker's slot runs; its pieces are validated already."""

    token: Token
    spec: JobSpec
    about: Descriptor
    #: Failures so far, and those because of a host that was away.
    tries: int = 0
    away: int = 0
    #: Seconds to wait before asking the hub, because it told some worker to pause.
    hold: float = 0

    def __post_init__(self) -> None:
        if min(self.tries, self.away, self.hold) < 0:
            raise ValueError("tries and pauses cannot be negative")

    @property
    def file(self) -> RepoFile:
        """The file that the task is about."""
        return self.about.file

    @property
    def name(self) -> str:
        """What people call the task: the file's path, and of a part its MiB."""
        return self.name_of(None)

    def name_of(self, length: int | None) -> str:
        """Return the name of a part that has another length by now; None if it has not."""
        part = self.about.part
        if not part:
            return self.file.path
        end = part.start + (part.length if length is None else length)
        return f"{self.file.path} [{_mib(part.start)}-{_mib(end)} MiB]"


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f}".removesuffix(".0")


class Transfer(Model):
    """One transfer as its worker reports it."""

    job: int
    task: int
    path: str
    #: Bytes of the file or part; of a seal, what it has to read.
    size: int
    #: First byte of the part, None for a whole file.
    start: int | None = None
    #: Whether the bytes are only read and checked.
    sealing: bool = False
    bytes_done: int
    bytes_per_second: float = 0


class WorkerStatus(Model):
    """One worker as it describes itself; `lease` comes from Redis."""

    id: str
    host: str
    pid: int
    version: str
    slots: int
    started_at: float
    transfers: tuple[Transfer, ...] = ()
    #: Why the worker claims nothing at the moment, or "".
    trouble: str = ""
    #: Id of the worker's own output folder: equal ids are one folder; "" if it has none yet.
    folder: str = ""
    #: Id of the NAS as the worker sees it; "" if it delivers to none, or does not see it.
    nas: str = ""
    #: Why files do not get to the NAS at the moment, or "".
    nas_trouble: str = ""
    #: The last time without Redis.
    absence: Absence | None = None
    #: Seconds until the worker is taken for dead.
    lease: float = 0


class Failure(Model):
    """Why a task failed, as kept in Redis."""

    path: str
    error: str
    host: str
    tries: int
    #: Unix time of the last try.
    at: float
    #: Bytes of the file that lie on `host`, if it is to go on from them.
    kept: Count = 0
    #: What a check found.
    found: Literal["", "missing", "wrong"] = ""


class JobStatus(Model):
    """One job, in counters; reading it costs the same for ten files and ten million."""

    id: int
    spec: JobSpec
    state: JobState
    #: Whether the listing is complete; until then the totals still grow.
    listed: bool
    #: Seconds since the listing last grew; 0 when it is complete.
    listing_silent: float = 0
    weight: int
    #: Tasks: whole files, parts of split files and their seals; the states below count these, and the closing
    #: of the job from when its turn has come until it is done.
    total: int
    pending: int
    active: int
    delayed: int
    held: int
    failed: int
    done: int
    #: How many of `total` and of `done` are parts.
    parts: int = 0
    parts_done: int = 0
    bytes_total: int
    bytes_done: int
    #: Files that are downloaded and wait for the NAS, and files that are there.
    owed: int = 0
    delivered: int = 0
    bytes_delivered: int = 0
    #: Why large files are not split, or "".
    unsplit: str = ""
    #: Why no living worker can go on with the job, or "".
    blocked: str = ""
    #: Files that are no files of the repo, as a check found them: the first, and how many.
    extra: tuple[str, ...] = ()
    extra_count: int = 0
    created_at: float
    ended_at: float | None = None

    @property
    def files(self) -> int:
        """How many files the job has, as far as it is listed."""
        return self.total - self.parts

    @property
    def files_done(self) -> int:
        """How many of them are complete."""
        return self.done - self.parts_done
