"""`hf-downloader batch-master`: make jobs of several repos."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from distributed_downloader.cli.job_options import check_interval, job_options, repo_options
from distributed_downloader.errors import DownloaderError

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App
    from distributed_downloader.config import AppConfig
    from distributed_downloader.hub import Hub
    from distributed_downloader.master import MasterNode, Submitted

    Result = Submitted | DownloaderError

#: Repos that are listed at the same time.
THREADS = 4


@click.command("batch-master")
@click.argument("repos")
@click.option(
    "--from-file", is_flag=True, help="REPOS is a file: one repo a line, # begins a comment, - is stdin."
)
@repo_options
@job_options
@click.pass_obj
def command(
    app: App,
    /,
    repos: str,
    *,
    from_file: bool,
    priority: int,
    wait: bool,
    interval: float | None,
    **options: Any,  # noqa: ANN401 passed on
) -> int:
    """Queue several repos for the fleet: "a,b,c", or a file with --from-file.

    Prints for each repo, in the order given, its name, a tab, and `Job ID: <id>` or what went wrong. The
    options hold for all of them. Exit code 1 if any failed.

    \b
    Examples:
      hf-downloader batch-master org/one,org/two,datasets/org/three
      hf-downloader batch-master repos.txt --from-file --output-dir /nas/models --wait
    """
    from distributed_downloader.cli.submission import interrupt_hint, wait_for
    from distributed_downloader.master import MasterNode
    from distributed_downloader.models import JobState

    check_interval(interval, wait=wait)
    names = _names(repos, from_file=from_file)
    app.warn_of_redis()
    app.share_budgets()
    master = MasterNode(app.hub, app.redis, app.config.nas, app.rules, reserve=app.reserve)
    with interrupt_hint("not all repos are queued; run the same command again to go on"):
        results = _queue_all(_queuer(master, app.config, priority, options), names, app.hub)
    jobs = dict.fromkeys(result.job for result in results if not isinstance(result, DownloaderError))
    click.echo(
        f"{len(jobs)} jobs of {len(names)} repos; see them with: hf-downloader status --watch", err=True
    )
    states = [wait_for(app, master, job, interval) for job in jobs] if wait else []
    return int(not all(map(_is_well, results)) or any(state is not JobState.DONE for state in states))


def _names(repos: str, *, from_file: bool) -> list[str]:
    """Return the names in the order given, each once; click.UsageError if there are none."""
    words = _lines(repos) if from_file else repos.split(",")
    names = [name for word in words if (name := word.strip())]
    if not names:
        raise click.UsageError(f"{repos!r} names no repo.")
    unique = list(dict.fromkeys(names))
    for name in unique:
        if names.count(name) > 1:
            click.echo(f"note: {name} is there {names.count(name)} times; once is enough", err=True)
    return unique


def _lines(path: str) -> list[str]:
    """Return a file's lines without their comments; a # inside a word begins none."""
    try:
        with click.open_file(path, encoding="utf-8-sig") as file:
            return [re.sub(r"(^|\s)#.*", "", line) for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from error


def _queuer(
    master: MasterNode, config: AppConfig, priority: int, options: dict[str, Any]
) -> Callable[[str], Result]:
    from distributed_downloader.request import job_request

    def queue(name: str) -> Result:
        try:
            return master.submit(master.prepare(job_request(config, name, **options)), priority)
        except DownloaderError as error:
            return error

    return queue


def _queue_all(queue: Callable[[str], Result], names: Iterable[str], hub: Hub) -> list[Result]:
    """Make the jobs, several at a time, and print each result in the order of the names."""
    from concurrent.futures import ThreadPoolExecutor

    results = []
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for name, result in zip(names, pool.map(queue, names), strict=True):
                _print(name, result)
                results.append(result)
        finally:
            # Without this, Ctrl+C would wait until the running listings are complete.
            hub.stop("interrupted")
            pool.shutdown(wait=False, cancel_futures=True)
    return results


def _print(name: str, result: Result) -> None:
    from distributed_downloader.cli.submission import settled_before
    from distributed_downloader.display import notices, units

    if isinstance(result, DownloaderError):
        click.echo(f"{units.safe(name)}\terror: {units.safe(str(result))}")
        return
    click.echo(f"{units.safe(name)}\tJob ID: {result.job}")
    for line in [*notices.listing(result.plan), *settled_before(result)]:
        click.echo(f"{units.safe(name)}: {line}", err=True)


def _is_well(result: Result) -> bool:
    return not isinstance(result, DownloaderError) and not result.plan.skipped_count
