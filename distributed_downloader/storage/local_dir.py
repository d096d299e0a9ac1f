"""Leaves with a repo's files what `hf download --local-dir` leaves, so that the library finds them complete.

`.cache/huggingface/download/<path>.metadata` holds commit, ETag and time, each on a line of its own
(huggingface_hub/_local_folder.py); a time before that of the file makes it void.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.layout import folder_of
from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.plan import LONGEST_NAME
from distributed_downloader.storage.disk import disk, names, replace_file, sync_folder
from distributed_downloader.storage.root import Root
from distributed_downloader.storage.trees import Files, in_batches, write_tree

_SUFFIX = b".metadata"
#: So that backups leave it out (bford.info/cachedir).
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Notes of huggingface_hub on the files beside it.\n"


def leave_metadata(
    root: Path, place: str, spec: JobSpec, files: Files, cancel: Cancel, *, whole: bool
) -> None:
    """Write the metadata of a job's files, and the listing if they are the `whole` repo.

    `place` is the id that the output folder `root` must have, "" for any. Raises LocalError, StoppedError.
    """
    base = tuple(names(folder_of(spec)))
    own, opened = (*base, b".cache", b"huggingface"), Root(root, place)
    with disk(root / folder_of(spec) / ".cache" / "huggingface"):
        with opened:
            folder = opened.enter(own)
            replace_file(folder, b".gitignore", [b"*"])
            replace_file(folder, b"CACHEDIR.TAG", [_TAG])
        for batch in in_batches(files()):
            cancel.check()
            with opened:
                touched = {_note(opened, base, own, spec.commit, file) for file in batch}
                for folder in touched:
                    sync_folder(folder)
        if whole:
            write_tree(opened, own, spec.commit, files())


def _note(root: Root, base: tuple[bytes, ...], own: tuple[bytes, ...], commit: str, file: RepoFile) -> int:
    """Write the metadata of a file, unless its name is too long for the library, too; return the folder."""
    *parents, name = names(file.path)
    folder = root.enter((*own, b"download", *parents))
    etag, written = file.sha256 or file.git_sha1, _written(root, (*base, *parents), name)
    if etag and written is not None and len(name + _SUFFIX) <= LONGEST_NAME:
        # The clock of a file server may be ahead of ours.
        text = f"{commit}\n{etag}\n{max(time.time(), written)}\n"
        replace_file(folder, name + _SUFFIX, [text.encode()], sync=False)
    return folder


def _written(root: Root, parents: tuple[bytes, ...], name: bytes) -> float | None:
    """Return the Unix time at which a file was written; None if somebody has moved it away by now."""
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=root.enter(parents, create=False), follow_symlinks=False).st_mtime
    return None
