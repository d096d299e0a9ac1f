"""The library, as programs of users call it: each in a process of its own, and nothing is left in any."""

from __future__ import annotations

import doctest
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet
from tests.hub.faults import Stall, Status
from tests.hub.faulty import FaultyHub
from tests.hub.sample import tree, write_dataset_repo

BIG = "model.safetensors"
DOCUMENT = Path(__file__).parents[2] / "docs/library.md"
#: What the examples fetch.
SMALL = {"config.json": b"{}", "model.safetensors": b"weights" * 1000}


@pytest.fixture
def hub(source: Path, tmp_path: Path) -> Iterator[FaultyHub]:
    """Return a hub with models and a dataset, and with one of each that share a name."""
    data, small = write_dataset_repo(tmp_path / "data"), tmp_path / "small"
    small.mkdir()
    for name, content in SMALL.items():
        (small / name).write_bytes(content)
    repos = {
        "models/org/model": source,
        "models/org/both": small,
        "datasets/org/both": data,
        "datasets/org/data": data,
        "models/org/name": small,
    }
    with FaultyHub(repos) as hub:
        yield hub


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Return a folder for temporary files with a path short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


class Program:
    """One of the programs in program.py, on its way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def end(self, words: str = "") -> dict[str, Any]:
        """Return what it has told; nothing else was printed, and nothing is left."""
        out, err = self.process.communicate(words, timeout=120)
        assert (self.process.returncode, err) == (0, ""), err
        told: dict[str, Any] = json.loads(out)
        assert told.pop("left") == []
        return told


Start = Callable[[str], Program]


@pytest.fixture
def start(fleet: Fleet, temporary: Path) -> Iterator[Start]:
    """Return what starts a program; none outlives its test."""
    with ExitStack() as stack:

        def start(name: str) -> Program:
            process = subprocess.Popen(
                [sys.executable, "-X", "dev", "-m", "tests.e2e.program", name],
                cwd=fleet.folder,
                env=fleet.env() | {"TMPDIR": str(temporary), "PYTHONWARNINGS": "error"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Program(process)

        yield start


def test_two_downloads_at_once_leave_the_program_as_it_was(
    fleet: Fleet, start: Start, source: Path, hub: FaultyHub
) -> None:
    told = start("two_at_once").end()
    assert {repo: Path(folder) for repo, folder in told["folders"].items()} == {
        "org/model": fleet.folder / "out/org/model",
        "org/data": fleet.folder / "out/org/data",
    }
    found = tree(fleet.folder / "out/org/model")
    assert found == tree(source)
    assert told["ends"]["org/model"] == ["done", len(found), sum(map(len, found.values()))]
    assert (told["same signals"], told["root handlers"]) == (True, 0)
    assert (told["huggingface_hub"], told["still a function"]) == (False, True)


def test_a_layout_and_force_reach_the_job(fleet: Fleet, start: Start, hub: FaultyHub) -> None:
    told = start("as_cache").end()
    folder = Path(told["folder"])
    assert folder.parent == fleet.folder / "cache/models--org--name/snapshots"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == SMALL
    assert told["same"]
    assert len(hub.log.records("cdn", BIG)) == 2


def test_what_cannot_be_had_is_an_error_of_the_tree(start: Start) -> None:
    told = start("refused").end()
    assert {what: words.partition(":")[0] for what, words in told.items()} == {
        "no repo": "NotFoundError",
        "no revision": "NotFoundError",
        "no file": "NotFoundError",
        "no name": "UsageError",
        "no type": "UsageError",
        "no layout": "UsageError",
        "no setting": "ConfigError",
        "bad setting": "ConfigError",
        "no config": "ConfigError",
        "no folder": "UsageError",
        "two repos": "AmbiguousRepoError",
        "another repo's": "RefusedError",
        "cancelled": "StoppedError",
        "no redis": "RedisUnavailableError",
        "no job": "UnknownJobError",
        "no watch": "UnknownJobError",
        "no interval": "UsageError",
        "no priority": "UsageError",
    }
    assert told["cancelled"] == "StoppedError: before it began"
    assert told["bad setting"].startswith("ConfigError: settings: [app] concurrency")


def test_it_ends_when_the_callback_has_enough_and_names_a_file_that_cannot_be_had(
    fleet: Fleet, start: Start, hub: FaultyHub
) -> None:
    hub.on(Status(404), file="config.json", route="resolve", times=None)
    told = start("one_file_fails").end()
    assert told["enough"] == "ZeroDivisionError: enough"
    assert (list(told["reasons"]), told["count"]) == (["config.json"], 1)
    assert told["text"].startswith("org/model lacks 1 file: config.json: ")
    assert (fleet.folder / "out/org/model" / BIG).exists()


@pytest.mark.parametrize("route", ["cdn", "tree", "info"])
def test_it_ends_when_another_thread_says_so(start: Start, hub: FaultyHub, route: str) -> None:
    stall = Stall(after=10)
    hub.on(stall, route=route)
    program = start("stopped_by_cancel")
    assert stall.reached.wait(60)
    assert program.end("now\n") == {"error": "StoppedError: the user left"}


def test_it_ends_with_ctrl_c_and_the_program_goes_on(start: Start, hub: FaultyHub) -> None:
    stall = Stall(after=10)
    hub.on(stall, route="cdn")
    program = start("stopped_by_interrupt")
    assert stall.reached.wait(60)
    program.process.send_signal(signal.SIGINT)
    assert program.end() == {"error": "KeyboardInterrupt: "}


def test_a_fleet_does_what_a_program_queues(fleet: Fleet, start: Start, source: Path, hub: FaultyHub) -> None:
    hub.on(Status(404), file="config.json", route="resolve", times=None)
    fleet.worker()
    told = start("of_the_fleet").end()
    error = told.pop("error")
    assert told == {"same": True, "first": True, "state": "failed"}
    assert error.startswith("FilesFailedError: org/model lacks 1 file: config.json: ")
    assert "hf-downloader retry" in error
    assert set(tree(fleet.folder / "shared/org/model")) == tree(source).keys() - {"config.json"}


def test_the_examples_work_as_they_stand(fleet: Fleet, temporary: Path) -> None:
    fleet.worker()
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    checked = "import doctest, distributed_downloader.library as library\n"
    checked += "assert not doctest.testmod(library).failed\n"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([checked, *blocks])],
        cwd=fleet.folder,
        env=fleet.env() | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "['config.json', 'model.safetensors']" in done.stdout
    assert "2 of 2 files, 7002 of 7002 bytes" in done.stdout
    assert "done: 100%" in done.stdout


def test_every_function_has_an_example() -> None:
    from distributed_downloader import library

    found = {test.name.rpartition(".")[2] for test in doctest.DocTestFinder().find(library) if test.examples}
    assert found == {"download", "status", "submit", "watch"}
