"""The private redis-server: it starts, it is private, and it goes with its parent, however that goes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from distributed_downloader import embedded
from distributed_downloader.embedded import EmbeddedRedis, find_server
from distributed_downloader.errors import RedisUnavailableError


def server_of(url: str) -> psutil.Process:
    with redis.Redis.from_url(url) as client:
        return psutil.Process(client.info()["process_id"])


def test_it_answers_and_leaves_nothing_behind() -> None:
    with EmbeddedRedis() as url:
        server, folder = server_of(url), Path(url.removeprefix("unix://")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        with redis.Redis.from_url(url) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("port") == {"port": "0"}
    assert not folder.exists()
    assert not server.is_running()


def test_it_goes_when_its_parent_is_killed() -> None:
    code = (
        "import sys; from distributed_downloader.embedded import EmbeddedRedis\n"
        "with EmbeddedRedis() as url: print(url, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        url = parent.stdout.readline().strip()
        server = server_of(url)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    psutil.wait_procs([server], timeout=20)
    assert not server.is_running()


def test_it_goes_though_a_process_was_forked_off_meanwhile() -> None:
    """Which has all that its parent had open, as the workers of a pool do."""
    code = (
        "import os, signal; from distributed_downloader.embedded import EmbeddedRedis\n"
        "with EmbeddedRedis():\n"
        "    if not (child := os.fork()): signal.pause()\n"
        "os.kill(child, signal.SIGKILL); print('gone')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("gone\n", "")


def test_nothing_is_left_of_a_start_that_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: EmbeddedRedis) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddedRedis, "_listens", interrupt)
    started = EmbeddedRedis()
    with pytest.raises(KeyboardInterrupt), started:
        pass
    assert not Path(started.url.removeprefix("unix://")).parent.exists()
    assert psutil.Process().children() == []


def test_a_server_that_cannot_start_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\n[ $1 = --version ] && echo v=7.0.0 || exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RedisUnavailableError, match="run it by hand"), EmbeddedRedis():
        pass


def test_without_any_server_the_advice_is_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded, "_IN_WHEELS", ())
    with pytest.raises(RedisUnavailableError, match="apt install redis-server"):
        find_server()


def test_the_server_on_path_wins_over_the_wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / "valkey-server"
    mine.write_text("#!/bin/sh\necho Server v=8.0.1 sha=0\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == mine


def test_a_server_that_is_too_old_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=5.0.7 sha=0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "site-packages" in str(find_server())


def test_a_long_folder_for_temporary_files_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with EmbeddedRedis() as url:
        assert server_of(url).is_running()


def test_a_wheel_serves_where_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "site-packages" in str(find_server())
