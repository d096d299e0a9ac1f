"""A hub that cannot be reached, by all machines or by one: nobody loses a try, and all goes on by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_downloader.models import JobState
from tests.e2e.fleet import Fleet, until
from tests.hub.faults import Stall, Status
from tests.hub.faulty import FaultyHub
from tests.hub.sample import tree

BIG = "model.safetensors"
AWAY = "the hub cannot be reached from here"


@pytest.fixture
def absent(fleet: Fleet, hub: FaultyHub) -> int:
    """Return a job whose hub went away after it was listed."""
    job = fleet.queue("org/model", "-o", "out")
    hub.refuse()
    return job


def test_a_fleet_waits_for_it_says_so_and_goes_on(
    fleet: Fleet, hub: FaultyHub, source: Path, absent: int
) -> None:
    workers = [fleet.worker("-j", "2") for _ in range(2)]
    until(lambda: len(fleet.live()) == 2, "both workers")
    until(lambda: AWAY in fleet.job(absent).blocked, "both to have noticed")
    shown = fleet.run("status", str(absent)).stdout
    assert f"job {absent} blocked: no living worker can go on with it" in shown
    assert AWAY in shown
    hub.listen()
    assert fleet.until_ended(absent).state is JobState.DONE
    assert tree(fleet.folder / "out/org/model") == tree(source)
    for worker in workers:
        assert "retry " not in worker.log
        assert "Traceback" not in worker.log


def test_a_machine_that_alone_cannot_reach_it_leaves_the_job_to_others(fleet: Fleet, hub: FaultyHub) -> None:
    proxy = "http://127.0.0.1:1"  # nobody listens there
    lonely = fleet.worker("-j", "2", HTTP_PROXY=proxy, http_proxy=proxy, NO_PROXY="", no_proxy="")
    until(fleet.live, "the worker")
    job = fleet.queue("org/model", "-o", "out")
    until(lambda: AWAY in fleet.job(job).blocked, "it to have noticed")
    fleet.worker("-j", "2")
    assert fleet.until_ended(job).state is JobState.DONE
    assert "the proxy cannot be used" in lonely.log
    assert "failed " not in lonely.log


def test_one_machine_alone_waits_as_well(fleet: Fleet, hub: FaultyHub) -> None:
    stall = Stall(after=300_000)
    hub.on(stall, file=BIG)
    running = fleet.start("download", "org/model", "-o", "out", "-j", "1")
    assert stall.reached.wait(60)
    hub.refuse()
    stall.release.set()
    assert running.stderr
    said = next(line for line in running.stderr if AWAY in line)
    assert "connection refused" in said
    hub.listen()
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err


def test_a_hub_with_a_problem_of_its_own_costs_no_file_its_three_tries(fleet: Fleet, hub: FaultyHub) -> None:
    rule = hub.on(Status(502), route="resolve", file=BIG, times=5)
    fleet.worker("-j", "2")
    job = fleet.queue("org/model", "-o", "out")
    assert fleet.until_ended(job).state is JobState.DONE
    assert rule.struck == 5
