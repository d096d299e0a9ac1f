from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import fakeredis
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from distributed_downloader import master as master_module
from distributed_downloader.cli import batch_master, master, preview, submission
from distributed_downloader.config import AppConfig
from distributed_downloader.errors import (
    HubUnavailableError,
    NotFoundError,
)
from distributed_downloader.feed import Listing
from distributed_downloader.hub import Hub, Patience
from distributed_downloader.models import Failure, JobState, WorkerStatus
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from distributed_downloader.rules import Rules
from distributed_downloader.storage.place import make_place
from tests.queue.base import complete
from tests.unit.fake_http import (
    COMMIT,
    FakeHttp,
    FakeResponse,
    Sent,
    file_entry,
    hub_over,
    lfs_entry,
    tree_page,
)

ENTRIES = [
    file_entry("config.json", 500),
    lfs_entry("model.safetensors", 1_200_000_000),
    file_entry("a/b", 0),
]
BROKEN = "org/broken"


class FakeApp:
    """What the commands need, without a server."""

    def __init__(self, hub: Hub | None = None) -> None:
        self.config = AppConfig()
        self.space_check, self.reserve = True, None
        self.rules = Rules(self.config)
        self.redis = RedisClient.over(fakeredis.FakeRedis(decode_responses=True))
        self.hub = hub or hub_over(FakeHttp(answer))
        self.view = RedisView(self.redis)
        self.progress = StringIO()
        self.progress_console = Console(file=self.progress)

    def warn_of_redis(self) -> None:
        """Nothing to say about this one."""

    def share_budgets(self) -> None:
        """This hub allows anything."""


def answer(sent: Sent, entries: list[dict[str, object]] = ENTRIES) -> FakeResponse:
    """Know every repo as a model, datasets under that name only, and one that makes trouble."""
    if BROKEN in sent.url:
        return FakeResponse(500)
    if "/tree/" in sent.url:
        return tree_page(entries)
    kind, name = sent.url.split("/api/")[1].split("?")[0].split("/revision/")[0].split("/", 1)
    exists = name.startswith("org/") and (kind == "datasets") == name.endswith("data")
    return FakeResponse(data={"id": name, "sha": COMMIT}) if exists else FakeResponse(404)


def listing(*entries: dict[str, object]) -> Hub:
    return hub_over(FakeHttp(lambda sent: answer(sent, list(entries))))


@pytest.fixture
def app() -> Iterator[FakeApp]:
    app = FakeApp()
    redis = app.redis
    yield app
    redis.close()


def invoke(command: click.Command, app: FakeApp, *args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command, list(args), input=stdin, obj=app, standalone_mode=False)


def run(command: click.Command, app: FakeApp, *args: str, stdin: str | None = None) -> Result:
    """Run a command that raises nothing."""
    result = invoke(command, app, *args, stdin=stdin)
    if result.exception:
        raise result.exception
    return result


def finish(app: FakeApp, fails: str = "") -> None:
    """Do the work of a fleet."""
    app.redis.register(WorkerStatus(id="w", host="h", pid=1, version="0", slots=1, started_at=0))
    app.redis.tick()
    while app.redis.commands.llen(app.redis.key("ready")):
        token = app.redis.claim("w", 1)
        assert token is not None
        task = app.redis.begin("w", token)
        assert task is not None
        if task.file.path == fails:
            failure = Failure(path=fails, error="the hub lost it", host="h", tries=1, at=0)
            app.redis.fail("w", token, failure, None)
        else:
            complete(app.redis, "w", token, task.file.size, "h")


# -- master -------------------------------------------------------------------------------------------


def test_the_job_id_is_all_there_is_on_standard_output(app: FakeApp) -> None:
    result = run(master.command, app, "org/name")
    assert result.stdout == "Job ID: 1\n"
    assert result.return_value == 0
    assert "org/name at main (c0ffee00): 3 files, 1.2 GB; all queued" in result.stderr
    assert "hf-downloader worker " in result.stderr
    assert "hf-downloader status 1 --watch" in result.stderr


