"""The product's nouns: what lies in Redis, and what `status` shows."""

from __future__ import annotations

import enum
import hashlib
import json
import re
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from distributed_downloader.errors import RefusedError

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
GitSha1 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Commit = GitSha1
#: Repo ids as the hub allows them: `name` or `org/name` (huggingface_hub utils/_validators.py).
#: ASCII classes, because a Unicode `\w{0,95}` takes a quarter of a second to compile.
RepoId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?$")
]


class RepoType(str, enum.Enum):
    """What kind of repo; decides the address and nothing else."""

    MODEL = "model"
    DATASET = "dataset"
    SPACE = "space"


class JobState(str, enum.Enum):
    """Where a job stands."""

    RUNNING = "running"
    PAUSED = "paused"
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


class Model(BaseModel):
    """Base of all models: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RepoFile(Model):
    """One file of a repo, with the hash that proves its content.

    `sha256` for LFS and Xet files, `git_sha1` (of `blob <size>\\0` + content) for the rest,
    neither where the hub masks them.
    """

    path: str = Field(min_length=1)
    size: int = Field(ge=0)
    sha256: Sha256 | None = None
    git_sha1: GitSha1 | None = None

    def to_line(self) -> str:
        """Return the descriptor that lies in Redis: `size TAB hash TAB path`."""
        return f"{self.size}\t{self.sha256 or self.git_sha1 or ''}\t{self.path}"

    @classmethod
    def from_line(cls, line: str) -> RepoFile:
        """Parse a descriptor; raises ValueError (pydantic's included) for anything else."""
        size, digest, path = line.split("\t", 2)
        key = "sha256" if len(digest) == 64 else "git_sha1"
        return cls.model_validate({"path": path, "size": int(size), key: digest or None})


class JobSpec(Model):
    """What a job fetches and where it puts it."""

    repo_type: RepoType
    repo_id: RepoId
    #: The revision as the user named it; `commit` is what it was pinned to.
    revision: str
    commit: Commit
    #: Where to fetch from; not part of the job's identity, for the commit pins the content.
    endpoint: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    #: Absolute folder for all workers, or "" for each worker's own `[app] output_dir`.
    output_dir: str = ""

    def identity(self) -> str:
        """Return a digest that is equal for the same repo, commit, filters and output."""
        parts = self.model_dump(mode="json", exclude={"revision", "endpoint"})
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
        if not re.fullmatch(r"\d+\.\d+\.\d+", text, re.ASCII):
            raise RefusedError(f"{text!r} in Redis is not a task token; something else writes there")
        return cls(*map(int, text.split(".")))


class DownloadTask(Model):
    """One claimed task: the unit that a worker's slot runs."""

    token: Token
    spec: JobSpec
    file: RepoFile
    #: Failures so far.
    tries: int = Field(default=0, ge=0)
    #: Seconds to wait before asking the hub, because it told some worker to pause.
    hold: float = Field(default=0, ge=0)


class Transfer(Model):
    """One transfer as its worker reports it."""

    job: int
    task: int
    path: str
    size: int
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
    total: int
    pending: int
    active: int
    delayed: int
    held: int
    failed: int
    done: int
    bytes_total: int
    bytes_done: int
    created_at: float
    ended_at: float | None = None


class FileStatus(Model):
    """One file of a job, where it stands and on which host it lies."""

    path: str
    size: int
    status: TaskStatus
    host: str = ""
    error: str = ""


class QueueStatus(Model):
    """The whole queue in counters."""

    ready: int
    delayed: int
    parked: int
    workers: int
    slots: int
    jobs: dict[str, int]
