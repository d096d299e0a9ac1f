"""`pause`, `resume`, `cancel`, `retry` and `forget` as a user calls them, over a fake Redis."""

from __future__ import annotations

import io

import pytest

from distributed_downloader.cli import resume, run
from distributed_downloader.models import JobState
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from tests.unit.looking_on import Tty, failure, job, spec
from tests.unit.test_cli_looking_on import as_json, client, file, printed, settle, submit
from tests.unit.test_display_json import check

__all__ = ["client"]


def states(client: RedisClient) -> dict[int, str]:
    """Return the state of each job."""
    return {job.id: job.state.value for job in RedisView(client).jobs()}


def two_jobs(client: RedisClient) -> None:
    """Queue two jobs of one repo."""
    submit(client, spec(), file("a"))
    submit(client, spec().model_copy(update={"include": ("*.json",)}), file("a"))


# -- one job --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "verb", "end"),
    [
        ([], "pause", ("paused", "paused")),
        (["pause"], "pause", ("is already paused", "paused")),
        (["cancel"], "pause", ("is cancelled: nothing to pause", "cancelled")),
        (["pause"], "resume", ("resumed", "running")),
        (["cancel"], "resume", ("resumed", "running")),
        ([], "resume", ("is already running", "running")),
        ([], "cancel", ("cancelled", "cancelled")),
        (["pause"], "cancel", ("cancelled", "cancelled")),
        (["cancel"], "cancel", ("is already cancelled", "cancelled")),
        ([], "retry", ("has no failed files", "running")),
    ],
)
def test_what_happens_is_said(
    client: RedisClient,
    capsys: pytest.CaptureFixture[str],
    before: list[str],
    verb: str,
    end: tuple[str, str],
) -> None:
    submit(client, spec(), file("a"))
    for earlier in before:
        assert run([earlier, "1"]) == 0
    capsys.readouterr()
    sentence, state = end
    assert printed(capsys, verb, "org/name") == f"Job 1 (org/name) {sentence}.\n"
    assert states(client) == {1: state}


@pytest.mark.parametrize(
    ("verb", "sentence"),
    [
        ("pause", "is done: nothing to pause"),
        ("resume", "is done: nothing to resume"),
        ("cancel", "is done: nothing to cancel"),
        ("retry", "has no failed files"),
    ],
)
def test_a_job_that_is_done_stays_done(
    client: RedisClient, capsys: pytest.CaptureFixture[str], verb: str, sentence: str
) -> None:
    submit(client, spec(), file("a"))
    settle(client, None)
    assert printed(capsys, verb, "1") == f"Job 1 (org/name) {sentence}.\n"
    assert states(client) == {1: "done"}


