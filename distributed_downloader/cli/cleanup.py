"""`hf-downloader cleanup`: remove what nobody needs any more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distributed_downloader.imports import quick_imports

if TYPE_CHECKING:
    from distributed_downloader.cleanup import Removed
    from distributed_downloader.cli.app import App
    from distributed_downloader.models import JobStatus

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of `30d` and the like."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9})([smhdw])", value)
    if not match:
        raise click.BadParameter(f"{value!r} is no time such as 12h, 30d or 2w.")
    return float(int(match[1]) * _UNITS[match[2]])


@click.command("cleanup")
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@click.option(
    "--older-than",
    callback=_seconds,
    metavar="TIME",
    help="Forget jobs that ended so long ago: 12h, 30d, 2w.",
)
@click.option(
    "--output-dir",
    "-o",
    "folders",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Look in this folder too; may be repeated.  [default: [app] output_dir, and those of jobs]",
)
@click.pass_obj
def command(app: App, dry_run: bool, older_than: float | None, folders: tuple[Path, ...]) -> None:
    """Remove what nobody needs any more; complete files always stay.

    Workers whose lease is over are declared dead. With --older-than, jobs that ended so long ago are
    forgotten.
    In the output folders that this machine sees, partial files go at once if their file is done, and a day
    after they were touched last if no job knows them; those that a job may go on with stay. So do the
    `*.incomplete` files of huggingface_hub that are younger than a day, there and in its cache.

    \b
    Examples:
      hf-downloader cleanup --dry-run
      hf-downloader cleanup --older-than 30d
      hf-downloader cleanup -o /nas/models
    """
    with quick_imports():
        from distributed_downloader.display import units

    size = 0
    for removed in _all(app, dry_run=dry_run, older_than=older_than, folders=folders):
        size += removed.size
        room = f" ({units.size(removed.size)})" if removed.size else ""
        click.echo(f"{'would remove' if dry_run else 'removed'} {units.safe(removed.what)}{room}")
    click.echo(f"{units.size(size)} {'would be' if dry_run else 'are'} free again", err=True)


def _all(
    app: App, *, dry_run: bool, older_than: float | None, folders: tuple[Path, ...]
) -> Iterator[Removed]:
    from distributed_downloader import cleanup
    from distributed_downloader.errors import RedisUnavailableError

    jobs: list[JobStatus] = []
    own = Path(app.config.app.output_dir)
    looked_at = [own, *folders]
    try:
        yield from cleanup.stale_workers(app.redis, dry_run=dry_run)
        # Before any is forgotten, for then it is what it has left that nobody needs.
        looked_at += [Path(job.spec.output_dir) for job in app.view.jobs() if job.spec.output_dir]
        if older_than is not None:
            yield from cleanup.old_jobs(app.redis, older_than, dry_run=dry_run)
        jobs = app.view.jobs()
    except RedisUnavailableError as error:
        if older_than is not None:
            raise
        click.echo(f"note: only folders are looked at, for {error}", err=True)
    for folder in _seen(looked_at):
        mine = [job for job in jobs if Path(job.spec.output_dir or own) == folder]
        yield from cleanup.leftovers(folder, cleanup.kept_for(app.redis, folder, mine), dry_run=dry_run)
    if cache := app.config.huggingface.cache_dir:
        yield from cleanup.broken_off(Path(cache), dry_run=dry_run)


def _seen(folders: list[Path]) -> list[Path]:
    """Return those that are there, each once."""
    return [folder for folder in dict.fromkeys(each.absolute() for each in folders) if folder.is_dir()]
