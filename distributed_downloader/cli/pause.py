"""`pause`: no new file of a job starts."""

from __future__ import annotations

from distributed_downloader.cli import control

command = control.command(
    control.Verb(
        name="pause",
        help="Let a job rest: none of its files starts until `resume`; its workers turn to other jobs.",
        goal="paused",
        applies=lambda job: job.state == "running",
        changed=lambda _: "paused",
        unchanged=control.as_it_is("pause", "paused"),
    )
)
