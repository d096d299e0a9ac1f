"""Whatever somebody else writes into any key, healthy jobs end, and whoever looks on sees that."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import redis as redis_py
from hypothesis import HealthCheck, given, settings

from distributed_downloader.redis_client import RedisClient
from tests.queue.hostile import (
    TYPES,
    Life,
    Write,
    dump,
    every_lie,
    lies,
    members,
    noise,
    restore,
    set_scene,
    wrong_types,
)
from tests.queue.steps import NS
from tests.servers import Server, binaries

#: Of the lies that can be told field by field, every n-th is tried; `python -m tests.queue.hostile`: all.
EVERY = 97


class Stage:
    """A scene that can be set again and again, on one server: what differs between them is not this."""

    def __init__(self, server: Server) -> None:
        self.redis = redis_py.Redis(
            unix_socket_path=str(server.socket),
            decode_responses=True,
            encoding_errors="surrogateescape",
            protocol=2,
        )
        self.raw = redis_py.Redis(unix_socket_path=str(server.socket))
        self.client = RedisClient(server.config)
        self.url = server.config.url.get_secret_value()
        self.redis.flushall()
        set_scene(self.client)
        self.scene = dump(self.raw)
        names = [key.decode() for key, _, _ in self.scene]
        self.members = {name: (str(self.redis.type(name)), members(self.redis, name)) for name in names}

    def survives(self, write: Write) -> None:
        """Assert that life goes on behind a write."""
        restore(self.raw, self.scene)
        try:
            write.do(self.redis)
        except redis_py.ResponseError:
            return  # not even Redis takes it
        Life(self.client, self.redis, self.url).goes_on(write.key)

    def close(self) -> None:
        self.client.close()
        self.redis.close()
        self.raw.close()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Server(binaries()[0]) as server:
        stage = Stage(server)
        yield stage
        stage.close()


def test_the_scene_has_every_key_that_there_is(stage: Stage) -> None:
    """All that docs/queue.md lists, but for what lives shortly."""
    restore(stage.raw, stage.scene)
    there = {name.removeprefix(NS) for name in stage.members}
    singles = "jobs names identities vclock window workers fleet dead ended asleep delayed parked tails"
    assert {*singles.split(), "progress", "next_job", "poison", "folders", "owed:ab12", "active:w0"} <= there
    jobs = "tasks pending held seals sealer records blind done where hosts failed tries home"
    assert {f"job:{kind}" for kind in jobs.split()} <= {f"job:{name.rpartition(':')[2]}" for name in there}
    Life(stage.client, stage.redis, stage.url).goes_on("")


@pytest.mark.parametrize("kind", TYPES)
def test_keys_of_another_type_are_put_aside(stage: Stage, kind: str) -> None:
    restore(stage.raw, stage.scene)
    writes = [write for write in wrong_types(stage.redis) if write.type == kind]
    assert len(writes) >= 20
    for write in writes:
        stage.survives(write)


def test_what_was_put_aside_is_told(stage: Stage) -> None:
    restore(stage.raw, stage.scene)
    stage.survives(Write(f"{NS}ready", "set", (("1.0.0", "", 0.0),), over=True))
    assert f"{NS}ready: a set, and should be a list" in stage.redis.lrange(f"{NS}poison", 0, -1)


def test_housekeeping_is_not_locked_out_for_ever(stage: Stage) -> None:
    for lock in ({}, {"px": 10**10}):
        restore(stage.raw, stage.scene)
        stage.redis.set(f"{NS}tick", "1", **lock)  # type: ignore[arg-type]
        stage.redis.set(f"{NS}window", "none")
        stage.client.tick()
        assert stage.redis.get(f"{NS}window") == "8"


@pytest.mark.parametrize("seed", range(2))
def test_random_bytes(stage: Stage, seed: int) -> None:
    restore(stage.raw, stage.scene)
    for write in list(noise(stage.redis, seed, 1))[seed::2]:
        stage.survives(write)


@pytest.mark.parametrize("start", range(3))
def test_lies_about_each_field(stage: Stage, start: int) -> None:
    restore(stage.raw, stage.scene)
    for write in islice(list(every_lie(stage.redis)), start * EVERY // 3, None, EVERY):
        stage.survives(write)


def test_lies_that_look_like_ours(stage: Stage) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(lies(stage.members))
    def tell(write: Write) -> None:
        stage.survives(write)

    tell()
