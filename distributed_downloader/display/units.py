"""How sizes, rates, times, counts and foreign text are worded for people.

Units are decimal, as disks, networks and the hub count: 1 MB is 1,000,000 bytes.
"""

from __future__ import annotations

from rich.cells import cell_len

from distributed_downloader.models import JobSpec, RepoType

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_PREFIXES = {RepoType.MODEL: "", RepoType.DATASET: "datasets/", RepoType.SPACE: "spaces/"}
_MIB = 1 << 20
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def size(count: float) -> str:
    """Return `count` bytes as `16.1 GB`, in three digits at most."""
    number, unit = _scale(count)
    return f"{number} {unit}"


def _scale(count: float) -> tuple[str, str]:
    unit = 0
    while count >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    decimals = 1 if unit and count < 99.95 else 0
    return f"{count:.{decimals}f}", _UNITS[unit]


def sizes(part: float, whole: float) -> str:
    """Return `6.8 of 16.1 GB`, or `12 MB of 16.1 GB` where the units differ."""
    (number, unit), (total, total_unit) = _scale(part), _scale(whole)
    return f"{number} of {total} {unit}" if unit == total_unit else f"{number} {unit} of {total} {total_unit}"


def span(start: int, end: int) -> str:
    """Return `64-128 MiB`: bytes `start` to `end` of a file, in the unit that parts are aligned to."""
    decimals = 0 if end - start >= 10 * _MIB else 1
    return f"{start / _MIB:,.{decimals}f}-{end / _MIB:,.{decimals}f} MiB"


def rate(bytes_per_second: float) -> str:
    """Return `45.2 MB/s`, or `-` where nothing moves."""
    return f"{size(bytes_per_second)}/s" if bytes_per_second >= 1 else "-"


def duration(seconds: float) -> str:
    """Return `42s`, `3m 25s`, `2h 05m` or `3d 04h`."""
    left = max(0, round(seconds))
    if left < _MINUTE:
        return f"{left}s"
    if left < _HOUR:
        return f"{left // _MINUTE}m {left % _MINUTE:02}s"
    if left < _DAY:
        return f"{left // _HOUR}h {left % _HOUR // _MINUTE:02}m"
    return f"{left // _DAY}d {left % _DAY // _HOUR:02}h" if left < 1000 * _DAY else "years"


def count(number: int, noun: str) -> str:
    """Return `1 file` or `1,234 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def repo(spec: JobSpec) -> str:
    """Return the name under which people and commands know the repo: `[datasets/|spaces/]org/name`."""
    return _PREFIXES[spec.repo_type] + spec.repo_id


def title(spec: JobSpec) -> str:
    """Return what a job is called: its repo, and whether it only checks that."""
    return f"{repo(spec)} (verify)" if spec.check else repo(spec)


def safe(text: str, *, ascii_only: bool = False) -> str:
    r"""Return `text` with all that could steer or break a terminal as `\x1b`, `\u202e`, ...

    Whoever names a file in a repo, or an error, must not be able to move the cursor, colour or reorder
    our lines, nor to make printing fail (lone surrogates; with `ascii_only`, anything beyond ASCII).
    """
    if text.isprintable() and (text.isascii() or not ascii_only):
        return text
    return "".join(_escape(char, ascii_only) for char in text)


def _escape(char: str, ascii_only: bool) -> str:
    printable = char.isprintable() and (char.isascii() or not ascii_only)
    return char if printable else char.encode("unicode_escape").decode("ascii")


def shorten(text: str, width: int, mark: str = "…") -> str:
    """Return `text` in at most `width` cells; what is left out is the middle."""
    if cell_len(text) <= width:
        return text
    keep = max(0, width - len(mark))
    head = _fitting(text, keep - keep // 2)
    tail = _fitting(text[::-1], keep // 2)[::-1]
    return (head + mark + tail)[: max(width, 0)]


def _fitting(text: str, width: int) -> str:
    end = used = 0
    for char in text:
        used += cell_len(char)
        if used > width:
            break
        end += 1
    return text[:end]


def tries(number: int) -> str:
    """Return `1 try` or `3 tries`."""
    return "1 try" if number == 1 else f"{number:,} tries"
