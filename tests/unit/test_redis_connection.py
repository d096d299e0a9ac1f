"""What we say when Redis refuses, for every kind of refusal that redis-py knows."""

from __future__ import annotations

import inspect
import re
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions

from distributed_downloader.config.sections import RedisConfig
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.redis_connection import connect, translated
from distributed_downloader.redis_greeting import BrokenOffError
from distributed_downloader.redis_lua import lua_sources
from distributed_downloader.redis_mend import type_of


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            redis.ConnectionError("Error 111 connecting to h:1. Connection refused."),
            "is it running, and are [redis]",
        ),
        (redis.TimeoutError("Timeout reading from socket"), "does not answer in time"),
        (redis.AuthenticationError("invalid username-password pair"), "check [redis] username and password"),
        (redis.AuthenticationError("Authentication required."), "wants a login: set [redis] username"),
        (
            redis.AuthenticationError("AUTH <password> called without any password configured"),
            "wants no login",
        ),
        (redis.ResponseError("NOAUTH Authentication required."), "wants a login: set [redis] username"),
        (redis.ResponseError("WRONGPASS invalid"), "refuses the login"),
        (exceptions.NoPermissionError("this user has no permissions"), "docs/operations.md has the ACL rule"),
        (exceptions.NoPermissionError("no permissions to run the 'info' command"), "the command info; docs"),
        (redis.ResponseError("script: -NOPERM this user"), "docs/operations.md has the ACL rule"),
        (redis.ResponseError("The user executing the script can't run this command"), "ACL rule"),
        (redis.ResponseError("ACL failure in script: User hfd has no permissions"), "ACL rule"),
        (exceptions.OutOfMemoryError("command not allowed"), "is full: raise its maxmemory"),
        (redis.ResponseError("Error running script: @user_script: 9: -OOM command not allowed"), "is full"),
        (redis.ResponseError("DB index is out of range"), "check [redis] db"),
        (
            redis.ReadOnlyError("You can't write against a read only replica."),
            "[redis] host or url must name the primary",
        ),
        (redis.ResponseError("-READONLY You can't write"), "must name the primary"),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), "still loading"),
        (
            redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
            "cannot write to its own disk",
        ),
        (redis.ResponseError("BUSY Redis is busy running a script"), "is busy"),
        (exceptions.MovedError("1234 10.0.0.1:6379"), "is a cluster"),
        (
            redis.ResponseError("ERR odd script: 6f1ed002ab5595859014ebf0951522d9, on @user_script:1."),
            "refuses: odd",
        ),
        (
            redis.ResponseError(
                "Error running script (call to f_6f1e): @user_script:7: @user_script: 7: odd"
            ),
            "refuses: odd",
        ),
        (redis.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate"), "set [redis] ca_certs"),
        (BrokenOffError("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13"), "set [redis] client_cert"),
        (redis.ConnectionError("[SSL: WRONG_VERSION_NUMBER] wrong version"), "does not speak TLS"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas"), "too few replicas"),
        (redis.InvalidResponse("Protocol Error: b'HTTP/1.1 400'"), "does not speak Redis"),
        (redis.ResponseError("something new"), "refuses: something new"),
        (redis.DataError("something of redis-py's own"), "refuses: something of redis-py's own"),
    ],
)
def test_the_message_says_where_what_and_what_to_do(error: redis.RedisError, advice: str) -> None:
    with pytest.raises(RedisUnavailableError) as caught, translated("r.example:6379/0"):
        raise error
    assert str(caught.value).startswith("Redis at r.example:6379/0 ")
    assert advice in str(caught.value)
    assert len(str(caught.value)) <= 160
    assert "script" not in str(caught.value).partition("script; try")[0]
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("r.example:6379/0", "are [redis] host, port, tls or url right? (Connection refused)"),
        ("/run/redis.sock/0", "is [redis] url right? (Connection refused)"),
        ("fleet/0 (sentinels s.example:26379)", "is [redis] tls right? (Connection refused)"),
    ],
)
def test_only_settings_that_count_are_named(address: str, wanted: str) -> None:
    with pytest.raises(RedisUnavailableError) as caught, translated(address):
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError:
            raise redis.ConnectionError("Error 111 connecting to r.example:6379. Connection refused.")  # noqa: B904 - as redis-py does it
    assert str(caught.value) == f"Redis at {address} cannot be reached: is it running, and {wanted}"


def test_every_error_of_redis_py_is_translated() -> None:
    kinds = [
        kind
        for _, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, redis.RedisError)
    ]
    assert len(kinds) > 20
    for kind in kinds:
        error = kind.__new__(kind)
        with pytest.raises(RedisUnavailableError), translated("r.example:6379/0"):
            raise error


def test_other_errors_are_not_ours() -> None:
    with pytest.raises(KeyError), translated("r.example:6379/0"):
        raise KeyError("a bug")


@pytest.mark.parametrize("name", sorted(lua_sources()))
def test_every_script_says_what_it_takes_and_returns(name: str) -> None:
    own = (files("distributed_downloader") / f"lua/{name}.lua").read_text()
    assert lua_sources()[name].endswith(own)
    header = "\n".join(takewhile(lambda line: line.startswith("--"), own.split("\n")))
    assert "-- Returns" in header
    used, documented = (set(re.findall(r"ARGV\[(\d+)", part)) for part in (own, header))
    assert used - {"1"} <= documented


@pytest.mark.parametrize("name", sorted(lua_sources()))
def test_a_script_has_what_it_needs_of_the_shared_functions_and_no_more(name: str) -> None:
    lua = files("distributed_downloader") / "lua"
    own, whole = (lua / f"{name}.lua").read_text(), lua_sources()[name]
    parts = (lua / "_common.lua", lua / "_lives.lua", lua / "_start.lua")
    functions = [
        found
        for part in parts
        for found in re.findall(r"^local function (\w+)", part.read_text(), re.MULTILINE)
    ]
    there = re.findall(r"^local function (\w+)", whole.removesuffix(own), re.MULTILINE)
    assert there == [function for function in functions if function in there], "in their order"
    bare = re.sub("--.*", "", whole)
    for function in functions:
        used = len(re.findall(rf"\b{function}\b", bare)) > (function in there)
        assert used == (function in there), function


def test_each_key_has_the_type_that_the_documentation_gives_it() -> None:
    text = (Path(__file__).parents[2] / "docs/queue.md").read_text()
    rows = re.findall(
        r"^\| (`[^|]+) \| ([a-z, ]+) \|", text.partition("## Keys")[2].partition("\n**")[0], re.MULTILINE
    )
    documented = dict[str, str]()
    for names, kinds in rows:
        found = [re.sub("<[^>]*>", "7", name) for name in re.findall("`([^`]+)`", names)]
        found = [f"job:7{name}" if name.startswith(":") else name for name in found]
        types = kinds.split(", ") * (1 if ", " in kinds else len(found))
        documented |= dict(zip(found, types, strict=True))
    assert len(documented) > 40
    assert {name: type_of(name) for name in documented} == documented


# -- what goes over the line ----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["EVALSHA", "SET", "CLIENT SETINFO"])
@pytest.mark.parametrize("word", ["text", "ünï", "", 17, -1, 2.5, b"\xff\0", "caf\udce9"])
def test_a_command_is_packed_as_the_library_would_but_for_bytes_that_are_no_text(
    command: str, word: str | bytes | float
) -> None:
    connection: Any = connect(RedisConfig()).connection_pool.make_connection()
    packed = b"".join(connection.pack_command(command, word, "last"))
    sent = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape")
    words = [*command.encode().split(), sent, b"last"]
    assert packed == b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)
