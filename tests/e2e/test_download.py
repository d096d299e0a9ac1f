"""`download`, `demo` and both majors of huggingface_hub: one machine, as a user runs it."""

from __future__ import annotations

import re
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from distributed_downloader.local_hub.repo import LocalRepo
from tests.e2e.fleet import Fleet, until
from tests.hub.faults import Corrupt, Stall, Status
from tests.hub.faulty import FaultyHub
from tests.hub.sample import tree

BIG = "model.safetensors"
TOKEN = "hf_" + "t" * 34


def embedded_servers(pid: int) -> list[psutil.Process]:
    return [each for each in psutil.Process(pid).children(recursive=True) if "server" in each.name()]


def has_arrived(partial: Path, size: int) -> bool:
    """Return whether so many bytes of one file are there; the small ones come and go meanwhile."""
    with suppress(FileNotFoundError):
        return any(path.stat().st_size >= size for path in partial.glob("*.part"))
    return False


def test_it_ends_when_its_folder_is_gone(fleet: Fleet, source: Path, hub: FaultyHub) -> None:
    """There is no other machine that might see it."""
    stall = Stall(after=300_000)
    hub.on(stall, file=BIG)
    running = fleet.start("download", "org/model", "-o", "out", "--split", "1MiB", "-j", "1")
    assert stall.reached.wait(60)
    (fleet.folder / "out/.hf-downloader/place").unlink()
    stall.release.set()
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "that this machine does not see" in err
    assert "Traceback" not in err


def test_it_brings_everything_and_the_second_run_only_checks(
    fleet: Fleet, source: Path, hub: FaultyHub
) -> None:
    fleet.redis_url = "redis://localhost:1"  # whatever is configured: it needs no server
    done = fleet.run("download", "org/model")
    folder = Path(done.stdout.strip())
    assert folder == fleet.folder / "downloads/org/model"
    assert tree(folder) == tree(source)
    fetched = len(hub.log.records())
    again = fleet.run("download", "org/model")
    assert "27 files" in again.stderr
    more = hub.log.records()[fetched:]
    assert {record.request.route for record in more} <= {"info", "tree"}


def test_interrupted_it_says_how_to_go_on_and_does(fleet: Fleet, source: Path, hub: FaultyHub) -> None:
    stall = Stall(after=1_500_000)
    hub.on(stall, file=BIG)
    running = fleet.start("download", "org/model", "-o", "out")
    assert stall.reached.wait(60)
    partial = fleet.folder / "out/.hf-downloader/partial"
    until(lambda: has_arrived(partial, 1_000_000))  # sent is not yet arrived
    (server,) = embedded_servers(running.pid)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert not (fleet.folder / "out/org/model" / BIG).exists()
    psutil.wait_procs([server], 60)
    assert not server.is_running()
    fleet.run("download", "org/model", "-o", "out")
    assert tree(fleet.folder / "out/org/model") == tree(source)
    assert hub.log.records("cdn", BIG)[-1].request.headers["range"].startswith("bytes=")


def test_killed_it_leaves_no_server_and_goes_on_the_next_time(
    fleet: Fleet, source: Path, hub: FaultyHub
) -> None:
    stall = Stall(after=1_500_000)
    hub.on(stall, file=BIG)
    running = fleet.start("download", "org/model", "-o", "out")
    assert stall.reached.wait(60)
    (server,) = embedded_servers(running.pid)
    running.kill()
    running.communicate()
    psutil.wait_procs([server], 60)
    assert not server.is_running()
    assert not (fleet.folder / "out/org/model" / BIG).exists()
    fleet.run("download", "org/model", "-o", "out")
    assert tree(fleet.folder / "out/org/model") == tree(source)
    assert hub.log.records("cdn", BIG)[-1].request.headers["range"] != "bytes=0-"


def test_a_file_that_cannot_be_had_is_named_and_the_exit_code_is_1(
    fleet: Fleet, source: Path, hub: FaultyHub
) -> None:
    hub.on(Status(404), file="config.json", route="resolve", times=None)
    done = fleet.run("download", "org/model", "-o", "out", code=1)
    assert "failed: config.json: " in done.stderr
    there = tree(fleet.folder / "out/org/model")
    assert there == {path: data for path, data in tree(source).items() if path != "config.json"}


def test_filters_and_a_type_that_is_asked_for(fleet: Fleet, source: Path) -> None:
    fleet.run("download", "models/org/model", "-o", "out", "--include", "*.json", "--exclude", "1_*")
    assert set(tree(fleet.folder / "out/org/model")) == {"config.json", "tokenizer.json"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["org/none"], 1, "org/none"),
        (["org/model", "--revision", "nope"], 1, "nope"),
        (["org/model", "--include", "nothing*"], 1, "no file"),
        (["../../etc"], 2, "org/name"),
        (["org/model", "--max-bandwidth", "fast"], 2, "fast"),
        (["org/model", "-j", "0"], 2, "concurrency"),
        (["org/model", "-o", "/proc/nowhere"], 2, "/proc/nowhere"),
    ],
)
def test_wrong_words_get_one_clear_line(fleet: Fleet, words: list[str], code: int, says: str) -> None:
    done = fleet.run("download", *words, code=code)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_hub_that_is_not_there_is_exit_code_3(fleet: Fleet, hub: FaultyHub) -> None:
    hub.close()
    done = fleet.run("download", "org/model", code=3)
    assert f"{hub.endpoint.removeprefix('http://')}: connection refused" in done.stderr
    assert "HTTPS_PROXY" in done.stderr


def test_a_private_repo_needs_the_token_and_only_the_hub_gets_it(fleet: Fleet, source: Path) -> None:
    private = LocalRepo(source, readers=[TOKEN])
    with FaultyHub({"models/org/secret": private}, tokens=[TOKEN]) as hub:
        fleet.endpoint = hub.endpoint
        refused = fleet.run("download", "org/secret", code=1)
        assert "HF_TOKEN" in refused.stderr
        done = fleet.run("download", "org/secret", HF_TOKEN=TOKEN)
        assert tree(Path(done.stdout.strip())) == tree(source)
        assert TOKEN not in done.stderr
        assert hub.leaks() == []


@pytest.mark.parametrize("engine", ["hub", "auto"])
def test_both_majors_of_huggingface_hub(
    fleet: Fleet, source: Path, hub: FaultyHub, hub_python: Path, engine: str
) -> None:
    if engine == "auto":
        # Our own engine gets a wrong byte, so that the library's turn comes in the same try.
        hub.on(Corrupt(at=3), file="pytorch_model.bin", times=1)
    fleet.python = str(hub_python)
    (fleet.folder / "config.ini").write_text(f"[huggingface]\nengine = {engine}\n")
    done = fleet.run("download", "org/model")
    assert tree(Path(done.stdout.strip())) == tree(source)
    agents = {record.request.headers.get("user-agent", "") for record in hub.log.records("cdn")}
    assert any("huggingface_hub" in agent or "hf_hub" in agent for agent in agents), agents


def test_the_demo(fleet: Fleet) -> None:
    done = fleet.run("demo", TMPDIR=str(fleet.folder))
    assert "Every byte is right" in done.stdout
    match = re.search(r"3 workers were (\d+\.\d) times as fast as one", done.stdout)
    assert match
    assert float(match[1]) > 1.5
    assert not list(fleet.folder.glob("hfd-*"))
