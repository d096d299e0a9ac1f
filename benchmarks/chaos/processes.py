"""Faults of the workers' processes, and of their machines' clocks."""

from __future__ import annotations

import random
import resource
import signal

import psutil

from benchmarks.chaos.kinds import Heal, Kind, NotNowError, nothing
from benchmarks.chaos.members import Member
from benchmarks.chaos.world import World

#: Bytes of address space that a worker which runs out of memory may still take.
_ROOM = 1 << 20


def _one(world: World, chance: random.Random, *, settled: bool = False) -> Member:
    running = [member for member in world.members.all if member.running and not member.frozen]
    running = [member for member in running if member.settled or not settled]
    if not running:
        raise NotNowError
    return chance.choice(running)


def _kill(world: World, chance: random.Random) -> Heal:
    _one(world, chance).kill()
    return nothing


def _terminate(world: World, chance: random.Random) -> Heal:
    _one(world, chance).terminate()
    return nothing


def _freeze(world: World, chance: random.Random) -> Heal:
    """Stop a worker for longer than its lease: it wakes up as a zombie, whose tasks others have."""
    member = _one(world, chance)
    member.freeze(world.lease * chance.uniform(1.2, 2))
    return nothing


def _limit(member: Member, which: int, most: int) -> Heal:
    pid, before = member.pid, resource.prlimit(member.pid, which)
    resource.prlimit(pid, which, (most, before[1]))

    def heal() -> None:
        if member.running and member.pid == pid:
            resource.prlimit(pid, which, before)

    return heal


def _no_descriptors(world: World, chance: random.Random) -> Heal:
    return _limit(_one(world, chance, settled=True), resource.RLIMIT_NOFILE, chance.randrange(3, 20))


def _no_memory(world: World, chance: random.Random) -> Heal:
    member = _one(world, chance, settled=True)
    return _limit(member, resource.RLIMIT_AS, psutil.Process(member.pid).memory_info().vms + _ROOM)


def _all_dead(world: World, chance: random.Random) -> Heal:
    world.members.hold()
    for member in world.members.all:
        member.kill()
    return world.members.release


def _clock(world: World, chance: random.Random) -> Heal:
    """Restart a worker with its clock an hour off, which it keeps."""
    member = _one(world, chance)
    member.clock = chance.choice((-3600, 3600))
    member.terminate()
    return nothing


KINDS = [
    Kind("processes", f"worker: {signal.SIGKILL.name}", _kill),
    Kind("processes", f"worker: {signal.SIGTERM.name}", _terminate),
    Kind("processes", f"worker: {signal.SIGSTOP.name} past the lease, {signal.SIGCONT.name}", _freeze),
    Kind("processes", "worker: out of file descriptors", _no_descriptors),
    Kind("processes", "worker: out of memory (RLIMIT_AS)", _no_memory),
    Kind("processes", "all workers dead for a while", _all_dead),
    Kind("clocks", "a machine's clock an hour off", _clock),
]
