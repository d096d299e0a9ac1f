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
    #: The share of machines that had parts in hand.
    with_parts: float = 0.0

    def sample(self) -> None:
        """Run some of them."""
        machines = self.world.machines[:_SAMPLE]
        queue = self.world.queue
        hearts = RedisClient.over(queue.commands, limits=Limits())
        hearts.scripts.now = queue.scripts.now
        splitting = [machine for machine in machines if machine.parts()]
        self.with_parts = len(splitting) / len(machines)
        parts = RedisParts(queue)
        self._measure("tick", machines, lambda _: hearts.tick())
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
        world = self.world
        pulses = len(world.machines) * world.now / heartbeat._PULSE
        kept = min(len(world.machines), heartbeat._HOUSEKEEPERS) * world.now / heartbeat._PULSE
        calm = len(world.machines) * self.with_parts * (world.now - world.tail_seconds)
        return {
            "tick": kept,
            "report": pulses,
            "beat": len(world.machines) * world.now / (Limits().lease / 3),
            "progress": calm / heartbeat._PARTS_PULSE,
            "is_dry": calm / heartbeat._PARTS_PULSE,
        }
