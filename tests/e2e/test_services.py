"""What those who run it get: figures for Prometheus, logs as JSON, and probes; of real processes."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distributed_downloader.health import State, read
from distributed_downloader.models import JobState
from tests.e2e.fleet import Fleet, until
from tests.hub.faults import Stall, Status
from tests.hub.faulty import FaultyHub
from tests.servers import Server, free_port

BIG = "model.safetensors"
NAME = "hf_downloader_"


@pytest.fixture
def server(fleet: Fleet, redis_server: Server) -> Iterator[Server]:
    """A server of this test's own, which it may stop."""
    with Server(redis_server.binary, port=free_port(), settings={"appendonly": "yes"}) as server:
        fleet.redis_url = f"redis://127.0.0.1:{server.port}/0"
        yield server
        fleet.close()


@contextmanager
def metrics(fleet: Fleet, *words: str) -> Iterator[str]:
    """Serve the figures; yields their URL, and sees that the end is clean."""
    process = fleet.start("metrics", *(words or ("--listen", "127.0.0.1:0")))
    assert process.stderr
    try:
        first = process.stderr.readline()
        url = re.search(r"http://\S+", first)
        assert url, first + process.stderr.read()
        yield url[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def scrape(url: str) -> dict[tuple[str, ...], float]:
    """Return (name, *values of the labels) -> value."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    assert all(each.name.startswith(NAME) for each in samples)
    return {(each.name.removeprefix(NAME), *each.labels.values()): each.value for each in samples}


def status(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet.run("status", "--json").stdout)
    return found


def test_the_figures_are_those_of_status(fleet: Fleet, hub: FaultyHub) -> None:
    hub.on(Stall(after=1000), file=BIG, times=None)
    hub.on(Status(404), file="config.json", times=None)
    job = fleet.queue("org/model", "--split", "never")
    fleet.worker("-j", "2")

    def settled() -> bool:
        now = fleet.job(job)
        return now.failed == 1 and now.done == now.total - 2

    until(settled, "all but two files")
    with metrics(fleet) as url:
        found, shown = scrape(url), status(fleet)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url.removesuffix("metrics"), timeout=30)
    (about,) = shown["jobs"]

    def of(name: str, *labels: str) -> float | None:
        return found.get((name, str(job), "org/model", *labels))

    assert found["redis_up",] == 1
    assert (found["workers", "well"], found["slots",]) == (1, shown["queue"]["slots"])
    for state in JobState:
        assert found["jobs", state.value] == shown["queue"]["jobs"][state.value]
        assert of("job_state", state.value) == (about["state"] == state.value)
    for place in ("pending", "active", "delayed", "held", "failed", "done"):
        assert of("job_tasks", place) == about["files"][place]
    assert of("job_files") == about["files"]["total"]
    assert of("job_files_done") == about["files"]["done"]
    assert of("job_size_bytes") == about["bytes"]["total"]
    assert of("job_done_bytes") == about["bytes"]["done"]
    assert of("job_created_timestamp_seconds") == pytest.approx(about["created_at"])
    assert {name: count for name, count in found.items() if name[0] == "job_failed_tries_total"} == {
        ("job_failed_tries_total", str(job), "not_found", "org/model"): 1
    }
    assert of("job_ended_timestamp_seconds") is None


def test_figures_without_redis_say_so_until_it_is_back(fleet: Fleet, server: Server) -> None:
    with metrics(fleet) as url:
        assert scrape(url)["redis_up",] == 1
        server.stop()
        assert scrape(url) == {("redis_up",): 0}
        server.start()
        assert scrape(url)["redis_up",] == 1


def lines(text: str) -> list[dict[str, Any]]:
    """Parse each line, and all of them."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "logger", "message"} <= each.keys() for each in found)
    return found


def test_every_line_of_every_process_is_json_and_a_probe_follows_redis(
    fleet: Fleet, hub: FaultyHub, server: Server, tmp_path: Path
) -> None:
    fleet.environ["LOG_FORMAT"] = "json"
    health = tmp_path / "health"
    hub.on(Stall(after=1000), file=BIG, times=1)
    worker = fleet.worker("--health-file", str(health))
    master = fleet.start("master", "org/model", "--split", "never", "--wait")
    until(lambda: any(each.transfers for each in fleet.live()), "a transfer")
    server.stop()
    until(lambda: (found := read(health)) and found.state is State.WAITING, "a worker that waits for Redis")
    assert fleet.run("worker-health", str(health), "--ready", code=1).stdout.startswith("alive: worker ")
    assert fleet.run("worker-health", str(health)).stdout.startswith("alive: worker ")
    (refused,) = lines(fleet.run("status", code=3).stderr)
    assert refused["level"] == "ERROR"
    assert refused["message"].startswith("Redis at ")
    server.start()
    hub.heal()
    out, err = master.communicate(timeout=90)
    assert (out, master.returncode) == ("Job ID: 1\n", 0)
    assert any("done: " in each["message"] for each in lines(err))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    said = {(each["level"], each["logger"].rpartition(".")[2]) for each in lines(worker.log)}
    assert {("INFO", "worker"), ("WARNING", "outage_log"), ("INFO", "reports")} <= said
    assert not health.exists()


def test_a_worker_that_was_frozen_is_found_dead(fleet: Fleet, tmp_path: Path) -> None:
    health = tmp_path / "health"
    worker = fleet.worker("--health-file", str(health), lease=0.1)
    until(lambda: (found := read(health)) and len(found.turns) == 2, "a worker that goes on")
    worker.signal(signal.SIGSTOP)
    until(lambda: (found := read(health)) and found.ailment(time.monotonic()), "a worker that does not")
    done = fleet.run("worker-health", str(health), code=1)
    assert "has not gone on for" in done.stderr
    worker.process.kill()
    worker.wait()
    assert "its process is gone" in fleet.run("worker-health", str(health), code=1).stderr
