"""Random histories on a real Redis, with I1-I15 checked at every step; docs/queue.md lists them."""

from __future__ import annotations

import pytest
import redis as redis_py
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.queue.choices import Seeded
from tests.queue.machine import machine
from tests.queue.world import run

SETTINGS = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,  # the same histories on every machine; `python -m tests.queue.soak` finds new ones
    suppress_health_check=list(HealthCheck),
)


def test_no_history_breaks_an_invariant(redis: redis_py.Redis) -> None:
    run_state_machine_as_test(machine(redis), settings=SETTINGS)


@pytest.mark.parametrize("seed", range(8))
def test_no_long_history_breaks_an_invariant(redis: redis_py.Redis, seed: int) -> None:
    run(redis, Seeded(seed), 300)
