"""A whole fleet as the Redis user that docs/operations.md describes, on every server."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import access
from tests.e2e.fleet import Fleet, tree
from tests.hub.faults import Status
from tests.hub.faulty import FaultyHub
from tests.servers import Binary, Server, binaries

BIG = "model.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a repo with a file that is split, and two that are not."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / BIG).write_bytes(random.Random(7).randbytes(9 << 20))
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("# Sample\n")
    return folder


@pytest.fixture(params=binaries(), ids=lambda binary: binary.name)
def guarded(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Server]:
    """Let the fleet use a server as the documented user."""
    assert isinstance(request.param, Binary)
    with Server(request.param) as server:
        access.make_user(server)
        fleet.redis_url = f"unix://{server.socket}?db=1"
        fleet.environ |= {"REDIS_USERNAME": access.USER, "REDIS_PASSWORD": access.PASSWORD}
        yield server
        fleet.close()


def test_the_documented_user_can_do_the_whole_job(
    fleet: Fleet, guarded: Server, source: Path, hub: FaultyHub, tmp_path: Path
) -> None:
    nas, output = tmp_path / "nas", tmp_path / "shared"
    nas.mkdir()
    fleet.environ |= {"NAS_ENABLED": "true", "NAS_PATH": str(nas)}
    fleet.run("init-nas", "--force")
    hub.on(Status(404), file="config.json", route="resolve", times=1)

    job = str(fleet.queue("org/model", "-o", str(output), "--split", "2MiB"))
    for verb in ("pause", "resume", "cancel", "resume"):
        fleet.run(verb, job)
    for _ in range(2):
        fleet.worker("-j", "1")
    fleet.until_ended(int(job))
    assert seen(fleet, job)["state"] == "failed"
    assert "config.json" in fleet.run("files", job, "--failed").stdout
    fleet.run("retry", job)
    fleet.until_ended(int(job))
    assert seen(fleet, job)["state"] == "done"
    for look in (["workers"], ["queue"], ["repos"], ["files", job], ["status"], ["status", "--json"]):
        assert fleet.run(*look).stderr == ""
    assert len(json.loads(fleet.run("workers", "--json").stdout)) == 2
    assert tree(output / "org/model") == tree(nas / "org/model") == tree(source)

    fleet.run("forget", job, "--yes")
    for worker in fleet.workers:
        worker.process.terminate()
        assert worker.wait() == 0
        assert "Traceback" not in worker.log
        assert "ACL" not in worker.log


def seen(fleet: Fleet, job: str) -> dict[str, str]:
    """Return what `status --json` says of the job."""
    found: dict[str, str] = json.loads(fleet.run("status", job, "--json", code=None).stdout)["jobs"][0]
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["config"],
        ["init-nas"],
        ["master", "org/model", "-o", "{output}"],
        ["batch-master", "{list}"],
        ["worker", "--drain-when-empty"],
        ["status"],
        ["repos"],
        ["queue"],
        ["workers"],
        ["files", "1"],
        ["pause", "1"],
        ["resume", "1"],
        ["cancel", "1"],
        ["retry", "1"],
        ["forget", "1", "--yes"],
        ["download", "org/model", "-o", "{output}"],
    ],
    ids=lambda words: words[0],
)
def test_every_command_warns_of_secrets_that_others_see(
    fleet: Fleet, tmp_path: Path, words: list[str]
) -> None:
    """Once, on standard error, and JSON stays JSON."""
    (tmp_path / "list").write_text("org/model\n")
    words = [word.format(output=tmp_path / "out", list=tmp_path / "list") for word in words]
    config = fleet.folder / "config.ini"
    config.write_text("[redis]\npassword = not-asked-for\n")
    config.chmod(0o644)
    as_json = ["--json"] * (words[0] in {"config", "status", "repos", "queue", "workers", "files"})
    with_url = ["--redis-url", fleet.redis_url.replace("unix://", "unix://default:x@")]
    done = fleet.run(*with_url, *words, *as_json, code=None, REDIS_URL="")
    assert done.stderr.count("config.ini holds a secret and others can read it") == 1
    assert done.stderr.count("--redis-url shows a password to all users of this machine") == 1
    assert "not-asked-for" not in done.stdout + done.stderr
    if as_json and done.returncode == 0:
        assert json.loads(done.stdout) is not None
