"""`status --watch` on a real terminal, over a real Redis that comes and goes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import pytest

from distributed_downloader.models import JobState
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from tests.servers import NO_SERVER, Server, binaries
from tests.unit.looking_on import failure, spec, transfer, worker
from tests.unit.test_cli_looking_on import file, settle, submit

SHOW_CURSOR = b"\x1b[?25h"
OWN_SCREEN, LEAVE_IT = b"\x1b[?1049h", b"\x1b[?1049l"
PATIENCE = 60.0


class Terminal:
    """A terminal of 80 x 24 with one command in it; a context manager that ends it."""

    def __init__(self, *command: str, environment: Mapping[str, str]) -> None:
        self.seen = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "distributed_downloader", "--log-level", "ERROR", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=Path(__file__).parents[2],
            env={"TERM": "xterm", "PYTHONUTF8": "1", **keep, **environment},
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def read_until(self, *words: str) -> str:
        """Read until all words have appeared, in this order; return what came since the last call."""
        deadline, text = time.monotonic() + PATIENCE, b""
        left = [word.encode() for word in words]
        while left:
            before, found, after = text.partition(left[0])
            if found:
                self.seen += before + found
                text = after
                left.pop(0)
            else:
                assert time.monotonic() < deadline, f"{left[0]!r} never came, but {text[-3000:]!r}"
                text += self._read()
        self.seen += text
        return text.decode()

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._master], [], [], 1.0)
        try:
            return os.read(self._master, 65536) if ready else b""
        except OSError:  # Linux's way to say that the other side is closed
            return b""

    def interrupt(self) -> None:
        """Press Ctrl+C."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Read to the end; return the exit code."""
        while chunk := self._read() or (b"\0" if self._process.poll() is None else b""):
            self.seen += chunk.strip(b"\0")
        return self._process.returncode


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a Redis that remembers what it knew when it is started again."""
    found = binaries()
    assert found, NO_SERVER
    with Server(found[0], settings={"appendonly": "yes", "appendfsync": "always"}) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[RedisClient]:
    """Return the queue, empty."""
    client = RedisClient(server.config)
    client.commands.flushall()
    yield client
    client.close()


def watching(server: Server, *arguments: str, **environment: str) -> Terminal:
    """Start to watch."""
    url = server.config.url.get_secret_value()
    command = ("status", "--watch", "--interval", "0.1", *arguments)
    return Terminal(*command, environment={"REDIS_URL": url, **environment})


def test_a_watched_job_is_drawn_until_it_is_done(server: Server, client: RedisClient) -> None:
    submit(client, spec("org/watched"), file("a", 100), file("b", 300))
    with watching(server, "1") as terminal:
        terminal.read_until("org/watched", "─", "0%", "0 of 2 files", "waits for a worker")
        settle(client, None)
        client.report(worker("gpu-07-4711-ab12cd", transfer("b", 0.5, size=300, job=1)))
        terminal.read_until("1 of 2 files", "gpu-07-4711-ab12cd", "11.2 MB/s")
        settle(client, None)
        assert terminal.end() == 0
    assert terminal.seen.startswith(OWN_SCREEN)
    picture, _, left = terminal.seen.partition(LEAVE_IT)
    assert SHOW_CURSOR in picture
    assert b"org/watched" in left, "the end stays on the terminal"
    assert b"2 files" in left
    assert b"done in" in left


def test_a_job_with_failed_files_is_exit_code_1(server: Server, client: RedisClient) -> None:
    submit(client, spec("org/watched"), file("a", 100))
    with watching(server, "org/watched") as terminal:
        terminal.read_until("org/watched")
        settle(client, failure("a", "the hub has no such file", tries=1))
        assert terminal.end() == 1
    left = terminal.seen.partition(LEAVE_IT)[2]
    assert b"the hub has no such file (1 try on gpu-07)" in left


def test_ctrl_c_ends_it_quietly(server: Server, client: RedisClient) -> None:
    submit(client, spec("org/watched"), file("a", 100))
    with watching(server) as terminal:
        terminal.read_until("org/watched", "Ctrl+C ends this view, not the jobs")
        terminal.interrupt()
        assert terminal.end() == 130
    assert terminal.seen.endswith(LEAVE_IT), "nothing is printed after the picture"
    assert RedisView(client).job(1).state is JobState.RUNNING


def test_redis_may_go_away_and_come_back(server: Server, client: RedisClient) -> None:
    submit(client, spec("org/watched"), file("a", 100))
    with watching(server, "1") as terminal:
        terminal.read_until("org/watched")
        server.stop()
        terminal.read_until("Redis at ", "trying", "org/watched")
        server.start()
        settle(client, None)
        assert terminal.end() == 0
    assert b"Traceback" not in terminal.seen


def test_no_color_and_ascii_terminals_are_respected(server: Server, client: RedisClient) -> None:
    submit(client, spec("org/watched"), file("a", 100))
    plain = {"NO_COLOR": "1", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    with watching(server, "1", **plain) as terminal:
        terminal.read_until("org/watched", "----", "waits for a worker")
        terminal.interrupt()
        terminal.end()
    assert terminal.seen.isascii()
    assert b"\x1b[3" not in terminal.seen, "no colours"


def test_a_small_terminal_is_not_overrun(server: Server, client: RedisClient) -> None:
    for number in range(30):
        submit(client, spec(f"org/repo-{number:02}"), file("a", 100))
    with watching(server) as terminal:
        terminal.read_until("org/repo-00", "more", "Queue", "Ctrl+C")
        terminal.interrupt()
        terminal.end()
    assert b"org/repo-29" not in terminal.seen
