"""`workers`: who works, and at what."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from distributed_downloader.cli.options import json_option

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App


@click.command()
@json_option
@click.pass_obj
def command(app: App, as_json: bool) -> None:
    """Show each worker, its slots, its rate and what it does.

    Lease is the time after which a silent worker is taken for dead and its files go to others.

    \b
    Examples:
      hf-downloader workers
      hf-downloader workers --json
    """
    from distributed_downloader.display import as_json as json
    from distributed_downloader.display import tables
    from distributed_downloader.display.canvas import Canvas, emit

    shown = app.view.workers()
    if as_json:
        click.echo(json.dump([json.worker(worker) for worker in shown]))
    else:
        emit(app.console, tables.workers(shown, time.time(), Canvas.of(app.console)))
