"""Jobs that somebody wrote into Redis: a real worker writes nowhere else, and shows its token to nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distributed_downloader.models import JobState
from tests.hub.faulty import FaultyHub
from tests.queue.steps import NS
from tests.security.kit import FILES, TOKEN, Machine, tree, until

REPOS = ("../../outside", "org/..", "..", "/etc", "org/na me", "org/name/../../x", "~", "a" * 200, "", "o\0x")
FOLDERS = ("relative", "../outside", "/", "//etc", "/etc", "/usr/bin", "~/x", "/tmp/../etc", "/a\0b", "/a\nb")
ENDPOINTS = (
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "",
    "127.0.0.1",
    "http://",
    "http://user:pw@127.0.0.1:9",
    "http://127.0.0.1:9/?x=1",
    "http://127.0.0.1:9/#x",
    "http://127.0.0.1:0",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:9/\r\nHost: x",
    "javascript:1",
    "unix:///run/x",
    "http://[::1",
)
LINES = (
    "8\t\t../../../outside/treasure",
    "8\t\t../../.hf-downloader/place",
    "8\t\t/etc/hf-downloader-test",
    "8\t\tfolder/../../x",
    "8\t\t./a.txt",
    "8\t\ta\0b",
    "8\t\ta\x1b[2Jb",
    "8\t\t",
    "-8\t\ta.txt",
    f"{2**53}\t\ta.txt",
    f"{2**62}\t\ta.txt",
    f"{'9' * 40}\t\ta.txt",
    "٨\t\ta.txt",
    "8.0\t\ta.txt",
    "nan\t\ta.txt",
    f"8\t{'z' * 64}\ta.txt",
    "8\t\ta.txt\tplace=../../outside",
    f"{2**52}\t\ta.txt\tpart=0+{2**52}\tseal=0\tplace={'0' * 32}",
    "8\t\ta.txt\tpart=-1+9\tseal=0\tplace=ab",
    "8\t\t" + "x/" * 3000,
    "8\t\t" + "x" * 300,
)


def poisoned(machine: Machine, number: int, changes: dict[str, object], line: str = "") -> int:
    """Queue a job, and write over what it is."""
    job = machine.job(machine.spec(revision="main", include=(f"poison{number}",)))
    machine.queue.commands.hset(
        f"{NS}job:{job}", "spec", json.dumps(machine.spec().model_dump(mode="json") | changes)
    )
    if line:
        machine.queue.commands.hset(f"{NS}job:{job}:tasks", mapping=dict.fromkeys("012", line))
    return job


def await_any(machine: Machine, job: int, *kinds: str) -> None:
    """Wait until a job has an entry of one of these kinds."""
    until(lambda: machine.queue.commands.exists(*(f"{NS}job:{job}:{kind}" for kind in kinds)))


def settle(machine: Machine, healthy: int, folder: Path) -> None:
    """Run a worker until the healthy job is done, and the others will not move any more."""
    machine.worker()
    machine.assert_done(healthy, folder)


@pytest.fixture
def around(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return what is around the worker's folders, which is where its home is, too."""
    monkeypatch.setenv("HOME", str(machine.outside))
    monkeypatch.chdir(machine.outside)
    return tree(machine.outside)


@pytest.mark.parametrize(
    ("field", "values"), [("repo_id", REPOS), ("output_dir", FOLDERS), ("endpoint", ENDPOINTS)]
)
def test_a_spec_that_lies_is_put_aside_with_a_reason(
    machine: Machine, around: dict[str, bytes], field: str, values: tuple[str, ...]
) -> None:
    bad = [poisoned(machine, number, {field: value}) for number, value in enumerate(values)]
    healthy = machine.job()
    settle(machine, healthy, machine.out / "org/name")
    commands = machine.queue.commands
    for job, value in zip(bad, values, strict=True):
        refused = field == "output_dir" and value in ("/", "/etc", "/usr/bin")
        await_any(machine, job, "blind" if refused else "failed")
        assert commands.hget(f"{NS}job:{job}", "done") == "0", value
    assert tree(machine.outside) == around
    assert set(tree(machine.out)) >= {"org/name/a.txt"}
    assert {path.name for path in machine.out.iterdir()} == {"org", ".hf-downloader"}


def test_descriptors_that_lie_are_put_aside_with_a_reason(machine: Machine, around: dict[str, bytes]) -> None:
    bad = [poisoned(machine, number, {}, line) for number, line in enumerate(LINES)]
    healthy = machine.job()
    settle(machine, healthy, machine.out / "org/name")
    commands = machine.queue.commands
    for job, line in zip(bad, LINES, strict=True):
        await_any(machine, job, "failed", "tries", "blind")
        assert commands.hget(f"{NS}job:{job}", "done") == "0", line
    assert tree(machine.outside) == around
    assert {name for name, data in tree(machine.out / "org/name").items() if data != b"/"} == set(FILES)


def test_an_endpoint_in_redis_gets_no_token(machine: Machine, stranger: FaultyHub) -> None:
    job = poisoned(machine, 0, {"endpoint": stranger.endpoint})
    machine.worker()
    machine.assert_done(job, machine.out / "org/name")
    assert stranger.log.records("resolve")
    for record in (*stranger.log.records(), *machine.hub.log.records()):
        assert TOKEN not in str(record.request.headers.items())


def test_an_endpoint_that_looks_like_ours_gets_no_token(machine: Machine, stranger: FaultyHub) -> None:
    """The token is for an origin: the port counts, and the case of the host does not matter."""
    port = stranger.endpoint.rpartition(":")[2]
    for number, endpoint in enumerate((f"http://127.0.0.1:{port}/", f"HTTP://LOCALHOST:{port}")):
        poisoned(machine, number, {"endpoint": endpoint})
    machine.worker()
    until(lambda: stranger.log.records("resolve"))
    assert all("Authorization" not in record.request.headers for record in stranger.log.records())


def test_a_string_of_100_mb_stops_nobody(machine: Machine) -> None:
    bad = machine.job(machine.spec(include=("bad",)))
    machine.queue.commands.hset(f"{NS}job:{bad}:tasks", "0", "8\t\t" + "x" * 100_000_000)
    healthy = machine.job()
    settle(machine, healthy, machine.out / "org/name")
    assert machine.ends(bad).state is JobState.FAILED
    (failure,) = machine.view.failures(bad)
    assert "cannot be read" in failure.error
