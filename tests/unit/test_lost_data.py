"""What a worker remembers of a Redis that lost its data: nothing of it is taken for something else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from distributed_downloader.hold import Hold
from distributed_downloader.models import Descriptor, DownloadTask, Part, RepoFile, Token
from distributed_downloader.transfer.seal import Readings
from tests.unit.looking_on import spec


def task(path: str = "a", commit: str = "0" * 40, *, part: bool = True) -> DownloadTask:
    """Return a part of a file, or its seal: always of the same numbers."""
    file = RepoFile(path=path, size=9)
    about = Descriptor(file=file, part=Part(start=0, length=5, seal=2) if part else None, place="ab12")
    of = spec().model_copy(update={"commit": commit})
    return DownloadTask(token=Token(1, 3 if part else 2, 7), spec=of, about=about)


def test_a_part_never_grows() -> None:
    """Redis lost that its tail was taken; who was told so does not fetch it."""
    lengths: list[int] = []
    hold = Hold(5.0, 0.0)
    hold.on_shorten(lengths.append)
    for length in (100, 60, 100):
        hold.renew(1.0, length)
    assert (hold.length, lengths) == (60, [100, 60, 60])


def test_what_was_read_ahead_is_of_one_file_alone() -> None:
    """The numbers of its job and seal may be another's by now."""
    readings, reading = Readings(), cast("Any", SimpleNamespace())
    assert readings.begin(task(), reading) is reading
    assert readings.begin(task(), cast("Any", SimpleNamespace())) is reading
    assert readings.take(task("b", part=False)) is None
    assert readings.take(task(commit="1" * 40, part=False)) is None
    assert readings.take(task(part=False)) is reading
    assert readings.take(task(part=False)) is None
