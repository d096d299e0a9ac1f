"""Twenty workers with one token, and a hub that counts their requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count

import pytest
import redis

from distributed_downloader.budget import Budgets
from distributed_downloader.cancel import Cancel
from distributed_downloader.cli.app import App
from distributed_downloader.config import HuggingFaceConfig
from distributed_downloader.local_hub import LocalHub
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.quota import spare, told
from distributed_downloader.redis_budgets import RedisBudgets
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.standalone import one_budget
from tests.e2e.fleet import Fleet, tree, until
from tests.hub.synthetic import SyntheticSnapshot
from tests.queue.base import status_of
from tests.servers import Server

WORKERS, QUOTA, WINDOW = 20, 120, 5
TOKEN, HUB = "hf_shared_by_all", "http://hub:80"
FILES = SyntheticSnapshot(QUOTA * 3)


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    """A hub that allows an account few requests."""
    repos = {"models/org/name": LocalRepo(FILES)}
    quotas = {"resolvers": QUOTA}
    with LocalHub(repos, tokens=[TOKEN], quotas=quotas, window_seconds=WINDOW) as hub:
        yield hub


@pytest.fixture
def url(redis_server: Server) -> str:
    """An empty Redis."""
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    client.flushall()
    client.close()
    return redis_server.config.url.get_secret_value()


def windows(hub: LocalHub) -> list[Counter[int]]:
    """Return how many requests had which status, window by window."""
    found: list[Counter[int]] = []
    before = -1
    for record in hub.log.records(route="resolve"):
        heard = told(record.reply.headers)
        assert heard
        if record.reply.status != 429 and heard.left > before:  # answers may overtake each other by a few
            found += [Counter()] if heard.left - before > QUOTA / 2 or not found else []
        before = heard.left
        found[-1][record.reply.status] += 1
    return found


def test_twenty_workers_use_all_that_is_allowed_and_no_more(
    hub: LocalHub, redis_server: Server, url: str
) -> None:
    settings = HuggingFaceConfig.model_validate({"endpoint": hub.endpoint, "token": TOKEN})
    numbers = count()
    with ExitStack() as stack:
        clients = []
        for number in range(WORKERS):
            client = RedisClient(redis_server.config)
            client.register(status_of(f"w{number}", 2))
            stack.callback(client.close)
            http = HttpClient(settings, budgets=Budgets(RedisBudgets(client)))
            stack.callback(http.close)
            clients.append(http)

        def work(http: HttpClient) -> None:
            while (number := next(numbers)) < QUOTA * 4:
                path = FILES[number % len(FILES)].path
                http.open("GET", f"{hub.endpoint}/org/name/resolve/main/{path}", cancel=Cancel()).close()

        with ThreadPoolExecutor(2 * WORKERS) as pool:
            for done in [pool.submit(work, http) for http in clients * 2]:
                done.result()
    first, *full, _near_the_end, _last = windows(hub)  # where some have nothing to ask for any more
    assert len(full) >= 2, windows(hub)
    assert all(each[429] == 0 for each in full), full
    assert all(sum(each.values()) >= 0.95 * QUOTA for each in full), (first, full)
    assert all(sum(each.values()) <= QUOTA - spare(QUOTA) + 2 for each in full), full


def test_a_download_lists_and_fetches_out_of_one_budget(redis_server: Server, url: str) -> None:
    app, asked = App(None, {}), f"{HUB}/api/models/org/name"
    headers = {"RateLimit": '"api";r=50;t=60', "RateLimit-Policy": '"fixed window";"api";q=100;w=60'}
    with one_budget(app, url), closing(RedisClient(redis_server.config)) as worker:
        app.budgets.learn(asked, "", headers)
        assert app.budgets.take(asked, "", Cancel())
        (found,) = RedisBudgets(worker).all()
        assert (found.endpoint, found.bucket, found.left) == (HUB, "api", 48)


def test_a_fleet_waits_for_the_hub_and_says_so(hub: LocalHub, url: str, fleet: Fleet) -> None:
    fleet.endpoint = hub.endpoint
    for _ in range(2):
        fleet.worker(HF_TOKEN=TOKEN)
    job = fleet.queue("org/name")

    def told_of() -> bool:
        with fleet.view() as view:
            return bool(view.budgets([view.job(job)]))

    until(told_of, "a budget that is nearly used up")
    fleet.until_ended(job)
    assert not any(record.reply.status == 429 for record in hub.log.records(route="resolve"))
    found = tree(fleet.folder / "downloads" / "org" / "name")
    assert found == {entry.path: FILES.content(entry.path) for entry in FILES}
