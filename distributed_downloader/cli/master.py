"""`hf-downloader master`: make a job of a repo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from distributed_downloader.cli.job_options import check_interval, job_options, repo_options
from distributed_downloader.cli.options import json_option

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App
    from distributed_downloader.feed import Listing
    from distributed_downloader.master import JobRequest, MasterNode, Submitted


@click.command("master")
@click.argument("repo")
@repo_options
@job_options
@click.option("--dry-run", is_flag=True, help="Only tell what would be fetched.")
@json_option
@click.pass_obj
def command(
    app: App,
    /,
    repo: str,
    *,
    priority: int,
    wait: bool,
    interval: float | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 passed on
) -> int:
    """Queue a repo for the fleet.

    REPO is org/name, datasets/org/name, spaces/org/name, or an address on the hub (an address of a
    folder or file means just that). The same repo, commit, filters and output again is the same job: it
    goes on where it stopped, and files that failed are tried again.

    \b
    Examples:
      hf-downloader master org/name
      hf-downloader master datasets/org/name --include "*.parquet" --output-dir /nas/datasets
      hf-downloader master org/name --revision v1.0 --priority 10 --wait
      hf-downloader master org/name --output-dir /nas/models --split 64MiB
      hf-downloader master org/name --output-dir /nas/hub --layout hf-cache
      hf-downloader master https://huggingface.co/org/name --dry-run
    """
    from distributed_downloader.request import job_request

    check_interval(interval, wait=wait)
    request = job_request(app.config, repo, **options)
    if dry_run:
        return _preview(app, request, as_json=as_json)
    if as_json:
        raise click.UsageError("--json needs --dry-run; without it, the line `Job ID: <id>` is for scripts.")
    return _queue(app, request, priority, wait=wait, interval=interval)


def _queue(app: App, request: JobRequest, priority: int, *, wait: bool, interval: float | None) -> int:
    from distributed_downloader.cli.submission import interrupt_hint, summary, wait_for
    from distributed_downloader.master import MasterNode
    from distributed_downloader.models import JobState

    # Redis first: it is asked in a moment, the hub may take minutes.
    app.warn_of_redis()
    app.share_budgets()
    master = MasterNode(app.hub, app.redis, app.config.nas, app.rules, reserve=app.reserve)
    with interrupt_hint("the listing is not complete; run the same command again to go on"):
        submitted = _submit(app, master, request, priority)
    for line in summary(submitted):
        click.echo(line, err=True)
    state = JobState.DONE
    if wait:
        with interrupt_hint(f"job {submitted.job} goes on without us"):
            state = wait_for(app, master, submitted.job, interval)
    return int(bool(submitted.plan.skipped_count) or state is not JobState.DONE)


def _submit(app: App, master: MasterNode, request: JobRequest, priority: int) -> Submitted:
    from distributed_downloader.cli.submission import listing_progress

    spec = master.prepare(request)
    told = False
    with listing_progress(app.progress_console) as show:

        def on_progress(listing: Listing) -> None:
            nonlocal told
            if not told:
                # At once, because a large repo is listed for minutes while its job already runs.
                click.echo(f"Job ID: {listing.job}")
                told = True
            show(listing)

        return master.submit(spec, priority, on_progress)


def _preview(app: App, request: JobRequest, *, as_json: bool) -> int:
    from distributed_downloader.cli.preview import print_json, print_text
    from distributed_downloader.display import notices
    from distributed_downloader.master import nothing_matches, plan_of, prepare

    spec = prepare(app.hub, request, app.rules)
    plan = plan_of(spec)
    pages = plan.pages(app.hub.pages(spec.repo_type, spec.repo_id, spec.commit))
    folder = spec.output_dir or app.config.app.output_dir
    files = (print_json if as_json else print_text)(spec, pages, folder)
    for line in notices.listing(plan):
        click.echo(line, err=True)
    if not files:
        raise nothing_matches(spec, plan)
    return int(bool(plan.skipped_count))
