"""Everything that a fleet needs, in processes of its own: hub, CDN, Redis, workers, each on its machine."""

from __future__ import annotations

import json
import re
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import redis

from benchmarks.machines import Machine, Network
from benchmarks.origin import Origin
from benchmarks.waiting import BenchmarkError, Child, environment, until
from distributed_downloader.config import RedisConfig
from distributed_downloader.embedded import find_server
from distributed_downloader.models import JobState, JobStatus
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView

_START_SECONDS = 60.0
#: Fetches bytes 0 to argv[2] of argv[1] and prints the seconds that it took.
_MEASURE = """
import sys, time, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Range": f"bytes=0-{int(sys.argv[2]) - 1}"})
began, got = time.monotonic(), 0
with urllib.request.urlopen(request) as answer:
    while data := answer.read(1 << 16):
        got += len(data)
assert got == int(sys.argv[2]), got
print(time.monotonic() - began)
"""
#: Fetches repo argv[1] into argv[2] and prints the seconds that it took, without those of the imports.
_SNAPSHOT = """
import sys, time
from huggingface_hub import snapshot_download
began = time.monotonic()
snapshot_download(sys.argv[1], local_dir=sys.argv[2])
print(time.monotonic() - began)
"""


@dataclass(frozen=True)
class Setup:
    """How the workers are set up."""

    slots: int
    #: A folder that plays the NAS.
    nas: Path | None = None
    #: Seconds after which a silent worker is taken for dead; None for the product's own.
    lease: float | None = None


@dataclass(frozen=True)
class Run:
    """One job from its first entry in the queue to its last verified file, in seconds of Redis' clock."""

    seconds: float
    #: When a machine was killed, in seconds after the start; 0 if none was.
    killed_at: float = 0


