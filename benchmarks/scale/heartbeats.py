"""What the hearts of a simulated fleet ask of Redis: it changes nothing, so some are run, and all counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.scale.machine import Machine
from benchmarks.scale.world import World
from distributed_downloader import heartbeat
from distributed_downloader.redis_client import Limits, RedisClient
from distributed_downloader.redis_parts import RedisParts

#: Machines of which the heartbeats are run.
_SAMPLE = 200


@dataclass
class Heartbeats:
    """What each kind of them costs Redis, measured in the middle of the run."""

    world: World
    cpu: Callable[[], float]
    #: Seconds of Redis' processor time for one of each kind, and for all that was run here.
    each: dict[str, float] = field(default_factory=dict)
    spent: float = 0.0
    #: The shares of machines that had something in hand, and that had parts.
    busy: float = 0.0
    with_parts: float = 0.0

    def sample(self) -> None:
        """Run some of them."""
        machines = self.world.machines[:_SAMPLE]
        queue = self.world.queue
        hearts = RedisClient.over(queue.commands, limits=Limits())
        hearts.scripts.now = queue.scripts.now
        splitting = [machine for machine in machines if machine.parts()]
        self.with_parts = len(splitting) / len(machines)
        self.busy = sum(bool(machine.moving) for machine in machines) / len(machines)
        parts = RedisParts(queue)
        self._measure("tick", machines, lambda _: queue.tick())
        self._measure("late tick", machines, lambda _: hearts.tick())
        self._measure("beat", machines, lambda machine: queue.beat(machine.name, machine.name))
        self._measure("report", machines, lambda machine: queue.report(machine.status()))
        self._measure("progress", splitting, lambda machine: parts.progress(machine.name, machine.parts()))
        self._measure("is_dry", splitting, lambda _: parts.is_dry())

    def _measure(self, kind: str, machines: list[Machine], ask: Callable[[Machine], object]) -> None:
        before = self.cpu()
        for machine in machines:
            ask(machine)
        spent = self.cpu() - before
        self.spent += spent
        self.each[kind] = spent / max(1, len(machines))

    def counted(self) -> dict[str, float]:
        """Return how many of each kind there would have been, beside those that were run."""
        world, lease = self.world, Limits().lease
        busy, all_of_them = len(world.machines) * self.busy * world.now, len(world.machines) * world.now
        calm = len(world.machines) * self.with_parts * (world.now - world.tail_seconds)
        return {
            "tick": world.now / heartbeat._PULSE,
            "late tick": min(len(world.machines) - 1, heartbeat._HOUSEKEEPERS) * world.now / heartbeat._PULSE,
            "report": busy / heartbeat._PULSE + (all_of_them - busy) / (heartbeat._LONGEST_REPORT * lease),
            "beat": busy / (lease / 3) + (all_of_them - busy) / (lease / 2 - heartbeat._PULSE),
            "progress": calm / heartbeat._PARTS_PULSE,
            "is_dry": calm / heartbeat._PARTS_PULSE,
        }
