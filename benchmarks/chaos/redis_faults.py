"""Faults of the Redis in which the queue lies."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator

from benchmarks.chaos.clock import may_move
from benchmarks.chaos.kinds import Heal, Kind, nothing
from benchmarks.chaos.stores import SENTINELS, SINGLE, Group, Single
from benchmarks.chaos.world import World


def _single(world: World) -> Single:
    assert isinstance(world.store, Single)
    return world.store


def _now(act: Callable[[Single], None]) -> Callable[[World, random.Random], Heal]:
    """Do something that is over at once."""

    def strike(world: World, chance: random.Random) -> Heal:
        act(_single(world))
        return nothing

    return strike


def _down(world: World, chance: random.Random) -> Heal:
    """Crash; it is started again when the fault is healed."""
    server = _single(world).server
    server.stop()
    return server.start


def _cut_in_reply(world: World, chance: random.Random) -> Heal:
    _single(world).relay.lose_replies(chance.randint(1, 8), after=chance.randrange(1, 12))
    return nothing


def _cut_before_reply(world: World, chance: random.Random) -> Heal:
    _single(world).relay.lose_replies(chance.randint(1, 8))
    return nothing


def _cut_all(world: World, chance: random.Random) -> Heal:
    _single(world).relay.cut()
    return nothing


def _frozen(world: World, chance: random.Random) -> Heal:
    store = _single(world)
    store.freeze()
    return store.thaw


def _full(world: World, chance: random.Random) -> Heal:
    commands = _single(world).administrator()
    commands.config_set("maxmemory", "1")
    return lambda: commands.config_set("maxmemory", "0")


def _password(world: World, chance: random.Random) -> Heal:
    commands = _single(world).administrator()
    before = str(commands.config_get("requirepass")["requirepass"])
    commands.config_set("requirepass", secrets.token_hex(8))
    commands.client_kill_filter(_type="normal", skipme=True)
    return lambda: commands.config_set("requirepass", before)


def _clock(leases: tuple[float, float]) -> Callable[[World, random.Random], Heal]:
    """Move its clock by some leases: as they are short here, that is what minutes are elsewhere."""

    def strike(world: World, chance: random.Random) -> Heal:
        clock = _single(world).clock
        assert clock
        clock.move(round(world.lease * chance.uniform(*leases)))
        return lambda: clock.move(0)

    return strike


def _group(world: World) -> Group:
    assert isinstance(world.store, Group)
    return world.store


def _master_dies(world: World, chance: random.Random) -> Heal:
    """Kill the master for longer than the sentinels wait; it comes back and follows the new one."""
    sentinels = _group(world).sentinels
    dead = sentinels.kill_master()

    def heal() -> None:
        sentinels.until_promoted(dead)
        sentinels.restart(dead)

    return heal


def _master_crashes(world: World, chance: random.Random) -> Heal:
    """Let the master be back before the sentinels take it for dead."""
    _group(world).sentinels.kill_master().start()
    return nothing


def _fail_over(world: World, chance: random.Random) -> Heal:
    _group(world).sentinels.fail_over()
    return nothing


def _sentinel_dies(world: World, chance: random.Random) -> Heal:
    sentinel = chance.choice(_group(world).sentinels.sentinels)
    sentinel.stop()
    return sentinel.start


def _kinds() -> Iterator[tuple[str, Callable[[World, random.Random], Heal]]]:
    yield "SIGKILL, started again from its AOF", _down
    yield "the last second lost", _now(Single.forget_last_second)
    yield "came back empty", _now(Single.forget_all)
    yield "connection cut in mid-reply", _cut_in_reply
    yield "connection cut before the reply", _cut_before_reply
    yield "all connections cut", _cut_all
    yield "frozen (SIGSTOP)", _frozen
    yield "full (maxmemory, noeviction)", _full
    yield "password changed", _password
    if may_move():
        yield "its clock ahead for a while", _clock((2, 5))
        yield "its clock behind for a while", _clock((-5, -2))


def _group_kinds() -> Iterator[tuple[str, Callable[[World, random.Random], Heal]]]:
    yield "Sentinel: master dead, failover", _master_dies
    yield "Sentinel: master restarted at once", _master_crashes
    yield "Sentinel: failover asked for", _fail_over
    yield "Sentinel: a sentinel dead", _sentinel_dies


KINDS = [
    *(Kind("Redis", name, strike, redis=SINGLE, alone=True) for name, strike in _kinds()),
    *(Kind("Redis", name, strike, redis=SENTINELS, alone=True) for name, strike in _group_kinds()),
]
