"""`queue`: how much waits, and for what."""

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
    """Show the queue in numbers: what waits, who works, how the jobs stand.

    \b
    Examples:
      hf-downloader queue
      hf-downloader queue --json
    """
    from distributed_downloader.display import as_json as json
    from distributed_downloader.display import tables
    from distributed_downloader.display.canvas import Canvas, emit

    shown = app.view.queue()
    if as_json:
        click.echo(json.dump(json.queue(shown)))
    else:
        emit(app.console, tables.queue(shown, Canvas.of(app.console)))
