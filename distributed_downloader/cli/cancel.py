"""`cancel`: a job ends; what it fetched stays."""

from __future__ import annotations

from distributed_downloader.cli import control

command = control.command(
    control.Verb(
        name="cancel",
        help="End a job. The files that are there stay; `resume`, or the same `master`, goes on with it.",
        goal="cancelled",
        applies=lambda job: not job.state.ended,
        changed=lambda _: "cancelled",
        unchanged=control.as_it_is("cancel", "cancelled"),
    )
)
