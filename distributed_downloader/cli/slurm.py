"""`hf-downloader slurm`: a batch script for a cluster."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from distributed_downloader.cli.batch_master import command as batch_master

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App

#: Options of `batch-master` that the script has an answer to of its own; the others are for the user.
_OURS = {"from_file", "output_dir", "wait", "interval", "force"}


def _as_given(option: click.Option) -> click.Option:
    """Return an option that checks a value as the original does, and keeps it as it was written."""
    copied, check = copy.copy(option), option.callback
    copied.expose_value = True

    def callback(context: click.Context, parameter: click.Parameter, value: object) -> object:
        if check:
            check(context, parameter, value)
        return value

    copied.callback = callback
    return copied


_PASSED = {
    str(option.name): _as_given(option)
    for option in batch_master.params
    if isinstance(option, click.Option) and option.name not in _OURS
}


@click.command("slurm")
@click.argument("repos", metavar="REPO...", nargs=-1, required=True)
@click.option(
    "--nodes",
    "-N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Machines to fetch with.",
)
@click.option(
    "--tasks-per-node",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="K",
    help="Workers on each node.",
)
@click.option("--time", "-t", default="", metavar="T", help="Time limit, such as 8:00:00 or 2-12.")
@click.option("--partition", "-p", default="", metavar="P", help="Partitions that may run it.")
@click.option("--account", "-A", default="", metavar="A", help="Account that pays for it.")
@click.option(
    "--mail-user", default="", metavar="M", help="Who gets mail when it ends, fails or is queued again."
)
@click.option(
    "--env",
    default="",
    metavar="NAME",
    help="Conda environment by name, or any environment by its folder.  [default: the one of this command]",
)
@click.option(
    "--output-dir",
    "-o",
    metavar="DIR",
    default="",
    help="Shared folder to fill.  [default: [app] output_dir]",
)
@click.pass_context
def command(
    context: click.Context,
    /,
    repos: tuple[str, ...],
    *,
    env: str,
    output_dir: str,
    **options: Any,  # noqa: ANN401 passed on
) -> None:
    """Write a batch script that fetches repos on the nodes of a Slurm cluster.

    The job brings its own Redis, so it needs no server and no root. Shortly before the time limit it
    ends in order and is queued again; submitted again, it goes on where it was. No token and no password
    is in the script: the token comes from HF_TOKEN or `hf auth login`. docs/hpc.md has more.

    \b
    Examples:
      hf-downloader slurm org/name --nodes 4 --time 8:00:00 -o /lustre/me/models > job.sbatch
      hf-downloader slurm datasets/org/one datasets/org/two --include "*.parquet" -N 16 -p cpu > job.sbatch
      hf-downloader slurm org/name --env hf --tasks-per-node 2 --mail-user me@example.org > job.sbatch
    """
    from pathlib import Path

    from distributed_downloader.hub.repo_name import parse_repo
    from distributed_downloader.models import RepoType
    from distributed_downloader.slurm import BatchJob

    app: App = context.obj
    passed = {name: options.pop(name) for name in _PASSED}
    repo_type = RepoType(passed["repo_type"]) if passed["repo_type"] else None
    for repo in repos:
        parse_repo(repo, repo_type, app.config.huggingface.endpoint)
    job = BatchJob(
        repos=repos,
        output_dir=str(Path(output_dir or app.config.app.output_dir).expanduser().absolute()),
        command=("hf-downloader", *_global_words(context)),
        options=tuple(_words(context)),
        env=_environment(env),
        **options,
    )
    click.echo(job.script(["hf-downloader", *sys.argv[1:]]), nl=False)


command.params += _PASSED.values()


def _environment(env: str) -> str:
    """Return a conda environment's name, or a folder."""
    from pathlib import Path

    is_name = env and "/" not in env
    return env if is_name else str(Path(env or sys.prefix).expanduser().absolute())


def _words(context: click.Context) -> Iterator[str]:
    """Return what was given of a command's options that are passed on, as words of a command line."""
    for option in context.command.params:
        if isinstance(option, click.Option) and option.name in _PASSED and _is_given(context, option):
            yield from _written(option, context.params[str(option.name)])


def _global_words(context: click.Context) -> Iterator[str]:
    """Return the global flags that were given; raises click.UsageError for those of a Redis."""
    from pathlib import Path

    root = context.find_root()
    for option in root.command.params:
        if not isinstance(option, click.Option) or not _is_given(root, option):
            continue
        if str(option.name).startswith("redis_"):
            raise click.UsageError(f"{option.opts[0]}: the job has a Redis of its own.")
        value = root.params[str(option.name)]
        yield from _written(option, Path(value).absolute() if option.name == "config_file" else value)


def _is_given(context: click.Context, option: click.Option) -> bool:
    from click.core import ParameterSource

    return context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE


def _written(option: click.Option, value: Any) -> Iterator[str]:  # noqa: ANN401 of many types
    if option.is_flag:
        yield option.opts[0]
        return
    for each in value if option.multiple else [value]:
        yield from (option.opts[0], str(each))
