"""How RedisClient connects, logs in, survives what happens to a server, and says what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py

from distributed_downloader.config import RedisConfig
from distributed_downloader.errors import ConfigError, RedisUnavailableError
from distributed_downloader.models import Token
from distributed_downloader.queue_terms import Blind
from distributed_downloader.redis_client import Limits, RedisClient, Settled, Verdict
from distributed_downloader.redis_deliveries import RedisDeliveries
from distributed_downloader.redis_lua import lua_sources
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_view import RedisView
from tests.hub.tls import Certificate, self_signed
from tests.queue.base import complete, spec_of, status_of
from tests.queue.relay import Relay
from tests.queue.steps import NS, a_job, a_split_job, a_worker, about, failure, files, take
from tests.servers import Binary, Server, free_port

SECRET = "s3cret/p@ss:word"
QUOTED = "s3cret%2Fp%40ss%3Aword"


@contextmanager
def connected(**settings: object) -> Iterator[RedisClient]:
    client = RedisClient(RedisConfig.model_validate(settings))
    try:
        yield client
    finally:
        client.close()


def everything_once(client: RedisClient) -> None:
    """Use every method, so that every command that the product sends is sent."""
    client.check()
    job = a_job(client, 6)
    client.listed(job)
    a_worker(client)
    client.beat("w1", "h1")
    client.report(status_of("w1", 1))
    done, failed, parked, back, _ = (str(take(client).token) for _ in range(5))
    assert complete(client, "w1", done, 0, "h1") is Settled.DONE
    assert client.fail("w1", failed, failure(), None) is Verdict.BURIED
    client.fail("w1", parked, failure(), 0, parked_for=60)
    client.release("w1", [back])
    client.commands.delete(f"{NS}tick")
    client.tick()
    assert client.home("w1", "h1")
    client.hold("http://hub", 60)
    view = RedisView(client)
    assert len(view.jobs()) == len(view.find("org/repo1")) == len(view.workers()) == view.queue().workers == 1
    assert len(list(view.files(job))) == 6
    assert len(list(view.files(job, failed_only=True))) == len(view.failures(job)) == 1
    for verb in ("pause", "resume", "retry", "cancel"):
        assert client.control(verb, job)
    client.unblock()
    everything_of_parts_once(client)
    client.leave("w1")
    client.tick()
    assert client.forget(job)


def everything_of_parts_once(client: RedisClient) -> None:
    """Split a file, let its tail be taken, seal it and bring it to the NAS."""
    parts, deliveries = RedisParts(client), RedisDeliveries(client)
    job, tasks = a_split_job(client, spec=spec_of(2))
    client.whole(job, "just so")
    assert len(parts.fleet()) == 1
    blind, first = (str(task.token) for task in tasks)
    assert parts.progress("w1", {first: (0, 1.0)}) == {first: 50_000_000}
    assert parts.blind("w1", blind, "nothing there") is Blind.ASLEEP
    a_worker(client)  # which rouses the job
    again = str(take(client).token)
    tail = parts.steal("w1", 0)
    assert tail.token
    assert complete(client, "w1", first, 0, "h1") is Settled.SEALER
    for token in (again, tail.token):
        assert complete(client, "w1", token, 0, "h1") in (Settled.DONE, Settled.SEALER)
    found = parts.of_file("w1", job, 0, 0)
    assert found
    assert complete(client, "w1", found.token, 0, "h1", owes="ab12 /data") is Settled.DONE
    assert deliveries.folders() == {"ab12": "/data"}
    (owed,) = deliveries.take_owed("ab12", 5, 60, ended_only=True)
    deliveries.keep_owed("ab12", [owed.token], 60)
    assert deliveries.delivered("ab12", owed.token)
    assert client.forget(job)


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "localhost:6379/0"),
        ({"host": "r.example", "port": 7000, "db": 3}, "r.example:7000/3"),
        ({"host": "::1"}, "::1:6379/0"),
        ({"url": f"redis://me:{QUOTED}@r.example:7000/2"}, "r.example:7000/2"),
        ({"url": "rediss://r.example", "db": 4}, "r.example:6379/4"),
        ({"url": "unix:///run/redis.sock?db=5"}, "/run/redis.sock/5"),
        ({"host": "ignored", "url": "redis://r.example"}, "r.example:6379/0"),
    ],
)
def test_the_address_for_messages_has_no_secrets(settings: dict[str, object], address: str) -> None:
    with connected(**settings) as client:
        assert client.address == address


@pytest.mark.parametrize("url", [f"redis://:{QUOTED}@host:port/0", "redis://host:99999/0", "redis://[::1/0"])
def test_a_bad_url_is_a_config_error_without_the_url(url: str) -> None:
    config = RedisConfig.model_construct(**{**RedisConfig().__dict__, "url": type(RedisConfig().url)(url)})
    with pytest.raises(ConfigError) as caught:
        RedisClient(config)
    assert "[redis] url" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_tcp_port_and_a_database_of_our_own(binary: Binary) -> None:
    with Server(binary, port=free_port()) as server:
        where = {"host": "127.0.0.1", "port": server.port}
        with connected(**where, db=7) as seven, connected(url=f"redis://127.0.0.1:{server.port}") as zero:
            assert a_job(seven) == a_job(zero) == 1
            everything_once_in = RedisView(seven)
            assert len(everything_once_in.jobs()) == 1
            seven.forget(1)
            assert len(RedisView(zero).jobs()) == 1


# -- logins ---------------------------------------------------------------------------------------


def test_a_password(binary: Binary) -> None:
    with Server(binary, port=free_port(), settings={"requirepass": SECRET}) as server:
        unix = f"unix://{server.socket}"
        for settings in (
            {"url": unix, "password": SECRET},
            {"host": "127.0.0.1", "port": server.port, "password": SECRET},
            {"url": f"redis://:{QUOTED}@127.0.0.1:{server.port}/0"},
            {"url": f"redis://default:{QUOTED}@127.0.0.1:{server.port}/0", "password": "overruled"},
        ):
            with connected(**settings) as client:
                everything_once(client)
        for settings in (
            {"url": unix},
            {"url": unix, "password": "wrong"},
            {"url": unix, "username": "nobody", "password": SECRET},
        ):
            with connected(**settings) as client, pytest.raises(RedisUnavailableError) as caught:
                client.check()
            assert "[redis] username and password (REDIS_USERNAME, REDIS_PASSWORD)" in str(caught.value)
            assert SECRET not in str(caught.value)


def test_a_user_without_the_rights_is_told_where_the_rule_is(binary: Binary) -> None:
    with Server(binary) as server:
        admin: Any = redis_py.Redis(unix_socket_path=str(server.socket))
        admin.execute_command(
            "ACL", "SETUSER", "poor", "on", f">{SECRET}", "+ping", "+evalsha", "+script|load", "~*"
        )
        with connected(url=f"unix://{server.socket}", username="poor", password=SECRET) as client:
            for call in (client.check, client.tick, lambda: client.listed(1)):
                with pytest.raises(RedisUnavailableError, match=r"docs/operations\.md has the ACL rule"):
                    call()
        admin.close()


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


def test_tls_with_our_own_authority(client: RedisClient, server: Server, certificate: Certificate) -> None:
    with Relay(server.socket, certificate.server()) as relay:
        for settings in (
            {"url": f"rediss://127.0.0.1:{relay.port}/0"},
            {"host": "127.0.0.1", "port": relay.port, "tls": True},
        ):
            with connected(**settings, ca_certs=str(certificate.cert)) as encrypted:
                everything_once(encrypted)


def test_a_certificate_that_cannot_be_checked_is_refused(
    redis: redis_py.Redis, server: Server, certificate: Certificate, tmp_path: Path
) -> None:
    other = self_signed(tmp_path, ("somewhere.else",))
    with (
        Relay(server.socket, certificate.server()) as relay,
        Relay(server.socket, other.server()) as misnamed,
    ):
        address = f"rediss://127.0.0.1:{relay.port}/0"
        for settings in (
            {"url": address},
            {"url": address, "ca_certs": str(other.cert)},
            {"url": f"rediss://127.0.0.1:{misnamed.port}/0", "ca_certs": str(other.cert)},
        ):
            with (
                connected(**settings) as client,
                pytest.raises(RedisUnavailableError, match=r"\[redis\] ca_certs"),
            ):
                client.check()


# -- servers that come and go ---------------------------------------------------------------------


def test_nobody_there(tmp_path: Path) -> None:
    for settings in ({"host": "127.0.0.1", "port": free_port()}, {"url": f"unix://{tmp_path}/none"}):
        with connected(**settings) as client:
            for call in (
                client.check,
                client.tick,
                lambda: client.claim("w1", 1),
                lambda: RedisView(client).jobs(),
            ):
                with pytest.raises(RedisUnavailableError, match=r"is it running, and (are|is) \[redis\]"):
                    call()


def test_a_restart_is_survived_with_everything_that_was_written(binary: Binary) -> None:
    with (
        Server(binary, settings={"appendonly": "yes", "appendfsync": "always"}) as server,
        connected(url=f"unix://{server.socket}") as client,
    ):
        assert client.check() == []
        a_job(client, 5)
        a_worker(client)
        token = str(take(client).token)
        server.stop()
        for call in (client.tick, lambda: client.claim("w1", 1), lambda: RedisView(client).queue()):
            with pytest.raises(RedisUnavailableError):
                call()
        server.start()
        beat = client.beat("w1", "h1")
        assert beat
        assert list(beat.tokens) == [token]
        assert complete(client, "w1", token, 0, "h1") is Settled.DONE
        assert take(client).token.task == 1


def test_a_claim_that_is_cut_off_says_so_and_the_next_one_works(
    client: RedisClient, redis: redis_py.Redis, server: Server
) -> None:
    with Relay(server.socket) as relay, connected(host="127.0.0.1", port=relay.port) as worker:
        a_worker(worker)
        outcome: list[Exception] = []

        def claim() -> None:
            try:
                worker.claim("w1", 30)
            except RedisUnavailableError as error:
                outcome.append(error)

        waiting = threading.Thread(target=claim)
        waiting.start()
        until_blocked(redis)
        relay.cut()
        waiting.join()
        assert outcome
        a_job(client, 1)
        assert take(worker)


def test_scripts_are_loaded_again_when_redis_lost_them(client: RedisClient, redis: redis_py.Redis) -> None:
    a_job(client, 2)
    a_worker(client)
    redis.script_flush()
    token = client.claim("w1", 1)
    redis.script_flush()
    assert client.begin("w1", str(token))
    redis.script_flush()
    assert complete(client, "w1", str(token), 0, "h1") is Settled.DONE


def test_calls_whose_reply_is_lost_are_sent_again_and_count_once(
    client: RedisClient, redis: redis_py.Redis, server: Server
) -> None:
    """Real sockets: Redis carries the script out, the connection breaks, redis-py sends it again."""
    with Relay(server.socket) as relay, connected(host="127.0.0.1", port=relay.port) as shaky:
        for text in lua_sources().values():
            redis.script_load(text)
        shaky.tick()

        def lossy() -> RedisClient:
            relay.lose_replies(1)
            return shaky

        assert lossy().create_job(spec_of(1), 1) == (1, False), "made by the first, found by the second"
        assert not lossy().submit(1, 0, files(4), "d"), "taken by the first"
        assert client.listed(1) == (4, "d", False)
        assert lossy().seal(1, 4)
        lossy().register(status_of("w1", 1))
        one, two, three = (str(client.claim("w1", 1)) for _ in range(3))
        task = lossy().begin("w1", one)
        assert task
        assert complete(lossy(), "w1", one, 0, "h1") is Settled.ALREADY_DONE
        assert lossy().fail("w1", two, failure(), 60.0) is Verdict.STALE
        assert lossy().release("w1", [three]) == 0
        assert lossy().control("pause", 1)
        found = about(client, 1)
        assert [found[name] for name in ("done", "delayed", "pending", "out")] == ["1", "1", "2", "0"]
        assert redis.hget(f"{NS}job:1:tries", "1") == "1"


# -- claims ---------------------------------------------------------------------------------------


def until_blocked(redis_client: redis_py.Redis) -> None:
    """Wait until Redis has a client that waits in BRPOPLPUSH."""
    while not redis_client.info("clients")["blocked_clients"]:
        pass


def test_a_waiting_claim_gets_the_task_when_it_comes(client: RedisClient, redis: redis_py.Redis) -> None:
    a_worker(client)
    got: list[str | None] = []
    waiting = threading.Thread(target=lambda: got.append(client.claim("w1", 30)))
    waiting.start()
    until_blocked(redis)
    a_job(client, 1)
    waiting.join()
    assert [Token.parse(token or "")[:2] for token in got] == [(1, 0)]


def test_one_task_wakes_one_of_many(client: RedisClient, redis: redis_py.Redis, server: Server) -> None:
    clients = [RedisClient(server.config) for _ in range(4)]
    got: list[str | None] = []
    threads = []
    for n, each in enumerate(clients):
        a_worker(each, f"w{n}")
        threads.append(threading.Thread(target=lambda each=each, n=n: got.append(each.claim(f"w{n}", 30))))
        threads[-1].start()
    while redis.info("clients")["blocked_clients"] != 4:
        pass
    a_job(client, 1)
    while not got:
        pass
    assert redis.info("clients")["blocked_clients"] == 3
    for each in clients:
        each.unblock()
    for thread, each in zip(threads, clients, strict=True):
        thread.join()
        each.close()
    assert [Token.parse(token)[:2] for token in got if token] == [(1, 0)]
    assert len(got) == 4


def test_unblock_ends_a_claim_at_once_and_does_no_harm_otherwise(
    client: RedisClient, redis: redis_py.Redis
) -> None:
    client.unblock()
    a_worker(client)
    got: list[str | None] = []
    waiting = threading.Thread(target=lambda: got.append(client.claim("w1", 600)))
    waiting.start()
    until_blocked(redis)
    client.unblock()
    waiting.join()
    assert got == [None]
    client.unblock()
    a_job(client, 1)
    assert Token.parse(client.claim("w1", 1) or "")[:2] == (1, 0)


def test_nothing_comes(client: RedisClient) -> None:
    a_worker(client)
    assert client.claim("w1", 1) is None
    assert client.claim("w1", 0) is None, "0 would be for ever"


# -- what is checked at the start -----------------------------------------------------------------


def test_a_server_that_may_lose_the_queue_is_warned_about(binary: Binary) -> None:
    with (
        Server(binary, settings={"maxmemory-policy": "allkeys-lru"}) as server,
        connected(url=f"unix://{server.socket}") as client,
    ):
        eviction, persistence = client.check()
    assert "maxmemory-policy is allkeys-lru): set it to noeviction" in eviction
    assert "set appendonly to yes" in persistence


def test_a_full_server_says_so(binary: Binary) -> None:
    with (
        Server(binary, settings={"maxmemory": "1mb"}) as server,
        connected(url=f"unix://{server.socket}") as client,
        pytest.raises(RedisUnavailableError, match="raise its maxmemory"),
    ):
        a_job(client, 1_000_000)


def test_a_replica_is_refused_as_one(binary: Binary) -> None:
    with (
        Server(binary, settings={"replicaof": f"127.0.0.1 {free_port()}"}) as server,
        connected(url=f"unix://{server.socket}") as client,
        pytest.raises(RedisUnavailableError, match="primary"),
    ):
        a_job(client)


def test_limits_can_be_shortened(server: Server, redis: redis_py.Redis) -> None:
    client = RedisClient(server.config, limits=Limits(lease=1.5, tick=0))
    a_worker(client)
    (worker,) = RedisView(client).workers()
    assert 0 < worker.lease <= 1.5
    client.close()


def test_two_namespaces_share_a_server(server: Server, redis: redis_py.Redis) -> None:
    clients = [RedisClient(server.config, namespace=name) for name in ("{one}:", "{two}:")]
    for n, client in enumerate(clients):
        assert a_job(client, n + 1) == 1
        a_worker(client)
        assert take(client)
    assert [RedisView(client).job(1).total for client in clients] == [1, 2]
    assert all(key.startswith(("{one}:", "{two}:")) for key in map(str, redis.keys("*")))
    for client in clients:
        client.close()
