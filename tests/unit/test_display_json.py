"""The JSON of `--json` is what docs/json.md says, field by field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from distributed_downloader.display import as_json
from distributed_downloader.display.snapshot import Silence, Snapshot
from distributed_downloader.findings import Finding, Verdict
from distributed_downloader.models import JobState, RepoType, TaskStatus
from distributed_downloader.quota import HubBudget
from distributed_downloader.redis_files import FileProgress
from distributed_downloader.verification import Report
from tests.unit.looking_on import (
    AWAY,
    EVIL,
    done,
    failure,
    job,
    next_try,
    progress,
    queue,
    transfer,
    worker,
)

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
PLAIN_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def documented() -> dict[str, dict[str, str]]:
    """Return object -> field -> type, from the tables of docs/json.md."""
    found: dict[str, dict[str, str]] = {}
    for section in DOCS.read_text().split("\n## ")[1:]:
        name = section.partition("\n")[0]
        found[name] = dict(re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", section, re.MULTILINE))
    return found


SCHEMA = documented()


def check(value: Any, wanted: str, where: str = "$") -> None:  # noqa: ANN401
    """Assert that a value is as documented, with all its fields and no other."""
    if " or " in wanted:
        wanted = next(kind for kind in wanted.split(" or ") if (kind == "null") is (value is None))
    if wanted.startswith("list of "):
        assert isinstance(value, list), where
        for number, each in enumerate(value):
            check(each, wanted.removeprefix("list of "), f"{where}[{number}]")
    elif wanted in PLAIN_TYPES:
        assert type(value) in PLAIN_TYPES[wanted], f"{where}: {value!r} is no {wanted}"
    else:
        assert isinstance(value, dict), where
        assert list(value) == list(SCHEMA[wanted]), where
        for field, kind in SCHEMA[wanted].items():
            check(value[field], kind, f"{where}.{field}")


def read(text: str) -> Any:  # noqa: ANN401
    """Return what a reader of the output gets."""
    assert text.isascii()
    return json.loads(text)


PAUSES = {"https://hub.example": 48.2}
BUDGET = HubBudget("https://hub.example", "resolvers", left=12, quota=5000, seconds=48.2)


def everything() -> Snapshot:
    """Return a snapshot in which each kind of thing is there in each form."""
    return Snapshot(
        jobs=[progress(job(), rate=45.6e6), progress(done()), progress(job(listed=False))],
        failures=[(3, failure())],
        workers=[
            worker("a", transfer(), transfer("b", start=5), transfer("b", sealing=True)),
            worker("c", trouble="full", nas_trouble="away", folder="f" * 32, nas="a" * 32, absence=AWAY),
        ],
        waiting=[(3, next_try()), (3, next_try(parked=True, kept=5))],
        pauses=PAUSES,
        budgets=[BUDGET],
        full=True,
        absence=AWAY,
        silence=Silence(1_000_200.0, "Redis at h:1/0 cannot be reached", "h:1/0"),
        queue=queue(pauses=PAUSES),
    )


# -- the document ----------------------------------------------------------------------------------------


def test_the_document_has_all_objects() -> None:
    assert {*SCHEMA} == {
        "status",
        "repo",
        "job",
        "counters",
        "parts",
        "bytes",
        "delivery",
        "failure",
        "waiting",
        "absence",
        "outage",
        "pause",
        "budget",
        "worker",
        "transfer",
        "queue",
        "states",
        "file",
        "action",
        "health",
        "preview",
        "listed",
        "doctor",
        "finding",
        "report",
        "flaw",
        "folder",
    }


def test_each_type_is_known() -> None:
    for fields in SCHEMA.values():
        for kind in fields.values():
            for word in re.sub("list of ", "", kind).split(" or "):
                assert word in PLAIN_TYPES or word in SCHEMA


def test_the_document_names_the_command_of_each_object() -> None:
    commands = DOCS.read_text().partition("\n## ")[0]
    for name in ("status", "repo", "queue", "worker", "file", "action", "health", "preview"):
        assert f"[{name}](#{name})" in commands


# -- the output ------------------------------------------------------------------------------------------


def test_status() -> None:
    check(read(as_json.dump(as_json.status(everything()))), "status")


def test_status_of_one_job() -> None:
    shown = as_json.status(Snapshot(jobs=[progress(job())]))
    check(shown, "status")
    assert shown["queue"] is None


def test_status_of_nothing() -> None:
    check(as_json.status(Snapshot(queue=queue(jobs={}))), "status")


def test_repos() -> None:
    shown = as_json.repos([progress(job(3)), progress(job(4, repo_type=RepoType.DATASET)), progress(done(9))])
    check(shown, "list of repo")
    assert [(repo["repo"], [each["id"] for each in repo["jobs"]]) for repo in shown] == [
        ("org/name", [3, 9]),
        ("datasets/org/name", [4]),
    ]


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ([JobState.DONE], "done"),
        ([JobState.DONE, JobState.FAILED], "failed"),
        ([JobState.RUNNING, JobState.DONE], "running"),
        ([JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED], "paused"),
    ],
)
def test_the_state_of_a_repo_is_that_of_the_newest_job_that_matters(
    states: list[JobState], state: str
) -> None:
    jobs = [progress(job(number, state=each)) for number, each in enumerate(states, 1)]
    assert as_json.repos(jobs)[0]["state"] == state


def test_queue_names_every_state() -> None:
    shown = as_json.queue(queue(jobs={"running": 2}))
    check(shown, "queue")
    none = dict.fromkeys(("paused", "delivering", "cancelled", "done", "failed"), 0)
    assert shown["jobs"] == {"running": 2, **none}


def test_files_stay_files_while_parts_are_under_way() -> None:
    shown = as_json.job(progress(job(total=20, parts=8, parts_done=3, done=9, held=1, pending=4)))
    assert (shown["files"]["total"], shown["files"]["done"]) == (12, 6)
    assert shown["parts"] == {"total": 8, "done": 3}


def test_delivery_and_reasons() -> None:
    reasons = {"unsplit": "no shared folder", "blocked": "not mounted"}
    shown = as_json.job(progress(job(owed=2, delivered=10, bytes_delivered=99).model_copy(update=reasons)))
    assert shown["delivery"] == {"owed": 2, "delivered": 10, "bytes": 99}
    assert {name: shown[name] for name in reasons} == reasons


def test_parts_and_checks() -> None:
    part, seal = transfer(start=64, size=10, bytes_per_second=5), transfer(sealing=True, bytes_per_second=7)
    shown = as_json.worker(worker("a", part, seal, nas_trouble="away"))
    assert [(each["start"], each["sealing"]) for each in shown["transfers"]] == [(64, False), (None, True)]
    assert (shown["bytes_per_second"], shown["nas_trouble"]) == (5, "away")


def test_workers() -> None:
    shown = as_json.worker(worker("a", transfer(bytes_per_second=1.4), transfer("b", bytes_per_second=2.4)))
    check(shown, "worker")
    assert shown["bytes_per_second"] == 4


def test_action() -> None:
    shown = as_json.action("pause", job(), changed=True)
    check(shown, "action")
    assert shown == {"job": 3, "repo": "org/name", "action": "pause", "changed": True}


@pytest.mark.parametrize("verdict", ["good", "warning", "broken"])
def test_doctor(verdict: str) -> None:
    finding = Finding("hub", "token", Verdict(verdict), "of somebody", "set HF_TOKEN" * (verdict != "good"))
    shown = read(as_json.dump(as_json.doctor([Finding("hub", "a", Verdict.UNKNOWN, "?"), finding])))
    check(shown, "doctor")
    assert shown["verdict"] == verdict
    assert [each["verdict"] for each in shown["findings"]] == ["unknown", verdict]


def test_folder() -> None:
    check(read(as_json.dump(as_json.folder([progress(job())]))), "folder")


def test_report() -> None:
    spec, wrong = job().spec, {"a": "its size"}
    found = Report(spec, 3, 30, ["b"], wrong, {"c": "closed"}, extra=("d",), extra_count=9, repaired=["a"])
    shown = read(as_json.dump([as_json.report(found), as_json.report(Report(spec, 1, 1))]))
    check(shown, "list of report")
    assert [each["ok"] for each in shown] == [False, True]
    assert shown[0]["wrong"] == [{"path": "a", "why": "its size"}]


def test_job_in_flight() -> None:
    shown = as_json.job(progress(job(), 7_000_000_000, rate=91_000_000.4))
    assert shown["bytes"] == {"total": 16_100_000_000, "done": 6_800_000_000, "now": 7_000_000_000}
    assert (shown["bytes_per_second"], shown["eta_seconds"]) == (91_000_000, 100)


@pytest.mark.parametrize("number", [0, 1, 2, 100])
def test_files_are_a_list_with_a_line_for_each(number: int) -> None:
    files = [FileProgress(path=f"f{n}", size=n, status=TaskStatus.DONE, host="h") for n in range(number)]
    lines = list(as_json.files(files))
    shown = read("\n".join(lines))
    check(shown, "list of file")
    assert [each["path"] for each in shown] == [file.path for file in files]
    assert len(lines) == number + 1


def test_files_are_written_as_they_are_read() -> None:
    files = (FileProgress(path=f"f{n}", size=n, status=TaskStatus.DONE) for n in iter(int, 1))
    lines = as_json.files(files)
    first = '[{"path": "f0", "size": 0, "state": "done", "bytes_done": 0, "host": "", "error": "", '
    assert next(lines) == f'{first}"next_try_seconds": null}}'
    assert next(lines).startswith(',{"path": "f0"')


def test_hostile_text_is_ascii_and_comes_back_as_it_was() -> None:
    shown = Snapshot(jobs=[progress(job())], failures=[(3, failure(EVIL, EVIL))], workers=[worker(EVIL)])
    document = read(as_json.dump(as_json.status(shown)))
    assert document["failures"][0]["path"] == document["workers"][0]["id"] == EVIL
