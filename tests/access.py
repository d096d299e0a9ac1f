"""The rule that docs/operations.md gives for a Redis user of its own, taken from there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.servers import Server

USER, PASSWORD = "hfd", "s3cret/p@ss:word"
_DOCUMENT = Path(__file__).parents[1] / "docs/operations.md"


def rule() -> list[str]:
    """Return the words that follow `ACL SETUSER`, with a password of ours."""
    found = re.search(r"^redis-cli ACL SETUSER ((?:.*\\\n)+.*)$", _DOCUMENT.read_text(), re.MULTILINE)
    assert found, f"{_DOCUMENT} gives no rule"
    return [word.replace("PASSWORD", PASSWORD) for word in shlex.split(found[1].replace("\\\n", " "))]


def commands() -> set[str]:
    """Return the commands that the rule allows: `get`, `client|id`."""
    return {word[1:] for word in rule() if word.startswith("+")}


@contextmanager
def administrator(server: Server, password: str | None = None) -> Iterator[Any]:
    """A plain client of the default user, who may do anything."""
    client = redis.Redis(
        unix_socket_path=str(server.socket),
        password=password,
        decode_responses=True,
        protocol=2,
        socket_timeout=60,
    )
    try:
        yield client
    finally:
        client.close()


def make_user(server: Server, *without: str) -> None:
    """Make the user as the document says, or without some of the commands."""
    with administrator(server) as client:
        client.execute_command("ACL", "SETUSER", *(word for word in rule() if word[1:] not in without))
