"""All that a measurement on one machine needs: Redis, the local hub, nginx, workers and other programs."""

from __future__ import annotations

import json
import resource
import secrets
import shutil
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from redis.client import PubSub

from benchmarks.contestant import Order, Result
from benchmarks.costs import Cost, measure, most_memory
from benchmarks.machines import Machine
from benchmarks.nginx import Content, Nginx
from benchmarks.origin import Origin
from benchmarks.rig import Rig, Setup, job_id
from benchmarks.waiting import Child, environment, until
from distributed_downloader.config import SETTINGS
from distributed_downloader.redis_view import RedisView

_LOOPBACK = "127.0.0.1"
_START_SECONDS = 60.0
#: Seconds between two looks at a job: its end is told by Redis' clock, and looking takes processor time.
_RARE_LOOK = 0.25
#: Seconds after which a program is given up.
_PATIENCE = 600.0
#: Files that a worker fetches at a time unless it is told otherwise.
SLOTS = int(SETTINGS["app.concurrency"].default)
#: Bare starts of a program beside each run of it.
_STARTS = 3


class Loopback:
    """As many machines as wanted, all of them this one."""

    about = "processes on loopback"

    def __init__(self, count: int) -> None:
        self.hub, self.cdn, self.head = (
            Machine(name, _LOOPBACK, _LOOPBACK) for name in ("hub", "cdn", "head")
        )
        self.machines: Sequence[Machine] = [
            Machine(f"m{n}", _LOOPBACK, _LOOPBACK) for n in range(1, count + 1)
        ]

    def shape(self, machine: Machine, rate: int) -> None:
        """Leave loopback as it is."""

    def close(self) -> None:
        """Nothing was made."""


@dataclass(frozen=True)
class Work:
    """What was done for a job: seconds by Redis' clock, and processor time of ours and of Redis."""

    seconds: float
    workers_cpu: float
    redis_cpu: float


