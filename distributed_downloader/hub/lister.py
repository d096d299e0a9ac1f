"""Lists the files of a repo page by page, whatever the hub or a mirror does to its pages."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Annotated, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from distributed_downloader.errors import RefusedError, ServerError
from distributed_downloader.hub.api import HubApi
from distributed_downloader.imports import whole_imports
from distributed_downloader.models import RepoFile, RepoType

log = logging.getLogger(__name__)

#: The most paths that the hub accepts in one `paths-info` request.
PATHS_PER_REQUEST = 1000
#: How many entries a page of the tree has, unless it is the last.
FULL_PAGE = 1000
#: Bytes; far above what the hub stores (500 GB), and so low that sums in Redis stay exact.
LARGEST_FILE = 2**50
#: Entries of the longest listing that is read, and bytes of their names: a hub that lists for ever must
#: fill neither our memory nor Redis. A page counts as ten entries at least.
MOST_ENTRIES, MOST_NAMES = 10_000_000, 2 << 30

T = TypeVar("T")
Size = Annotated[int, Field(strict=True, ge=0, le=LARGEST_FILE)]


class _Lfs(BaseModel):
    oid: str | None = None
    size: Size | None = None


class _Entry(BaseModel):
    """A file or folder as `tree` and `paths-info` describe it; what else they say is ignored."""

    type: str
    path: str = Field(min_length=1)
    size: Size | None = None
    oid: str | None = None
    lfs: _Lfs | None = None

    @property
    def is_file(self) -> bool:
        return self.type != "directory"

    @property
    def full_size(self) -> int | None:
        """The content's size; never that of an LFS pointer."""
        return self.lfs.size if self.lfs and self.lfs.size is not None else self.size

    def to_file(self) -> RepoFile | None:
        """Return the file, or None without a size; hashes that are masked with stars are left out."""
        if self.full_size is None:
            return None
        # The `oid` of an LFS file is that of its pointer, and proves nothing about the content.
        git, sha256 = (None, self.lfs.oid) if self.lfs else (self.oid, None)
        return RepoFile(
            path=self.path,
            size=self.full_size,
            sha256=sha256 if sha256 and re.fullmatch("[0-9a-f]{64}", sha256) else None,
            git_sha1=git if git and re.fullmatch("[0-9a-f]{40}", git) else None,
        )


class _Sibling(BaseModel):
    rfilename: str = Field(min_length=1)


class _RepoInfo(BaseModel):
    siblings: list[_Sibling]


_ENTRIES = TypeAdapter(list[_Entry])
_INFO = TypeAdapter(_RepoInfo)


