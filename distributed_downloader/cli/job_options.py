"""Options that say what to fetch, and how a job is to be run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

MIB = 1 << 20


def split_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return the bytes of a part, in whole MiB: None for `auto`, 0 for `never`."""
    from distributed_downloader.config import parse_size

    if value is None or value.lower() == "auto":
        return None
    if value.lower() == "never":
        return 0
    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither auto nor never, and a size {error}.") from None
    if size < MIB:
        raise click.BadParameter(f"{value} is less than 1MiB; `never` splits no file.")
    return -(-size // MIB) * MIB


def _no_space_check(ctx: click.Context, _param: click.Parameter, given: bool) -> None:
    if given:
        ctx.obj.space_check = False


layout_option = click.option(
    "--layout",
    type=click.Choice(["tree", "local-dir", "hf-cache"]),
    help="How files lie in DIR: <org>/<name>/<path> (tree), that as `hf download --local-dir` "
    "leaves it (local-dir), or as a cache of the hub's library (hf-cache).  [default: [app] layout]",
)

_FETCH = (
    layout_option,
    click.option(
        "--split",
        callback=split_size,
        metavar="auto|never|SIZE",
        help="Fetch large files in parts, many at once; SIZE, such as 64MiB, is that of a part.  "
        "[default: auto]",
    ),
    click.option("--force", is_flag=True, help="Fetch everything again, also what is there and right."),
    click.option(
        "--no-space-check",
        is_flag=True,
        expose_value=False,
        callback=_no_space_check,
        help="Take a job that is larger than what is free where it goes.",
    ),
)

_REPO = (
    click.option(
        "--repo-type",
        type=click.Choice(["model", "dataset", "space"]),
        help="What kind of repo.  [default: found out]",
    ),
    click.option(
        "--revision", metavar="REV", help="Branch, tag, commit, or PR ref such as refs/pr/1.  [default: main]"
    ),
    click.option(
        "--include",
        metavar="GLOB",
        multiple=True,
        help="Only files that match; may be repeated. * also matches /, and dir/ is all below dir.",
    ),
    click.option("--exclude", metavar="GLOB", multiple=True, help="No files that match; may be repeated."),
)

_JOB = (
    click.option(
        "--output-dir",
        "-o",
        metavar="DIR",
        default="",
        help="Folder for all workers, such as a NAS.  [default: each worker's own]",
    ),
    click.option(
        "--priority",
        type=click.IntRange(1, 1000),
        default=1,
        show_default=True,
        help="Weight beside other jobs: 1 is normal, 10 gets ten files for each of theirs, 100 nearly all.",
    ),
    click.option(
        "--wait", is_flag=True, help="Show the progress until the job ends; the exit code tells how."
    ),
    click.option(
        "--interval",
        type=click.FloatRange(min=0.05),
        metavar="SECONDS",
        help="Time between two lines with --wait, where there is no terminal.  [default: 10]",
    ),
)


def repo_options(function: F) -> F:
    """Add what chooses the revision and the files of a repo."""
    return _add(_REPO, function)


def fetch_options(function: F) -> F:
    """Add how files are fetched, and how they lie on disk then."""
    return _add(_FETCH, function)


def job_options(function: F) -> F:
    """Add where a job's files go, and how eagerly."""
    return _add(_JOB[:1] + _FETCH + _JOB[1:], function)


def check_interval(interval: float | None, *, wait: bool) -> None:
    """Raise click.UsageError where nobody waits."""
    if interval and not wait:
        raise click.UsageError("--interval is for --wait, which is not there.")


def _add(options: tuple[Callable[[F], F], ...], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function
