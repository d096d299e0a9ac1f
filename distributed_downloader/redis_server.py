"""A redis-server whose data lies in a folder: for who has no long-lived one, such as the job of a cluster.

Each run has a folder of its own, `run-<n>`, which begins with a copy of what the last one left. So two
servers never write the same files, whatever the one of a lost machine still does; and no lock is needed,
which some file systems do not have.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from distributed_downloader.embedded import GUARD, environment, find_server
from distributed_downloader.errors import ConflictError, RedisUnavailableError, UsageError

log = logging.getLogger(__name__)

#: In the folder, and in that of each run: the address with the password; there while the server is.
URL = "url"
_CONF, _LOG, _DATA = "redis.conf", "log", "appendonly*"
#: Seconds for which a server that was not stopped in order may be silent before it is taken for dead.
_SILENCE = 5.0
#: Seconds until a new one listens, however long it then reads its data.
_START_SECONDS = 60.0
_CALL_SECONDS = 2.0
_LOOK = 0.05
#: No packet is sent there (RFC 5737): only which of our addresses leads out is asked.
_SOMEWHERE = ("192.0.2.1", 9)


class RedisServer:
    """The server of one folder; `with RedisServer(folder) as file` runs it, and lets it save at the end.

    `file` is the one that holds its address, with the password. `address` is what this machine is to be
    reached by: a name or an address of it, or "" for that of its host name. Entering raises ConflictError
    while another server has the folder, UsageError for a folder or an address that cannot be used, and
    RedisUnavailableError when the server does not start.
    """

    def __init__(self, folder: Path, address: str = "") -> None:
        self._folder, self._address = folder, address
        self._process: subprocess.Popen[bytes] | None = None
        self._run: Path | None = None

    def __enter__(self) -> Path:
        try:
            return self._start(find_server())
        except OSError as error:
            self.__exit__()
            raise UsageError(f"{error.filename or self._folder}: {error.strerror}") from None
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._end()
        if self._run:
            for folder in (self._folder, self._run):
                (folder / URL).unlink(missing_ok=True)

    def wait(self) -> None:
        """Wait until the server ends by itself; raises RedisUnavailableError, for it should not."""
        assert self._process
        self._process.wait()
        raise RedisUnavailableError(f"the redis-server of {self._folder} has ended: {self._last_words()}")

    def _start(self, server: Path) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.stat().st_uid != os.geteuid():  # a server does whatever its data says
            raise UsageError(f"{self._folder} belongs to another user: name a folder of yours")
        last = _last_run(self._folder)
        if last and _lives(last):
            raise ConflictError(
                f"another Redis serves {self._folder}: the job that it belongs to still runs; wait for its "
                "end, or cancel it"
            )
        url = self._serve(server, last, last) or self._serve_anew(server)
        for run in _runs(self._folder)[:-1]:
            shutil.rmtree(run, ignore_errors=True)
        return _write(self._folder / URL, url)

    def _serve_anew(self, server: Path) -> str:
        """Serve without the data of the last run, which cannot be read."""
        failed = self._last_words()
        log.warning("the queue in %s cannot be read (%s): it begins anew", self._folder, failed)
        if url := self._serve(server, self._run, None):
            return url
        raise RedisUnavailableError(f"{server} does not start: {self._last_words()}")

    def _serve(self, server: Path, last: Path | None, data: Path | None) -> str | None:
        """Return the address of a server that answers, or None if it ended at once."""
        address, port = _free_port(self._address)
        password = secrets.token_urlsafe(32)
        host = f"[{address}]" if ":" in address else address
        url = f"redis://:{password}@{host}:{port}/0"
        with _draft(self._folder) as draft:
            for path in data.glob(_DATA) if data else ():
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, draft / path.name)
            _write(draft / _CONF, _settings(address, port, password))
            _write(draft / URL, url)
            self._run = _take(draft, _number(last) + 1)
        self._launch(server, self._run)
        if self._answers(url):
            return url
        self._end()
        (self._run / URL).unlink()
        return None

    def _launch(self, server: Path, run: Path) -> None:
        # In our process group, which whoever runs jobs ends with the job; and it leaves when we do.
        with (run / _LOG).open("ab") as out:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "sh", str(server), _CONF],
                cwd=run,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=environment(),
            )

    def _answers(self, url: str) -> bool:
        """Wait until the server has read its data; return whether it lives that long."""
        assert self._process
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None:
            said = _ping(url)
            if said or time.monotonic() > deadline:
                return bool(said)
            if said is False:
                deadline = time.monotonic() + _START_SECONDS
            time.sleep(_LOOK)
        return False

    def _end(self) -> None:
        """Let the server save and end."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()

    def _last_words(self) -> str:
        """Return the last lines of the server's log that say something."""
        assert self._run
        lines = (self._run / _LOG).read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.partition(" # ")[2] or line for line in lines if line.strip()]
        return "; ".join(said[-2:]) or f"nothing in {self._run / _LOG} says why"