class Here(Rig):
    """Servers on this machine, and programs that are measured one after the other.

    `hub` redirects to nginx for large files, `tls_hub` to the same over TLS, and `small_hub` is nginx itself.
    """

    def __init__(
        self,
        folder: Path,
        repos: Mapping[str, Path],
        *,
        workers: int = 1,
        slots: int = SLOTS,
        small: bool = False,
    ) -> None:
        """With `small`, the hub of fleet and contestants is `small_hub`, else `hub`."""
        self._nginx = Nginx(folder / "nginx")
        self._small, self._slots = small, slots
        self.hub = self.tls_hub = ""
        self.small_hub = self._nginx.url
        self.commits: dict[str, str] = {}
        self._runs = 0
        super().__init__(Loopback(workers), folder, repos)

    def close(self) -> None:
        """End every process."""
        super().close()
        self._nginx.close()

    # -- the servers ------------------------------------------------------------------------------

    def _start_hub(self, repos: Mapping[str, Path]) -> str:
        self.hub = self._half("hub", repos, self._nginx.url)
        self.tls_hub = self._half("tls-hub", repos, self._nginx.tls_url)
        for repo in repos:
            with urllib.request.urlopen(f"{self.hub}/api/models/{repo}") as answer:  # noqa: S310 - our own hub
                self.commits[repo] = json.load(answer)["sha"]
        contents = {repo: Content(folder, self.commits[repo]) for repo, folder in repos.items()}
        self._nginx.start(contents, self.hub)
        return self.small_hub if self._small else self.hub

    def _half(self, name: str, repos: Mapping[str, Path], cdn: str) -> str:
        folders = {f"models/{repo}": str(folder) for repo, folder in repos.items()}
        about = Origin(
            repos=folders, address=_LOOPBACK, host=_LOOPBACK, cdn=cdn, secret=secrets.token_hex(16)
        )
        words = [sys.executable, "-m", "benchmarks.origin"]
        return self._url(
            self._serve(Machine(name, _LOOPBACK, _LOOPBACK), name, words, json.dumps(about) + "\n")
        )

    # -- programs ---------------------------------------------------------------------------------

    @property
    def authority(self) -> Path:
        """The certificate to trust."""
        return self._nginx.authority

    def measure(
        self, words: Sequence[str], *, seconds: float = _PATIENCE, told: str = "", endpoint: str = ""
    ) -> Cost:
        """Run a program in a home of its own, in a folder that is empty."""
        self._runs += 1
        folder = self._folder / "runs" / str(self._runs)
        environ = environment(
            HOME=str(folder),
            HF_HOME=str(folder / "hf-home"),
            HF_ENDPOINT=endpoint or self.endpoint,
            HF_HUB_DISABLE_XET="1",
            SSL_CERT_FILE=str(self.authority),
        )
        try:
            return measure(
                words,
                folder=folder,
                name=Path(words[0]).name,
                environ=environ,
                seconds=seconds,
                told=told,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def program(self, words: Sequence[str]) -> tuple[Cost, Cost]:
        """Run a program; return what it took beyond a bare start (its `--version`), and the whole process.

        A library's call begins after its imports, so a program's begins after what its start takes.
        """
        starts = [self.measure([words[0], "--version"]) for _ in range(_STARTS)]
        process = self.measure(words)
        return process.beyond(starts), process

    def contestant(self, order: Order) -> tuple[Cost, Result]:
        """Return what the process of a contestant took, and its call."""
        words = [sys.executable, "-m", "benchmarks.contestant"]
        cost = self.measure(words, told=json.dumps(order) + "\n", endpoint=order["endpoint"])
        result: Result = json.loads(cost.output)
        return cost, result

    # -- the fleet --------------------------------------------------------------------------------

    @property
    def redis_url(self) -> str:
        """Where workers find Redis; a password is in it."""
        return self._redis_url

    def queue(self, repo: str, output: Path) -> int:
        """Forget all jobs, and queue one with its whole listing; nobody works at it yet."""
        master = self._start_master(repo, output)
        self._result(master, _START_SECONDS)
        return job_id(master)

    def _start_master(self, repo: str, output: Path) -> Child:
        """Forget all workers and jobs, and let a master begin with a new job."""
        assert self._client
        self._stop_workers()
        self._client.commands.flushall()
        self._configure(Setup(self._slots))
        words = self._command("master", repo, "--output-dir", str(output), "--split", "never")
        return self._start(self._network.head, "master", words)

    def _start_workers(self) -> None:
        for machine in self.machines:
            self._workers[machine.name] = self._start_worker(machine, None)

    def work(self, repo: str, output: Path, seconds: float = _PATIENCE) -> Work:
        """Let the workers fetch a repo that is queued already, as soon as all of them wait for it."""
        assert self._client
        view, job = RedisView(self._client), self.queue(repo, output)
        self._client.control("pause", job)
        try:
            self._start_workers()
            self._until_idle(view)
            before, began = self._spent(), self._now()
            self._client.control("resume", job)
            self._watch(view, job, 0, seconds, _RARE_LOOK)
            after, ended = self._spent(), view.job(job).ended_at
        finally:
            self._stop_workers()  # before somebody removes what they write
        assert ended
        return Work(ended - began, *(a - b for a, b in zip(after, before, strict=True)))

    def from_start(self, repo: str, output: Path, seconds: float = _PATIENCE) -> Work:
        """Start a master and, at once beside it, the workers; the seconds are from there to the job's end.

        The processor time is that of all these processes, from their start to their end.
        """
        assert self._client
        view, redis = RedisView(self._client), self._redis.pid
        self._stop_workers()
        cpu, redis_cpu, began = cpu_of_ended(), cpu_of(redis), self._now()
        master = self._start_master(repo, output)
        try:
            self._start_workers()
            self._result(master, seconds)
            job = job_id(master)
            self._watch(view, job, 0, seconds, _RARE_LOOK)
            redis_cpu, ended = cpu_of(redis) - redis_cpu, view.job(job).ended_at
        finally:
            master.end()
            self._stop_workers()
        assert ended
        return Work(ended - began, cpu_of_ended() - cpu, redis_cpu)

    def _now(self) -> float:
        """Return the time by Redis' clock, which is that of a job's end."""
        assert self._client
        seconds, micros = self._client.commands.time()
        return seconds + micros / 1e6

    @property
    def _redis(self) -> Child:
        return next(server for server in self._servers if server.name == "redis")

    def _spent(self) -> tuple[float, float]:
        """Return the processor time of all workers, and of Redis."""
        return sum(cpu_of(worker.pid) for worker in self._workers.values()), cpu_of(self._redis.pid)

    def first_claim(self) -> Cost:
        """Start a worker, and return what it took until it had claimed the first file of what is queued.

        Redis tells of it by itself, so nobody has to look.
        """
        assert self._client
        redis = self._client.commands
        redis.config_set("notify-keyspace-events", "Kl")
        with redis.pubsub(ignore_subscribe_messages=True) as claims:  # type: ignore[no-untyped-call]
            claims.psubscribe(f"__keyspace@0__:{self._client.key('active:*')}")
            began = time.monotonic()
            machine = self.machines[0]
            worker = self._workers[machine.name] = self._start_worker(machine, None)
            until(lambda: self._heard(claims, worker), "the first claim", _START_SECONDS)
            wall, cpu = time.monotonic() - began, cpu_of(worker.pid)
        rss = most_memory(worker.pid)
        self._stop_workers()
        return Cost(wall, cpu, rss, "")

    @staticmethod
    def _heard(claims: PubSub, worker: Child) -> bool:
        worker.check()
        # Longer than `until` rests, so that a claim is heard at once nearly always.
        return claims.get_message(timeout=1.0) is not None


def cpu_of_ended() -> float:
    """Return the seconds of processor time of all processes of ours that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_of(pid: int) -> float:
    """Return the seconds of processor time of a process that runs."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
