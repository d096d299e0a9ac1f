"""The edges of a process: its first moments, its output, its environment, its children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from tests.e2e.fleet import Fleet, until
from tests.hub.faults import Status
from tests.hub.faulty import FaultyHub
from tests.hub.sample import write_dataset_repo
from tests.servers import Server

#: Runs the program and sends itself a signal while it still imports.
EARLY = """
import builtins, os, signal, sys
real = builtins.__import__
def hook(name, *rest, **more):
    if name == "click":
        os.kill(os.getpid(), int(sys.argv.pop()))
    return real(name, *rest, **more)
builtins.__import__ = hook
from distributed_downloader.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (["status", "--watch"], signal.SIGINT, 130),
        (["master", "org/model"], signal.SIGINT, 130),
        (["worker"], signal.SIGINT, 0),
        (["worker"], signal.SIGTERM, 0),
        (["worker"], signal.SIGUSR1, 0),
    ],
)
def test_a_signal_in_the_first_moments_shows_no_trace(
    fleet: Fleet, words: list[str], number: signal.Signals, code: int
) -> None:
    done = subprocess.run(
        [fleet.python, "-c", EARLY, *words, str(int(number))],
        cwd=fleet.folder,
        env=fleet.env(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_reader_that_has_seen_enough_is_no_error(fleet: Fleet) -> None:
    fleet.queue("org/model")
    command = " ".join(fleet.command("files", "1"))
    script = f"{command} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=fleet.folder, env=fleet.env(), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_output_that_cannot_be_written_is_one_line(fleet: Fleet) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            fleet.command("status"),
            cwd=fleet.folder,
            env=fleet.env(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: standard output: no space left on device\n")


def test_a_listing_whose_master_is_gone_is_told(fleet: Fleet, redis_server: Server) -> None:
    fleet.queue("org/model")
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as raw:
        raw.hset("{hfd}:job:1", mapping={"sealed": 0, "listed_at": int((time.time() - 600) * 1000)})
    assert "run it again" in fleet.run("status").stdout


def test_download_refuses_a_mix_at_once(fleet: Fleet, hub: FaultyHub, tmp_path: Path) -> None:
    fleet.run("download", "org/model", "-o", "out")
    data = write_dataset_repo(tmp_path / "data")
    with FaultyHub({"datasets/org/model": data}) as other:
        fleet.endpoint = other.endpoint
        done = fleet.run("download", "datasets/org/model", "-o", "out", code=1)
    assert done.stderr.count("--output-dir") == 1


def test_a_failure_is_told_once(fleet: Fleet, hub: FaultyHub) -> None:
    hub.on(Status(404), file="config.json", route="resolve", times=None)
    done = fleet.run("download", "org/model", "-o", "out", "--include", "config.json", code=1)
    assert done.stderr.count("config.json") == 1


def has_worker(demo: psutil.Process) -> bool:
    for child in demo.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if "worker" in child.cmdline():
                return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_demo_leaves_nothing_behind(fleet: Fleet, number: signal.Signals) -> None:
    running = fleet.start("demo", TMPDIR=str(fleet.folder), REDIS_PASSWORD="wrong", REDIS_DB="5")
    demo = psutil.Process(running.pid)
    until(lambda: has_worker(demo))
    children = demo.children(recursive=True)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(children, 30)
    assert alive == []
    assert not list(fleet.folder.glob("hfd-*"))


def test_the_demo_s_processes_go_when_it_is_killed(fleet: Fleet) -> None:
    running = fleet.start("demo", TMPDIR=str(fleet.folder))
    demo = psutil.Process(running.pid)
    until(lambda: has_worker(demo))
    children = demo.children(recursive=True)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    _, alive = psutil.wait_procs(children, 30)
    assert alive == []
