"""The world as a hypothesis state machine: every event is a rule, and a failing history is made short."""

from __future__ import annotations

from collections.abc import Callable

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.queue.choices import Drawn
from tests.queue.world import LITTER, WEIGHTS, World


class QueueMachine(RuleBasedStateMachine):
    """One history of one queue; `client` and `litter` are set by whoever runs it."""

    client: redis.Redis
    litter: tuple[str, ...] = LITTER
    world: World | None = None

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.world = World(self.client, Drawn(data), litter_words=self.litter)

    @precondition(lambda self: self.world is not None)
    @invariant()
    def all_invariants_hold(self) -> None:
        assert self.world
        self.world.check()

    def teardown(self) -> None:
        if self.world is not None and self.world.jobs:
            self.world.drain()
            self.world.close()


def _rule(event: str) -> Callable[[QueueMachine, st.DataObject], None]:
    def happens(self: QueueMachine, data: st.DataObject) -> None:
        assert self.world
        self.world.choose = Drawn(data)
        getattr(self.world, event)()

    happens.__name__ = event
    return happens


# What workers do most stands twice: hypothesis gives every rule the same chance.
for _event, _weight in WEIGHTS.items():
    for _n in range(1 if _weight < 10 else 2):
        setattr(QueueMachine, f"{_event}_{_n}", rule(data=st.data())(_rule(_event)))


def machine(redis_client: redis.Redis, litter_words: tuple[str, ...] = LITTER) -> type[QueueMachine]:
    """Return the machine for one Redis."""

    class Bound(QueueMachine):
        client = redis_client
        litter = litter_words

    return Bound
