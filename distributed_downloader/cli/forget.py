"""`forget`: Redis forgets a job; its files stay."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from distributed_downloader.cli import control
from distributed_downloader.cli.options import json_option
from distributed_downloader.errors import UsageError

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App
    from distributed_downloader.models import JobStatus


@click.command()
@click.argument("target", metavar="JOB|REPO")
@click.option("--yes", "-y", is_flag=True, help="Do not ask, even if a job has not ended.")
@json_option
@click.pass_obj
def command(app: App, target: str, yes: bool, as_json: bool) -> None:
    """Remove a job, or all jobs of a repo, from Redis. The files that are there stay.

    \b
    Examples:
      hf-downloader forget 3
      hf-downloader forget datasets/org/name --yes
    """
    jobs = app.view.find(target)
    agreed = [job for job in jobs if yes or job.state.ended or confirmed(job)]
    results = [(job, job in agreed and app.redis.forget(job.id)) for job in jobs]
    control.report(app, "forget", results, as_json, sentence)


def confirmed(job: JobStatus) -> bool:
    """Ask on a terminal; raises UsageError where nobody can answer."""
    stands = f"{control.title(job)} is {job.state.value}"
    if not sys.stdin.isatty():
        raise UsageError(f"{stands}; say --yes to forget it all the same, or `cancel` it first")
    return click.confirm(f"{stands}. Forget it all the same?", err=True)


def sentence(job: JobStatus, changed: bool) -> str:
    """Return what to say about one job."""
    return f"{control.title(job)} " + ("forgotten; its files stay." if changed else "stays as it is.")
