"""Where a benchmark works: a fast folder of its own, and the sizes that its options name."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed_downloader.config.values import parse_bytes

#: A fast folder to work in, where there is one with room.
_MEMORY = Path("/dev/shm")  # noqa: S108 - tmpfs, and in it a folder of our own
#: How much of a folder's free space is ours, for workers keep a reserve and others want some as well.
_SHARE = 0.5


def size(text: str) -> int:
    """Return the bytes that an option names, such as `2GiB` or `1MB/s`; for argparse."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@contextmanager
def scratch(needed: int = 0, where: Path | None = None) -> Iterator[Path]:
    """Yield a folder for `needed` bytes; gone afterwards. It is in memory if it fits and `where` is None."""
    fits = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free * _SHARE > needed
    with tempfile.TemporaryDirectory(
        prefix=f"hfd-{os.getpid()}-",
        dir=where or (_MEMORY if fits else None),
        ignore_cleanup_errors=True,
    ) as name:
        yield Path(name)
