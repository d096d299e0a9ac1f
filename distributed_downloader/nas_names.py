"""What a repo's files are called on the NAS, in folders or flat (pure functions)."""

from __future__ import annotations

import hashlib
import os

from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.plan import LONGEST_NAME
from distributed_downloader.storage.disk import names

#: Bytes; what is longer is no file type but a name with a dot in it.
_LONGEST_SUFFIX = 32


def nas_parts(spec: JobSpec, file: RepoFile) -> list[bytes]:
    """Return the components of the file's path below the NAS.

    `org/name/path`, or where the job's layout is flat: `org/name_basename`, with a digest of the path where
    another file of the job has the same name or the name gets too long. Raises RefusedError for a path
    that is not safe.
    """
    *org, name = names(spec.repo_id)
    inside = names(file.path)
    if not spec.flat:
        return [*org, name, *inside]
    return [*org, _flat(name + b"_" + inside[-1], len(name) + 1, file)]


def namesakes(spec: JobSpec, name: bytes) -> list[str]:
    """Return the other repos that a flat file of that name may belong to: `a_b_c` is also b_c of repo a."""
    *org, own = spec.repo_id.split("/")
    text = name.decode()
    heads = [text[:at] for at, letter in enumerate(text) if letter == "_" and at]
    return ["/".join([*org, head]) for head in heads if head != own]


def _flat(plain: bytes, prefix: int, file: RepoFile) -> bytes:
    """Return `plain`, or its digest form; its first `prefix` bytes are the repo's."""
    if not file.clash and len(plain) <= LONGEST_NAME:
        return plain
    stem, suffix = os.path.splitext(plain[prefix:])  # noqa: PTH122 - the name is bytes
    if len(suffix) > _LONGEST_SUFFIX:
        stem, suffix = stem + suffix, b""
    end = b".%s%s" % (hashlib.sha256(file.path.encode()).hexdigest()[:12].encode(), suffix)
    start = plain[:prefix] + stem
    return _cut(start, LONGEST_NAME - len(end)) + end


def _cut(name: bytes, longest: int) -> bytes:
    """Return at most so many bytes of a name, and no half letter."""
    return name[:longest].decode(errors="ignore").encode() if len(name) > longest else name