class Rig:
    """The servers, and a fleet that is started anew only when it has to be set up in another way."""

    def __init__(self, network: Network, folder: Path, repos: Mapping[str, Path]) -> None:
        self.machines = network.machines
        self._network, self._folder = network, folder
        self._servers: list[Child] = []
        self._workers: dict[str, Child] = {}
        self._setup: Setup | None = None
        self._count = 0
        self._settings = folder / "fleet.ini"
        self._password = secrets.token_hex(16)
        self._client: RedisClient | None = None
        try:
            self._redis_url = self._start_redis(network.head)
            self.endpoint = self._start_hub(repos)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every process; the last one started goes first."""
        self._stop_workers()
        if self._client:
            self._client.close()
        while self._servers:
            self._servers.pop().end()

    # -- what is measured -------------------------------------------------------------------------

    def rate(self, machine: Machine, repo: str, size: int, seconds: float) -> float:
        """Return the bytes a second that one machine alone gets of the repo's first file."""
        url = f"{self.endpoint}/{repo}/resolve/main/model.safetensors"
        words = [sys.executable, "-c", _MEASURE, url, str(size)]
        child = self._start(machine, f"rate-{machine.name}", words)
        return size / float(self._result(child, seconds))

    def snapshot(self, machine: Machine, repo: str, output: Path, seconds: float) -> float:
        """Return the seconds that `snapshot_download` takes on one machine."""
        self._stop_workers()
        words = [sys.executable, "-c", _SNAPSHOT, repo, str(output)]
        settings = {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1"}
        return float(self._result(self._start(machine, "snapshot", words, **settings), seconds))

    def fetch(
        self, setup: Setup, repo: str, output: Path, *, split: str, kill_after: float, seconds: float
    ) -> Run:
        """Let the fleet fetch a repo; after `kill_after` seconds (0 = never) kill a machine that has work.

        Raises BenchmarkError if it does not succeed within `seconds`.
        """
        view = self._ready(setup)
        words = self._command("master", repo, "--output-dir", str(output), "--split", split)
        master = self._start(self._network.head, "master", words)
        try:
            # As soon as it tells: the job runs already.
            number = until(lambda: job_id(master), "the job's number", _START_SECONDS)
            done = self._watch(view, number, kill_after, seconds)
            master.result(_START_SECONDS)
        finally:
            master.end()
        return done

    def _watch(
        self, view: RedisView, number: int, kill_after: float, seconds: float, look: float = 0.02
    ) -> Run:
        killed_at = 0.0

        def ended() -> JobStatus | None:
            nonlocal killed_at
            job = view.job(number)
            if job.state.ended:
                return job
            if kill_after and not killed_at and time.time() - job.created_at >= kill_after:
                killed_at = time.time() - job.created_at if self._kill_busy(view) else 0.0
            self._check_workers(1 if killed_at else 0)
            return None

        try:
            job = until(ended, "the end of the job", seconds, look)
        except BenchmarkError as error:
            raise BenchmarkError(f"{error}\n{self._complaints()}") from None
        if job.state is not JobState.DONE or job.ended_at is None:
            raise BenchmarkError(f"the job ended as {job.state.value}\n{self._complaints()}")
        if kill_after and not killed_at:
            raise BenchmarkError("the job was over before a machine could be killed: the file is too small")
        return Run(job.ended_at - job.created_at, killed_at)

    # -- the fleet --------------------------------------------------------------------------------

    def _ready(self, setup: Setup) -> RedisView:
        """Have all workers of that setup running and idle, on a Redis that knows no more than them."""
        assert self._client
        view = RedisView(self._client)
        if self._setup != setup or not all(worker.running for worker in self._workers.values()):
            self._stop_workers()
            self._client.commands.flushall()
            self._configure(setup)
            for machine in self.machines:
                self._workers[machine.name] = self._start_worker(machine, setup.lease)
        self._until_idle(view)
        return view

    def _configure(self, setup: Setup) -> None:
        self._setup = setup
        self._settings.write_text(self._ini(setup))
        self._settings.chmod(0o600)

    def _until_idle(self, view: RedisView) -> None:
        count = len(self.machines)

        def idle() -> bool:
            self._check_workers(0)
            # A claim that waits is a blocked client.
            return len(view.workers()) == count and self._blocked() >= count

        until(idle, f"{count} idle workers", _START_SECONDS)

    def _start_worker(self, machine: Machine, lease: float | None) -> Child:
        words = self._command("worker")
        if lease is not None:
            words[1:3] = ["-m", "tests.e2e.short_lease", str(lease)]
        return self._start(machine, "worker", words)

    def _blocked(self) -> int:
        assert self._client
        return int(self._client.commands.info("clients")["blocked_clients"])

    def _kill_busy(self, view: RedisView) -> bool:
        """Kill a worker that has work; False if none has any yet."""
        assert self._client
        held = {
            worker.pid: int(self._client.commands.llen(self._client.key(f"active:{worker.id}")))
            for worker in view.workers()
        }
        for worker in self._workers.values():
            if held.get(worker.pid):
                worker.kill()
                return True
        return False

    def _check_workers(self, dead: int) -> None:
        gone = [worker for worker in self._workers.values() if not worker.running]
        if len(gone) > dead:
            gone[-1].check()

    def _stop_workers(self) -> None:
        for worker in self._workers.values():
            worker.ask()
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()
        self._setup = None

    def _complaints(self) -> str:
        """Return the end of what each worker had to say."""
        return "\n".join(worker.complaint for worker in self._workers.values())

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "distributed_downloader", "--config", str(self._settings), *words]

    def _ini(self, setup: Setup) -> str:
        nas = f"[nas]\nenabled = true\npath = {setup.nas}\n" if setup.nas else ""
        app = f"[app]\nconcurrency = {setup.slots}\nlog_level = WARNING\n"
        return f"[redis]\nurl = {self._redis_url}\n[huggingface]\nendpoint = {self.endpoint}\n{app}{nas}"

    # -- the servers ------------------------------------------------------------------------------

    def _start_redis(self, machine: Machine) -> str:
        """Start Redis; return its address for the fleet. We look at it through a socket of its own."""
        folder = self._folder / "redis"
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        settings = {
            "bind": machine.address,
            "port": str(port),
            "requirepass": self._password,
            "unixsocket": str(folder / "s"),
            "dir": str(folder),
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        conf = folder / "conf"
        conf.touch(0o600)
        conf.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        server = self._serve(machine, "redis", [str(find_server()), str(conf)])
        config = {"url": f"unix://{folder / 's'}", "password": self._password}
        self._client = RedisClient(RedisConfig.model_validate(config))
        until(lambda: self._answers(server), "Redis", _START_SECONDS)
        return f"redis://:{self._password}@{machine.host}:{port}/0"

    def _answers(self, server: Child) -> bool:
        assert self._client
        server.check()
        try:
            return bool(self._client.commands.ping())
        except redis.ConnectionError:
            return False

    def _start_hub(self, repos: Mapping[str, Path]) -> str:
        """Start the CDN, and the hub that sends its clients there; return the hub's address."""
        folders = {f"models/{repo}": str(folder) for repo, folder in repos.items()}
        secret, cdn = secrets.token_hex(16), ""
        for machine in (self._network.cdn, self._network.hub):
            about = Origin(repos=folders, address=machine.address, host=machine.host, cdn=cdn, secret=secret)
            words = [sys.executable, "-m", "benchmarks.origin"]
            cdn = self._url(self._serve(machine, machine.name, words, json.dumps(about) + "\n"))
        return cdn

    def _url(self, server: Child) -> str:
        def told() -> str:
            server.check()
            return server.output.strip()

        return until(told, f"the address of {server.name}", _START_SECONDS)

    def _serve(self, machine: Machine, name: str, words: list[str], told: str = "") -> Child:
        self._servers.append(self._start(machine, name, words, told))
        return self._servers[-1]

    def _start(self, machine: Machine, name: str, words: list[str], told: str = "", **settings: str) -> Child:
        folder = self._folder / "machines" / machine.name
        environ = environment(
            HOME=str(folder), HF_HOME=str(folder / "hf-home"), **machine.environ, **settings
        )
        return Child([*machine.prefix, *words], folder=folder, name=name, environ=environ, told=told)

    @staticmethod
    def _result(child: Child, limit: float) -> str:
        try:
            return child.result(limit)
        finally:
            child.end()


def job_id(master: Child) -> int:
    """Return the number of the job, 0 before it is told; raises BenchmarkError if it never will be."""
    if found := re.search(r"^Job ID: (\d+)$", master.output, re.MULTILINE):
        return int(found[1])
    master.check()
    return 0
