"""`cancel`: a job ends; what it fetched stays."""

from __future__ import annotations

from distributed_downloader.cli import control
from distributed_downloader.models import JobState

command = control.command(
    control.Verb(
        name="cancel",
        help="End a job. The files that are there stay; `resume`, or the same `master`, goes on with it.",
        goal=JobState.CANCELLED,
        applies=lambda job: not job.state.ended,
        changed=lambda _: "cancelled",
        unchanged=control.as_it_is("cancel", JobState.CANCELLED),
    )
)
