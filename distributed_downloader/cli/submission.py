"""What `master` and `batch-master` say about the jobs that they make, all on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from distributed_downloader.cli.app import App
    from distributed_downloader.feed import Listing
    from distributed_downloader.master import MasterNode, Submitted
    from distributed_downloader.models import JobState

#: Files between two lines about a listing where there is no terminal.
FILES_PER_LINE = 50_000


@contextmanager
def listing_progress(console: Console) -> Iterator[Callable[[Listing], None]]:
    """Show how a listing grows: one line that is drawn over, or on no terminal now and then a line."""
    from distributed_downloader.display import units
    from distributed_downloader.display.canvas import is_screen

    def words(listing: Listing) -> str:
        return f"listing: {units.count(listing.files, 'file')}, {units.size(listing.size)}"

    if is_screen(console):
        with console.status("listing") as status:
            yield lambda listing: status.update(words(listing))
        return
    told = 0

    def tell(listing: Listing) -> None:
        nonlocal told
        if listing.files - told >= FILES_PER_LINE:
            told = listing.files
            click.echo(words(listing), err=True)

    yield tell


def summary(submitted: Submitted) -> list[str]:
    """Return what came of a submission, and what to do next."""
    from distributed_downloader.display import notices, units

    job = submitted.after
    spec = job.spec
    files = f"{units.count(job.files, 'file')}, {units.size(job.bytes_total)}"
    return [
        f"{units.repo(spec)} at {spec.revision} ({spec.commit[:8]}): {files}; {_outcome(submitted)}",
        *notices.listing(submitted.plan),
        *settled_before(submitted),
        *([] if job.state.ended else _next_steps(submitted.job, job.spec.output_dir)),
    ]


def _outcome(submitted: Submitted) -> str:
    from distributed_downloader.display import units

    before = submitted.before
    if submitted.created:
        return "all queued"
    if before.state == "done":
        again = f"hf-downloader verify {submitted.job}"
        return f"the job is done already (to check every file again: `{again}`)"
    words = [f"{units.count(submitted.queued, 'more file')} queued"] if submitted.queued else []
    words += [f"{units.count(before.failed, 'failed file')} queued again"] if before.failed else []
    words += [f"the {before.state.value} job goes on"] if before.state in ("paused", "cancelled") else []
    return ", ".join(words) or "the job is running already"


def settled_before(submitted: Submitted) -> list[str]:
    """Return what `--split` cannot change any more, if it was given for a job that was there already."""
    from click.core import ParameterSource

    given = click.get_current_context().get_parameter_source("split") is ParameterSource.COMMANDLINE
    if submitted.created or submitted.before.state == "done" or not given:
        return []
    return [
        f"note: job {submitted.job} was there already: --split counts for its files that are not begun yet; "
        f"`hf-downloader forget {submitted.job}` first to change it for all"
    ]


def _next_steps(job: int, output_dir: str) -> list[str]:
    where = f"; all must see {output_dir}" if output_dir else ""
    return [
        f"next:  hf-downloader worker                    on each machine{where}",
        f"       hf-downloader status {job} --watch".ljust(48) + "anywhere",
    ]


def wait_for(app: App, master: MasterNode, job: int, interval: float | None) -> JobState:
    """Show a job's progress until it ends, a line each `interval` seconds off a terminal; return how."""
    from distributed_downloader.display.progress import QUIET, watch
    from distributed_downloader.models import JobStatus

    with watch(app.progress_console, quiet=interval or QUIET) as show:

        def look(status: JobStatus) -> None:
            failures = app.view.failures(job) if status.failed else []
            show(status, app.view.workers(), failures, app.view.budgets([status]))

        return master.wait(job, look)


@contextmanager
def interrupt_hint(text: str) -> Iterator[None]:
    """Say `text` when the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(text, err=True)
        raise
