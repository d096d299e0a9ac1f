"""What `doctor` shows: findings in, lines out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.text import Text

from distributed_downloader.display import units
from distributed_downloader.display.canvas import Canvas
from distributed_downloader.findings import Finding, Verdict

#: How a verdict is written, and coloured.
_MARKS = {
    Verdict.GOOD: ("ok", "green"),
    Verdict.UNKNOWN: ("?", "dim"),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.BROKEN: ("BROKEN", "bold red"),
}
_TITLES = {"nas": "NAS"}
_INDENT = 4


def lines(findings: Sequence[Finding], canvas: Canvas) -> Iterator[Text]:
    """Yield a line for each finding below its subject, what to do below that, and the sum of it."""
    for subject, group in groupby(findings, key=lambda finding: finding.subject):
        found = list(group)
        names = max(len(finding.name) for finding in found)
        yield Text(_TITLES.get(subject, subject.capitalize()), "bold")
        for finding in found:
            yield from _finding(finding, names, canvas)
    yield _sum(findings)


def _finding(finding: Finding, names: int, canvas: Canvas) -> Iterator[Text]:
    word, style = _MARKS[finding.verdict]
    value = canvas.text(finding.value)
    line = Text.assemble("  ", (f"{word:7}", style), f"  {finding.name:{names}}  ", value)
    line.rstrip()
    yield canvas.cut(line)
    if finding.advice:
        yield from canvas.wrap(canvas.text(finding.advice, style), _INDENT)


def _sum(findings: Sequence[Finding]) -> Text:
    """Return `2 broken, 1 warning` or that all is well."""
    counts = Counter(finding.verdict for finding in findings)
    broken, warnings = counts[Verdict.BROKEN], counts[Verdict.WARNING]
    words = [f"{broken} broken"] * bool(broken) + [units.count(warnings, "warning")] * bool(warnings)
    worst = Verdict.BROKEN if broken else Verdict.WARNING if warnings else Verdict.GOOD
    return Text(", ".join(words) or "all is well", _MARKS[worst][1])
