"""Decides which files of a listing are queued, and in which order (pure functions and a small state)."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from itertools import islice
from typing import NamedTuple, TypeVar

from distributed_downloader.models import RepoFile

T = TypeVar("T")

#: Bytes; what file systems allow for one name, and for a whole path.
LONGEST_NAME, LONGEST_PATH = 255, 4096
#: Our own folder beside the repos; see storage.py.
OWN_FOLDER = ".hf-downloader"
MIB = 1 << 20
#: Bytes of a part at least and at most, and what large parts are aligned to: mirrors cache in such blocks.
SMALLEST_PART, LARGEST_PART, BLOCK = 16 * MIB, 256 * MIB, 64 * MIB
#: Parts that each slot of the fleet gets, so that none has to wait long for the slowest.
PARTS_PER_SLOT = 4
#: How many refused files are told by name; the rest is only counted, so that memory stays bounded.
SKIPPED_SHOWN = 100


class Skipped(NamedTuple):
    """A file that is in the repo and will not be downloaded, and why."""

    path: str
    reason: str


def path_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Return a test for paths with the semantics of `huggingface_hub`'s allow and ignore patterns.

    Globs are case-sensitive, `*` also matches `/`, and `dir/` means everything below `dir`. No include
    pattern means everything; exclude wins over include.
    """
    wanted, unwanted = _any_of(include or ["*"]), _any_of(exclude)

    def accepts(path: str) -> bool:
        path = path.replace("\\", "/")
        return bool(wanted(path)) and not (exclude and unwanted(path))

    return accepts


def _any_of(patterns: Iterable[str]) -> Callable[[str], re.Match[str] | None]:
    globs = (pattern.replace("\\", "/") for pattern in patterns)
    return re.compile("|".join(translate(f"{glob}*" if glob.endswith("/") else glob) for glob in globs)).match


def danger(path: str) -> str:
    """Return why a path must not be used below a folder of ours, or "" if it may.

    The rules are those of the strictest file system in use, so that a repo behaves alike everywhere.
    """
    if _PLAIN(path):
        return ""
    parts = path.split("/")
    return next((reason for reason, applies in _DANGERS if applies(path, parts)), "")


#: What nearly all paths are like, so that a million of them are judged fast.
_PLAIN = re.compile(r"(?:[\w-][\w.-]{0,99}/){0,15}[\w-][\w.-]{0,99}", re.ASCII).fullmatch

