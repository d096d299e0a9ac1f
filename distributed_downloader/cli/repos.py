"""`repos`: which repos the fleet knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from distributed_downloader.cli.options import json_option

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App


@click.command()
@json_option
@click.pass_obj
def command(app: App, as_json: bool) -> None:
    """Show each repo with its jobs and how they stand.

    \b
    Examples:
      hf-downloader repos
      hf-downloader repos --json
    """
    from distributed_downloader.display import as_json as json
    from distributed_downloader.display import tables
    from distributed_downloader.display.canvas import Canvas, emit
    from distributed_downloader.display.speed import Speedometer

    jobs = Speedometer().measure(app.view.jobs(), app.view.workers())
    if as_json:
        click.echo(json.dump(json.repos(jobs)))
    else:
        emit(app.console, tables.repos(jobs, Canvas.of(app.console)))
