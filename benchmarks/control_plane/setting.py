"""What every row of `control-plane` gets and gives: sizes, a server, and lines of the report."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import redis
from redis.utils import str_if_bytes

from benchmarks.servers import cpu_of
from benchmarks.waiting import Child, environment
from distributed_downloader.config import RedisConfig
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_lua import lua_sources
from tests.servers import Binary, Server, free_port

#: Slow commands that are kept.
_MOST_SLOW = 10_000


@dataclass(frozen=True)
class Setting:
    """How much of everything, and on what."""

    #: Tasks of the large rows, and of those that show that a cost does not grow with them.
    tasks: int
    few_tasks: int
    workers: int
    jobs: int
    #: How often short rows are measured.
    rounds: int
    #: Tasks of the job that people pause, and of one round of a single worker.
    job_tasks: int
    worker_tasks: int
    #: Seconds for which an idle fleet is watched.
    idle_seconds: float
    #: For all rows but that of the memory, which takes all of `servers`.
    server: Binary
    servers: tuple[Binary, ...]
    appendonly: bool
    folder: Path

    @contextmanager
    def redis(self, binary: Binary | None = None, **settings: str) -> Iterator[Redis]:
        """Yield a server that was just started, which also listens on a port."""
        wanted = {"appendonly": "yes" if self.appendonly else "no", "maxclients": "10000", **settings}
        with Server(binary or self.server, port=free_port(), settings=wanted) as server:
            redis = Redis(server)
            try:
                yield redis
            finally:
                redis.queue.close()

    def start(self, module: str, told: str, name: str = "") -> Child:
        """Start a module of this package in a process of its own, and tell it a line."""
        words = [sys.executable, "-m", f"benchmarks.control_plane.{module}"]
        return Child(words, folder=self.folder, name=name or module, environ=environment(), told=told + "\n")


class Redis:
    """A server, the queue in it, and what it says of itself."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.config = config_of(server.port)
        self.queue = patient(server.port)

    def info(self, section: str) -> Mapping[str, Any]:
        """Return one section of INFO."""
        found: Mapping[str, Any] = self.queue.commands.info(section)
        return found

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return cpu_of(self.queue.commands)

    @property
    def memory(self) -> int:
        """Bytes in use."""
        return int(self.info("memory")["used_memory"])

    def watch(self, slow_ms: int) -> None:
        """Count anew from now on, and note each command that takes so many ms."""
        self.queue.commands.config_set("slowlog-log-slower-than", slow_ms * 1000)
        self.queue.commands.config_set("slowlog-max-len", _MOST_SLOW)
        self.queue.commands.config_resetstat()
        self.queue.commands.slowlog_reset()

    def slow(self) -> list[str]:
        """Return what was slow since `watch`: script or command, and ms; the slowest first."""
        names = {hashlib.sha1(text.encode()).hexdigest(): name for name, text in lua_sources().items()}  # noqa: S324
        entries = sorted(self.queue.commands.slowlog_get(_MOST_SLOW), key=lambda entry: -entry["duration"])
        return [f"{_name(entry['command'], names)} {entry['duration'] / 1000:.1f} ms" for entry in entries]

    def percentiles(self, command: str) -> Mapping[str, float]:
        """Return what a command took since `watch`, in us, by `p50` and so on; servers before 7 tell none."""
        found: Mapping[str, float] = self.info("latencystats").get(f"latency_percentiles_usec_{command}", {})
        return found

    def commands(self) -> dict[str, tuple[int, float]]:
        """Return how often each command was called since `watch`, by scripts too, and its mean in us."""
        found = self.info("commandstats")
        return {
            name.removeprefix("cmdstat_"): (int(about["calls"]), float(about["usec_per_call"]))
            for name, about in found.items()
        }


def config_of(port: int) -> RedisConfig:
    """Return how to connect to a server on this machine."""
    return RedisConfig.model_validate({"url": f"redis://127.0.0.1:{port}/0"})


def patient(port: int) -> RedisClient:
    """Return the queue for whoever looks on, who waits for an answer as long as it takes."""
    client = redis.Redis(port=port, decode_responses=True, encoding_errors="surrogateescape", protocol=2)
    return RedisClient.over(client)


def _name(command: str | bytes, names: Mapping[str, str]) -> str:
    words = str_if_bytes(command).split(" ", 2)
    return names.get(words[1], "a script") if words[0].upper() == "EVALSHA" else words[0]


Reached = Literal["reached", "not reached", ""]


@dataclass(frozen=True)
class Line:
    """One line of the report."""

    title: str
    measured: str
    limit: str = ""
    reached: Reached = ""


def judged(title: str, measured: str, limit: str, *, within: bool) -> Line:
    """Return a line that has a limit."""
    return Line(title, measured, limit, "reached" if within else "not reached")
