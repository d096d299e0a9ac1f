"""What a task is about: a file with its hash, a part of one, or the closing of a job; one line in Redis."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StringConstraints, model_validator

from distributed_downloader.checks import Count, Model, PlaceId, number, plain

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
GitSha1 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
#: What lies in Redis of nearly all files: `size TAB hash TAB path`, the path as checks.plain wants it.
_PLAIN_LINE = re.compile(r"([0-9]{1,16})\t([0-9a-f]*)\t([^\0-\x1f\x7f-\x9f\ud800-\udfff]+)")


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


class Extra(Model):
    """Files in a repo's folder that are none of its own."""

    count: Count = 0
    #: The first of them.
    first: tuple[str, ...] = ()


class DoneFile(NamedTuple):
    """A file of a job that is complete."""

    file: RepoFile
    host: str
    #: Unix time at which that was reported.
    at: float


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


#: What people read where a file's path would stand.
_CLOSING = "the closing of the job"


class Descriptor(Model):
    """What a task is about, as it lies in Redis in one line.

    `size TAB hash TAB path` is a whole file; `TAB place=ID` after it makes it the seal of a split file,
    `TAB part=START+LENGTH TAB seal=TASK TAB place=ID` a part of one. `TAB clash` may stand behind the path.
    `TAB closing=some` or `whole` makes it the task that closes a job of some or all files of a repo.
    """

    file: RepoFile
    part: Part | None = None
    #: Id of the folder in which a split file is put together; see storage/place.py.
    place: PlaceId = ""
    closing: Literal["", "some", "whole"] = ""

    @classmethod
    def of_closing(cls, *, whole: bool) -> Descriptor:
        """Return the last task of a job, of a repo's whole listing or of some of its files."""
        return cls(file=RepoFile(path=_CLOSING, size=0), closing="whole" if whole else "some")

    def to_line(self) -> str:
        """Return the line of a whole file, or of a closing; the queue makes those of parts and seals."""
        return self.file.to_line() + (f"\tclosing={self.closing}" if self.closing else "")

    @classmethod
    def from_line(cls, line: str) -> Descriptor:
        """Parse a descriptor; raises ValueError (pydantic's included) for anything else."""
        if match := _PLAIN_LINE.fullmatch(line):
            size, digest, path = match.groups()
            return cls.model_validate({"file": _file(int(size), digest, path)})
        size, digest, path, *words = line.split("\t")
        pairs = [word.partition("=")[::2] for word in words]
        extra = dict(pairs)
        if len(extra) < len(pairs) or not extra.keys() <= {"clash", "part", "seal", "place", "closing"}:
            raise ValueError(f"unknown words in a descriptor: {words!a}")
        file = _file(number(size), digest, plain(path)) | {"clash": "clash" in extra}
        part = None
        if "part" in extra:
            start, length = extra["part"].split("+")
            part = {"start": number(start), "length": number(length), "seal": number(extra.get("seal", ""))}
        words_of_task = {"place": extra.get("place", ""), "closing": extra.get("closing", "")}
        return cls.model_validate({"file": file, "part": part, **words_of_task})

    @model_validator(mode="after")
    def _fits(self) -> Descriptor:
        if self.part and (not self.place or self.part.end > self.file.size):
            raise ValueError("a part must lie within its file, and name a place")
        if self.closing and (self.part or self.place):
            raise ValueError("what closes a job is neither a part nor a seal")
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