#: In this order: a path with control characters or half a surrogate pair cannot be measured.
_DANGERS: tuple[tuple[str, Callable[[str, list[str]], bool]], ...] = (
    ("an absolute path", lambda path, _: path.startswith("/")),
    ("a backslash", lambda path, _: "\\" in path),
    ("a control character", lambda path, _: bool(re.search(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]", path))),
    ("an empty, '.' or '..' component", lambda _, parts: not {"", ".", ".."}.isdisjoint(parts)),
    ("a drive letter", lambda _, parts: any(re.match("[A-Za-z]:", part) for part in parts)),
    (
        "a name longer than 255 bytes",
        lambda _, parts: any(len(part.encode()) > LONGEST_NAME for part in parts),
    ),
    ("a path longer than 4096 bytes", lambda path, _: len(path.encode()) > LONGEST_PATH),
    (f"{OWN_FOLDER} is our own folder", lambda _, parts: _means_own_folder(parts[0])),
)


def _means_own_folder(name: str) -> bool:
    """Return whether some disk takes a name for that of our own folder.

    Disks ignore case, letters that are not seen (HFS+), and dots, spaces and what is behind a colon at the
    end (SMB); the last also know a short form.
    """
    seen = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    plain = unicodedata.normalize("NFKC", seen).casefold().partition(":")[0].rstrip(". ")
    return plain == OWN_FOLDER or re.fullmatch(r"hf-dow~\d|hf[0-9a-f]{4}~\d", plain) is not None


def in_chunks(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """Yield the items in their order, at most so many at a time."""
    source = iter(items)
    while chunk := list(islice(source, most)):
        yield chunk


def biggest_first(files: Iterable[RepoFile]) -> list[RepoFile]:
    """Return the files in the order that ends soonest: the biggest first, equals by path."""
    return sorted(files, key=lambda file: (-file.size, file.path))


def part_size(file_size: int, slots: int) -> int:
    """Return the bytes of a part, for a file of `file_size` bytes and a fleet of so many slots."""
    wanted = file_size / (PARTS_PER_SLOT * max(slots, 1))
    step = MIB if wanted <= BLOCK - MIB else BLOCK
    return min(max(math.ceil(wanted / step) * step, SMALLEST_PART), LARGEST_PART)


class Plan:
    """The way from a listing to the files to be queued, with what was noticed on it.

    `flat_name` tells what a file is called where all files lie in one folder; None where none has to.
    """

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        flat_name: Callable[[RepoFile], bytes] | None = None,
    ) -> None:
        self._accepts, self._chooses = path_filter(include, exclude), bool(include or exclude)
        self._flat_name = flat_name
        # Eight bytes for each flat name that is taken: 100 MB of memory for a million files.
        self._taken: set[bytes] = set()
        #: The first files that were refused, and how many there were in all.
        self.skipped: list[Skipped] = []
        self.skipped_count = 0
        #: Accepted files without a hash: only their size can be checked.
        self.unhashed = 0
        #: Pairs of paths that are one file on a disk that ignores case or the form of accents, as far as
        #: they were noticed.
        self.alike: list[tuple[str, str]] = []

    def pages(self, listing: Iterable[Iterable[RepoFile]]) -> Iterator[list[RepoFile]]:
        """Yield the accepted files, page by page, in the order of the listing; no page is empty.

        A file is dropped if its path came on the same page or on the one before, which is where a hub
        repeats itself when a page boundary moves. One that comes again later is queued again; that is
        harmless, for the worker finds the file there and verified. So memory does not grow.
        """
        before: dict[str, set[str]] = {}
        for page in listing:
            here: dict[str, set[str]] = {}
            new = (file for file in page if self._is_new(file, here, before))
            accepted = [file for file in map(self._accept, new) if file]
            before = here
            if accepted:
                yield accepted

    @property
    def is_whole(self) -> bool:
        """Whether all files of the listing are queued, each with its hash."""
        return not (self._chooses or self.skipped_count or self.unhashed)

    def _is_new(self, file: RepoFile, here: dict[str, set[str]], before: dict[str, set[str]]) -> bool:
        """Return whether the path is new, and note those that differ in nothing but case or accents' form."""
        folded = file.path.casefold()
        if not folded.isascii():
            folded = unicodedata.normalize("NFC", folded)
        kin = before.get(folded, set()) | here.get(folded, set())
        here.setdefault(folded, set()).add(file.path)
        if file.path in kin:
            return False
        if kin and len(self.alike) < SKIPPED_SHOWN:
            self.alike.append((min(kin), file.path))
        return True

    def _accept(self, file: RepoFile) -> RepoFile | None:
        """Return the file as it is to be queued; None if it is not."""
        wanted = self._accepts(file.path)
        if not (wanted or self._flat_name):
            return None
        reason = danger(file.path)
        # Files that are not wanted have names too: jobs with other filters must not give theirs away.
        named = None if reason else self._named(file)
        if not wanted:
            return None
        if named is None:
            self._skip(file, reason or "its name on the NAS is taken, and [nas] preserve_structure is off")
            return None
        self.unhashed += not (file.sha256 or file.git_sha1)
        return named

    def _named(self, file: RepoFile) -> RepoFile | None:
        """Return the file, marked if an earlier one has its flat name; None if that does not help.

        Names are compared as by a disk that ignores case.
        """
        if self._flat_name is None:
            return file
        for candidate in (file, file.model_copy(update={"clash": True})):
            name = self._flat_name(candidate).decode().casefold()
            digest = hashlib.sha256(name.encode()).digest()[:8]
            if digest not in self._taken:
                self._taken.add(digest)
                return candidate
        return None

    def _skip(self, file: RepoFile, reason: str) -> None:
        self.skipped_count += 1
        if len(self.skipped) < SKIPPED_SHOWN:
            self.skipped.append(Skipped(file.path, reason))
