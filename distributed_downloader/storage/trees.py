"""The listing of a commit as huggingface_hub keeps it, which tells the library whether a folder is complete.

`trees/<commit>.json`, format 1, in a repo's folder of the cache or in `.cache/huggingface` of a local folder
(huggingface_hub/_tree_cache.py, since 1.22). It names all files of the commit, so some of them have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator

from distributed_downloader.models import RepoFile
from distributed_downloader.plan import in_chunks
from distributed_downloader.storage.disk import replace_file, sync_folder
from distributed_downloader.storage.root import Root

#: The files of a job, which may be many: read again whenever they are needed.
Files = Callable[[], Iterable[RepoFile]]
#: Files that are handled with all their folders open.
_BATCH = 200


def in_batches(files: Iterable[RepoFile]) -> Iterator[list[RepoFile]]:
    """Yield the files, few enough at a time to have the folders of all open."""
    return in_chunks(files, _BATCH)


def write_tree(root: Root, base: tuple[bytes, ...], commit: str, files: Iterable[RepoFile]) -> None:
    """Write the listing of a commit into the folder `base`; raises OSError."""
    with root:
        folder = root.enter((*base, b"trees"))
        replace_file(folder, f"{commit}.json".encode(), tree_lines(files))
        sync_folder(folder)


def tree_lines(files: Iterable[RepoFile]) -> Iterator[bytes]:
    """Yield the listing, a line for each file; all of them have a hash."""
    yield b'{\n "format_version": 1,\n "files": {'
    before = b"\n"
    for file in files:
        yield before + f"  {json.dumps(file.path)}: {json.dumps(_entry(file))}".encode()
        before = b",\n"
    yield b"\n }\n}\n"


def _entry(file: RepoFile) -> dict[str, str | int]:
    if file.sha256 is None:
        return {"size": file.size, "blob_id": file.git_sha1 or ""}
    return {
        "size": file.size,
        "blob_id": pointer_id(file.sha256, file.size),
        "lfs_sha256": file.sha256,
        "lfs_size": file.size,
    }


def pointer_id(sha256: str, size: int) -> str:
    """Return the id that git has for an LFS file: the blob hash of its pointer (git-lfs, docs/spec.md)."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return hashlib.sha1(b"blob %d\0" % len(text) + text, usedforsecurity=False).hexdigest()
