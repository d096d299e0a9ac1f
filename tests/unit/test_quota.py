"""What a hub tells of the requests that it still allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.quota import LONGEST_WINDOW, HubBudget, Told, account, kind, spare, told

POLICY = '"fixed window";"resolvers";q=3000;w=300'


def headers(limit: str, policy: str = POLICY) -> dict[str, str]:
    return {"RateLimit": limit, "RateLimit-Policy": policy}


def test_what_the_hub_tells() -> None:
    heard = told(headers('"resolvers";r=2999;t=172'))
    assert heard == Told("resolvers", left=2999, quota=3000, seconds=173, window=300)


@pytest.mark.parametrize(
    ("limit", "policy"),
    [
        ("", POLICY),
        ('"resolvers";r=1;t=1', ""),
        ('"resolvers";r=1;t=1', POLICY.replace("resolvers", "api")),
        ("limit=100, remaining=50, reset=50", POLICY),
        ('"resolvers";r=-1;t=1', POLICY),
        ('"resolvers";r=1;t=301', POLICY),
        ('"resolvers";r=1;t=1', POLICY.replace("3000", "0")),
        ('"resolvers";r=1;t=1', POLICY.replace("300", "0")),
        ('"resolvers";r=1;t=1', f'"resolvers";q=3000;w={LONGEST_WINDOW + 1}'),
        ('"a b";r=1;t=1', POLICY.replace("resolvers", "a b")),
        (f'"{"a" * 33}";r=1;t=1', POLICY.replace("resolvers", "a" * 33)),
    ],
)
def test_what_makes_no_sense_tells_nothing(limit: str, policy: str) -> None:
    assert told(headers(limit, policy)) is None


def test_the_policy_of_the_bucket_counts() -> None:
    heard = told(headers('"api";r=5;t=1', f'{POLICY}, "fixed window";"api";q=1000;w=60'))
    assert heard == Told("api", left=5, quota=1000, seconds=2, window=60)


def test_never_more_is_left_than_there_was() -> None:
    heard = told(headers('"resolvers";r=9999;t=1'))
    assert heard
    assert heard.left == heard.quota == 3000


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_breaks_it(limit: str, policy: str) -> None:
    heard = told(headers(limit, policy))
    assert heard is None or 0 <= heard.left <= heard.quota


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/org/name/resolve/main/a.bin", "/resolve/"),
        ("/mirror/datasets/org/name/resolve/main/a.bin", "/resolve/"),
        ("/api/resolve-cache/models/org/name/0/a", "/api/resolve-cache/"),
        ("/api/models/org/name/tree/main", "/api/"),
        ("/org/name", ""),
    ],
)
def test_the_kinds_of_requests(path: str, found: str) -> None:
    assert kind(path) == found


def test_an_account_is_a_hub_and_a_token_or_else_a_host() -> None:
    names = {
        account(hub, token, host)
        for hub in ("http://a:80", "http://b:80")
        for token, host in (("hf_secret", "h1"), ("hf_other", "h1"), ("", "h1"), ("", "h2"))
    }
    assert len(names) == 8
    assert account("http://a:80", "hf_secret", "h1") == account("http://a:80", "hf_secret", "h2")
    assert all(len(name) == 16 and "secret" not in name for name in names)


@pytest.mark.parametrize(("quota", "left"), [(1, 0), (19, 0), (20, 1), (99, 1), (100, 2), (3000, 60)])
def test_a_fiftieth_is_spared_and_at_least_one_if_that_is_not_much(quota: int, left: int) -> None:
    assert spare(quota) == left


@pytest.mark.parametrize(("left", "scarce"), [(0, True), (19, True), (20, False), (100, False)])
def test_less_than_a_fifth_is_scarce(left: int, scarce: bool) -> None:
    assert HubBudget("http://hub", "api", left, 100, 10).scarce is scarce
