"""`status`, `repos`, `queue`, `workers` and `files` as a user calls them, over a fake Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest

from distributed_downloader import cli
from distributed_downloader.cli import COMMANDS, run
from distributed_downloader.cli.app import App
from distributed_downloader.models import Failure, JobSpec, RepoFile, RepoType
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from tests.queue.base import complete
from tests.unit.looking_on import EVIL, failure, spec, transfer, worker
from tests.unit.test_display_json import check

MINE = (
    "status",
    "repos",
    "queue",
    "workers",
    "files",
    "pause",
    "resume",
    "cancel",
    "retry",
    "forget",
)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisClient]:
    """Return the queue on a fake Redis, which is the one that commands use."""
    redis = fakeredis.FakeRedis(decode_responses=True, encoding_errors="surrogateescape")
    client = RedisClient.over(redis)
    monkeypatch.setattr(App, "redis", client)
    monkeypatch.setattr(RedisView, "full", lambda _: False)  # the fake has no INFO
    yield client
    client.close()


def submit(client: RedisClient, what: JobSpec, *files: RepoFile, complete: bool = True) -> int:
    """Queue a job with these files; return its id."""
    job, _ = client.create_job(what, 1)
    client.submit(job, 0, files, "")
    if complete:
        client.seal(job, len(files))
    return job


def file(path: str, size: int = 100) -> RepoFile:
    """Return a file without a hash."""
    return RepoFile(path=path, size=size)


def settle(client: RedisClient, *outcomes: Failure | None) -> None:
    """Let a worker take as many tasks as there are outcomes: done (None), or failed for good."""
    client.register(worker("gpu-07-4711-ab12cd"))
    for outcome in outcomes:
        token = client.claim("gpu-07-4711-ab12cd", 1)
        assert token
        task = client.begin("gpu-07-4711-ab12cd", token)
        assert task
        if outcome is None:
            complete(client, "gpu-07-4711-ab12cd", token, task.file.size, "gpu-07")
        else:
            client.fail("gpu-07-4711-ab12cd", token, outcome, None)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run a command; return its standard output."""
    assert run([*arguments]) == code
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:  # noqa: ANN401
    """Run a command with --json; return what a reader gets."""
    return json.loads(printed(capsys, *arguments, "--json"))


# -- all of them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MINE)
def test_help_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert name in COMMANDS
    shown = printed(capsys, name, "--help")
    assert "\n  Examples:\n    hf-downloader " in shown, "each example on a line of its own"
    assert f"hf-downloader {name}" in shown.partition("Examples:")[2]
    assert "--json" in shown


@pytest.mark.parametrize("name", MINE)
def test_help_fits_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert max(map(len, printed(capsys, name, "--help").splitlines())) <= 80


@pytest.mark.parametrize("name", [name for name in MINE if name not in ("repos", "queue", "workers")])
@pytest.mark.parametrize("target", ["7", "org/nothing", "datasets/org/name"])
def test_an_unknown_name_is_a_usage_error(
    client: RedisClient, capsys: pytest.CaptureFixture[str], name: str, target: str
) -> None:
    submit(client, spec(), file("a"))
    assert run([name, target]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: there is no job")


def test_an_unknown_name_with_watch_is_a_usage_error(client: RedisClient) -> None:
    assert run(["status", "7", "--watch"]) == 2


@pytest.mark.parametrize(
    "arguments", [["files"], ["pause"], ["status", "1", "2"], ["status", "--interval", "0"]]
)
def test_wrong_words_are_a_usage_error(arguments: list[str], client: RedisClient) -> None:
    assert run(arguments) == 2


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["status", "--watch"], ["repos"], ["queue"], ["workers"], ["files", "1"], ["pause", "1"]],
)
def test_redis_that_does_not_answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--redis-url", "unix:///nowhere/at/all", *arguments]) == 3
    assert capsys.readouterr().out == ""


# -- status ------------------------------------------------------------------------------------------------


def test_status_of_nothing_is_friendly(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "status") == (
        "No jobs yet. Queue one with: hf-downloader master org/name\n"
        "queue: 0 ready, 0 to retry; 0 workers with 0 slots; jobs: none\n"
    )


def test_status_shows_everything(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), file("b"))
    settle(client, failure("a", "the hub has no such file", tries=1))
    client.report(worker("gpu-07-4711-ab12cd", transfer("b", 0.5, size=100, job=1, bytes_per_second=5.0)))
    assert printed(capsys, "status") == (
        "job 1 org/name: 0 of 2 files, 0 of 200 B, 0%, -, waits for its turn, 1 failed\n"
        "job 1 failed: a: the hub has no such file (1 try on gpu-07)\n"
        "`hf-downloader retry 1` tries them again\n"
        "worker gpu-07-4711-ab12cd: 1 of 4 slots, 5 B/s: b 50%\n"
        "queue: 1 ready, 0 to retry; 1 worker with 4 slots; jobs: 1 running\n"
    )


def test_status_counts_bytes_in_flight(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), file("b"))
    settle(client, None)
    token = client.claim("gpu-07-4711-ab12cd", 1)
    assert token
    client.begin("gpu-07-4711-ab12cd", token)
    client.report(worker("gpu-07-4711-ab12cd", transfer("b", 0.5, size=100, job=1, bytes_per_second=5.0)))
    shown = printed(capsys, "status").splitlines()[0]
    assert shown == "job 1 org/name: 1 of 2 files, 150 of 200 B, 75%, 5 B/s, ETA 10s"


