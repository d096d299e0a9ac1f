"""`config`: show what is in effect, and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from distributed_downloader.cli.options import json_option

if TYPE_CHECKING:
    from rich.console import Console

    from distributed_downloader.cli.app import App
    from distributed_downloader.config.effective import Row


@click.command("config")
@json_option
@click.pass_obj
def command(app: App, as_json: bool) -> None:
    """Show the effective settings and where each came from; secrets are masked.

    \b
    Examples:
      hf-downloader config
      hf-downloader --config fleet.ini config --json
    """
    from distributed_downloader.config.effective import table

    rows = table(app.config, app.manager.sources)
    file = str(app.manager.file) if app.manager.file else None
    if as_json:
        _print_json(rows, file, app.manager.warnings)
        return
    _print_rows(app.console, rows)
    click.echo(f"\nFile: {file or 'none found; `hf-downloader init-config` writes one'}")


def _print_json(rows: list[Row], file: str | None, warnings: list[str]) -> None:
    import json

    settings = {row.name: {"value": row.value, "source": row.source} for row in rows}
    click.echo(json.dumps({"file": file, "settings": settings, "warnings": warnings}, indent=2))


def _print_rows(console: Console, rows: list[Row]) -> None:
    if not console.is_terminal:
        for row in rows:
            click.echo(f"{row.name} ={' ' * bool(row.text)}{row.text}  ({row.source})")
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table("setting", "value", "from", box=None, header_style="bold")
    for row in rows:
        grid.add_row(
            row.name, Text(row.text), Text(row.source, style="dim" if row.source == "default" else "")
        )
    console.print(grid)
