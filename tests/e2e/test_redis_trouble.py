"""What users see when Redis refuses: one line; and workers go on by themselves when it is mended."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from distributed_downloader.models import JobState
from tests import access
from tests.e2e.fleet import Fleet, Worker, tree, until
from tests.hub.faults import Stall
from tests.hub.faulty import FaultyHub
from tests.servers import Server, free_port

BIG = "model.safetensors"
#: Bytes of it that arrive before the trouble.
FIRST = 1 << 20
RIGHT, WRONG = "the-right-one", "another-one"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a repo with a file that stalls on its way, and many small ones."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / BIG).write_bytes(random.Random(7).randbytes(3 << 20))
    for n in range(20):
        (folder / f"{n}.json").write_text("{}")
    return folder


@pytest.fixture
def server(fleet: Fleet, redis_server: Server) -> Iterator[Server]:
    """A server of this test's own, with a password, that keeps what it has on disk."""
    settings = {"requirepass": RIGHT, "appendonly": "yes", "appendfsync": "always"}
    with Server(redis_server.binary, port=free_port(), settings=settings) as server:
        fleet.redis_url = f"redis://:{RIGHT}@127.0.0.1:{server.port}/0"
        yield server
        fleet.close()


class Trouble:
    """What an administrator may do to a server, and how it is mended."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder, self.passwd = server, folder, RIGHT

    def ask(self, *words: str | int) -> Any:  # noqa: ANN401 whatever Redis says
        """Send one command as the administrator."""
        with access.administrator(self.server, self.passwd) as client:
            return client.execute_command(*words)

    def memory(self) -> None:
        self.ask("CONFIG", "SET", "maxmemory", 1)

    def memory_mended(self) -> None:
        self.ask("CONFIG", "SET", "maxmemory", 0)

    def password(self) -> None:
        self.ask("CONFIG", "SET", "requirepass", WRONG)
        self.passwd = WRONG
        self.ask("CLIENT", "KILL", "TYPE", "normal")

    def password_mended(self) -> None:
        self.ask("CONFIG", "SET", "requirepass", RIGHT)
        self.passwd = RIGHT

    def replica(self) -> None:
        self.ask("REPLICAOF", "127.0.0.1", free_port())

    def replica_mended(self) -> None:
        self.ask("REPLICAOF", "NO", "ONE")

    def disk(self) -> None:
        gone = self.folder / "gone"
        gone.mkdir()
        self.ask("CONFIG", "SET", "save", "10000 10000")
        self.ask("CONFIG", "SET", "dir", str(gone))
        gone.rmdir()
        self.ask("BGSAVE")
        until(lambda: self.ask("INFO", "persistence")["rdb_last_bgsave_status"] == "err", "a failed save")

    def disk_mended(self) -> None:
        self.ask("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")

    def loading(self) -> None:
        # As single commands for its log: it sleeps after each as shortly as the system can, and answers after
        # 1,024 of them, which is soon enough for those who ask even where a sleep takes ten times as long.
        fill = "redis.replicate_commands() for i = ARGV[1], ARGV[1] + 9999 do redis.call('SET', i, i) end"
        for first in range(0, 600_000, 10_000):
            self.ask("EVAL", fill, 0, first)
        self.server.stop()
        self.server.settings["key-load-delay"] = "-1"
        self.server.launch()

    def loading_mended(self) -> None:
        self.server.stop()  # for nothing can be set meanwhile
        self.server.settings["key-load-delay"] = "0"
        self.server.start()
        until(lambda: not self.ask("INFO", "persistence")["loading"])

    def killed(self) -> None:
        self.server.stop()

    def killed_mended(self) -> None:
        self.server.start()


@pytest.fixture
def administrator(server: Server, tmp_path: Path) -> Trouble:
    return Trouble(server, tmp_path)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "shared"


#: What a worker and commands say of each.
MESSAGES = {
    "memory": "is full: raise its maxmemory",
    "password": "refuses the login: check [redis] username and password",
    "replica": "is a read-only replica",
    "disk": "cannot write to its own disk",
    "loading": "is still loading its data",
    "killed": "cannot be reached: is it running",
}


@pytest.mark.parametrize("trouble", MESSAGES)
def test_a_worker_says_it_once_and_goes_on_when_it_is_mended(
    fleet: Fleet, administrator: Trouble, hub: FaultyHub, output: Path, trouble: str
) -> None:
    message = MESSAGES[trouble]
    stall = Stall(after=FIRST)
    hub.on(stall, file=BIG)
    job = fleet.queue("org/model", "-o", str(output), "--include", BIG)
    worker = fleet.worker()
    assert stall.reached.wait(60)

    getattr(administrator, trouble)()
    until(lambda: message in worker.log, "the worker's line about it")
    stall.release.set()
    until((output / "org/model" / BIG).exists, "the file, which needs no Redis any more")
    assert_one_line_for_people(fleet, message)

    getattr(administrator, f"{trouble}_mended")()
    assert fleet.until_ended(job).state is JobState.DONE
    assert fleet.until_ended(fleet.queue("org/model", "-o", str(output))).state is JobState.DONE
    assert tree(output / "org/model") == tree(output.parent / "source")
    # Where the trouble outlasts the read timeout, the worker asks again, but only for the rest.
    assert all(record.reply.start >= FIRST for record in hub.log.records("cdn", BIG)[1:])
    assert_told_once(worker, message)
    worker.process.terminate()
    assert worker.wait() == 0


def assert_one_line_for_people(fleet: Fleet, message: str) -> None:
    """A command that needs what Redis refuses ends with one line that says so."""
    done = fleet.run("master", "org/model", "-o", str(fleet.folder / "other"), code=3)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in done.stderr


def assert_told_once(worker: Worker, message: str) -> None:
    until(lambda: "is back after" in worker.log)
    assert "Traceback" not in worker.log
    said = [line for line in worker.log.splitlines() if "waiting for it" in line]
    # What breaks the connections on its way comes first, and is another thing.
    assert len([line for line in said if message in line]) == 1, worker.log
    assert len([line for line in said if message not in line and "cannot be reached" not in line]) == 0
    assert len(said) <= 2, worker.log
    assert worker.log.count("is back after") == 1, worker.log


# -- what is no trouble of the server ---------------------------------------------------------------


class Web(StreamRequestHandler):
    """Answers whatever it is sent as a web server does."""

    def handle(self) -> None:
        self.request.recv(1024)
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        while self.request.recv(1024):
            pass


def test_an_address_that_is_something_else_is_told(fleet: Fleet, server: Server) -> None:
    with ThreadingTCPServer(("127.0.0.1", 0), Web) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        for url, message in (
            (
                f"redis://127.0.0.1:{web.server_address[1]}/0",
                "does not speak Redis: is something else on that port",
            ),
            (f"rediss://127.0.0.1:{web.server_address[1]}/0", "does not speak TLS"),
            (f"rediss://127.0.0.1:{server.port}/0", "or TLS on one side?"),
        ):
            done = fleet.run("status", code=3, REDIS_URL=url)
            assert done.stdout == ""
            assert done.stderr.count("\n") == 1
            assert message in done.stderr
        web.shutdown()
