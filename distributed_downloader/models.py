"""The product's nouns: what lies in Redis, and what `status` shows."""

from __future__ import annotations

import enum
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from distributed_downloader.checks import Count, Endpoint, Folder, PlaceId, number, plain
from distributed_downloader.errors import RefusedError
from distributed_downloader.outage import Absence

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
GitSha1 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Commit = GitSha1
#: Repo ids as the hub allows them: `name` or `org/name` (huggingface_hub utils/_validators.py).
#: ASCII classes, because a Unicode `\w{0,95}` takes a quarter of a second to compile.
RepoId = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?$")
]

_TOKEN = re.compile(r"(\d{1,16})\.(\d{1,16})\.(\d{1,16})", re.ASCII)
#: What lies in Redis of nearly all files: `size TAB hash TAB path`, the path as checks.plain wants it.
_PLAIN_LINE = re.compile(r"([0-9]{1,16})\t([0-9a-f]*)\t([^\0-\x1f\x7f-\x9f\ud800-\udfff]+)")


class RepoType(str, enum.Enum):
    """What kind of repo; decides the address and nothing else."""

    MODEL = "model"
    DATASET = "dataset"
    SPACE = "space"


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


class Model(BaseModel):
    """Base of all models: immutable, and strict about unknown fields and numbers that are none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RepoFile(Model):
    """One file of a repo, with the hash that proves its content.

    `sha256` for LFS and Xet files, `git_sha1` (of `blob <size>\\0` + content) for the rest,
    neither where the hub masks them.
    """

    path: str = Field(min_length=1)
    size: Count
    sha256: Sha256 | None = None
    git_sha1: GitSha1 | None = None
    #: Whether another file of the job has the same name, which matters where folders are not kept.
    clash: bool = False

    def to_line(self) -> str:
        """Return the descriptor that lies in Redis: `size TAB hash TAB path`, and maybe `TAB clash`."""
        clash = "\tclash" if self.clash else ""
        return f"{self.size}\t{self.sha256 or self.git_sha1 or ''}\t{self.path}{clash}"


def _file(size: int, digest: str, path: str) -> dict[str, object]:
    """Return what a RepoFile is validated from."""
    return {"path": path, "size": size, "sha256" if len(digest) == 64 else "git_sha1": digest or None}


class Part(Model):
    """A byte range of a split file; `seal` is the task that waits for it."""

    start: Count
    length: int = Field(ge=1)
    seal: Count

    @property
    def end(self) -> int:
        """The byte behind the last one."""
        return self.start + self.length


class Descriptor(Model):
    """What a task is about, as it lies in Redis in one line.

    `size TAB hash TAB path` is a whole file; `TAB place=ID` after it makes it the seal of a split file,
    `TAB part=START+LENGTH TAB seal=TASK TAB place=ID` a part of one. `TAB clash` may stand behind the path.
    """

    file: RepoFile
    part: Part | None = None
    #: Id of the folder in which a split file is put together; see storage/place.py.
    place: PlaceId = ""

    @classmethod
    def from_line(cls, line: str) -> Descriptor:
        """Parse a descriptor; raises ValueError (pydantic's included) for anything else."""
        if match := _PLAIN_LINE.fullmatch(line):
            size, digest, path = match.groups()
            return cls.model_validate({"file": _file(int(size), digest, path)})
        size, digest, path, *words = line.split("\t")
        pairs = [word.partition("=")[::2] for word in words]
        extra = dict(pairs)
        if len(extra) < len(pairs) or not extra.keys() <= {"clash", "part", "seal", "place"}:
            raise ValueError(f"unknown words in a descriptor: {words!a}")
        file = _file(number(size), digest, plain(path)) | {"clash": "clash" in extra}
        part = None
        if "part" in extra:
            start, length = extra["part"].split("+")
            part = {"start": number(start), "length": number(length), "seal": number(extra.get("seal", ""))}
        return cls.model_validate({"file": file, "part": part, "place": extra.get("place", "")})

    @model_validator(mode="after")
    def _fits(self) -> Descriptor:
        if self.part and (not self.place or self.part.end > self.file.size):
            raise ValueError("a part must lie within its file, and name a place")
        return self

    @property
    def is_seal(self) -> bool:
        """Whether the task is to put a split file together."""
        return bool(self.place) and self.part is None

    @property
    def size(self) -> int:
        """Bytes that the task fetches."""
        if self.part:
            return self.part.length
        return 0 if self.is_seal else self.file.size


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

    def identity(self) -> str:
        """Return a digest that is equal for the same repo, commit, filters and output."""
        only_how = {"revision", "endpoint", "place", "nas", "split_over", "part_size"}
        parts = self.model_dump(mode="json", exclude=only_how | (set() if self.flat else {"flat"}))
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
    #: Tasks: whole files, parts of split files and their seals; the states below count these.
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
