"""What the doctor finds of a Redis: on every real server, with settings and users that do not suit us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis as redis_py

from distributed_downloader import redis_health
from distributed_downloader.config import RedisConfig
from distributed_downloader.doctor import look
from distributed_downloader.errors import ConfigError
from distributed_downloader.findings import Finding, Verdict
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_health import REDIS, RedisHealth, check_server
from distributed_downloader.redis_rights import missing, needed
from tests import access
from tests.queue.base import status_of
from tests.servers import Binary, Server, free_port


def examine(config: RedisConfig) -> dict[str, Finding]:
    """Return the findings by name."""
    return {finding.name: finding for finding in look({REDIS: RedisHealth(config).findings})}


def verdicts(found: Mapping[str, Finding], verdict: Verdict) -> set[str]:
    return {name for name, finding in found.items() if finding.verdict is verdict}


@pytest.fixture
def tuned(server: Server, redis: redis_py.Redis) -> Iterator[Server]:
    """A server whose settings a test changes, and which has its own afterwards."""
    redis.config_set("appendonly", "yes")
    yield server
    for name, value in {"maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "no"}.items():
        redis.config_set(name, value)


def test_a_healthy_server(tuned: Server, binary: Binary) -> None:
    found = examine(tuned.config)
    assert verdicts(found, Verdict.GOOD) == set(found)
    name = "Valkey" if "valkey" in binary.name else "Redis"
    assert found["server"].value.startswith(f"{name} {binary.name.partition('-')[2]} at {tuned.socket}")
    assert found["role"].value == "primary"
    assert found["rights"].value == f"all {len(needed())} commands that are needed"
    assert found["workers"].value == "0 living workers"


def test_its_workers_are_known_then(tuned: Server, client: RedisClient) -> None:
    client.register(status_of("w1", 2, "h1"))
    health = RedisHealth(tuned.config)
    assert [finding.value for finding in health.findings() if finding.name == "workers"] == [
        "1 living worker"
    ]
    assert [worker.id for worker in health.workers or []] == ["w1"]


def test_settings_that_do_not_suit_have_the_words_of_the_start(
    tuned: Server, redis: redis_py.Redis, client: RedisClient
) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.config_set("appendonly", "no")
    found = examine(tuned.config)
    assert verdicts(found, Verdict.WARNING) == {"eviction", "persistence"}
    assert client.check() == [found["eviction"].advice, found["persistence"].advice]


@pytest.mark.parametrize(("share", "verdict"), [(10.0, Verdict.GOOD), (0.8, Verdict.BROKEN)])
def test_memory(share: float, verdict: Verdict, tuned: Server, redis: redis_py.Redis) -> None:
    about: Any = redis.info("memory")
    counted = about["used_memory"] - about.get("mem_not_counted_for_evict", 0)
    redis.config_set("maxmemory", int(counted * share))
    assert examine(tuned.config)["memory"].verdict is verdict


def test_a_replica(tuned: Server, binary: Binary) -> None:
    settings = {"replicaof": "127.0.0.1 1"}
    with Server(binary, settings=settings) as replica:
        found = examine(replica.config)
    assert found["role"].verdict is Verdict.BROKEN
    assert "read-only replica" in found["role"].advice


def test_a_redis_that_is_not_there() -> None:
    found = examine(RedisConfig(port=free_port()))
    assert verdicts(found, Verdict.BROKEN) == set(found) == {"answer"}
    assert "cannot be reached" in found["answer"].advice


def test_a_wrong_password(tuned: Server) -> None:
    config = tuned.config.model_copy(update={"username": "nobody"})
    config = RedisConfig.model_validate({**config.model_dump(), "password": "wrong"})
    assert "refuses the login" in examine(config)["answer"].advice


# -- rights ---------------------------------------------------------------------------------------


def as_user(server: Server, *without: str) -> RedisConfig:
    """Return a login of the documented user, who lacks some words of the rule."""
    with access.administrator(server) as admin:
        rule = [word for word in access.rule() if word not in without]
        admin.execute_command("ACL", "SETUSER", *rule)
    login = {"username": access.USER, "password": access.PASSWORD}
    return RedisConfig.model_validate({"url": f"unix://{server.socket}", **login})


def test_the_list_is_that_of_the_document() -> None:
    assert set(needed()) == access.commands()


def test_the_documented_user_is_healthy(tuned: Server) -> None:
    assert not verdicts(examine(as_user(tuned)), Verdict.BROKEN)


def test_each_right_that_is_missing_is_named_and_nothing_is_executed(
    server: Server, redis: redis_py.Redis
) -> None:
    for rule in [*(f"+{name}" for name in sorted(needed())), "~{hfd}:*"]:
        assert missing(as_user(server, rule), "here", "{hfd}:") == [rule]
    assert missing(as_user(server, "+hset", "+exec", "+zadd"), "here", "{hfd}:") == [
        "+exec",
        "+hset",
        "+zadd",
    ]
    assert redis.dbsize() == 0


def test_a_right_that_is_missing_is_said(server: Server) -> None:
    found = examine(as_user(server, "+zadd", "+info"))
    assert found["rights"].verdict is Verdict.BROKEN
    assert "forbids this user +info +zadd; docs/operations.md" in found["rights"].advice
    assert "forbids this user the command" in found["server"].advice
    without_ping = examine(as_user(server, "+ping", "+zadd"))["rights"].advice
    assert "forbids this user +ping +zadd; docs/operations.md" in without_ping
    more = examine(as_user(server, "+multi"))["rights"].advice
    assert "forbids this user +multi and maybe more" in more


def test_a_command_that_was_renamed_is_missing(binary: Binary) -> None:
    with Server(binary, settings={"rename-command": 'INFO ""'}) as server:
        assert missing(server.config, "here", "{hfd}:") == ["+info"]


# -- what is hard to have in a real one -----------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "name", "verdict"),
    [
        ({"redis_version": "5.0.7"}, "server", Verdict.BROKEN),
        ({"redis_version": "6.0.0"}, "server", Verdict.GOOD),
        ({"used_memory": 95, "maxmemory": 100}, "memory", Verdict.WARNING),
        ({"used_memory": 195, "mem_not_counted_for_evict": 100, "maxmemory": 100}, "memory", Verdict.WARNING),
        ({"used_memory": 101, "maxmemory": 100}, "memory", Verdict.BROKEN),
        ({"connected_clients": 95, "maxclients": 100}, "connections", Verdict.WARNING),
        ({"connected_clients": 90, "maxclients": 100}, "connections", Verdict.GOOD),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "persistence", Verdict.WARNING),
        ({"aof_enabled": 1, "rdb_last_bgsave_status": "err"}, "persistence", Verdict.WARNING),
    ],
)
def test_what_a_server_may_say_of_itself(about: dict[str, Any], name: str, verdict: Verdict) -> None:
    class Client:
        def info(self) -> dict[str, Any]:
            return about

        def ping(self) -> bool:
            return True

    client: Any = Client()
    found = {finding.name: finding for finding in redis_health._server(client, "here:1/0")}
    assert found[name].verdict is verdict
    if name == "server" and verdict is Verdict.BROKEN:
        with pytest.raises(ConfigError, match=r"version 5\.0\.7; this needs 6.0 or newer"):
            check_server(client, "here:1/0")


def test_a_far_away_redis_and_a_wrong_clock() -> None:
    assert redis_health._latency(0.0002, "here").value == "0.2 ms"
    assert redis_health._latency(0.2, "here").verdict is Verdict.WARNING
    assert redis_health._clock(-0.02).value == "as that of Redis"
    assert redis_health._clock(-3).value == "3.0 s behind that of Redis"
    wrong = redis_health._clock(3600)
    assert (wrong.verdict, wrong.value) == (Verdict.WARNING, "3600.0 s ahead of that of Redis")
    assert "set the clock" in wrong.advice
