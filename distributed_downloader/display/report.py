"""The words for what `verify` found (pure functions)."""

from __future__ import annotations

from collections.abc import Iterator

from distributed_downloader.display import units
from distributed_downloader.verification import Report


def lines(report: Report) -> Iterator[str]:
    """Yield a line for each file that is not as it should be, and one that sums up."""
    repaired = {*report.repaired}
    for word, path, why in _flaws(report):
        again = ": repaired" if path in repaired else ""
        yield f"{word:<9} {units.safe(path)}{': ' if why else ''}{units.safe(why)}{again}"
    name = f"{units.repo(report.spec)} ({report.spec.commit[:8]})"
    yield f"{name} in {where(report)}: {', '.join(_sums(report))}"


def _flaws(report: Report) -> Iterator[tuple[str, str, str]]:
    yield from (("missing", path, "") for path in report.missing)
    yield from (("wrong", path, why) for path, why in report.wrong.items())
    yield from (("unchecked", path, why) for path, why in report.unchecked.items())
    yield from (("extra", path, "") for path in report.extra)


def _sums(report: Report) -> Iterator[str]:
    yield f"{units.count(report.files, 'file')}, {units.size(report.size)}"
    counts = {
        "missing": len(report.missing),
        "wrong": len(report.wrong),
        "not checked": len(report.unchecked),
        "repaired": len(report.repaired),
        "extra": report.extra_count,
    }
    found = [f"{count:,} {word}" for word, count in counts.items() if count]
    yield from found or ["all right"]


def where(report: Report) -> str:
    """Return the folder that was looked at."""
    return report.spec.output_dir or "the workers' own folders"
