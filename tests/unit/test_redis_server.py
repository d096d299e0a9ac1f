"""The Redis of a folder: private, saved, and one at a time, whatever became of the last one."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from distributed_downloader import redis_server
from distributed_downloader.cli import run
from distributed_downloader.errors import ConflictError, RedisUnavailableError, UsageError
from distributed_downloader.redis_server import RedisServer
from tests.servers import free_port


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a silent server for dead at once."""
    monkeypatch.setattr(redis_server, "_SILENCE", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "the user's" / "queue"


def client(file: Path) -> redis.Redis:
    return redis.Redis.from_url(file.read_text().strip(), decode_responses=True)


def process_of(file: Path) -> psutil.Process:
    with client(file) as connection:
        return psutil.Process(connection.info()["process_id"])


def crash(folder: Path) -> None:
    """Leave the folder as a machine leaves it that loses its power."""
    server = RedisServer(folder, "127.0.0.1")
    file = server.__enter__()
    url = file.read_text()
    with client(file) as connection:
        connection.set("key", "value")
    process = process_of(file)
    process.kill()
    server.__exit__()
    file.write_text(url)
    (folder / "run-1" / "url").write_text(url)


def test_it_is_private_and_keeps_what_it_has(folder: Path) -> None:
    with RedisServer(folder) as file:
        assert file == folder / "url"
        with client(file) as connection:
            connection.set("key", "value")
            assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        address = urlsplit(file.read_text().strip())
        assert address.password
        assert len(address.password) > 30
        stranger = redis.Redis(address.hostname or "", address.port or 0)
        with closing(stranger), pytest.raises(redis.AuthenticationError):
            stranger.ping()
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "run-1")}
        assert modes == {0o700}
        assert {stat.S_IMODE(path.stat().st_mode) for path in (file, folder / "run-1" / "redis.conf")} == {
            0o600
        }
        assert address.password not in " ".join(process_of(file).cmdline())
    assert [path.name for path in folder.iterdir()] == ["run-1"]
    with RedisServer(folder) as file, client(file) as connection:
        assert connection.get("key") == "value"
        assert urlsplit(file.read_text()).password != address.password
    assert [path.name for path in folder.iterdir()] == ["run-2"]


def test_one_that_is_served_already_is_left_alone(folder: Path) -> None:
    with RedisServer(folder) as file:
        with pytest.raises(ConflictError, match="another Redis serves"), RedisServer(folder):
            pass
        with client(file) as connection:
            assert connection.ping()


def test_of_two_that_start_at_the_same_time_one_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(folder) as file:
        monkeypatch.setattr(redis_server, "_last_run", lambda _: None)
        with pytest.raises(ConflictError, match="has just begun"), RedisServer(folder):
            pass
        with client(file) as connection:
            assert connection.ping()
    assert [path.name for path in folder.iterdir()] == ["run-1"]


def test_after_a_crash_it_goes_on_with_what_was_written(folder: Path) -> None:
    crash(folder)
    with RedisServer(folder) as file, client(file) as connection:
        assert connection.get("key") == "value"


def test_a_stranger_on_the_old_port_is_no_server_of_this_folder(folder: Path) -> None:
    crash(folder)
    other = folder.with_name("other")
    with RedisServer(other) as file:
        ours = folder / "run-1" / "url"
        ours.write_text(file.read_text().replace(str(urlsplit(file.read_text()).password), "another"))
        with RedisServer(folder) as again, client(again) as connection:
            assert connection.get("key") == "value"


def data(folder: Path) -> Path:
    """Return the file that holds the commands: of Redis 6, or the last one of a later version."""
    files = [path for path in (folder / "run-1").glob("appendonly*/*") if ".incr." in path.name]
    return files[0] if files else folder / "run-1" / "appendonly.aof"


