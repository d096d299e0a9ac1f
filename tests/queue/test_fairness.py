"""I12: with work in all of them, jobs share the fleet as their weights say."""

from __future__ import annotations

from collections import Counter

import pytest

from distributed_downloader.redis_client import RedisClient
from tests.queue.base import spec_of
from tests.queue.steps import a_job, a_worker, files, take

#: What a fleet of one slot has lying ready.
WINDOW = 8


def shares(client: RedisClient, claims: int) -> Counter[int]:
    """Return how many of the next tasks came from which job."""
    return Counter(take(client).token.job for _ in range(claims))


@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 4), (1, 10, 100), (3,), (5, 1, 1, 1, 1, 1)])
def test_claims_follow_the_weights(client: RedisClient, weights: tuple[int, ...]) -> None:
    a_worker(client)
    jobs = [a_job(client, 700, spec=spec_of(n), weight=weight) for n, weight in enumerate(weights)]
    claims = 600
    got = shares(client, claims)
    for job, weight in zip(jobs, weights, strict=True):
        fair = claims * weight / sum(weights)
        assert abs(got[job] - fair) <= WINDOW + len(jobs), (got, weight)


def test_a_newcomer_waits_for_one_window_at_most(client: RedisClient) -> None:
    a_worker(client)
    a_job(client, 3000, spec=spec_of(1))
    shares(client, 1000)
    new = a_job(client, 100, spec=spec_of(2))
    assert shares(client, WINDOW + 2)[new] > 0


def test_a_newcomer_does_not_catch_up_on_what_others_had(client: RedisClient) -> None:
    a_worker(client)
    old = a_job(client, 2000, spec=spec_of(1))
    shares(client, 1000)
    a_job(client, 1000, spec=spec_of(2))
    shares(client, WINDOW)
    assert shares(client, 400)[old] >= 200 - WINDOW - 2


def test_a_job_that_was_idle_while_another_came_is_not_kept_waiting(client: RedisClient) -> None:
    """Its virtual time stood far ahead; so does that of whoever comes when nobody else is there."""
    a_worker(client)
    old = a_job(client, 1000, spec=spec_of(1), seal=False)
    shares(client, 1000)
    a_job(client, 3000, spec=spec_of(2))
    shares(client, WINDOW)
    for first in (1000, 2000):
        assert client.submit(old, first, files(1000, first), "d")
    shares(client, WINDOW)
    assert shares(client, 400)[old] >= 200 - WINDOW - 2


def test_a_new_weight_counts_from_now_on(client: RedisClient) -> None:
    a_worker(client)
    one, two = (a_job(client, 2000, spec=spec_of(n)) for n in (1, 2))
    shares(client, 500)
    client.create_job(spec_of(2), 9)
    shares(client, WINDOW)
    got = shares(client, 500)
    assert abs(got[one] - 50) <= WINDOW + 2
    assert abs(got[two] - 450) <= WINDOW + 2


def test_a_paused_job_leaves_its_share_to_the_others(client: RedisClient) -> None:
    a_worker(client)
    one, two = (a_job(client, 1000, spec=spec_of(n)) for n in (1, 2))
    client.control("pause", one)
    assert shares(client, 300) == {two: 300}
    client.control("resume", one)
    shares(client, WINDOW)
    assert shares(client, 200)[one] >= 100 - WINDOW - 2


def test_inside_a_job_the_order_of_the_listing_holds(client: RedisClient) -> None:
    a_worker(client)
    a_job(client, 300)
    order = [take(client).token.task for _ in range(100)]
    client.control("pause", 1)
    client.control("resume", 1)
    order += [take(client).token.task for _ in range(200)]
    assert order == list(range(300))


def test_what_a_worker_gives_back_is_next_of_all(client: RedisClient) -> None:
    a_worker(client)
    job = a_job(client, 200)
    first = take(client).token
    a_job(client, 10, spec=spec_of(2), weight=100)
    client.release("w1", [str(first)])
    again = take(client).token
    assert again[:2] == (job, first.task)
    assert again.epoch > first.epoch
