"""The doctor: looks at all that a job needs on a machine at the same time, and waits for nothing too long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from distributed_downloader.findings import Finding, Subject
from distributed_downloader.patience import Inquiry

#: Seconds that all looks of a round may take.
PATIENCE = 20.0

#: What is looked at, and the findings about it, which are made as they are asked for.
Looks = Mapping[Subject, Callable[[], Iterable[Finding]]]


def look(looks: Looks, seconds: float = PATIENCE) -> list[Finding]:
    """Return what was found about each subject after so many seconds at most.

    Whatever hangs says so, behind what it has found before.
    """
    found: dict[Subject, list[Finding]] = {subject: [] for subject in looks}

    def question(subject: Subject) -> bool:
        for finding in subject.attempt("answer", looks[subject]()):
            found[subject].append(finding)
        return True

    inquiry = Inquiry(question)
    answered = inquiry.ask(looks, seconds)
    for subject in looks.keys() - answered.keys():
        found[subject] = [*found[subject], _unanswered(subject, seconds, hangs=subject in inquiry.silent(0))]
    return [finding for findings in found.values() for finding in findings]


def _unanswered(subject: Subject, seconds: float, *, hangs: bool) -> Finding:
    if hangs:
        advice = f"{subject.name} has not answered for {seconds:.0f} s, so it was not looked at any further"
        return subject.broken("answer", "none", advice)
    return subject.broken("answer", "none", "internal error, please report what is written above")
