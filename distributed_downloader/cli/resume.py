"""`resume`: a job that was paused or cancelled goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distributed_downloader.cli import control

if TYPE_CHECKING:
    from distributed_downloader.models import JobStatus

_WHY_NOT = {
    "running": "is already running",
    "delivering": "is downloaded and on its way to the NAS",
    "done": "is done: nothing to resume",
    "failed": "is failed: `hf-downloader retry` tries its failed files again",
    "cancelled": "was cancelled too long ago: submit it again with `hf-downloader master`",
}


def unchanged(job: JobStatus) -> str:
    """Say what stands in the way, and what to do."""
    return _WHY_NOT.get(job.state.value, f"stays {job.state.value}")


command = control.command(
    control.Verb(
        name="resume",
        help="Let a job that was paused or cancelled go on from where it stood.",
        goal="running",
        applies=lambda job: job.state in ("paused", "cancelled"),
        changed=lambda _: "resumed",
        unchanged=unchanged,
    )
)
