"""`status`: what the fleet does, once or live."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import click

from distributed_downloader.cli.options import json_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from distributed_downloader.cli.app import App
    from distributed_downloader.display.progress import Viewer
    from distributed_downloader.display.snapshot import Snapshot

INTERRUPTED = 130
INTERVAL = 1.0


@click.command()
@click.argument("target", metavar="[JOB|REPO]", required=False)
@click.option("--watch", "-w", "live", is_flag=True, help="Keep showing it; one job: until it ends.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05),
    metavar="SECONDS",
    help="Time between two looks with --watch.  [default: 1; off a terminal a line per job every 10]",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, target: str | None, live: bool, interval: float | None, as_json: bool
) -> None:
    """Show jobs with their progress, failed files with their reasons, workers and what each does.

    Without an argument everything is shown; a job's number, or a repo's name for all its jobs, shows
    only those. With --watch the exit code is 0 if the job is done, 1 if it is not.

    \b
    Examples:
      hf-downloader status
      hf-downloader status --watch
      hf-downloader status 3 --watch --interval 5
      hf-downloader status datasets/org/name --json
    """
    if live:
        ctx.exit(watch(ctx.obj, target, interval, as_json))
    once(ctx.obj, target, as_json)


def once(app: App, target: str | None, as_json: bool) -> None:
    """Print one look."""
    from distributed_downloader.cli.lookout import Lookout
    from distributed_downloader.display import as_json as json
    from distributed_downloader.display import picture
    from distributed_downloader.display.canvas import Canvas, emit

    snapshot = Lookout(app.view, target).look()
    if as_json:
        click.echo(json.dump(json.status(snapshot)))
    else:
        emit(app.console, picture.status(snapshot, Canvas.of(app.console)))


def watch(app: App, target: str | None, interval: float | None, as_json: bool) -> int:
    """Show look after look; return the exit code."""
    from rich.console import Console

    from distributed_downloader.cli.lookout import Lookout, Patient, exit_code, follow, important_first

    lookout = Lookout(app.view, target)
    look = lookout.look if as_json else lambda: important_first(lookout.look())
    patient = Patient(look, app.redis.address)
    console = Console(highlight=False)
    try:
        with _viewer(console, interval, as_json) as view:
            last = follow(patient.look, view, interval or INTERVAL, until_ended=target is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    if not as_json:
        _leave(console, last)
    return exit_code(last)


def _viewer(console: Console, interval: float | None, as_json: bool) -> AbstractContextManager[Viewer]:
    from distributed_downloader.display.canvas import is_screen
    from distributed_downloader.display.progress import QUIET, lines, pictures

    if as_json:
        return _json_lines()
    return pictures(console, screen=True) if is_screen(console) else lines(console, interval or QUIET)


@contextmanager
def _json_lines() -> Iterator[Viewer]:
    from distributed_downloader.display import as_json as json

    last = ""

    def view(snapshot: Snapshot) -> None:
        nonlocal last
        text = json.dump(json.status(snapshot), indent=None)
        if text != last:
            last = text
            click.echo(text)

    yield view


def _leave(console: Console, last: Snapshot) -> None:
    """Leave the end on the terminal, whose picture is gone; elsewhere what to do about failed files."""
    from distributed_downloader.display import notices, picture
    from distributed_downloader.display.canvas import Canvas, emit, is_screen

    if is_screen(console):
        emit(console, picture.status(last, Canvas.of(console)))
    else:
        emit(console, notices.failed(last))
