"""Finds what lies in a repo's folder and is none of its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from distributed_downloader.cancel import Cancel
from distributed_downloader.layout import shown_folder
from distributed_downloader.models import JobSpec
from distributed_downloader.storage.disk import disk, names, open_folder

#: What huggingface_hub keeps beside the files of a local folder.
_NOTES = ".cache/huggingface"


def survey(root: Path, spec: JobSpec, is_known: Callable[[str], bool], cancel: Cancel) -> Iterator[str]:
    """Yield the paths below the repo's folder that `is_known` does not know, as the repo would have them.

    Nothing is followed out of the folder, and the notes of huggingface_hub are left out. What is no text in a
    name is spelled out. Raises LocalError, StoppedError.
    """
    base = names(shown_folder(spec))
    folders: list[tuple[bytes, ...]] = [()]
    with disk(root / shown_folder(spec)):
        while folders:
            cancel.check()
            inside = folders.pop()
            for name, is_folder in _entries(root, [*base, *inside]):
                parts = (*inside, name)
                path = b"/".join(parts).decode(errors="backslashreplace")
                if is_folder:
                    folders += [] if path == _NOTES else [parts]
                elif not is_known(path):
                    yield path


def _entries(root: Path, parts: Sequence[bytes]) -> list[tuple[bytes, bool]]:
    """Return the names in one folder, and whether each is a folder; nothing if it is gone."""
    with (
        suppress(FileNotFoundError),
        open_folder(root, parts, create=False) as folder,
        os.scandir(folder) as found,
    ):
        return sorted((os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found)
    return []
