"""A Redis with Sentinel: workers go on with the new master, and messages say what is missing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from distributed_downloader.config import RedisConfig
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.models import JobState
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from distributed_downloader.worker import WorkerNode
from tests.e2e.fleet import until
from tests.queue.base import spec_of
from tests.queue.relay import Relay
from tests.queue.steps import a_job, a_worker, files
from tests.queue.test_worker import AT_ONCE, Player
from tests.sentinels import SERVICE, Sentinels
from tests.servers import Binary, Server, free_port


@contextmanager
def connected(config: RedisConfig) -> Iterator[RedisClient]:
    client = RedisClient(config)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def working(client: RedisClient, player: Player) -> Iterator[WorkerNode]:
    """Run a worker, and stop it at the end: it must leave, so its claim must have been unblocked."""
    worker = WorkerNode(client, player, concurrency=2, policy=AT_ONCE)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()


def until_done(client: RedisClient, job: int) -> None:
    """Wait until a job is done, through whatever happens to Redis meanwhile."""

    def done() -> bool:
        try:
            return RedisView(client).job(job).state is JobState.DONE
        except RedisUnavailableError:
            return False

    until(done, f"the end of job {job}")


def test_a_worker_goes_on_with_the_new_master(binary: Binary, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    player = Player()
    with (
        Sentinels(binary) as sentinels,
        connected(sentinels.config) as master,
        connected(RedisConfig.model_validate({"url": sentinels.url})) as claiming,
        working(claiming, player),
    ):
        running, _ = master.create_job(spec_of(1), 1)
        assert master.submit(running, 0, [files(1)[0].model_copy(update={"path": "wait"})], "d")
        master.seal(running, 1)
        until(lambda: player.started, "the task that runs meanwhile")
        until_done(master, a_job(master, 20, spec=spec_of(2)))
        sentinels.until_replicated()

        dead = sentinels.kill_master()
        with pytest.raises(
            RedisUnavailableError, match=r"has lost its master: 127\.0\.0\.1:\d+ does not answer"
        ):
            master.check()
        sentinels.until_promoted(dead)
        until_done(master, a_job(master, 20, spec=spec_of(3)))

        sentinels.restart(dead)
        sentinels.fail_over()
        until_done(master, a_job(master, 20, spec=spec_of(4)))
        player.go.set()
        until_done(master, running)
    assert len(player.started) >= 61
    assert not player.stopped, "what ran was kept through both failovers"
    messages = [record.getMessage() for record in caplog.records]
    assert any(message.endswith("waiting for it") for message in messages)
    assert any("is back after" in message for message in messages)
    assert not [record for record in caplog.records if record.exc_info]


def test_what_is_missing_is_told_and_logins_work(binary: Binary) -> None:
    with Sentinels(binary, password="pw-1", sentinel_password="pw-2") as sentinels:
        good = {
            "sentinels": sentinels.addresses,
            "service": SERVICE,
            "password": "pw-1",
            "sentinel_password": "pw-2",
        }
        with connected(RedisConfig.model_validate(good)) as client:
            client.check()
            a_job(client)
        elsewhere = f"127.0.0.1:{free_port()}"
        for change, message in (
            ({"service": "other"}, r"its sentinels know no such service, check \[redis\] service"),
            ({"sentinels": elsewhere}, r"no sentinel answers, check \[redis\] sentinels"),
            (
                {"sentinels": f"127.0.0.1:{sentinels.master_port}", "sentinel_password": "pw-1"},
                "is no sentinel",
            ),
            ({"sentinel_password": ""}, "its sentinels want another login, check .* sentinel_password"),
            ({"sentinel_password": "no"}, "its sentinels want another login, check .* sentinel_password"),
            ({"password": ""}, r"wants a login: set \[redis\] username and password"),
            ({"password": "no"}, r"refuses the login"),
        ):
            with (
                connected(RedisConfig.model_validate(good | change)) as client,
                pytest.raises(RedisUnavailableError, match=message) as caught,
            ):
                client.check()
            assert str(caught.value).startswith(f"Redis at {change.get('service', SERVICE)}/0 (sentinels ")
            assert "pw" not in str(caught.value)
            assert len(str(caught.value)) <= 160
            assert "host" not in str(caught.value), "which plays no part here"
        with connected(
            RedisConfig.model_validate(good | {"sentinels": f"{elsewhere},{sentinels.addresses}"})
        ) as one:
            one.check()


def test_the_documented_right_is_enough_for_sentinels_with_users(binary: Binary) -> None:
    with Sentinels(binary) as sentinels:
        for sentinel in sentinels.sentinels:
            with sentinels.talk(sentinel) as talk:
                talk.acl_setuser("watcher", enabled=True, passwords=["+pw"], reset=True)
                talk.execute_command("ACL", "SETUSER", "watcher", "+sentinel|get-master-addr-by-name")
        login = {"sentinel_username": "watcher", "sentinel_password": "pw"}
        config = {"sentinels": sentinels.addresses, "service": SERVICE, **login}
        with connected(RedisConfig.model_validate(config)) as client:
            client.check()


def test_a_sentinel_that_is_behind_leads_nobody_to_a_replica(binary: Binary) -> None:
    """A sentinel that still names the old master, which is a replica by now, is not believed."""
    with Sentinels(binary) as sentinels, connected(sentinels.config) as client:
        port = sentinels.master_port
        with sentinels.talk(sentinels.master) as talk:
            talk.replicaof("127.0.0.1", sentinels.replica.port)
        with pytest.raises(RedisUnavailableError, match=f"127.0.0.1:{port} is a replica"):
            client.check()


# -- without Sentinel -----------------------------------------------------------------------------


def test_a_demoted_server_is_left_for_the_one_that_has_its_address_now(binary: Binary) -> None:
    """A name server or a router leads to the new primary, but connections that stand stay where they are."""
    with (
        Server(binary) as old,
        Server(binary) as new,
        Relay(old.socket) as relay,
        connected(RedisConfig.model_validate({"host": "127.0.0.1", "port": relay.port})) as client,
        connected(old.config) as admin,
    ):
        a_job(client)
        a_worker(client)
        raised: list[Exception] = []

        def claim() -> None:
            with pytest.raises(RedisUnavailableError, match="read-only replica") as caught:
                while True:
                    client.claim("w1", 30)
            raised.append(caught.value)

        claiming = threading.Thread(target=claim)
        claiming.start()
        until(lambda: admin.commands.info("clients")["blocked_clients"])
        relay.target = new.socket
        admin.commands.replicaof("127.0.0.1", str(free_port()))
        claiming.join()
        assert raised
        assert a_job(client) == 1, "the first job of the new one"
        a_worker(client)
        assert client.claim("w1", 1)


def test_a_claim_from_a_server_that_stays_a_replica_is_an_outage(
    binary: Binary, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers each time, and no next call will do: that is no wait that was cut off."""
    with (
        Server(binary) as server,
        Relay(server.socket) as relay,
        connected(RedisConfig.model_validate({"host": "127.0.0.1", "port": relay.port})) as client,
    ):
        outage = Outage(client.address)
        client.commands.replicaof("127.0.0.1", str(free_port()))
        for _ in range(2):
            with pytest.raises(RedisUnavailableError) as caught:
                client.claim("w1", 1)
            outage.note(caught.value)
        (line,) = caplog.messages
        assert "is a read-only replica" in line
        outage.over()