def test_status_of_a_job_or_a_repo_shows_only_that(
    client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(client, spec(), file("a"))
    submit(client, spec(repo_type=RepoType.DATASET, repo_id="org/data"), file("a"))
    for target in ("2", "org/data", "datasets/org/data"):
        assert printed(capsys, "status", target).splitlines() == [
            "job 2 datasets/org/data: 0 of 1 files, 0 of 100 B, 0%, -, waits for a worker"
        ]


def test_status_of_a_repo_shows_all_its_jobs(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"))
    submit(client, spec().model_copy(update={"include": ("*.json",)}), file("a"))
    assert [line[:6] for line in printed(capsys, "status", "org/name").splitlines()] == ["job 1 ", "job 2 "]


def test_status_of_a_job_names_the_workers_that_work_at_it(
    client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(client, spec(), file("a"))
    for mine, number in (("w1", 1), ("w2", 9)):
        client.register(worker(mine, transfer(job=number)))
    assert [each["id"] for each in as_json(capsys, "status", "1")["workers"]] == ["w1"]
    assert [each["id"] for each in as_json(capsys, "status")["workers"]] == ["w1", "w2"]


def test_status_reads_the_first_failures_only(
    client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(client, spec(), *(file(f"{n:03}") for n in range(30)))
    settle(client, *(failure(f"{n:03}") for n in range(30)))
    assert len(as_json(capsys, "status", "1")["failures"]) == 20
    assert len(as_json(capsys, "status")["failures"]) == 5


def test_status_while_listing(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), complete=False)
    assert printed(capsys, "status", "1").endswith(": 0 of 1+ files, 0 of 100 B, -, listing…\n")


def test_status_has_json_as_documented(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), file("b"), file("c"))
    settle(client, None, failure("b"))
    client.report(worker("gpu-07-4711-ab12cd", transfer()))
    shown = as_json(capsys, "status")
    check(shown, "status")
    assert shown["jobs"][0]["files"] == {
        "total": 3,
        "pending": 1,
        "active": 0,
        "delayed": 0,
        "held": 0,
        "failed": 1,
        "done": 1,
    }
    check(as_json(capsys, "status", "1"), "status")


def test_hostile_names_are_harmless(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), file("b"))
    evil = EVIL.encode("utf-8", "replace").decode()
    settle(client, failure("a", evil))
    client.register(worker("evil" + evil.strip(), transfer(evil), host=evil, trouble=evil))
    for command in (["status"], ["workers"], ["files", "1"]):
        for line in printed(capsys, *command).splitlines():
            assert line.isprintable()


# -- repos, queue, workers ---------------------------------------------------------------------------------


def test_repos(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"))
    submit(client, spec(repo_type=RepoType.DATASET, repo_id="org/data"), file("a"), file("b"), complete=False)
    assert printed(capsys, "repos") == (
        "Repo               Job  Revision  State    Files    Size\n"
        "org/name             1  main      running  0 of 1   0 of 100 B\n"
        "datasets/org/data    2  main      running  0 of 2+  0 of 200 B\n"
    )
    check(as_json(capsys, "repos"), "list of repo")


def test_no_repos(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "repos") == "No jobs yet. Queue one with: hf-downloader master org/name\n"
    assert as_json(capsys, "repos") == []


def test_queue(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), file("b"))
    assert [line.split()[:2] for line in printed(capsys, "queue").splitlines()] == [
        ["Ready", "2"],
        ["To", "retry"],
        ["Parked", "0"],
        ["Workers", "0"],
        ["Jobs", "1"],
    ]
    check(as_json(capsys, "queue"), "queue")


def test_workers(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.register(worker("gpu-07-4711-ab12cd", transfer()))
    (_, line) = printed(capsys, "workers").splitlines()
    assert line.split()[:6] == ["gpu-07-4711-ab12cd", "1", "of", "4", "11.2", "MB/s"]
    assert line.endswith("model.safetensors 42%")
    check(as_json(capsys, "workers"), "list of worker")


def test_no_workers(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "workers") == "No workers. Start one on each machine with: hf-downloader worker\n"
    assert as_json(capsys, "workers") == []


# -- files -------------------------------------------------------------------------------------------------


def test_files(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), file("b ü.bin", 2_000_000), file("c", 0))
    settle(client, None, failure("b ü.bin", "sha256 differs"))
    assert printed(capsys, "files", "org/name") == (
        "done             100 B  gpu-07          a\n"
        "failed          2.0 MB  -               b ü.bin: sha256 differs\n"
        "pending            0 B  -               c\n"
    )
    check(as_json(capsys, "files", "1"), "list of file")


def test_failed_files_only(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), file("b"))
    settle(client, None, failure("b", "sha256 differs"))
    assert printed(capsys, "files", "1", "--failed").splitlines() == [
        "failed           100 B  -               b: sha256 differs"
    ]
    assert [each["path"] for each in as_json(capsys, "files", "1", "--failed")] == ["b"]


def test_no_files(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec())
    assert printed(capsys, "files", "1") == ""
    assert as_json(capsys, "files", "1") == []


def test_files_of_a_repo_with_several_jobs_asks_which(
    client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(client, spec(), file("a"))
    submit(client, spec().model_copy(update={"include": ("*.json",)}), file("a"))
    assert run(["files", "org/name"]) == 2
    assert "1 (running), 2 (running)" in capsys.readouterr().err


def test_the_commands_import_nothing_heavy_before_they_run() -> None:
    """`--help` stays fast: Redis and rich are imported when a command runs."""
    import subprocess
    import sys

    names = ", ".join(repr(name) for name in MINE)
    code = (
        "import sys, click\n"
        "from distributed_downloader.cli import cli\n"
        f"for name in ({names}): assert cli.get_command(click.Context(cli), name)\n"
        "assert not {'redis', 'rich'} & {*sys.modules}, sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cli.COMMANDS
