"""`hf-downloader download`: fetch a repo on this machine alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from distributed_downloader.cli.job_options import fetch_options, repo_options
from distributed_downloader.cli.options import worker_options
from distributed_downloader.imports import quick_imports

if TYPE_CHECKING:
    from rich.console import Console

    from distributed_downloader.cli.app import App
    from distributed_downloader.master import JobRequest
    from distributed_downloader.models import JobStatus
    from distributed_downloader.standalone import Standalone


@click.command("download")
@click.argument("repo")
@repo_options
@click.option(
    "--output-dir", "-o", metavar="DIR", default="", help="Folder to fill.  [default: [app] output_dir]"
)
@fetch_options
@worker_options
@click.pass_obj
def command(
    app: App,
    /,
    repo: str,
    *,
    output_dir: str,
    concurrency: int | None,
    max_bandwidth: str | None,
    **options: Any,  # noqa: ANN401 passed on
) -> int:
    """Fetch a repo on this machine alone; needs no server.

    Files go to DIR/<org>/<name>/. Run the same command again after an interruption: it goes on from
    the bytes on disk, and what is complete is only checked.

    With a NAS in the configuration (`hf-downloader init-config` writes one), or in NAS_ENABLED and
    NAS_PATH, the files get there too; those that do not, do so with the next run of the same command.

    \b
      [app]
      # left free on each disk
      disk_reserve = 20GiB
      # fast local folder, for parts of files in an output folder that is slow
      spool_dir = /ssd/spool
      [nas]
      enabled = true
      # marked once, with `hf-downloader init-nas`
      path = /mnt/nas/models

    \b
    Examples:
      hf-downloader download org/name
      hf-downloader download datasets/org/name --include "*.parquet" -o /data
      hf-downloader download org/name --revision v1.0 --max-bandwidth 10MB/s
      hf-downloader download org/name --layout hf-cache -o ~/.cache/huggingface/hub
      NAS_ENABLED=true NAS_PATH=/mnt/nas hf-downloader download org/name
    """
    with quick_imports():
        from distributed_downloader.cli.submission import interrupt_hint
        from distributed_downloader.display import notices
        from distributed_downloader.request import job_request
        from distributed_downloader.signals import interrupt_on_terminate
        from distributed_downloader.standalone import standalone

    app.override(app_concurrency=concurrency, app_max_bandwidth=max_bandwidth)
    request = job_request(app.config, repo, output_dir=output_dir or app.config.app.output_dir, **options)
    app.show_progress_not_log()
    app.warn_of_idle_settings()
    interrupt_on_terminate()
    hint = interrupt_hint("what is there is kept; run the same command again to go on")
    with hint, standalone(app) as alone:
        job = _fetch(alone, request, app.progress_console)
    for line in notices.listing(alone.plan):
        click.echo(line, err=True)
    _tell(app, job)
    return int(bool(job.failed or alone.plan.skipped_count))


def _fetch(alone: Standalone, request: JobRequest, console: Console) -> JobStatus:
    """Fetch the repo and show it on `console`; return the job as it has ended."""
    from distributed_downloader.display.progress import watch

    with ExitStack() as stack:
        with console.status("asking the hub"):
            looks = stack.enter_context(alone.fetching(request))
        with watch(console, alone=True) as show:
            for job in looks:
                show(job, alone.view.workers(), alone.failures(job), alone.view.budgets([job]))
        return job


def _tell(app: App, job: JobStatus) -> None:
    from distributed_downloader.standalone import where

    if job.delivered:
        click.echo(
            f"on the NAS: {job.delivered:,} of {job.files:,} files, in {app.config.nas.path}", err=True
        )
    click.echo(where(job.spec))  # the one thing that a script wants to know
