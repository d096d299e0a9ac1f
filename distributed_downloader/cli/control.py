"""What `pause`, `resume`, `cancel`, `retry` and `forget` share: find jobs, act, say what happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from distributed_downloader.cli.options import json_option

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App
    from distributed_downloader.models import JobStatus

Name = Literal["pause", "resume", "cancel", "retry"]


class Verb(NamedTuple):
    """One command: what it does, to which jobs, and in which words."""

    name: Name
    help: str
    #: The state that it brings about, if any: a word, for `--help` needs no models.
    goal: str | None
    #: To which of several jobs of a repo it applies.
    applies: Callable[[JobStatus], bool]
    #: Said after `Job 3 (org/name)` when it had an effect, and when it had none.
    changed: Callable[[JobStatus], str]
    unchanged: Callable[[JobStatus], str]


def command(verb: Verb) -> click.Command:
    """Return the command of a verb."""

    @click.command(name=verb.name, help=f"{verb.help}\n\n{examples(verb.name)}")
    @click.argument("target", metavar="JOB|REPO")
    @json_option
    @click.pass_obj
    def run(app: App, target: str, as_json: bool) -> None:
        results = [(job, act(app, verb, job)) for job in select(app.view.find(target), verb.applies)]
        report(app, verb.name, results, as_json, lambda job, changed: sentence(app, verb, job, changed))

    return run


def act(app: App, verb: Verb, job: JobStatus) -> bool:
    """Do it, and return whether it changed anything."""
    return app.redis.control(verb.name, job.id) and job.state != verb.goal


def examples(name: str) -> str:
    """Return the examples of a verb's help."""
    return f"\b\nExamples:\n  hf-downloader {name} 3\n  hf-downloader {name} datasets/org/name"


def select(jobs: list[JobStatus], applies: Callable[[JobStatus], bool]) -> list[JobStatus]:
    """Return the job, or of several those to which it applies; all if it applies to none."""
    return jobs if len(jobs) == 1 else [job for job in jobs if applies(job)] or jobs


def title(job: JobStatus) -> str:
    """Return `Job 3 (org/name)`."""
    from distributed_downloader.display import units

    return f"Job {job.id} ({units.title(job.spec)})"


def sentence(app: App, verb: Verb, job: JobStatus, changed: bool) -> str:
    """Return what to say about one job."""
    # What was read before may be old by now.
    words = verb.changed(job) if changed else verb.unchanged(app.view.job(job.id))
    return f"{title(job)} {words}."


def as_it_is(verb: str, goal: str) -> Callable[[JobStatus], str]:
    """Return words for a job that the verb leaves as it is."""

    def words(job: JobStatus) -> str:
        return f"is already {goal}" if job.state == goal else f"is {job.state.value}: nothing to {verb}"

    return words


def report(
    app: App,
    name: str,
    results: list[tuple[JobStatus, bool]],
    as_json: bool,
    words: Callable[[JobStatus, bool], str],
) -> None:
    """Print what happened to each job, as sentences or JSON."""
    from distributed_downloader.display import as_json as json
    from distributed_downloader.display.canvas import Canvas, emit

    if as_json:
        click.echo(json.dump([json.action(name, job, changed) for job, changed in results]))
    else:
        canvas = Canvas.of(app.console)
        emit(app.console, [canvas.safe(words(job, changed)) for job, changed in results])
