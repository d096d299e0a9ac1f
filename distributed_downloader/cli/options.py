"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_GLOBAL = (
    click.option("--config", "-c", "config_file", metavar="FILE", help="Configuration file to read."),
    click.option("--redis-host", metavar="HOST", help="Redis server."),
    click.option("--redis-port", type=int, metavar="PORT", help="Redis port."),
    click.option("--redis-db", type=int, metavar="N", help="Redis database number."),
    click.option("--redis-username", metavar="NAME", help="Redis (ACL) user."),
    click.option(
        "--redis-password",
        metavar="SECRET",
        help="Redis password; seen by all users here, unlike REDIS_PASSWORD.",
    ),
    click.option(
        "--redis-url",
        metavar="URL",
        help="redis://, rediss://, unix:// or redis+sentinel:// address, instead of the above.",
    ),
    click.option("--endpoint", metavar="URL", help="The hub or a mirror."),
    click.option(
        "--disable-ssl-verify", is_flag=True, default=None, help="Accept any certificate (TLS inspection)."
    ),
    click.option(
        "--log-level",
        type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
        help="How much to log on standard error.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"], case_sensitive=False),
        help="Standard error as text, or as one JSON object per line.",
    ),
)


def global_options(function: F) -> F:
    """Add the options that every command understands, given before its name."""
    for option in reversed(_GLOBAL):
        function = option(function)
    return function


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md) instead of text.")(
        function
    )


def worker_options(function: F) -> F:
    """Add what bounds a worker."""
    for option in (
        click.option(
            "--max-bandwidth", metavar="RATE", help="At most so much, all files together: 10MB/s, 1.5MiB/s."
        ),
        click.option("--concurrency", "-j", type=int, metavar="N", help="Files at once.  [default: 4]"),
    ):
        function = option(function)
    return function
