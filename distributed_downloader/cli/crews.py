"""Who does the work of `verify`: the workers of the fleet, or this machine alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from distributed_downloader.display.progress import watch
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.feed import Pages
from distributed_downloader.master import MasterNode
from distributed_downloader.models import Failure, JobSpec, JobStatus
from distributed_downloader.redis_closing import RedisClosing
from distributed_downloader.standalone import Standalone, standalone

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App
    from distributed_downloader.verification import Crew

log = logging.getLogger(__name__)

#: Files that are told by name, at most.
_MOST = 1_000_000


def fleet_lives(app: App) -> bool:
    """Return whether there are workers to do it; says so if not."""
    try:
        lives = bool(app.view.workers())
        why = "no worker lives in the fleet"
    except RedisUnavailableError as error:
        log.debug("%s", error)
        lives, why = False, f"Redis at {app.redis.address} does not answer"
    if not lives:
        click.echo(f"{why}: this machine checks it alone", err=True)
    return lives


@contextmanager
def crew_of(app: App, *, fleet: bool) -> Iterator[Crew]:
    """Yield the fleet, or this machine with a private Redis."""
    if fleet:
        app.share_budgets()
        yield _Fleet(app)
    else:
        with standalone(app) as alone:
            yield _Alone(app, alone)


class _Fleet:
    """The workers that live."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._master = MasterNode(app.hub, app.redis, app.config.nas, app.rules)

    def work(self, spec: JobSpec, listing: Pages | None) -> JobStatus:
        """Queue a job, and wait until it has ended."""
        from distributed_downloader.cli.submission import interrupt_hint, wait_for

        job = self._master.submit(spec, 1, listing=listing).job
        with interrupt_hint(f"job {job} goes on without us: `hf-downloader status {job}`"):
            wait_for(self._app, self._master, job, None)
        return self._app.view.job(job)

    def files(self, job: int) -> RedisClosing:
        """Return what tells the files of a job."""
        return RedisClosing(self._app.redis, job)

    def failures(self, job: JobStatus) -> list[Failure]:
        """Return what failed of a job."""
        return self._app.view.failures(job.id, _MOST) if job.failed else []


class _Alone:
    """One machine, with a private Redis."""

    def __init__(self, app: App, alone: Standalone) -> None:
        self._app, self._alone = app, alone

    def work(self, spec: JobSpec, listing: Pages | None) -> JobStatus:
        """Do a job."""
        looking = watch(self._app.progress_console, alone=True)
        with self._alone.working(spec, listing) as looks, looking as show:
            for job in looks:
                show(job, self._alone.view.workers())  # what is wrong is told at the end
        return job

    def files(self, job: int) -> RedisClosing:
        """Return what tells the files of a job."""
        return self._alone.files(job)

    def failures(self, job: JobStatus) -> list[Failure]:
        """Return what failed of a job."""
        return self._alone.failures(job, _MOST)
