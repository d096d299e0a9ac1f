"""What a worker says of its health, and how a probe judges it."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from distributed_downloader.cli import cli
from distributed_downloader.errors import ConfigError
from distributed_downloader.health import Health, HealthFile, State, read
from tests.unit.test_display_json import check

LEASE = 30.0
NOW = 5000.0


@dataclass
class Worker:
    id: str = "w1"
    trouble: str = ""
    state: State = State.RUNNING


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "health"


@pytest.fixture
def file(path: Path) -> HealthFile:
    return HealthFile(str(path), LEASE)


def health(**fields: object) -> Health:
    usual = Health(
        "w1", os.getpid(), State.RUNNING, 1.0, "", 300.0, {"fetcher": NOW - 9, "heartbeat": NOW - 1}
    )
    return replace(usual, **fields)  # type: ignore[arg-type]


def written(path: Path) -> Health:
    found = read(path)
    assert found
    return found


def a_dead_pid() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


# -- the verdict ----------------------------------------------------------------------------------


def test_who_goes_on_is_alive_whatever_it_is_at() -> None:
    for state in State:
        assert health(state=state).ailment(NOW) == ""
    assert [state for state in State if health(state=state).is_ready] == [State.RUNNING]


@pytest.mark.parametrize("thread", ["fetcher", "heartbeat"])
def test_a_thread_that_hangs_is_found(thread: str) -> None:
    turns = {"fetcher": NOW, "heartbeat": NOW, thread: NOW - 300}
    assert health(turns=turns).ailment(NOW) == ""
    assert health(turns=turns).ailment(NOW + 1) == f"its {thread} has not gone on for 301 s"


def test_what_was_written_before_the_machine_started_is_nobodys() -> None:
    assert "fetcher" in health().ailment(NOW - 1000)


def test_a_process_that_is_gone_is_not_alive() -> None:
    assert health(pid=a_dead_pid()).ailment(NOW) == "its process is gone"
    assert health(pid=1).ailment(NOW) == ""  # somebody else's, and there


def test_it_comes_back_as_it_was_written() -> None:
    said = health(trouble="/data is full: \x1b[31m \udc80 雪")
    assert Health.parse(said.write()) == said


@pytest.mark.parametrize(
    "text",
    [
        *("", "no", "[]", "{}", "null", '"x"', "1", '{"worker": "w"}', "\x00"),
        health().write().replace("running", "flying"),
        health().write().replace('"turns": {', '"turns": [').replace("}}", "]}"),
        health(patience=float("inf"))
        .write()
        .replace("Infinity", "1e999999")
        .replace('"pid": ', '"pid": 1e999, "x": '),
    ],
)
def test_what_no_worker_wrote_is_nobodys_health(path: Path, text: str) -> None:
    path.write_text(text)
    assert read(path) is None


def test_a_file_that_is_none_is_nobodys_health(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    assert read(tmp_path / "no") is None


# -- the file -------------------------------------------------------------------------------------


def test_each_thread_writes_what_both_last_did(path: Path, file: HealthFile) -> None:
    worker = Worker()
    file.begin(worker)
    began = written(path)
    assert (began.worker, began.pid, began.state, began.patience) == ("w1", os.getpid(), State.RUNNING, 300)
    assert [*began.turns] == ["fetcher"]
    worker.state, worker.trouble = State.RESTING, "full"  # a change is told at once
    file.turn("heartbeat", worker)
    later = written(path)
    assert (later.state, later.trouble) == (State.RESTING, "full")
    assert later.turns["fetcher"] == began.turns["fetcher"] <= later.turns["heartbeat"] <= time.monotonic()
    assert later.since >= began.since
    assert [each.name for each in path.parent.iterdir()] == ["health"]


def test_it_is_not_written_all_the_time(path: Path, file: HealthFile) -> None:
    file.begin(Worker())
    path.unlink()
    for _ in range(100):
        file.turn("fetcher", Worker())
    assert not path.exists()


def test_the_end_removes_it(path: Path, file: HealthFile) -> None:
    file.begin(Worker())
    file.end()
    file.end()
    assert not path.exists()


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = HealthFile("", LEASE)
    file.begin(Worker())
    file.turn("heartbeat", Worker())
    file.end()
    assert not [*tmp_path.iterdir()]


def test_a_file_that_cannot_be_written_ends_the_beginning_and_later_warns_once(
    path: Path, file: HealthFile, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"health_file: .*/no/health cannot be written: No such file"):
        HealthFile(str(path.parent / "no" / "health"), LEASE).begin(Worker())
    file.begin(Worker())
    path.unlink()
    path.mkdir()
    with caplog.at_level(logging.WARNING):
        for state in (State.WAITING, State.RESTING, State.WAITING):
            file.turn("heartbeat", Worker(state=state))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} cannot be written (Is a directory): probes will take this worker for dead"
    ]


def test_a_link_that_somebody_left_is_not_followed(path: Path, file: HealthFile) -> None:
    precious = path.parent / "precious"
    precious.write_text("mine")
    for name in (path.name, f".{path.name}.{os.getpid()}"):
        (path.parent / name).symlink_to(precious)
    file.begin(Worker())
    assert precious.read_text() == "mine"
    assert written(path).worker == "w1"


def test_what_is_no_file_stays_as_it_is(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)  # such as /dev/null would be to root
    for there in (path, path.parent):
        with pytest.raises(ConfigError, match=rf"health_file: {there} is there, and no file: name another"):
            HealthFile(str(there), LEASE).begin(Worker())
    assert path.is_socket()
    assert [each.name for each in path.parent.iterdir()] == ["health"]


def test_two_workers_do_not_share_a_file(path: Path, file: HealthFile) -> None:
    other = health(worker="w2", pid=os.getppid(), turns={"fetcher": time.monotonic()})
    path.write_text(other.write())
    with pytest.raises(ConfigError, match=rf"is that of worker w2 \(process {os.getppid()}\): give each"):
        file.begin(Worker())
    path.write_text(replace(other, turns={"fetcher": 0.0}, patience=0.0).write())  # it hangs
    file.begin(Worker())
    assert written(path).worker == "w1"


def test_threads_take_their_turns_together(path: Path, file: HealthFile) -> None:
    def go_on(thread: str) -> None:
        for number in range(50):
            file.turn(thread, Worker(state=[State.WAITING, State.RUNNING][number % 2]))
            assert read(path)

    threads = [threading.Thread(target=go_on, args=(name,)) for name in ("fetcher", "heartbeat")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*written(path).turns} == {"fetcher", "heartbeat"}


# -- the command ----------------------------------------------------------------------------------


def probe(*words: str, **environ: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["worker-health", *words], env=environ, standalone_mode=False)
    assert result.exception is None or result.return_value is None
    return result.return_value if result.exception is None else 2, result.output


@pytest.mark.parametrize(
    ("state", "code", "ready"), [("running", 0, 0), ("resting", 0, 1), ("waiting", 0, 1), ("leaving", 0, 1)]
)
def test_a_probe_tells_by_its_exit_code(
    path: Path, file: HealthFile, state: str, code: int, ready: int
) -> None:
    file.begin(Worker(state=State(state), trouble="full\x1b[2J" if state == "resting" else ""))
    found, said = probe(str(path))
    assert found == code
    assert said.startswith(f"alive: worker w1, {state} for ")
    assert "\x1b" not in said
    assert probe(HEALTH_FILE=str(path))[0] == code
    assert probe(str(path), "--ready")[0] == ready


def test_a_probe_of_nobody_says_so(path: Path) -> None:
    assert probe(str(path)) == (1, f"not alive: no worker writes {path}\n")
    path.write_text(health(pid=a_dead_pid()).write())
    assert probe(str(path)) == (1, "not alive: worker w1: its process is gone\n")
    assert probe(HEALTH_FILE="")[0] == 2


def test_its_json_is_what_the_documentation_says(path: Path, file: HealthFile) -> None:
    code, text = probe(str(path), "--json")
    assert code == 1
    check(json.loads(text), "health")
    file.begin(Worker())
    file.turn("heartbeat", Worker())
    code, text = probe(str(path), "--json", "--ready")
    assert code == 0
    check(json.loads(text), "health")
    assert json.loads(text)["state"] == "running"


def test_a_probe_is_quick_for_it_imports_little(path: Path) -> None:
    script = "import sys; from distributed_downloader.cli import run; run(sys.argv[1:]); print(*sys.modules)"
    words = [sys.executable, "-c", script, "worker-health", str(path)]
    loaded = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert {"pydantic", "redis", "rich", "urllib3"} & {*loaded} == set()