def _settings(address: str, port: int, password: str) -> str:
    """Return the server's configuration: each second on disk, and a torn end is no reason not to start."""
    return f"""\
bind {address}
port {port}
requirepass {password}
save ""
appendonly yes
appendfsync everysec
aof-load-truncated yes
maxmemory-policy noeviction
"""


def _write(path: Path, text: str) -> Path:
    """Write a file that only its owner can read, whole or not at all; return it."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # of mode 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text.rstrip()}\n")
    return Path(name).replace(path)


# -- runs -----------------------------------------------------------------------------------------


def _runs(folder: Path) -> list[Path]:
    """Return the runs in their order; what others call by such a name has no configuration of ours."""
    return sorted(
        (path for path in folder.glob("run-*") if _number(path) and (path / _CONF).is_file()), key=_number
    )


def _last_run(folder: Path) -> Path | None:
    return next(reversed(_runs(folder)), None)


def _number(run: Path | None) -> int:
    digits = run.name.removeprefix("run-") if run else ""
    return int(digits) if digits.isdecimal() else 0


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """Give a folder of mode 0700 in which a run is made ready; it is removed unless it was taken."""
    draft = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _take(draft: Path, number: int) -> Path:
    """Make the draft the run of this number.

    Raises ConflictError if somebody else was faster, UsageError if something else has its name.
    """
    run = draft.with_name(f"run-{number}")
    try:
        return draft.rename(run)  # a folder that is not empty is never replaced
    except OSError:
        if (run / _CONF).exists():
            raise ConflictError(f"another Redis has just begun to serve {draft.parent}") from None
        if run.exists():
            raise UsageError(f"{run} is not of a Redis: name a folder for the queue alone") from None
        raise


def _lives(run: Path) -> bool:
    """Return whether the server of a run answers; one that was not stopped gets a while to do so."""
    deadline = time.monotonic() + _SILENCE
    while (run / URL).exists():
        if _ping((run / URL).read_text(encoding="utf-8").strip()) is not None:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return False


def _ping(url: str) -> bool | None:
    """Return True if the server at `url` answers, False while it reads its data, None if it is not there."""
    client = redis.Redis.from_url(
        url,
        socket_timeout=_CALL_SECONDS,
        socket_connect_timeout=_CALL_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    with client:
        try:
            return bool(client.ping())
        except redis.BusyLoadingError:
            return False
        except redis.RedisError:  # a stranger on that port does not know our password
            return None


# -- addresses ------------------------------------------------------------------------------------


def _free_port(name: str) -> tuple[str, int]:
    """Return an address of this machine that others reach it by, and a port there that is free."""
    for address in _addresses(name):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with suppress(OSError), socket.create_server((address, 0), family=family) as listener:
            return address, int(listener.getsockname()[1])
    raise UsageError(f"{name or socket.gethostname()} is no address of this machine: name one with --address")


def _addresses(name: str) -> Iterator[str]:
    """Return what a machine of this name may be reached by; without a name, first what its own one means."""
    found = _resolve(name or socket.gethostname())
    if name:
        yield from found
        return
    yield from (address for address in found if not ipaddress.ip_address(address).is_loopback)
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        way_out.connect(_SOMEWHERE)
        yield way_out.getsockname()[0]
    yield "127.0.0.1"


def _resolve(name: str) -> list[str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found if "%" not in str(entry[4][0])))