def test_a_torn_end_loses_the_end_only(folder: Path) -> None:
    crash(folder)
    with data(folder).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$5\r\nother\r\n$100\r\nto")
    with RedisServer(folder) as url, client(url) as connection:
        assert connection.keys() == ["key"]


def test_data_that_cannot_be_read_is_left_behind(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    crash(folder)
    data(folder).write_bytes(b"nonsense\r\n" * 100)
    with caplog.at_level(logging.WARNING), RedisServer(folder) as file, client(file) as connection:
        assert connection.keys() == []
    assert "it begins anew" in caplog.text
    assert [path.name for path in folder.iterdir()] == ["run-3"]


def test_a_server_that_cannot_start_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = folder.parent / "bin" / "redis-server"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && echo v=7.0.0 || { echo no such luck; exit 1; }\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent), prepend=os.pathsep)
    with pytest.raises(RedisUnavailableError, match="does not start: no such luck"), RedisServer(folder):
        pass
    assert not list(folder.glob("*/url"))


def test_one_that_ends_by_itself_is_noticed(folder: Path) -> None:
    server = RedisServer(folder)
    with server as file:
        process_of(file).kill()
        with pytest.raises(RedisUnavailableError, match="has ended"):
            server.wait()


@pytest.mark.parametrize("address", ["192.0.2.77", "no.such.host.invalid"])
def test_it_listens_on_no_address_but_ours(folder: Path, address: str) -> None:
    with pytest.raises(UsageError, match="no address of this machine"), RedisServer(folder, address):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_the_address_can_be_chosen(folder: Path, address: str) -> None:
    with RedisServer(folder, address) as file, client(file) as connection:
        assert connection.ping()
        assert urlsplit(file.read_text()).hostname in ("127.0.0.1", "::1")


def test_a_host_name_that_means_loopback_is_not_what_others_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian has such a line in /etc/hosts."""
    monkeypatch.setattr(redis_server, "_resolve", lambda _: ["127.0.1.1"])
    assert "127.0.1.1" not in list(redis_server._addresses(""))
    monkeypatch.setattr(redis_server, "_resolve", lambda _: ["127.0.1.1", "10.1.2.3"])
    assert next(redis_server._addresses("")) == "10.1.2.3"


def test_what_others_have_in_the_folder_stays(folder: Path) -> None:
    """Who names results `run-1` is not to lose them, whatever folder the queue is put in."""
    result = folder / "run-2" / "result"
    result.parent.mkdir(parents=True)
    result.touch()
    with RedisServer(folder):
        pass
    not_ours = r"run-2.* is not of a Redis.*a folder for the queue alone"
    with pytest.raises(UsageError, match=not_ours), RedisServer(folder):
        pass
    assert result.exists()


def test_a_folder_of_somebody_else_is_not_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies there is run: a server does what its data says."""
    folder.mkdir(parents=True)
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UsageError, match="belongs to another user"), RedisServer(folder):
        pass


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match=r"file.*: Not a directory"),
        RedisServer(tmp_path / "file" / "queue"),
    ):
        pass


@pytest.fixture
def command(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "distributed_downloader", "redis", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == f"{folder / 'url'}\n"
        yield process


def test_the_command_saves_when_it_is_told_to_end(folder: Path, command: subprocess.Popen[str]) -> None:
    server = process_of(folder / "url")
    with client(folder / "url") as connection:
        connection.set("key", "value")
    command.send_signal(signal.SIGTERM)
    assert command.wait(20) == 0
    assert not (folder / "url").exists()
    psutil.wait_procs([server], timeout=20)
    with RedisServer(folder) as file, client(file) as connection:
        assert connection.get("key") == "value"


def test_the_server_goes_with_the_command(folder: Path, command: subprocess.Popen[str]) -> None:
    server = process_of(folder / "url")
    command.kill()
    psutil.wait_procs([server], timeout=20)
    assert not server.is_running()


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["redis", str(tmp_path / "queue"), "--address", f"127.0.0.1:{free_port()}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
