"""`hf-downloader doctor`: look at all that a job needs here, and say what to do about what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from distributed_downloader.cli.job_options import repo_options
from distributed_downloader.cli.options import json_option

if TYPE_CHECKING:
    from typing import Any

    from distributed_downloader.cli.app import App
    from distributed_downloader.findings import Finding


@click.command("doctor")
@click.argument("repo", required=False)
@repo_options
@click.option(
    "--output-dir", "-o", metavar="DIR", default="", help="Folder to look at.  [default: [app] output_dir]"
)
@json_option
@click.pass_obj
def command(app: App, /, repo: str | None, *, as_json: bool, **options: Any) -> int:  # noqa: ANN401 passed on
    """Examine this machine: settings, Redis, hub, folders, memory, limits, libraries.

    Each thing has a verdict, the value that was found, and what to do about it. With REPO, also whether the
    hub gives it to us, and whether it fits into the folder (and onto the NAS). Nothing is changed: what is
    tried out in a folder is removed again.

    Exit code: 0 all is well, 1 there are warnings, 2 something is broken.

    \b
    Examples:
      hf-downloader doctor
      hf-downloader doctor org/name
      hf-downloader doctor datasets/org/name --include "*.parquet" --output-dir /nas/datasets
      hf-downloader --config fleet.ini doctor --json
    """
    from distributed_downloader.display import as_json as json
    from distributed_downloader.display import findings as display
    from distributed_downloader.display.canvas import Canvas, emit
    from distributed_downloader.findings import exit_code

    found = _examine(app, repo, **options)
    if as_json:
        click.echo(json.dump(json.doctor(found)))
    else:
        emit(app.console, display.lines(found, Canvas.of(app.console)))
    return exit_code(found)


def _examine(
    app: App,
    repo: str | None,
    *,
    repo_type: str | None,
    output_dir: str,
    **options: Any,  # noqa: ANN401 passed on
) -> list[Finding]:
    """Return the findings; settings that cannot be read are one, and then there is nothing else to go by."""
    from pathlib import Path

    from distributed_downloader.doctor.configuration import CONFIGURATION
    from distributed_downloader.doctor.examination import examine
    from distributed_downloader.errors import ConfigError
    from distributed_downloader.master import JobRequest
    from distributed_downloader.models import RepoType

    try:
        config = app.manager.load()
    except ConfigError as error:
        return [CONFIGURATION.broken("settings", "", str(error))]
    app.start_log(config.app)
    kind = RepoType(repo_type) if repo_type else None
    request = JobRequest(repo, kind, output_dir=output_dir, **options) if repo else None
    return examine(app.manager, config, request, Path(output_dir or config.app.output_dir).absolute())