def test_options_reach_the_job(app: FakeApp, tmp_path: Path) -> None:
    run(
        master.command, app, "org/data", "--repo-type", "dataset", "--revision", "v1", "--include", "*.json",
        "--include", "a/", "--exclude", "*.md", "-o", str(tmp_path), "--priority", "100",
    )  # fmt: skip
    job = app.view.job(1)
    assert (job.weight, job.total) == (100, 2)
    spec = job.spec
    assert (spec.repo_type.value, spec.revision, spec.commit) == ("dataset", "v1", COMMIT)
    assert (spec.include, spec.exclude) == (("*.json", "a/"), ("*.md",))
    assert spec.output_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("args", "over", "part"),
    [
        ((), 128, 0),
        (("--split", "auto"), 128, 0),
        (("--split", "never"), 0, 0),
        (("--split", "NEVER"), 0, 0),
        (("--split", "Auto"), 128, 0),
        (("--split", "8MiB"), 8, 8),
        (("--split", "16MB"), 16, 16),
        (("--split", "1048577"), 2, 2),
    ],
)
@pytest.mark.parametrize("command", [master.command, batch_master.command])
def test_how_to_split(
    app: FakeApp, command: click.Command, args: tuple[str, ...], over: int, part: int
) -> None:
    run(command, app, "org/name", *args)
    spec = app.view.job(1).spec
    assert (spec.split_over, spec.part_size) == (over << 20, part << 20)


SPLIT_BEFORE = "job 1 was there already: --split counts for its files that are not begun yet"


@pytest.mark.parametrize("command", [master.command, batch_master.command])
def test_what_split_cannot_change_any_more_is_said(app: FakeApp, command: click.Command) -> None:
    assert SPLIT_BEFORE not in run(master.command, app, "org/name", "--split", "never").stderr
    assert SPLIT_BEFORE in run(command, app, "org/name", "--split", "8MiB", "--priority", "7").stderr
    job = app.view.job(1)
    assert (job.spec.part_size, job.weight) == (8 << 20, 7), "it counts for the others"


def test_nothing_is_said_of_split_where_it_was_not_given_or_all_is_done(app: FakeApp) -> None:
    run(master.command, app, "org/name")
    assert SPLIT_BEFORE not in run(master.command, app, "org/name").stderr
    finish(app)
    assert SPLIT_BEFORE not in run(master.command, app, "org/name", "--split", "auto").stderr


def test_a_size_that_is_none_is_told_with_what_is_allowed(app: FakeApp) -> None:
    found = invoke(master.command, app, "org/name", "--split", "8Mb").exception
    assert "'8Mb' is neither auto nor never, and a size must be in bytes" in str(found)


def test_auto_takes_the_threshold_of_the_settings(app: FakeApp) -> None:
    app.config = AppConfig.model_validate({"app": {"split_threshold": 5 << 20}})
    run(master.command, app, "org/name", "--split", "auto")
    assert app.view.job(1).spec.split_over == 5 << 20


@pytest.mark.parametrize("size", ["", "sometimes", "-1", "1000k", "0", "8Mb"])
def test_a_size_to_split_by_has_bounds(app: FakeApp, size: str) -> None:
    found = invoke(master.command, app, "org/name", "--split", size).exception
    assert isinstance(found, click.UsageError)
    assert app.view.jobs() == []


def test_the_nas_and_its_layout_are_the_masters_settings(app: FakeApp, tmp_path: Path) -> None:
    marked = make_place(tmp_path, create_root=False)
    nas = {"enabled": True, "path": str(tmp_path), "preserve_structure": False}
    app.config = AppConfig.model_validate({"nas": nas})
    run(master.command, app, "org/name")
    spec = app.view.job(1).spec
    assert (spec.flat, spec.nas) == (True, marked)


