"""The main job, end to end: a repo through real Redis and real worker processes, whatever happens to them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from distributed_downloader.models import JobState
from tests.e2e.fleet import Fleet, Worker, until
from tests.hub.faults import Corrupt, ErrorPage, Stall, Status, Truncate
from tests.hub.faulty import FaultyHub
from tests.hub.sample import tree, write_dataset_repo
from tests.servers import Server

BIG = "model.safetensors"


def holder(fleet: Fleet, path: str) -> Worker:
    """Wait until a worker transfers `path`, and return it."""

    def look() -> Worker | None:
        for status in fleet.live():
            if any(transfer.path == path for transfer in status.transfers):
                return next(each for each in fleet.workers if each.process.pid == status.pid)
        return None

    return until(look, f"a worker that transfers {path}")


def partials(folder: Path) -> list[Path]:
    return list((folder / ".hf-downloader" / "partial").glob("*"))


def assert_complete(fleet: Fleet, source: Path, output: Path, job: int) -> None:
    """Every byte is there, the counters agree with reality, and nothing is left over."""
    files = tree(source)
    assert tree(output / "org/model") == files
    status = fleet.job(job)
    assert (status.state, status.total, status.done, status.failed) == (
        JobState.DONE,
        len(files),
        len(files),
        0,
    )
    assert status.bytes_done == status.bytes_total == sum(map(len, files.values()))


def test_workers_bring_a_whole_repo(fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path) -> None:
    output = tmp_path / "shared"
    for _ in range(2):
        fleet.worker()
    until(lambda: len(fleet.live()) == 2)
    done = fleet.run("master", "org/model", "-o", str(output), "--wait")
    assert done.stdout == "Job ID: 1\n"
    assert_complete(fleet, source, output, 1)
    assert partials(output) == []
    assert fleet.worker("--drain-when-empty").wait() == 0
    assert hub.leaks() == []


def test_a_killed_worker_s_file_is_fetched_by_another(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    stall = Stall(after=1_000_000)
    hub.on(stall, file=BIG)
    output = tmp_path / "shared"
    job = fleet.queue("org/model", "-o", str(output))
    for _ in range(3):
        fleet.worker(lease=3)
    assert stall.reached.wait(60)
    victim = holder(fleet, BIG)
    victim.signal(signal.SIGKILL)
    victim.wait()
    assert not (output / "org/model" / BIG).exists()
    fleet.until_ended(job)
    assert_complete(fleet, source, output, job)
    assert partials(output) == []
    # The other worker went on from the bytes that the first one left.
    second = hub.log.records("cdn", BIG)[1].request.headers["range"]
    assert int(second.removeprefix("bytes=").split("-")[0]) > 0


def test_a_stopped_worker_is_a_zombie_that_does_no_harm(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    stall = Stall(after=1_000_000)
    hub.on(stall, file=BIG)
    output = tmp_path / "shared"
    job = fleet.queue("org/model", "-o", str(output))
    for _ in range(2):
        fleet.worker(lease=3)
    assert stall.reached.wait(60)
    zombie = holder(fleet, BIG)
    zombie.signal(signal.SIGSTOP)
    fleet.until_ended(job)
    zombie.signal(signal.SIGCONT)
    stall.release.set()
    until(lambda: "taken for dead" in zombie.log)
    zombie.signal(signal.SIGTERM)
    assert zombie.wait() == 0
    assert_complete(fleet, source, output, job)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_gives_back_what_runs_and_the_next_worker_goes_on(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path, number: signal.Signals
) -> None:
    stall = Stall(after=1_000_000)
    hub.on(stall, file=BIG)
    output = tmp_path / "shared"
    job = fleet.queue("org/model", "-o", str(output))
    first = fleet.worker()
    assert stall.reached.wait(60)
    holder(fleet, BIG)
    first.signal(number)
    assert first.wait(5) == 0
    assert fleet.live() == []
    assert not (output / "org/model" / BIG).exists()
    assert (fleet.job(job).active, fleet.job(job).failed) == (0, 0)
    fleet.worker()
    fleet.until_ended(job)
    assert_complete(fleet, source, output, job)


def test_drain_on_sigusr1_finishes_what_runs(fleet: Fleet, hub: FaultyHub, tmp_path: Path) -> None:
    stall = Stall(after=1_000_000)
    hub.on(stall, file=BIG)
    fleet.queue("org/model", "-o", str(tmp_path / "shared"), "--include", BIG)
    worker = fleet.worker()
    assert stall.reached.wait(60)
    worker.signal(signal.SIGUSR1)
    stall.release.set()
    assert worker.wait() == 0
    job = fleet.job(1)
    assert (job.files_done, job.files) == (1, 1)
    assert (job.state, job.pending) == (JobState.RUNNING, 1), "its closing is for others"
    fleet.run("worker", "--drain-when-empty")
    assert fleet.job(1).state is JobState.DONE


def test_a_worker_waits_for_redis_and_survives_its_restart(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path, redis_server: Server
) -> None:
    with Server(redis_server.binary, settings={"appendonly": "yes", "appendfsync": "always"}) as server:
        fleet.redis_url = server.config.url.get_secret_value()
        server.stop()
        worker = fleet.worker()
        until(lambda: "waiting for it" in worker.log)
        server.start()
        stall = Stall(after=1_000_000)
        hub.on(stall, file=BIG)
        output = tmp_path / "shared"
        job = fleet.queue("org/model", "-o", str(output))
        assert stall.reached.wait(60)
        server.stop()
        stall.release.set()
        until(lambda: worker.log.count("waiting for it") >= 2)
        server.start()
        fleet.until_ended(job)
        assert_complete(fleet, source, output, job)
        assert worker.process.poll() is None


def test_each_worker_has_its_own_disk_and_files_tells_where(
    fleet: Fleet, source: Path, tmp_path: Path
) -> None:
    job = fleet.queue("org/model")
    for name in ("a", "b"):
        fleet.worker("--drain-when-empty", "-j", "1", OUTPUT_DIR=str(tmp_path / name))
    fleet.until_ended(job)
    found = tree(tmp_path / "a" / "org/model") | tree(tmp_path / "b" / "org/model")
    assert found == tree(source)
    listed = json.loads(fleet.run("files", str(job), "--json").stdout)
    assert {entry["path"] for entry in listed} == set(found)
    assert {entry["state"] for entry in listed} == {"done"}
    assert all(entry["host"] for entry in listed)


def test_a_file_that_fails_three_times_is_reported_and_retried_on_demand(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    hub.on(Corrupt(at=7), file="pytorch_model.bin", times=None)
    output = tmp_path / "shared"
    fleet.worker(HF_ENDPOINT=hub.endpoint)
    done = fleet.run("master", "org/model", "-o", str(output), "--wait", code=1)
    assert done.stdout == "Job ID: 1\n"
    status = fleet.job(1)
    assert (status.state, status.failed, status.done) == (JobState.FAILED, 1, status.total - 1)
    shown = fleet.run("status", "1").stdout
    assert "pytorch_model.bin" in shown
    assert "sha256" in shown
    assert not (output / "org/model/pytorch_model.bin").exists()
    assert json.loads(fleet.run("files", "1", "--failed", "--json").stdout)[0]["path"] == "pytorch_model.bin"
    hub.heal()
    fleet.run("retry", "org/model")
    fleet.until_ended(1)
    assert_complete(fleet, source, output, 1)


def test_the_same_master_again_is_the_same_job_and_tries_failed_files_again(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    hub.on(Status(404), file="config.json", route="resolve", times=None)
    output = tmp_path / "shared"
    assert fleet.queue("org/model", "-o", str(output)) == 1
    assert fleet.queue("org/model", "-o", str(output)) == 1
    fleet.worker()
    assert fleet.until_ended(1).state is JobState.FAILED
    hub.heal()
    assert fleet.queue("org/model", "-o", str(output), "--wait") == 1
    assert_complete(fleet, source, output, 1)
    assert fleet.queue("org/model", "-o", str(output), "--include", "*.json") == 2


def test_small_faults_on_the_way_do_not_matter(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    hub.on(Truncate(after=500_000), file=BIG, times=3)
    hub.on(ErrorPage(), file="config.json")
    hub.on(Status(503), route="resolve", file="tokenizer.json")
    output = tmp_path / "shared"
    job = fleet.queue("org/model", "-o", str(output))
    fleet.worker()
    fleet.until_ended(job)
    assert_complete(fleet, source, output, job)


def test_what_is_there_and_right_is_not_fetched_again_and_what_is_wrong_is_replaced(
    fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    output = tmp_path / "shared"
    target = output / "org/model"
    target.mkdir(parents=True)
    right, wrong = (source / BIG).read_bytes(), b"\0" * (source / "pytorch_model.bin").stat().st_size
    (target / BIG).write_bytes(right)
    (target / "pytorch_model.bin").write_bytes(wrong)
    job = fleet.queue("org/model", "-o", str(output))
    fleet.worker()
    fleet.until_ended(job)
    assert_complete(fleet, source, output, job)
    assert hub.log.records("cdn", BIG) == []


def test_a_dataset_never_mixes_with_a_model_of_the_same_name(
    fleet: Fleet, source: Path, tmp_path: Path
) -> None:
    data = write_dataset_repo(tmp_path / "data")
    output = tmp_path / "shared"
    with FaultyHub({"models/org/model": source, "datasets/org/model": data}) as both:
        fleet.endpoint = both.endpoint
        asked = fleet.run("master", "org/model", "-o", str(output), code=2)
        assert "--repo-type" in asked.stderr
        fleet.queue("models/org/model", "-o", str(output))
        fleet.worker()
        fleet.until_ended(1)
        refused = fleet.run("master", "datasets/org/model", "-o", str(output), code=2)
        assert "--output-dir" in refused.stderr
        # Even where Redis has forgotten the first one, the folder itself remembers.
        fleet.run("forget", "1", "--yes")
        fleet.queue("datasets/org/model", "-o", str(output))
        status = fleet.until_ended(2)
    assert status.done == 0
    assert tree(output / "org/model") == tree(source)
    with fleet.view() as view:
        assert "--output-dir" in view.failures(2)[0].error


def test_pause_resume_cancel(fleet: Fleet, source: Path, hub: FaultyHub, tmp_path: Path) -> None:
    output = tmp_path / "shared"
    fleet.queue("org/model", "-o", str(output))
    fleet.run("pause", "org/model")
    worker = fleet.worker()
    until(fleet.live)
    assert fleet.job(1).done == 0
    fleet.run("cancel", "1")
    assert fleet.job(1).state is JobState.CANCELLED
    # The same master again brings it back.
    fleet.queue("org/model", "-o", str(output), "--wait")
    assert_complete(fleet, source, output, 1)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_batch_master_makes_several_jobs(fleet: Fleet, source: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("# what we need\n\norg/model\norg/none\n")
    done = fleet.run("batch-master", str(names), "--from-file", code=1)
    first, second = done.stdout.splitlines()
    assert first == "org/model\tJob ID: 1"
    assert second.startswith("org/none\t")


def test_unreachable_servers_have_their_exit_code(fleet: Fleet, tmp_path: Path) -> None:
    fleet.redis_url = f"unix://{tmp_path}/none.sock"
    for words in (("status",), ("master", "org/model"), ("pause", "1")):
        done = fleet.run(*words, code=3)
        assert "error:" in done.stderr
        assert "Traceback" not in done.stderr
