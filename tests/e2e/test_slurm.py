"""The script for Slurm in a real Slurm: killed, told of the time limit, twice at once, and as an array."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from distributed_downloader.models import WorkerStatus
from tests.e2e.fleet import PATIENCE, Fleet, until
from tests.e2e.slurm import Cluster, require_slurm
from tests.hub.faults import Stall
from tests.hub.faulty import FaultyHub
from tests.hub.sample import tree, write_dataset_repo, write_model_repo

BIG = "model.safetensors"
AFTER = 1_000_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require_slurm()
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultyHub]:
    model, dataset = write_model_repo(tmp_path / "source"), write_dataset_repo(tmp_path / "data")
    with FaultyHub({"models/org/model": model, "datasets/org/data": dataset}) as hub:
        yield hub


class Site:
    """A user's folder on the cluster, with a script to submit."""

    def __init__(self, cluster: Cluster, folder: Path, endpoint: str) -> None:
        self.cluster, self.folder = cluster, folder
        self.output = folder / "the user's models"
        self._fleet = Fleet(folder, "redis://nobody.invalid", endpoint, environ=cluster.environment)
        self.script = folder / "job.sbatch"

    def write(self, *words: str, before: tuple[str, ...] = ()) -> None:
        done = self._fleet.run(*before, "slurm", *words, "-o", str(self.output))
        self.script.write_text(done.stdout)

    def submit(self, *words: str) -> str:
        """Submit the script and return the job's number; its environment is that of a fleet."""
        done = subprocess.run(
            ["sbatch", "--parsable", *words, str(self.script)],
            cwd=self.folder,
            env=self._fleet.env(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def run_without_slurm(self, **programs: str) -> subprocess.CompletedProcess[str]:
        """Run the script with these in place of Slurm's commands."""
        folder = self.folder / "bin"
        folder.mkdir()
        for name, code in programs.items():
            (folder / name).write_text(f"#!/bin/sh\n{code}\n")
            (folder / name).chmod(0o755)
        env = self._fleet.env()
        return subprocess.run(
            ["bash", str(self.script)],
            cwd=self.folder,
            env=env | {"PATH": f"{folder}:{env['PATH']}", "SLURM_JOB_ID": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def log(self, job: str) -> str:
        path = self.folder / f"slurm-{job}.out"
        return path.read_text() if path.exists() else ""

    @property
    def url_file(self) -> Path:
        """Where the address of the one Redis is, if it is there."""
        return next(iter(self.output.glob(".hf-downloader/slurm/*/url")), Path("nowhere"))

    def workers(self) -> list[WorkerStatus]:
        self._fleet.redis_url = self.url_file.read_text().strip()
        return self._fleet.live()


@pytest.fixture
def site(cluster: Cluster, hub: FaultyHub, tmp_path: Path) -> Site:
    folder = tmp_path / "home"
    folder.mkdir()
    return Site(cluster, folder, hub.endpoint)


def begin(site: Site, hub: FaultyHub, *words: str) -> tuple[str, Stall]:
    """Submit a script, and wait until the job is in the middle of a file, where its line hangs."""
    stall = Stall(after=AFTER)
    hub.on(stall, file=BIG)
    site.write("org/model", *words)
    job = site.submit()
    assert stall.reached.wait(60), site.log(job)
    return job, stall


def went_on(hub: FaultyHub) -> bool:
    """Whether the file that hung was gone on with from the bytes on disk."""
    ranges = [record.request.headers.get("range", "bytes=0-") for record in hub.log.records("cdn", BIG)]
    return len(ranges) > 1 and int(ranges[-1].removeprefix("bytes=").split("-")[0]) > 0


def is_served(url: str) -> bool:
    address = urlsplit(url)
    with socket.socket() as client:
        return client.connect_ex((address.hostname, address.port)) == 0


def test_a_job_that_is_killed_goes_on_when_it_is_submitted_again(
    site: Site, hub: FaultyHub, tmp_path: Path
) -> None:
    job, stall = begin(site, hub, "--nodes", "2", "--tasks-per-node", "2")
    workers = until(lambda: found if len(found := site.workers()) == 4 else None, "four", pause=0.3)
    ranks = {match[1] for each in workers if (match := re.match(rf"slurm{job}-rank(\d)-", each.id))}
    assert ranks == {"0", "1", "2", "3"}
    url = site.url_file.read_text().strip()
    assert stat.S_IMODE(site.url_file.stat().st_mode) == 0o600
    # The same request once more, while it runs, is refused and disturbs nothing.
    one_worker = ("--nodes=1", "--ntasks-per-node=1")
    second = site.submit(*one_worker)
    assert site.cluster.until_ended(second).exit_code == 2
    assert "another Redis serves" in site.log(second)
    assert is_served(url)

    site.cluster.run("scancel", "--signal=KILL", "--full", job)
    site.cluster.until_ended(job)
    until(lambda: not is_served(url), "the end of Redis", pause=0.1)
    stall.release.set()
    third = site.submit(*one_worker)
    assert site.cluster.until_ended(third).exit_code == 0, site.log(third)
    assert "Job ID: 1\n" in site.log(third)
    assert tree(site.output / "org/model") == tree(tmp_path / "source")
    assert went_on(hub)
    assert not site.url_file.exists()
    password = urlsplit(url).password
    assert password
    assert not any(password in text for text in (site.script.read_text(), site.log(job), site.log(third)))


def test_near_its_time_limit_a_job_stops_in_order_and_is_queued_again(
    site: Site, hub: FaultyHub, tmp_path: Path
) -> None:
    job, stall = begin(site, hub)
    site.cluster.run("scancel", "--batch", "--signal=USR1", job)
    site.cluster.until(job, "PENDING")
    assert "queued again" in site.log(job)
    assert not site.url_file.exists()
    stall.release.set()
    site.cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    state = site.cluster.until_ended(job)
    assert (state.exit_code, state.restarts) == (0, 1), site.log(job)
    assert tree(site.output / "org/model") == tree(tmp_path / "source")
    assert went_on(hub)


def test_a_job_that_may_not_be_queued_again_says_what_to_do(site: Site, hub: FaultyHub) -> None:
    job, stall = begin(site, hub)
    site.cluster.run("scontrol", "update", f"JobId={job}", "Requeue=0")
    site.cluster.run("scancel", "--batch", "--signal=USR1", job)
    assert site.cluster.until_ended(job).exit_code == 130
    assert "submit the same script again" in site.log(job)
    stall.release.set()


def test_a_job_whose_redis_dies_ends(site: Site, hub: FaultyHub) -> None:
    job, stall = begin(site, hub)
    with redis.Redis.from_url(site.url_file.read_text().strip()) as client:
        os.kill(client.info()["process_id"], signal.SIGKILL)
    assert site.cluster.until_ended(job).exit_code == 1
    assert "has ended" in site.log(job)
    assert "submit the same script again" in site.log(job)
    stall.release.set()


def test_the_elements_of_an_array_share_a_folder(site: Site, hub: FaultyHub, tmp_path: Path) -> None:
    """The last one has the number of the whole array: what is done to it must not be done to all."""
    stall = Stall(after=AFTER)
    hub.on(stall, file=BIG)
    site.write("org/model", "datasets/org/data", "org/nothing")
    # Slurm remembers what to export, and means the steps of the job too.
    job = site.submit("--array=0-2", "--export=HF_ENDPOINT,HF_HOME,HOME,PYTHONPATH")
    assert stall.reached.wait(60), site.log(f"{job}_0")
    assert site.cluster.until_ended(f"{job}_2").exit_code == 1
    assert "org/nothing\terror: " in site.log(f"{job}_2")
    stall.release.set()
    codes = [site.cluster.until_ended(f"{job}_{element}").exit_code for element in (0, 1)]
    assert codes == [0, 0], [site.log(f"{job}_{element}") for element in (0, 1)]
    assert tree(site.output / "org/model") == tree(tmp_path / "source")
    assert tree(site.output / "org/data") == tree(tmp_path / "data")
    assert not site.url_file.exists()
    # Workers have no other folder, which could be one that they must not write to.
    assert not (site.folder / "downloads").exists()


def test_workers_that_hear_nothing_do_not_hold_up_the_end(site: Site) -> None:
    """Those that srun is still starting, for instance: a signal to them is lost."""
    site.write("org/nothing", before=("--log-level", "ERROR"))
    done = site.run_without_slurm(srun='echo "$*" >&2; exec sleep 1000', scancel="exit 0")
    assert done.returncode == 1, done.stderr
    assert "hf-downloader --log-level ERROR worker\n" in done.stderr
    assert "org/nothing\terror: " in done.stdout
