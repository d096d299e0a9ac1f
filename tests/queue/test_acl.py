"""The documented Redis user can do everything that the product does, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis as redis_py

from distributed_downloader.config import RedisConfig
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import translated
from distributed_downloader.redis_view import RedisView
from tests import access
from tests.queue.base import complete, status_of
from tests.queue.steps import NS, a_job, a_worker
from tests.queue.test_connection import everything_once
from tests.servers import Binary, Server

#: Another database, so that it has to be selected.
DB = 1
#: What a server lets anybody do: say who they are, and leave.
ANYBODYS = {"auth", "hello", "quit", "reset"}
#: What redis-py says of itself where it may.
POLITE = {"client|setinfo"}


@pytest.fixture(scope="module")
def guarded(binary: Binary) -> Iterator[Server]:
    """A server of which only the documented user's rights are used."""
    with Server(binary) as server:
        access.make_user(server)
        yield server


@pytest.fixture
def user(guarded: Server) -> Iterator[RedisClient]:
    client = as_user(guarded)
    client.commands.connection_pool.disconnect()
    with access.administrator(guarded) as admin:
        admin.flushall()
        admin.script_flush()
        admin.config_resetstat()
    yield client
    client.close()


def as_user(server: Server) -> RedisClient:
    login = {"username": access.USER, "password": access.PASSWORD, "db": DB}
    return RedisClient(RedisConfig.model_validate({"url": f"unix://{server.socket}", **login}))


def everything(client: RedisClient) -> None:
    """Use all that the product uses, also what it does about litter and keys that somebody overwrote."""
    everything_once(client)
    litter_and_all(client)


def litter_and_all(client: RedisClient) -> None:
    """Meet what does not belong there, and a job that is forgotten while much of it is in use."""
    client.commands.rpush(f"{NS}ready", "litter")
    a_worker(client, "w2", host="h2")
    job = a_job(client, 3)
    client.more("w2", 1)
    while token := client.claim("w2", 0):
        client.begin("w2", token)
    held = client.beat("w2", "h2")
    assert held
    complete(client, "w2", min(held.tokens), 0, "h2")
    assert [file.host for file in RedisView(client).files(job)].count("h2") == 1
    client.commands.set(f"{NS}asleep", "overwritten")
    client.register(status_of("w3", 2, "h3"))
    client.commands.delete(f"{NS}tick")
    client.tick()
    assert client.forget(job)


def used(server: Server) -> set[str]:
    """Return the commands that a server was asked for, also from within scripts."""
    with access.administrator(server) as admin:
        names = {str(name).removeprefix("cmdstat_") for name in admin.info("commandstats")}
        return names - {"flushall", "config", "config|resetstat", "script|flush"}


def test_it_can_do_everything_and_each_right_is_used(user: RedisClient, guarded: Server) -> None:
    everything(user)
    rights = access.commands()
    if not any("|" in name for name in used(guarded)):  # before Redis 7
        rights = {name.partition("|")[0] for name in rights}
    assert used(guarded) - ANYBODYS - POLITE == rights


@pytest.mark.parametrize("command", sorted(access.commands()))
def test_no_right_is_too_much(command: str, user: RedisClient, guarded: Server) -> None:
    access.make_user(guarded, command)
    try:
        with pytest.raises((RedisUnavailableError, AssertionError)):
            everything(user)
    finally:
        access.make_user(guarded)


# -- and nothing else -----------------------------------------------------------------------------


def catalogue(server: Server) -> list[tuple[str, int, int]]:
    """Return (name, arity, position of the first key) of every command and subcommand."""
    with access.administrator(server) as admin:
        admin.response_callbacks.clear()  # as the server says it
        entries: list[list[Any]] = admin.execute_command("COMMAND")
    found = []
    for entry in entries:
        inner = entry[9] if len(entry) > 9 and entry[9] else [entry]
        found += [(name, arity, first) for name, arity, _, first, *_ in inner]
    return found


def words(name: str, arity: int) -> list[str]:
    """Return a call of a command with as many arguments as it needs, all of them a key that is not ours."""
    call = name.split("|")
    return call + ["other"] * (abs(arity) - len(call))


def test_every_other_command_is_refused(user: RedisClient, guarded: Server) -> None:
    rights, commands = access.commands(), cast(Any, user.commands)
    refused = [(name, arity) for name, arity, _ in catalogue(guarded) if name not in rights | ANYBODYS]
    # Before Redis 7 a command is not told from its subcommands here: `CLIENT other` is refused.
    assert len(refused) > 100
    for name, arity in refused:
        # Some are closed to everybody (MODULE, DEBUG) before anybody asks who it is.
        with pytest.raises(redis_py.ResponseError, match=r"no permissions|command not allowed"):
            commands.execute_command(*words(name, arity))


def test_no_other_key_can_be_used(user: RedisClient, guarded: Server) -> None:
    rights, commands = access.commands(), cast(Any, user.commands)
    keyed = [(name, arity) for name, arity, first in catalogue(guarded) if first and name in rights]
    assert len(keyed) > 40
    for name, arity in keyed:
        with pytest.raises(redis_py.exceptions.NoPermissionError):
            commands.execute_command(*words(name, arity))


@pytest.mark.parametrize("call", ["'GET', 'other'", "'SET', 'hfd:x', '1'", "'FLUSHALL'", "'KEYS', '*'"])
def test_a_script_can_do_no_more(call: str, user: RedisClient) -> None:
    digest = user.commands.script_load(f"return redis.call({call})")
    with pytest.raises(RedisUnavailableError, match="ACL rule"), translated("here"):
        user.commands.evalsha(digest, 0)