class Lister:
    """The listing of one repo at one commit."""

    def __init__(self, api: HubApi, repo_type: RepoType, repo_id: str, commit: str) -> None:
        self._api = api
        self._repo = f"{repo_type.value}s/{quote(repo_id)}"
        self._commit = quote(commit, safe="")
        self._what = f"the listing of {repo_type.value}s/{repo_id}"
        self._cancel = api.cancel.child()

    def pages(self) -> Generator[list[RepoFile], None, None]:
        """Yield the files in the hub's order, page by page; the next page is fetched meanwhile.

        Raises ServerError for an answer that is no listing, RefusedError for one that is too long, and
        whatever `HubApi.call` raises.
        """
        with ThreadPoolExecutor(1, "lister") as pool:
            pages = self._all_pages()
            try:
                future = pool.submit(next, pages, None)
                while (page := future.result()) is not None:
                    future = pool.submit(next, pages, None)
                    yield page
            finally:
                self._cancel.set("nobody reads the listing any more")

    def _all_pages(self) -> Iterator[list[RepoFile]]:
        """Yield the pages of the tree, and the rest in another way if the tree goes round in circles."""
        # Eight bytes for each page of a thousand files: 100 kB of memory for a million files.
        seen: set[bytes] = set()
        size = 0
        for entries in self._tree():
            digest, size = _digest(entries), len(entries)
            if digest in seen:
                yield from self._without_tree(seen)
                return
            seen.add(digest)
            yield self._files(entries)
        # A mirror may drop the link to the next page; a first page that is just full is suspicious.
        if len(seen) == 1 and size == FULL_PAGE:
            yield from self._without_tree(seen)

    def _tree(self) -> Iterator[list[_Entry]]:
        query: str | None = "recursive=true&expand=false"
        length = _Length(self._what)
        while query is not None:
            answer = self._api.call(
                f"{self._repo}/tree/{self._commit}?{query}", self._what, cancel=self._cancel
            )
            entries = self._parse(_ENTRIES, answer.data)
            length.add(entries)
            yield entries
            query = _next_query(answer.headers.get("Link", ""))

    def _without_tree(self, seen: set[bytes]) -> Iterator[list[RepoFile]]:
        """Yield what the pages that were seen lack, by the names in the repo's summary."""
        info = self._api.call(f"{self._repo}/revision/{self._commit}", self._what, cancel=self._cancel)
        names = dict.fromkeys(sibling.rfilename for sibling in self._parse(_INFO, info.data).siblings)
        listed: set[str] = set()
        again: set[bytes] = set()
        for entries in islice(self._tree(), len(seen)):
            again.add(_digest(entries))
            listed.update(entry.path for entry in entries if entry.is_file)
        if again != seen or not listed <= names.keys():
            raise ServerError(
                f"{self._what}: this mirror can neither turn pages nor sum up; use another --endpoint"
            )
        rest = [name for name in names if name not in listed]
        if rest:
            log.warning(
                "%s: this mirror cannot turn pages. %d more files are known from the repo's summary, which "
                "the hub cuts short for repos of many thousand files: for those use another --endpoint",
                self._what,
                len(rest),
            )
        for batch in _batches(rest, PATHS_PER_REQUEST):
            yield self._files(self._paths_info(batch))

    def _files(self, entries: Iterable[_Entry]) -> list[RepoFile]:
        """Return the files among the entries, asking again for sizes that lack."""
        files = {entry.path: entry.to_file() for entry in entries if entry.is_file}
        unknown = [path for path, file in files.items() if file is None]
        for batch in _batches(unknown, PATHS_PER_REQUEST):
            files.update({entry.path: entry.to_file() for entry in self._paths_info(batch)})
        for path, file in files.items():
            if file is None:
                raise ServerError(f"{self._what} does not tell the size of {path!r}")
        return [file for file in files.values() if file is not None]

    def _paths_info(self, paths: Sequence[str]) -> list[_Entry]:
        """Return what the hub says about each of the paths; ServerError if it leaves one out."""
        form = urlencode([("paths", path) for path in paths] + [("expand", "false")]).encode()
        answer = self._api.call(
            f"{self._repo}/paths-info/{self._commit}", self._what, form=form, cancel=self._cancel
        )
        told = {entry.path: entry for entry in self._parse(_ENTRIES, answer.data)}
        for path in paths:
            if path not in told:
                raise ServerError(f"{self._what} has {path!r}, but the hub tells nothing about it")
        return [told[path] for path in paths]

    def _parse(self, adapter: TypeAdapter[T], data: object) -> T:
        try:
            return adapter.validate_python(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise ServerError(
                f"{self._what} cannot be read: {where}: {first['msg']}; is --endpoint a hub?"
            ) from error


def _next_query(link: str) -> str | None:
    """Return the query of the next page's address, or None on the last page.

    Only the query is taken: upstream's host, scheme and path are not ours behind a mirror, and neither a
    request nor a token must go there.
    """
    for part in _links(link) if link else ():
        if part.get("rel") == "next":
            with suppress(ValueError):  # it is no address
                return urlsplit(part["url"]).query or None
    return None


def _links(header: str) -> list[dict[str, str]]:
    with whole_imports():  # only now: a worker lists nothing
        from requests.utils import parse_header_links  # noqa: PLC0415
    return parse_header_links(header)


class _Length:
    """How long a listing is by now."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._entries = self._names = 0

    def add(self, entries: Sequence[_Entry]) -> None:
        """Count a page; raises RefusedError."""
        self._entries += max(len(entries), 10)
        self._names += sum(len(entry.path.encode()) for entry in entries)
        if self._entries > MOST_ENTRIES or self._names > MOST_NAMES:
            raise RefusedError(
                f"{self._what} has more than {MOST_ENTRIES:,} entries, or {MOST_NAMES:,} bytes of names, "
                "and is read no further; is --endpoint a hub?"
            )


def _digest(entries: Sequence[_Entry]) -> bytes:
    return hashlib.sha256("\n".join(entry.path for entry in entries).encode()).digest()[:8]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
