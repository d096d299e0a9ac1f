"""`pause`: no new file of a job starts."""

from __future__ import annotations

from distributed_downloader.cli import control
from distributed_downloader.models import JobState

command = control.command(
    control.Verb(
        name="pause",
        help="Let a job rest: none of its files starts until `resume`; its workers turn to other jobs.",
        goal=JobState.PAUSED,
        applies=lambda job: job.state is JobState.RUNNING,
        changed=lambda _: "paused",
        unchanged=control.as_it_is("pause", JobState.PAUSED),
    )
)
