"""`retry`: failed files are tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distributed_downloader.cli import control

if TYPE_CHECKING:
    from distributed_downloader.models import JobStatus


def changed(job: JobStatus) -> str:
    """Say how many files it was."""
    from distributed_downloader.display import units

    return f"tries {units.count(job.failed, 'failed file')} again"


def unchanged(job: JobStatus) -> str:
    """Say why there was nothing to do, and what to do instead."""
    if not job.failed:
        return "has no failed files"
    if job.state == "cancelled":
        return "is cancelled: `hf-downloader resume` it first"
    return "failed too long ago: submit it again with `hf-downloader master`"


command = control.command(
    control.Verb(
        name="retry",
        help="Queue the failed files of a job again, with all their tries.",
        goal=None,
        applies=lambda job: job.failed > 0,
        changed=changed,
        unchanged=unchanged,
    )
)
