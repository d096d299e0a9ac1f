"""Every test of the queue runs on every real server that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as redis_py

from distributed_downloader.redis_client import RedisClient
from tests.servers import NO_SERVER, Binary, Server, binaries

_BINARIES: list[Binary | None] = [*binaries()] or [None]


@pytest.fixture(scope="session", params=_BINARIES, ids=lambda binary: binary.name if binary else "no-server")
def binary(request: pytest.FixtureRequest) -> Binary:
    """One server program after the other."""
    if request.param is None:
        pytest.fail(NO_SERVER)
    assert isinstance(request.param, Binary)
    return request.param


@pytest.fixture(scope="session")
def server(binary: Binary) -> Iterator[Server]:
    """A running server, shared by the tests."""
    with Server(binary) as running:
        yield running


@pytest.fixture
def redis(server: Server) -> Iterator[redis_py.Redis]:
    """An empty Redis."""
    client = redis_py.Redis(
        unix_socket_path=str(server.socket),
        decode_responses=True,
        encoding_errors="surrogateescape",
        protocol=2,
    )
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def client(server: Server, redis: redis_py.Redis) -> Iterator[RedisClient]:
    """The product's own connection to the empty Redis."""
    connected = RedisClient(server.config)
    yield connected
    connected.close()
