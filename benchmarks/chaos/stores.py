"""The Redis of a round: one server behind a relay, or a group that sentinels watch."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path
from types import TracebackType

import redis

from benchmarks.chaos.clock import Clock, may_move
from distributed_downloader.config import RedisConfig
from tests.queue.relay import Relay
from tests.sentinels import SERVICE, Sentinels
from tests.servers import Binary, Server

SINGLE, SENTINELS = "single", "sentinels"
#: Seconds in which a Redis that writes its log once a second may lose what it was told.
_UNSAVED = 1.0


class Single:
    """One Redis with a password and an append-only file; the workers reach it through a relay."""

    kind = SINGLE

    def __init__(self, binary: Binary) -> None:
        self._password = secrets.token_hex(16)
        settings = {"requirepass": self._password, "appendonly": "yes", "appendfsync": "everysec"}
        self.server = Server(binary, settings=settings)
        #: Its clock, None where it cannot be moved.
        self.clock = Clock(self.server.folder / "clock", binary) if may_move() else None
        if self.clock:
            self.server.binary = self.clock.binary
        self.relay = Relay(self.server.socket)
        #: How we look at it ourselves.
        self.config = RedisConfig.model_validate(
            {"url": f"unix://{self.server.socket}", "password": self._password}
        )

    @property
    def ini(self) -> str:
        """What the fleet's configuration says of it."""
        return f"url = redis://:{self._password}@127.0.0.1:{self.relay.port}/0\n"

    def __enter__(self) -> Single:
        self.server.start()
        self.relay.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.relay.__exit__(kind, error, trace)
        self.server.remove()

    def administrator(self) -> redis.Redis:
        """Return a connection that is logged in and stays so, whatever the password is meanwhile."""
        return _connect(self.server, self._password)

    def forget_last_second(self) -> None:
        """Crash, and come back without what came last: it was not on disk yet."""
        log = self._log()
        size = log.stat().st_size
        time.sleep(_UNSAVED)
        self.server.stop()
        os.truncate(log, min(size, log.stat().st_size))
        self.server.start()

    def forget_all(self) -> None:
        """Crash, and come back empty."""
        self.server.stop()
        for path in self._files():
            path.unlink()
        self.server.start()

    def freeze(self) -> None:
        """Answer nothing until `thaw`."""
        os.kill(self.server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        os.kill(self.server.pid, signal.SIGCONT)

    def _log(self) -> Path:
        """Return the file to which commands are appended; a base or a manifest may lie beside it."""
        logs = [path for path in self._files() if ".base." not in path.name and path.suffix == ".aof"]
        return max(logs, key=lambda path: path.stat().st_mtime)

    def _files(self) -> list[Path]:
        folder = self.server.folder
        return [path for path in folder.rglob("*") if path.suffix in (".aof", ".rdb", ".manifest")]


class Group:
    """A master and a replica, and three sentinels of which the workers ask who is the master."""

    kind = SENTINELS

    def __init__(self, binary: Binary) -> None:
        self._password = secrets.token_hex(16)
        settings = {"appendonly": "yes", "appendfsync": "everysec"}
        self.sentinels = Sentinels(binary, password=self._password, settings=settings)

    @property
    def config(self) -> RedisConfig:
        """How we look at it ourselves."""
        return self.sentinels.config

    @property
    def ini(self) -> str:
        """What the fleet's configuration says of it."""
        return f"sentinels = {self.sentinels.addresses}\nservice = {SERVICE}\npassword = {self._password}\n"

    def __enter__(self) -> Group:
        self.sentinels.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sentinels.__exit__(kind, error, trace)

    def administrator(self) -> redis.Redis:
        """Return a connection to the master."""
        return _connect(self.sentinels.master, self._password)


def _connect(server: Server, password: str) -> redis.Redis:
    client = redis.Redis(
        unix_socket_path=str(server.socket),
        password=password,
        decode_responses=True,
        encoding_errors="surrogateescape",
        single_connection_client=True,
    )
    client.ping()
    return client
