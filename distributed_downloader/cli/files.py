"""`files`: each file of a job, how it stands and where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from distributed_downloader.cli.options import json_option
from distributed_downloader.errors import UsageError

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App
    from distributed_downloader.redis_view import RedisView


@click.command()
@click.argument("target", metavar="JOB|REPO")
@click.option("--failed", is_flag=True, help="Only the files that failed, with their reasons.")
@json_option
@click.pass_obj
def command(app: App, target: str, failed: bool, as_json: bool) -> None:
    """Show each file of a job: its state, its size, the host where it lies, and why it failed.

    The list is printed while it is read, so that it may be as long as the repo.

    \b
    Examples:
      hf-downloader files 3
      hf-downloader files org/name --failed
      hf-downloader files 3 --json
    """
    from distributed_downloader.display import as_json as json
    from distributed_downloader.display import tables
    from distributed_downloader.display.canvas import Canvas, emit

    shown = app.view.files(only_job(app.view, target), failed_only=failed)
    if as_json:
        for line in json.files(shown):
            click.echo(line)
    else:
        emit(app.console, tables.files(shown, Canvas.of(app.console)))


def only_job(view: RedisView, target: str) -> int:
    """Return the id of the one job that `target` names; raises UsageError if there are several."""
    jobs = view.find(target)
    if len(jobs) > 1:
        ids = ", ".join(f"{job.id} ({job.state.value})" for job in jobs)
        raise UsageError(f"{target} has several jobs: {ids}. Name one by its number")
    return jobs[0].id
