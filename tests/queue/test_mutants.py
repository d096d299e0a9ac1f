"""Do the random histories bite? Every deliberate bug in the Lua must be found, within few schedules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as redis_py

from distributed_downloader.redis_lua import lua_sources
from tests.queue.choices import Seeded
from tests.queue.mutants import MUTANTS, Mutant
from tests.queue.world import run
from tests.servers import NO_SERVER, Server, binaries

SCHEDULES = 150
STEPS = 120


@pytest.fixture(scope="module")
def one_redis() -> Iterator[redis_py.Redis]:
    """One server is enough: the question is about the test, not about the server."""
    found = binaries()
    if not found:
        pytest.fail(NO_SERVER)
    # Small hashes are read in one go then: elsewhere, how much HSCAN returns at once is a matter of luck.
    with Server(found[0], settings={"hash-max-ziplist-value": "1000"}) as server:
        options = {"decode_responses": True, "encoding_errors": "surrogateescape", "protocol": 2}
        client = redis_py.Redis(unix_socket_path=str(server.socket), **options)  # type: ignore[arg-type]
        yield client
        client.close()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_bug_is_found(one_redis: redis_py.Redis, mutant: Mutant) -> None:
    sources = mutant.applied_to(lua_sources())
    for seed in dict.fromkeys((mutant.seed, *range(SCHEDULES))):
        try:
            run(one_redis, Seeded(seed), STEPS, sources)
        except AssertionError:
            return
    pytest.fail(f"{SCHEDULES} schedules did not find that {mutant.name}")


def test_a_mutant_needs_its_line() -> None:
    with pytest.raises(ValueError, match=r"beat\.lua does not have exactly one 'no such line'"):
        Mutant("gone", "beat", "no such line", "").applied_to(lua_sources())
