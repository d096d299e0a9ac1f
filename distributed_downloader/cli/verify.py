"""`hf-downloader verify`: is what lies on disk what the hub lists?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distributed_downloader.cli.job_options import layout_option, repo_options
from distributed_downloader.cli.options import json_option
from distributed_downloader.imports import quick_imports

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App
    from distributed_downloader.models import JobStatus
    from distributed_downloader.verification import Report, Subject


#: What only REPO leaves open.
_OF_REPO = ("repo_type", "revision", "layout")


@click.command("verify")
@click.argument("target", metavar="JOB|REPO|PATH")
@click.option("--repair", is_flag=True, help="Fetch again what is missing or wrong, and nothing else.")
@click.option("--quick", is_flag=True, help="Compare sizes only.")
@click.option(
    "--local", is_flag=True, help="Let this machine do it alone.  [default: the fleet, if one lives]"
)
@click.option(
    "--output-dir", "-o", metavar="DIR", default="", help="Folder that has REPO.  [default: [app] output_dir]"
)
@layout_option
@repo_options
@json_option
@click.pass_obj
def command(
    app: App,
    /,
    target: str,
    *,
    repair: bool,
    quick: bool,
    local: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 passed on
) -> int:
    """Check every file by the hub's hashes; tell what is missing, wrong, or extra.

    JOB is the number of a job: its files are checked where it put them. PATH is an output folder, or a
    repo's folder in one: its manifest says what should be there, so no hub is asked, even years later. REPO
    is checked where its newest job put it, or in --output-dir against the hub.

    The files are tasks for the workers of the fleet; without Redis or workers, this machine reads them.
    Exit code 0 if all is right by now, 1 if something is missing, wrong or unreadable; what is extra does not
    count.

    \b
    Examples:
      hf-downloader verify 12
      hf-downloader verify /nas/models/org/name --quick
      hf-downloader verify /nas/hub --repair
      hf-downloader verify org/name -o /data/hub --local
    """
    with quick_imports():
        from distributed_downloader.cli.crews import crew_of, fleet_lives
        from distributed_downloader.cli.submission import interrupt_hint
        from distributed_downloader.verification import verify

    fleet = not local and fleet_lives(app)
    subjects = _subjects(app, target, fleet=fleet, **options)
    app.show_progress_not_log()
    hint = interrupt_hint("run the same command again to check it all anew")
    with hint, crew_of(app, fleet=fleet) as crew:
        reports = [verify(crew, subject, quick=quick, repair=repair) for subject in subjects]
    _print(reports, as_json=as_json)
    return int(not all(report.is_well for report in reports))


def _subjects(
    app: App,
    target: str,
    *,
    fleet: bool,
    output_dir: str,
    **options: Any,  # noqa: ANN401 passed on
) -> list[Subject]:
    """Return what the command line means; raises UsageError, NotFoundError and what a hub may say."""
    from distributed_downloader.errors import NotFoundError
    from distributed_downloader.verification import at_path

    path = os.path.expanduser(target)  # noqa: PTH111 - leaves what it does not know
    others = {"output_dir": output_dir, **{name: options[name] for name in _OF_REPO}}
    if os.path.isdir(path) and (found := at_path(Path(path))):  # noqa: PTH112 - whatever the name
        return _chosen(target, found, others, options)
    if target.isdigit():
        return _chosen(target, _of_job(app, app.view.job(int(target)), fleet=fleet), others, options)
    if target.startswith(("/", ".", "~")):
        raise NotFoundError(
            f"{target} has no manifest that says what should be there; name the repo instead: "
            "`hf-downloader verify org/name -o FOLDER`"
        )
    if fleet and not any(others.values()) and (jobs := _jobs_of(app, target)):
        return _chosen(target, _of_job(app, jobs[-1], fleet=True), others, options)
    return [_of_repo(app, target, output_dir or app.config.app.output_dir, **options)]


def _chosen(
    target: str, subjects: list[Subject], others: dict[str, Any], options: dict[str, Any]
) -> list[Subject]:
    """Check only what --include and --exclude name; raises UsageError for `others`, which are for REPO."""
    from distributed_downloader.errors import UsageError

    if given := [f"--{name.replace('_', '-')}" for name, value in others.items() if value]:
        raise UsageError(f"{given[0]} is for REPO; what {target} means has it already")
    chosen = {name: tuple(options[name]) for name in ("include", "exclude") if options[name]}
    return [each._replace(spec=each.spec.model_copy(update=chosen)) for each in subjects]


def _jobs_of(app: App, name: str) -> list[JobStatus]:
    """Return the jobs that have fetched a repo, oldest first."""
    from distributed_downloader.errors import UnknownJobError

    try:
        return [job for job in app.view.find(name) if not job.spec.check]
    except UnknownJobError:
        return []


def _of_job(app: App, job: JobStatus, *, fleet: bool) -> list[Subject]:
    from distributed_downloader.redis_closing import RedisClosing
    from distributed_downloader.verification import Subject, in_own_folders

    if job.spec.output_dir:
        return [Subject(job.spec)]
    if not fleet:
        return [Subject(job.spec.model_copy(update={"output_dir": app.config.app.output_dir}))]
    folders: dict[str, set[str]] = {}
    for worker in app.view.workers():
        folders.setdefault(worker.host, set()).add(worker.folder)
    return in_own_folders(job, RedisClosing(app.redis, job.id), folders)


def _of_repo(app: App, repo: str, output_dir: str, **options: Any) -> Subject:  # noqa: ANN401 passed on
    from distributed_downloader.master import prepare
    from distributed_downloader.request import job_request
    from distributed_downloader.verification import Subject

    return Subject(
        prepare(app.hub, job_request(app.config, repo, output_dir=output_dir, **options), app.rules)
    )


def _print(reports: list[Report], *, as_json: bool) -> None:
    from distributed_downloader.display import as_json as json
    from distributed_downloader.display.report import lines

    if as_json:
        click.echo(json.dump([json.report(report) for report in reports]))
        return
    for line in (line for report in reports for line in lines(report)):
        click.echo(line)
