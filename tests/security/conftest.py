"""Hubs of which one is ours, a Redis of the test's own, and nothing of this machine's network settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.e2e.conftest import redis_server
from tests.hub.faulty import FaultyHub
from tests.hub.sample import write_files
from tests.net.conftest import _own_network as own_network
from tests.security.kit import FILES, TOKEN, Machine
from tests.servers import Server

__all__ = ["own_network", "redis_server"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a repo of a few files."""
    write_files(tmp_path / "source", FILES)
    return tmp_path / "source"


@pytest.fixture
def hub(source: Path) -> Iterator[FaultyHub]:
    """Return the hub that the worker is set up for; it wants the token."""
    names = ("models/org/name", "datasets/org/name", "models/else/name")
    repos = dict.fromkeys(names, source)
    with FaultyHub(repos, tokens=[TOKEN]) as hub:
        yield hub


@pytest.fixture
def stranger(source: Path) -> Iterator[FaultyHub]:
    """Return a hub that nobody has set up, with the same repo."""
    with FaultyHub({"models/org/name": source}) as hub:
        yield hub


@pytest.fixture
def machine(tmp_path: Path, hub: FaultyHub, redis_server: Server) -> Iterator[Machine]:
    """Return a machine with an empty queue."""
    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.flushall()
    machine = Machine(tmp_path, hub, redis_server.config)
    yield machine
    machine.close()
