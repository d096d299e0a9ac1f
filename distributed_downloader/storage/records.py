"""The journal of a split file: which of its bytes are on disk, in names of empty files."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate

from distributed_downloader.outcome import Range, Record

#: Bytes that a record covers at most; records end at multiples of it.
RECORD_SIZE = 16 << 20
_NAME = re.compile(r"(\d{1,19})\+(\d{1,8})\.([0-9a-f]{64})", re.ASCII)


def read_records(folder: int, size: int, around: Range | None = None) -> list[Record]:
    """Return the records of a file of `size` bytes, by their start; what is no record is left out.

    Of those that do not touch the range `around`, some or all are left out too.
    """
    near = _near(around or Range(0, size))
    with os.scandir(folder) as entries:
        found = [_of_file(entry) for entry in entries if near(entry.name)]
    return sorted(record for record in found if record and record.end <= size)


def add_record(folder: int, record: Record) -> None:
    """Note that these bytes are on disk, which the caller has made sure of."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with suppress(FileExistsError):  # the same bytes, from another machine or an earlier try
        os.close(os.open(str(record), flags, 0o600, dir_fd=folder))


def remove_records(folder: int, doomed: Callable[[Record], bool] | None = None) -> None:
    """Remove the records for which `doomed` is true; without it, everything."""
    for name in os.listdir(folder):
        record = _parse(name)
        if doomed is None or (record and doomed(record)):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


def touching(ranges: Iterable[Range]) -> Callable[[Record], bool]:
    """Return whether a record shares a byte with one of these ranges, as a function."""
    by_start = sorted(ranges)
    starts = [found.start for found in by_start]
    ends = list(accumulate((found.end for found in by_start), max))

    def touches(record: Record) -> bool:
        before = bisect_left(starts, record.end)  # so many begin before it ends
        return before > 0 and ends[before - 1] > record.start

    return touches


def reach(records: Iterable[Record | Range], start: int) -> int:
    """Return the first byte from `start` on that is in no record; these come by their start."""
    position = start
    for record in records:
        if record.start > position:
            break
        position = max(position, record.end)
    return position


def merged(records: Iterable[Record]) -> list[Range]:
    """Return what records cover, in as few ranges as possible; these come by their start."""
    found: list[Range] = []
    for record in records:
        start, end = record.start, record.end
        if found and start <= found[-1].end:
            start, end = found[-1].start, max(found.pop().end, end)
        found.append(Range(start, end - start))
    return found


def gaps(records: Iterable[Record], size: int) -> Iterator[Range]:
    """Yield what of a file of `size` bytes is in no record; these come by their start."""
    position = 0
    for record in records:
        if record.start > position:
            yield Range(position, record.start - position)
        position = max(position, record.end)
    if position < size:
        yield Range(position, size - position)


def cut(ranges: Iterable[Range], size: int) -> Iterator[Range]:
    """Cut ranges wherever a multiple of `size` lies in one, so that none is longer than that."""
    for whole in ranges:
        start = whole.start
        while start < whole.end:
            end = min(whole.end, (start // size + 1) * size)
            yield Range(start, end - start)
            start = end


def _near(around: Range) -> Callable[[str], bool]:
    """Return whether the record of a name may touch a range, as a function.

    A journal may have 100,000s of names, and on a network disk each look at a file is a question.
    """
    first, end = around.start - RECORD_SIZE, around.end

    def near(name: str) -> bool:
        start = name.partition("+")[0]
        return start.isdecimal() and len(start) < 20 and first < int(start) < end

    return near


def _of_file(entry: os.DirEntry[str]) -> Record | None:
    record = _parse(entry.name)
    return record if record and entry.is_file(follow_symlinks=False) else None


def _parse(name: str) -> Record | None:
    """Return the record of that name, None if it is none of ours."""
    found = _NAME.fullmatch(name)
    if not found:
        return None
    record = Record(int(found[1]), int(found[2]), found[3])
    return record if str(record) == name and 0 < record.length <= RECORD_SIZE else None