def test_a_dry_run_marks_no_folder(app: FakeApp, tmp_path: Path) -> None:
    run(master.command, app, "org/name", "--dry-run", "-o", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_job_id_is_told_before_the_listing_is_complete(app: FakeApp) -> None:
    def script(sent: Sent) -> FakeResponse:
        if "cursor" in sent.url:
            return FakeResponse(500)
        return tree_page(ENTRIES, "cursor=1") if "/tree/" in sent.url else answer(sent)

    app.hub = hub_over(FakeHttp(script))
    result = invoke(master.command, app, "org/name")
    assert isinstance(result.exception, HubUnavailableError)
    assert result.stdout == "Job ID: 1\n"


def test_the_same_again_is_the_same_job(app: FakeApp) -> None:
    run(master.command, app, "org/name")
    result = run(master.command, app, "org/name")
    assert result.stdout == "Job ID: 1\n"
    assert "the job is running already" in result.stderr


@pytest.mark.parametrize(("verb", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_job_that_goes_on_is_told(app: FakeApp, verb: Any, state: str) -> None:  # noqa: ANN401 a literal
    run(master.command, app, "org/name")
    app.redis.control(verb, 1)
    assert f"the {state} job goes on" in run(master.command, app, "org/name").stderr


def test_a_job_that_is_done_is_told_and_how_to_check_it(app: FakeApp) -> None:
    run(master.command, app, "org/name")
    finish(app)
    result = run(master.command, app, "org/name")
    assert "done already" in result.stderr
    assert "`hf-downloader verify 1`" in result.stderr
    assert "next:" not in result.stderr
    assert result.return_value == 0


def test_failed_files_that_are_queued_again_are_told(app: FakeApp) -> None:
    run(master.command, app, "org/name")
    finish(app, fails="config.json")
    assert "1 failed file queued again" in run(master.command, app, "org/name").stderr


def test_a_folder_for_all_is_told_to_be_seen_by_all(app: FakeApp, tmp_path: Path) -> None:
    assert f"all must see {tmp_path}" in run(master.command, app, "org/name", "-o", str(tmp_path)).stderr


def test_refused_files_are_told_and_the_exit_code_is_1(app: FakeApp) -> None:
    app.hub = listing(file_entry("a"), file_entry("../../evil\x1b[2J"), file_entry("b\\c"))
    result = run(master.command, app, "org/name")
    assert result.stdout == "Job ID: 1\n"
    assert result.return_value == 1
    assert r"refused: ../../evil\x1b[2J: " in result.stderr
    assert "refused: b\\c: a backslash" in result.stderr
    assert app.view.job(1).total == 1


def test_many_refused_files_do_not_flood(app: FakeApp) -> None:
    app.hub = listing(file_entry("a"), *(file_entry(f"../{number}") for number in range(300)))
    result = run(master.command, app, "org/name")
    assert "refused: 200 more" in result.stderr
    assert result.stderr.count("\n") < 120


def test_hashes_that_lack_and_names_alike_are_noted(app: FakeApp) -> None:
    app.hub = listing(lfs_entry("A.bin", oid="*" * 64), file_entry("a.bin"))
    result = run(master.command, app, "org/name")
    assert "no hash of 1 file" in result.stderr
    assert "A.bin and a.bin are one file on a disk that ignores case" in result.stderr
    assert result.return_value == 0


def test_no_match_makes_no_job(app: FakeApp) -> None:
    result = invoke(master.command, app, "org/name", "--include", "*.gguf")
    assert isinstance(result.exception, NotFoundError)
    assert result.stdout == ""
    assert app.view.jobs() == []


@pytest.mark.parametrize("priority", ["0", "-1", "1001", "x"])
def test_priorities_have_bounds(app: FakeApp, priority: str) -> None:
    assert isinstance(
        invoke(master.command, app, "org/name", "--priority", priority).exception, click.UsageError
    )


def test_json_needs_a_dry_run(app: FakeApp) -> None:
    result = invoke(master.command, app, "org/name", "--json")
    assert isinstance(result.exception, click.UsageError)
    assert app.view.jobs() == []


@pytest.mark.parametrize("command", [master.command, batch_master.command])
def test_help_has_examples_and_explains_weights(command: click.Command) -> None:
    text = CliRunner().invoke(command, ["--help"]).stdout
    assert "Examples:\n    hf-downloader" in text
    assert "1 is normal, 10" in text


# -- --wait -------------------------------------------------------------------------------------------


@pytest.fixture
def fleet(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the work be done while the master waits."""

    def set_up(fails: str = "") -> None:
        monkeypatch.setattr(master_module, "sleep", lambda _: finish(app, fails))

    return set_up


def test_wait_until_all_is_done(app: FakeApp, fleet: Callable[[str], None]) -> None:
    fleet("")
    assert run(master.command, app, "org/name", "--wait").return_value == 0
    assert "done" in app.progress.getvalue()


def test_wait_tells_failure_by_the_exit_code(app: FakeApp, fleet: Callable[[str], None]) -> None:
    fleet("config.json")
    assert run(master.command, app, "org/name", "--wait").return_value == 1
    assert "the hub lost it" in app.progress.getvalue()


def test_wait_tells_a_cancelled_job_by_the_exit_code(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_module, "sleep", lambda _: app.redis.control("cancel", 1))
    assert run(master.command, app, "org/name", "--wait").return_value == 1


def test_interrupting_the_wait_leaves_the_job_alone(app: FakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(master_module, "sleep", interrupt)
    result = invoke(master.command, app, "org/name", "--wait")
    assert isinstance(result.exception, click.Abort)
    assert "job 1 goes on without us" in result.stderr
    assert app.view.job(1).state is JobState.RUNNING


def test_interrupting_the_listing_tells_how_to_go_on(app: FakeApp) -> None:
    class Interrupted(FakeHttp):
        def open(self, method: str, url: str, **options: Any) -> FakeResponse:  # noqa: ANN401 passed on
            raise KeyboardInterrupt

    app.hub = hub_over(Interrupted(answer))
    result = invoke(master.command, app, "org/name")
    assert isinstance(result.exception, click.Abort)
    assert "run the same command again" in result.stderr


def test_a_listing_shows_that_it_grows_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with submission.listing_progress(Console(file=StringIO())) as show:
        for files in (1, 49_999, 50_000, 99_999, 100_001):
            show(Listing(1, files, files * 10))
    err = capsys.readouterr().err
    assert err.splitlines() == ["listing: 50,000 files, 500 kB", "listing: 100,001 files, 1.0 MB"]


# -- --dry-run ----------------------------------------------------------------------------------------


def test_a_dry_run_lists_and_queues_nothing(app: FakeApp, tmp_path: Path) -> None:
    result = run(master.command, app, "org/name", "--dry-run", "-o", str(tmp_path / "new"))
    *files, total = result.stdout.splitlines()
    assert files == ["  1.2 GB  model.safetensors", "   500 B  config.json", "     0 B  a/b"]
    assert total.startswith("org/name at main (c0ffee00): 3 files, 1.2 GB; ")
    assert f"free in {tmp_path / 'new'}" in total
    assert app.view.jobs() == []
    assert result.return_value == 0


def test_a_dry_run_needs_no_redis(app: FakeApp) -> None:
    del app.redis
    assert run(master.command, app, "org/name", "--dry-run").return_value == 0


def test_a_dry_run_tells_when_the_space_does_not_suffice(app: FakeApp, tmp_path: Path) -> None:
    app.hub = listing(lfs_entry("huge", 2**50))
    assert "TOO LITTLE" in run(master.command, app, "org/name", "--dry-run", "-o", str(tmp_path)).stdout


def test_a_dry_run_as_json(app: FakeApp, tmp_path: Path) -> None:
    args = ("org/name", "--dry-run", "--json", "-o", str(tmp_path), "--exclude", "a/")
    found = json.loads(run(master.command, app, *args).stdout)
    assert found.pop("free_bytes") > 0
    assert found == {
        "repo_type": "model",
        "repo_id": "org/name",
        "revision": "main",
        "commit": COMMIT,
        "endpoint": "https://hub.test",
        "files": [
            {"path": "model.safetensors", "size": 1_200_000_000, "sha256": "b" * 64, "git_sha1": None},
            {"path": "config.json", "size": 500, "sha256": None, "git_sha1": "a" * 40},
        ],
        "total_files": 2,
        "total_bytes": 1_200_000_500,
        "output_dir": str(tmp_path),
    }


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_dry_run_tells_what_it_would_refuse(app: FakeApp, flags: tuple[str, ...]) -> None:
    app.hub = listing(file_entry("a"), file_entry("/etc/passwd"))
    result = run(master.command, app, "org/name", "--dry-run", *flags)
    assert result.return_value == 1
    assert "refused: /etc/passwd: an absolute path" in result.stderr
    assert "passwd" not in result.stdout


def test_a_dry_run_without_a_match(app: FakeApp) -> None:
    result = invoke(master.command, app, "org/name", "--dry-run", "--include", "nothing")
    assert isinstance(result.exception, NotFoundError)


def test_free_space_of_a_folder_that_is_elsewhere_is_unknown(tmp_path: Path) -> None:
    assert preview.free_space(str(tmp_path / "a" / "b")) is None
    assert preview.free_space(str(tmp_path / "a"))
    assert preview.free_space("~") is not None


def test_free_space_of_a_disk_that_does_not_know_its_size_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(total=0, used=0, free=0))
    assert preview.free_space(str(tmp_path)) is None


# -- batch-master -------------------------------------------------------------------------------------


def test_each_result_stands_beside_its_own_name_in_the_order_given(app: FakeApp) -> None:
    """The jobs' ids come in the order in which the hub answers, which here is the reverse."""
    gates = {f"org/n{number}": threading.Event() for number in range(4)}
    gates["org/n3"].set()

    def script(sent: Sent) -> FakeResponse:
        if "/tree/" in sent.url:
            number = int(sent.url.split("org/n")[1][0])
            gates[f"org/n{number}"].wait()
        return answer(sent)

    app.hub = hub_over(FakeHttp(script))
    real = app.redis.seal

    def seal(job: int, files: int, closing: str = "", *, always: bool = False) -> bool:
        assert real(job, files, closing, always=always)
        done = int(app.view.job(job).spec.repo_id[-1])
        if done:
            gates[f"org/n{done - 1}"].set()
        return True

    app.redis.seal = seal  # type: ignore[method-assign]
    result = run(batch_master.command, app, "org/n0,org/n1,org/n2,org/n3")
    assert result.stdout.splitlines() == [f"org/n{number}\tJob ID: {4 - number}" for number in range(4)]
    assert [app.view.job(4 - number).spec.repo_id for number in range(4)] == list(gates)
    assert result.return_value == 0


def test_what_fails_is_told_in_its_place_and_does_not_stop_the_others(app: FakeApp) -> None:
    result = run(batch_master.command, app, f" org/one , nobody/none,{BROKEN},a/b/c,org/data,")
    lines = result.stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["org/one", "nobody/none", BROKEN, "a/b/c", "org/data"]
    assert lines[1].startswith("nobody/none\terror: https://hub.test has no model, dataset or space")
    assert "gave up after" in lines[2]
    assert "names no repo" in lines[3]
    assert all("\tJob ID: " in lines[number] for number in (0, 4))
    assert result.return_value == 1
    assert "2 jobs of 5 repos" in result.stderr


def test_repos_from_a_file(app: FakeApp, tmp_path: Path) -> None:
    file = tmp_path / "repos.txt"
    file.write_bytes(
        b"\xef\xbb\xbf# our models\r\n\r\norg/one\r\n  org/two # the second\r\n\t\r\n#org/three\r\n"
        b"datasets/org/data"
    )
    result = run(batch_master.command, app, str(file), "--from-file")
    names = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert names == ["org/one", "org/two", "datasets/org/data"]


def test_repos_from_standard_input(app: FakeApp) -> None:
    result = run(batch_master.command, app, "-", "--from-file", stdin="org/one\n")
    assert result.stdout == "org/one\tJob ID: 1\n"


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"\xff\xfe"])
def test_a_file_without_names_is_a_usage_error(app: FakeApp, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "repos.txt"
    file.write_bytes(content)
    assert isinstance(invoke(batch_master.command, app, str(file), "--from-file").exception, click.UsageError)


@pytest.mark.parametrize("args", [("no-such-file", "--from-file"), (".", "--from-file"), (" , ",), ("",)])
def test_no_names_is_a_usage_error(app: FakeApp, args: tuple[str, ...]) -> None:
    assert isinstance(invoke(batch_master.command, app, *args).exception, click.UsageError)


def test_a_name_that_is_there_twice_is_queued_once(app: FakeApp) -> None:
    result = run(batch_master.command, app, "org/one,org/two,org/one,models/org/one")
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [
        "org/one",
        "org/two",
        "models/org/one",
    ]
    assert "org/one is there 2 times" in result.stderr
    assert sorted(job.spec.repo_id for job in app.view.jobs()) == ["org/one", "org/two"]
    assert all(job.total == 3 for job in app.view.jobs())


def test_options_hold_for_all(app: FakeApp, tmp_path: Path) -> None:
    run(
        batch_master.command,
        app,
        "org/one,org/two",
        "--include",
        "*.json",
        "-o",
        str(tmp_path),
        "--priority",
        "7",
    )
    assert {(job.weight, job.total, job.spec.output_dir) for job in app.view.jobs()} == {
        (7, 1, str(tmp_path))
    }


def test_refused_files_in_a_batch(app: FakeApp) -> None:
    app.hub = listing(file_entry("a"), file_entry("../b"))
    result = run(batch_master.command, app, "org/one")
    assert result.return_value == 1
    assert "org/one: refused: ../b" in result.stderr


def test_waiting_for_a_batch(app: FakeApp, fleet: Callable[[str], None]) -> None:
    fleet("")
    assert run(batch_master.command, app, "org/one,org/two", "--wait").return_value == 0
    assert {job.state for job in app.view.jobs()} == {JobState.DONE}


def test_waiting_for_a_batch_with_a_failure(app: FakeApp, fleet: Callable[[str], None]) -> None:
    fleet("config.json")
    assert run(batch_master.command, app, "org/one", "--wait").return_value == 1


def test_interrupting_a_batch_does_not_wait_for_its_listings(
    app: FakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(sent: Sent) -> FakeResponse:
        if "org/slow" in sent.url:
            return FakeResponse(429, headers={"Retry-After": "600"})
        return answer(sent)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    app.hub = hub_over(FakeHttp(script), Patience())
    monkeypatch.setattr(batch_master, "_print", interrupt)
    result = invoke(batch_master.command, app, "org/one,org/slow")
    assert isinstance(result.exception, click.Abort)
    assert "run the same command again" in result.stderr
