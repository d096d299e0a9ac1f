"""What end-to-end tests share: both majors of huggingface_hub, each behind a Python of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.e2e.fleet import Fleet
from tests.hub.faulty import FaultyHub
from tests.hub.sample import write_model_repo
from tests.servers import NO_SERVER, Server, binaries

PROJECT = Path(__file__).parents[2]


def synced(group: str) -> Path:
    """Return a Python that has this project and a group of dependencies; kept in that of the tests."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is needed for the tests against other libraries: pip install uv"
    home = Path(sys.prefix) / group
    command = [uv, "sync", "--quiet", "--frozen", "--no-default-groups", "--group", group]
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(home), "UV_PYTHON": sys.executable}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stderr}"
    return home / "bin" / "python"


@pytest.fixture(scope="session")
def hub1_python() -> Path:
    """Return a Python that has this project with huggingface_hub 1.x."""
    return synced("readers1")


@pytest.fixture(scope="session", params=["1.x", "2.x"])
def hub_python(request: pytest.FixtureRequest) -> Path:
    """Return a Python with huggingface_hub 1.x, then one with 2.x."""
    if request.param == "2.x":
        return Path(sys.executable)
    python: Path = request.getfixturevalue("hub1_python")
    return python


@pytest.fixture(scope="session")
def hub_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment for huggingface_hub alone: no Xet, no telemetry, no proxy, own caches."""
    foreign = re.compile(r"HF_|HUGGING|\w*_proxy$", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not foreign.match(name)}
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {**kept, **quiet, "HF_HOME": str(tmp_path_factory.mktemp("hf-home"))}


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """Return a real Redis that all tests of the session share, one at a time."""
    found = binaries()
    assert found, NO_SERVER
    with Server(found[0]) as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a small model repo with every odd name that a file system allows."""
    return write_model_repo(tmp_path / "source")


@pytest.fixture
def hub(source: Path) -> Iterator[FaultyHub]:
    """Return a hub with that repo as org/model."""
    with FaultyHub({"models/org/model": source}) as hub:
        yield hub


@pytest.fixture
def fleet(tmp_path: Path, hub: FaultyHub, redis_server: Server) -> Iterator[Fleet]:
    """Return a fleet without workers yet, on an empty Redis."""
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    client.flushall()
    client.close()
    folder = tmp_path / "machine"
    folder.mkdir()
    fleet = Fleet(folder, redis_server.config.url.get_secret_value(), hub.endpoint)
    yield fleet
    fleet.close()