def test_retry_counts_what_it_tries_again(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"), file("b"))
    settle(client, failure("a"), failure("b"))
    assert states(client) == {1: "failed"}
    assert printed(capsys, "retry", "1") == "Job 1 (org/name) tries 2 failed files again.\n"
    assert states(client) == {1: "running"}


def test_a_failed_job_is_resumed_by_retry(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"))
    settle(client, failure("a"))
    assert "`hf-downloader retry`" in printed(capsys, "resume", "1")


def test_a_cancelled_job_is_resumed_before_its_failed_files_are_tried(
    client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(client, spec(), file("a"), file("b"))
    settle(client, failure("a"))
    client.control("cancel", 1)
    assert printed(capsys, "retry", "1").endswith("is cancelled: `hf-downloader resume` it first.\n")


@pytest.mark.parametrize("verb", ["resume", "retry"])
def test_what_ended_too_long_ago_is_submitted_again(
    client: RedisClient, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    submit(client, spec(), file("a"), file("b"))
    if verb == "retry":
        settle(client, failure("a"), failure("b"))
    else:
        client.control("cancel", 1)
    client.commands.delete(client.key("job:1:tasks"))
    assert "too long ago: submit it again with `hf-downloader master`" in printed(capsys, verb, "1")


# -- several jobs ---------------------------------------------------------------------------------------


def test_a_repo_stands_for_all_jobs_to_which_the_verb_applies(
    client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    two_jobs(client)
    client.control("pause", 1)
    assert printed(capsys, "pause", "org/name") == "Job 2 (org/name) paused.\n"
    assert printed(capsys, "pause", "org/name") == (
        "Job 1 (org/name) is already paused.\nJob 2 (org/name) is already paused.\n"
    )
    assert printed(capsys, "resume", "org/name") == "Job 1 (org/name) resumed.\nJob 2 (org/name) resumed.\n"
    client.control("cancel", 2)
    assert printed(capsys, "cancel", "org/name") == "Job 1 (org/name) cancelled.\n"


def test_retry_of_a_repo_applies_to_jobs_with_failed_files(
    client: RedisClient, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(client, spec(), file("a"))
    settle(client, failure("a"))
    submit(client, spec().model_copy(update={"include": ("*.json",)}), file("a"))
    assert printed(capsys, "retry", "org/name") == "Job 1 (org/name) tries 1 failed file again.\n"


# -- forget ---------------------------------------------------------------------------------------------


def test_forget_a_job_that_has_ended(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"))
    settle(client, None)
    assert printed(capsys, "forget", "org/name") == "Job 1 (org/name) forgotten; its files stay.\n"
    assert states(client) == {}


def test_forget_of_a_running_job_wants_a_word(
    client: RedisClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    submit(client, spec(), file("a"))
    assert run(["forget", "1"]) == 2
    assert "Job 1 (org/name) is running; say --yes" in capsys.readouterr().err
    assert states(client) == {1: "running"}


@pytest.mark.parametrize("flag", ["--yes", "-y"])
def test_forget_of_a_running_job_with_that_word(
    client: RedisClient, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    submit(client, spec(), file("a"))
    assert printed(capsys, "forget", "1", flag) == "Job 1 (org/name) forgotten; its files stay.\n"
    assert states(client) == {}


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ("y", "Job 1 (org/name) forgotten; its files stay.\n"),
        ("n", "Job 1 (org/name) stays as it is.\n"),
        ("", "Job 1 (org/name) stays as it is.\n"),
    ],
)
def test_forget_asks_on_a_terminal(
    client: RedisClient,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    end: str,
) -> None:
    monkeypatch.setattr("sys.stdin", Tty(f"{answer}\n"))
    submit(client, spec(), file("a"))
    assert run(["forget", "1"]) == 0
    output = capsys.readouterr()
    assert output.out.endswith(end)
    assert "Job 1 (org/name) is running. Forget it all the same? [y/N]" in output.out + output.err
    assert states(client) == ({} if answer == "y" else {1: "running"})


def test_forget_of_a_repo_forgets_nothing_if_one_job_wants_a_word(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    two_jobs(client)
    client.control("cancel", 1)
    assert run(["forget", "org/name"]) == 2
    assert states(client) == {1: "cancelled", 2: "running"}


def test_forget_all_jobs_of_a_repo(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    two_jobs(client)
    assert len(printed(capsys, "forget", "org/name", "--yes").splitlines()) == 2
    assert states(client) == {}


# -- JSON -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "retry", "forget"])
def test_json_as_documented(client: RedisClient, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    submit(client, spec(), file("a"))
    client.control("pause" if verb == "resume" else "cancel" if verb == "forget" else "resume", 1)
    shown = as_json(capsys, verb, "1")
    check(shown, "list of action")
    assert shown == [{"job": 1, "repo": "org/name", "action": verb, "changed": verb != "retry"}]


def test_json_says_when_nothing_changed(client: RedisClient, capsys: pytest.CaptureFixture[str]) -> None:
    submit(client, spec(), file("a"))
    client.control("pause", 1)
    assert [each["changed"] for each in as_json(capsys, "pause", "1")] == [False]
    assert states(client) == {1: JobState.PAUSED.value}


def test_what_is_on_its_way_to_the_nas_needs_no_resuming() -> None:
    assert resume.unchanged(job(state=JobState.DELIVERING)) == "is downloaded and on its way to the NAS"
