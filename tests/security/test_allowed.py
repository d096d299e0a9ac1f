"""The rules of [security]: the master queues nothing that they forbid, and a worker fetches nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distributed_downloader.config import AppConfig, ConfigManager
from distributed_downloader.errors import ConfigError, UsageError
from distributed_downloader.hub import Hub
from distributed_downloader.master import JobRequest, MasterNode, prepare
from distributed_downloader.models import JobSpec, RepoType
from distributed_downloader.rules import Rules
from distributed_downloader.ssl_config import HttpClient
from tests.hub.faulty import FaultyHub
from tests.queue.steps import NS
from tests.security.kit import Machine, until

SPEC = JobSpec(
    repo_type=RepoType.MODEL,
    repo_id="org/name",
    revision="main",
    commit="c" * 40,
    endpoint="https://huggingface.co",
)


def rules(output_dir: str = "/own", **security: str) -> Rules:
    return Rules(AppConfig.model_validate({"security": security, "app": {"output_dir": output_dir}}))


def allows(rules: Rules, **changes: object) -> bool:
    return not rules.objection(SPEC.model_copy(update=changes))


@pytest.mark.parametrize(
    ("globs", "repo_type", "repo_id", "allowed"),
    [
        ("", "space", "any/thing", True),
        ("*", "dataset", "any/thing", True),
        ("org/*", "model", "org/name", True),
        ("org/*", "dataset", "org/name", True),
        ("org/*", "model", "org2/name", False),
        ("org/*", "model", "Org/name", False),
        ("org/*", "model", "name", False),
        ("org/name", "model", "org/name2", False),
        ("datasets/org/*", "dataset", "org/name", True),
        ("datasets/org/*", "model", "org/name", False),
        ("models/*", "model", "org/name", True),
        ("models/*", "space", "org/name", False),
        (" org/* ,, spaces/other/x ", "space", "other/x", True),
        ("bert-*", "model", "bert-base", True),
    ],
)
def test_repos(globs: str, repo_type: str, repo_id: str, allowed: bool) -> None:
    asked = {"repo_type": RepoType(repo_type), "repo_id": repo_id}
    assert allows(rules(allowed_repos=globs), **asked) is allowed


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        ("https://huggingface.co", True),
        ("https://HuggingFace.co/", True),
        ("https://huggingface.co:443", True),
        ("HTTPS://huggingface.co:443/", True),
        ("https://huggingface.co:80", False),
        ("https://mirror.test:443/hf", True),
        ("http://huggingface.co", False),
        ("https://huggingface.co:444", False),
        ("https://huggingface.co.evil.test", False),
        ("https://mirror.test/hf", True),
        ("https://mirror.test/HF", False),
        ("https://mirror.test", False),
    ],
)
def test_endpoints(endpoint: str, allowed: bool) -> None:
    known = rules(allowed_endpoints="https://huggingface.co, https://mirror.test/hf/")
    assert allows(known, endpoint=endpoint) is allowed


@pytest.mark.parametrize(
    ("listed", "folder", "allowed"),
    [
        ("", "/data/models", True),
        ("", "/", False),
        ("", "/etc/cron.d", False),
        ("", "/usr/bin", False),
        ("", "/usr/local/models", True),
        ("/data", "/data", True),
        ("/data", "/data/models", True),
        ("/data", "/database", False),
        ("/data", "/own", True),
        ("/data", "", True),
        ("/data", "/own/sub", True),
        ("/data, /", "/etc", True),
    ],
)
def test_folders(listed: str, folder: str, allowed: bool) -> None:
    assert allows(rules(allowed_output_dirs=listed), output_dir=folder) is allowed


def test_the_repos_name_is_part_of_where_its_files_go() -> None:
    assert not allows(rules(), output_dir="/usr", repo_id="lib/systemd")
    assert not allows(rules(), output_dir="/usr", repo_id="bin/x")
    assert allows(rules(), output_dir="/usr", repo_id="org/name")


#: What stands before the bad entry of each.
GOOD = {
    "allowed_repos": "org/*",
    "allowed_endpoints": "https://huggingface.co",
    "allowed_output_dirs": "/data",
    "inner_hosts": "*.example",
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("allowed_repos", "/org/*"),
        ("allowed_repos", "org/"),
        ("allowed_repos", "datasets/"),
        ("allowed_repos", "org/name/config.json"),
        ("allowed_repos", "https://huggingface.co/org/*"),
        ("allowed_repos", "org/a org/b"),
        ("allowed_endpoints", "huggingface.co"),
        ("allowed_output_dirs", "data"),
        ("allowed_output_dirs", "/a/.."),
        ("inner_hosts", "https://storage.example"),
        ("inner_hosts", "storage.example:9000"),
        ("inner_hosts", "storage.example/bucket"),
        ("inner_hosts", "[::1]"),
        ("inner_hosts", "10.1.2.*"),
        ("inner_hosts", "storage*"),
        ("inner_hosts", "storage.ex*"),
    ],
)
def test_a_rule_that_is_none_is_refused(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "config.ini"
    file.write_text(f"[security]\n{key} = {GOOD[key]}, {value}\n")
    with pytest.raises(ConfigError, match=rf"\[security\] {key} = .*: {re.escape(value)} "):
        ConfigManager(file, environ={}).load()


@pytest.mark.parametrize(
    ("globs", "warned"),
    [
        (
            "org",
            "org allows only a repo of just that name, and none of that organisation; for these write org/*",
        ),
        ("a/*, datasets/org", "for these write datasets/org/*"),
        ("org/*, models/*, bert-*, org/name, *", ""),
    ],
)
def test_a_rule_that_is_hardly_meant_is_a_warning(tmp_path: Path, globs: str, warned: str) -> None:
    file = tmp_path / "config.ini"
    file.write_text(f"[security]\nallowed_repos = {globs}\n")
    manager = ConfigManager(file, environ={})
    manager.load()
    assert [warning.endswith(warned) for warning in manager.warnings] == [True] * bool(warned)


@pytest.mark.parametrize(
    "security",
    [
        {"allowed_repos": "else/*"},
        {"allowed_endpoints": "https://huggingface.co"},
        {"allowed_output_dirs": "/nowhere"},
    ],
    ids=lambda security: next(iter(security)),
)
def test_the_master_refuses_before_anything_is_queued(machine: Machine, security: dict[str, str]) -> None:
    config = machine.config(security=security)
    hub = Hub(HttpClient(config.huggingface), machine.hub.endpoint)
    request = JobRequest("models/org/name", output_dir=str(machine.folder))
    master = MasterNode(hub, machine.queue, rules=Rules(config))
    with pytest.raises(UsageError, match=next(iter(security))) as error:
        master.prepare(request)
    assert error.value.exit_code == 2
    assert not machine.queue.commands.keys("*")
    assert prepare(hub, request).repo_id == "org/name", "without rules it would"


def test_a_worker_leaves_a_job_that_is_not_for_it_to_others(machine: Machine, hub: FaultyHub) -> None:
    """The rules of others may allow it, and its own work goes on all the while."""
    forbidden = machine.job()
    machine.worker(machine.config(security={"allowed_repos": "else/*"}), "strict")
    until(lambda: machine.view.job(forbidden).blocked)
    assert "allowed_repos has no models/org/name" in machine.view.job(forbidden).blocked
    until(lambda: "allowed_repos has no models/org/name" in machine.view.workers()[0].trouble)
    allowed = machine.job(machine.spec(repo_id="else/name"))
    machine.assert_done(allowed, machine.out / "else/name")
    assert {record.request.repo for record in hub.log.records()} == {"models/else/name"}
    assert not (machine.out / "org").exists()
    machine.worker(name="free")
    machine.assert_done(forbidden, machine.out / "org/name")


def test_a_worker_among_others_neither_stalls_nor_fetches(machine: Machine, hub: FaultyHub) -> None:
    """Somebody in the fleet could do it, or says so, and does not: our own work goes on."""
    forbidden = machine.job()
    machine.queue.commands.zadd(f"{NS}workers", {"ghost": 1e15})
    strict = machine.worker(machine.config(security={"allowed_repos": "else/*"}), "strict")
    until(lambda: machine.queue.commands.hexists(f"{NS}job:{forbidden}:blind", "strict"))
    allowed = machine.job(machine.spec(repo_id="else/name"))
    machine.assert_done(allowed, machine.out / "else/name")
    assert strict.trouble == ""
    assert not (machine.out / "org").exists()
    assert machine.view.job(forbidden).failed == 0
