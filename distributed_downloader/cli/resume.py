"""`resume`: a job that was paused or cancelled goes on."""

from __future__ import annotations

from distributed_downloader.cli import control
from distributed_downloader.models import JobState, JobStatus

_WHY_NOT = {
    JobState.RUNNING: "is already running",
    JobState.DONE: "is done: nothing to resume",
    JobState.FAILED: "is failed: `hf-downloader retry` tries its failed files again",
    JobState.CANCELLED: "was cancelled too long ago: submit it again with `hf-downloader master`",
}


def unchanged(job: JobStatus) -> str:
    """Say what stands in the way, and what to do."""
    return _WHY_NOT.get(job.state, f"stays {job.state.value}")


command = control.command(
    control.Verb(
        name="resume",
        help="Let a job that was paused or cancelled go on from where it stood.",
        goal=JobState.RUNNING,
        applies=lambda job: job.state in (JobState.PAUSED, JobState.CANCELLED),
        changed=lambda _: "resumed",
        unchanged=unchanged,
    )
)
