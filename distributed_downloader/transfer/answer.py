"""Judges an answer of the hub before a byte of it is written: is this the file, and from which byte on?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from distributed_downloader.errors import CorruptError, EngineError, RangeError
from distributed_downloader.models import DownloadTask, RepoFile
from distributed_downloader.response import Response

_HTML_NAMES = (".html", ".htm", ".xhtml")


class Body(NamedTuple):
    """Which bytes of the file an answer carries: from `start` to before `end`."""

    start: int
    end: int


def accept(response: Response, offset: int, file: RepoFile, *, is_part: bool = False) -> Body:
    """Return what an answer with status 200 or 206 carries; for a part of a file, only 206 will do.

    Raises RangeError if it is not what was asked for, CorruptError if it is not the file.
    """
    refuse_compressed(response.headers, file.path)
    if response.status == 206:
        return _accept_part(response.headers, offset, file)
    if response.status != 200:
        raise EngineError(f"{file.path}: the hub answers {response.status}, and 200 or 206 was wanted")
    if is_part:
        refuse_page(response, file, has_commit=True)  # which says nothing about ranges
        raise RangeError(f"{file.path}: asked for the bytes from {offset} on, got an answer without a range")
    length = response.headers.get("Content-Length", "")
    if length and length != str(file.size):
        raise CorruptError(
            f"{file.path}: {length[:20]!a} bytes{_page(response)} were about to come, "
            f"the hub lists {file.size}"
        )
    return Body(0, file.size)


def refuse_compressed(headers: Mapping[str, str], path: str) -> None:
    """Raise CorruptError for a body in another form than was asked for."""
    encoding = headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise CorruptError(f"{path}: came compressed ({encoding[:20]!a}), though that was not asked for")


def _accept_part(headers: Mapping[str, str], offset: int, file: RepoFile) -> Body:
    said = headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", said.strip(), re.ASCII)
    if not match:
        raise RangeError(f"{file.path}: a part came that does not say which (Content-Range {said[:80]!a})")
    start, end = int(match[1]), int(match[2]) + 1
    if match[3] not in ("*", str(file.size)):
        raise CorruptError(f"{file.path}: is a part of {match[3]} bytes, the hub lists {file.size}")
    if start != offset or not start < end <= file.size:
        raise RangeError(f"{file.path}: asked for the bytes from {offset} on, got {said[:80]!a}")
    if headers.get("Content-Length", str(end - start)) != str(end - start):
        raise RangeError(f"{file.path}: a part came whose length is not that of {said!r}")
    return Body(start, end)


def check_commit(response: Response, task: DownloadTask) -> bool:
    """Return whether the hub said which commit this is; raises CorruptError if it is another one."""
    wanted, said = task.spec.commit, ""
    for headers in _all(response):
        said = headers.get("X-Repo-Commit") or said
        if said and said != wanted:
            raise CorruptError(f"{task.file.path}: came from commit {said[:12]!a}, not from {wanted[:12]}")
    return bool(said)


def described(response: Response, file: RepoFile) -> RepoFile | None:
    """Return `file` with the hash that the hub's headers name for it, if they do.

    It is there even where the listing hides it. Only the hub's own ETag is a hash of the
    content, so headers without the hub's X-Repo-Commit say nothing.
    """
    for headers in _all(response):
        if "X-Repo-Commit" in headers:
            etag = headers.get("X-Linked-Etag") or headers.get("ETag", "")
            if known := with_digest(file, etag.removeprefix("W/").strip('"')):
                return known
    return None


def with_digest(file: RepoFile, digest: str) -> RepoFile | None:
    """Return `file` with the hash that the hub's ETag is; None if it is none."""
    if re.fullmatch(r"[0-9a-f]{64}", digest):
        return file.model_copy(update={"sha256": digest})
    if re.fullmatch(r"[0-9a-f]{40}", digest):
        return file.model_copy(update={"git_sha1": digest})
    return None


def refuse_page(response: Response, file: RepoFile, *, has_commit: bool) -> None:
    """Raise CorruptError for what looks like an error page; for files that no hash proves."""
    may_be_html = has_commit and file.path.lower().endswith(_HTML_NAMES)
    if _page(response) and not may_be_html:
        raise CorruptError(f"{file.path}: a web page came in its place; is a login or a proxy in between?")


def _page(response: Response) -> str:
    is_html = response.headers.get("Content-Type", "").lower().startswith("text/html")
    return " of a web page" if is_html else ""


def _all(response: Response) -> list[Mapping[str, str]]:
    return [*response.hops, response.headers]
