"""What a look at one thing found: a verdict, the value, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from distributed_downloader.errors import DownloaderError


class Verdict(str, enum.Enum):
    """How it is."""

    GOOD = "good"
    #: Nobody here can tell; nothing speaks against it.
    UNKNOWN = "unknown"
    WARNING = "warning"
    BROKEN = "broken"


class Finding(NamedTuple):
    """One thing that was looked at."""

    #: What it belongs to, such as `redis`, and what it is, such as `latency`.
    subject: str
    name: str
    verdict: Verdict
    #: What was found, in a few words.
    value: str
    #: What is wrong, where, and what to do; "" where nothing is.
    advice: str = ""


class Subject(NamedTuple):
    """Makes the findings of one subject."""

    name: str

    def good(self, name: str, value: str) -> Finding:
        """Return that all is well."""
        return Finding(self.name, name, Verdict.GOOD, value)

    def unknown(self, name: str, value: str) -> Finding:
        """Return that nobody here can tell, and why."""
        return Finding(self.name, name, Verdict.UNKNOWN, value)

    def warning(self, name: str, value: str, advice: str) -> Finding:
        """Return what works, but hardly as it is meant to."""
        return Finding(self.name, name, Verdict.WARNING, value, advice)

    def broken(self, name: str, value: str, advice: str) -> Finding:
        """Return what does not work."""
        return Finding(self.name, name, Verdict.BROKEN, value, advice)

    def attempt(self, name: str, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Yield findings; an error of ours that ends them is one, called `name`."""
        try:
            yield from findings
        except DownloaderError as error:
            yield self.broken(name, "", str(error))


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 2 if something is broken, 1 if there are warnings, else 0."""
    verdicts = {finding.verdict for finding in findings}
    return 2 if Verdict.BROKEN in verdicts else int(Verdict.WARNING in verdicts)
