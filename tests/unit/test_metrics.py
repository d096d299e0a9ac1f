"""The figures for Prometheus: their names, their words, and the server that gives them."""

from __future__ import annotations

import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from distributed_downloader.cli import cli
from distributed_downloader.errors import RedisUnavailableError, UsageError
from distributed_downloader.metrics_server import FleetCollector, parse_address, serving
from distributed_downloader.models import JobState
from distributed_downloader.outage import Outage
from distributed_downloader.redis_metrics import FleetMetrics
from tests.unit import looking_on

EVIL_HUB = 'https://hub.example/"a\\b'


class Source:
    """Plays the Redis that is read."""

    def __init__(self) -> None:
        job = looking_on.job(active=1)
        flying = looking_on.transfer(size=1000, at=0.5, bytes_per_second=100.0)
        self.error: Exception | None = None
        self.found = FleetMetrics(
            jobs=[job, looking_on.done(4, "org/other")],
            workers=[looking_on.worker("a", flying), looking_on.worker("b", trouble="full")],
            queue=looking_on.queue(pauses={EVIL_HUB: 12.5}),
            failed_tries={3: {"stalled": 2, "lost": 1}, 4: {}},
            ages={3: 60.0},
            age=60.0,
        )

    def look(self) -> FleetMetrics:
        if self.error:
            raise self.error
        return self.found


@contextmanager
def served(source: Source, address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[str]:
    with serving(address, FleetCollector(source, Outage("here"))) as url:  # type: ignore[arg-type]
        yield url


def ask(url: str, **headers: str) -> Any:  # noqa: ANN401 a response of urllib
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return (name, *values of the labels, by name) -> value."""
    return {
        (each.name.removeprefix("hf_downloader_"), *dict(sorted(each.labels.items())).values()): each.value
        for family in plain(text)
        for each in family.samples
    }


def test_the_figures_of_a_fleet() -> None:
    with served(Source()) as url:
        found = samples(ask(url).read().decode())
    wanted = {
        ("redis_up",): 1,
        ("workers", "well"): 1,
        ("workers", "troubled"): 1,
        ("slots",): 8,
        ("transfers",): 1,
        ("transfers_bytes_per_second",): 100,
        ("queue_tasks", "ready"): 120,
        ("queue_age_seconds",): 60,
        ("hub_pause_seconds", EVIL_HUB): 12.5,
        ("jobs", "running"): 2,
        ("jobs", "failed"): 0,
        ("job_state", "3", "org/name", "running"): 1,
        ("job_state", "3", "org/name", "done"): 0,
        ("job_tasks", "3", "org/name", "done"): 12,
        ("job_done_bytes", "3", "org/name"): 6_800_000_000,
        ("job_present_bytes", "3", "org/name"): 6_800_000_500,
        ("job_rate_bytes_per_second", "3", "org/name"): 100,
        ("job_queue_age_seconds", "3", "org/name"): 60,
        ("job_failed_tries_total", "3", "stalled", "org/name"): 2,
        ("job_failed_tries_total", "3", "lost", "org/name"): 1,
        ("job_ended_timestamp_seconds", "4", "org/other"): 1_003_600,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert sum(found["job_state", "4", "org/other", state.value] for state in JobState) == 1


def test_it_is_what_prometheus_reads_in_both_its_formats() -> None:
    with served(Source()) as url:
        answer = ask(url, Accept="application/openmetrics-text; version=1.0.0")
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        strict = {family.name: family.type for family in openmetrics(answer.read().decode())}  # type: ignore[no-untyped-call]
        loose = {family.name for family in plain(ask(url).read().decode())}
    assert {*strict} == loose
    assert {name for name, kind in strict.items() if kind == "counter"} == {"hf_downloader_job_failed_tries"}
    assert all(name.startswith("hf_downloader_") for name in strict)


def test_without_redis_it_says_so_and_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.error = RedisUnavailableError("Redis at here is gone")
    with caplog.at_level(logging.INFO), served(source) as url:
        for _ in range(2):
            assert samples(ask(url).read().decode()) == {("redis_up",): 0}
        source.error = None
        assert samples(ask(url).read().decode())["redis_up",] == 1
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_what_nobody_expected_is_one_line_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Source()
    source.error = ZeroDivisionError("oh")
    with caplog.at_level(logging.INFO), served(source) as url:
        with pytest.raises(OSError, match="closed connection"):
            ask(url)
        source.error = None
        assert ask(url).status == 200
    (line,) = caplog.messages
    assert "metrics" in line
    assert "oh" in line
    assert capsys.readouterr().err == ""


def test_who_asks_and_leaves_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with served(Source()) as url:
        port = int(url.split(":")[2].split("/")[0])
        for words in (b"", b"GET /metrics HTTP/1.0\r\n\r\n", b"\x00\xff\r\n\r\n", b"POST / HTTP/1.0\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(words)
        assert ask(url).status == 200
    assert caplog.messages == []


@pytest.mark.parametrize("host", ["", "::1", "127.0.0.1"])
def test_it_listens_where_it_is_told_to(host: str) -> None:
    with served(Source(), (host, 0)) as url:
        port = url.rpartition(":")[2]
        for address in {"": ["127.0.0.1", "[::1]"], "::1": ["[::1]"]}.get(host, [host]):
            assert ask(f"http://{address}:{port}").status == 200


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9109", ("", 9109)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:9109", ("::1", 9109)),
        ("head-node:65535", ("head-node", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["9109", "", ":", "a:b", ":65536", "::1:9109", "http://a:1", "a:1 ", "a:1/x"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        parse_address(text)
    result = CliRunner().invoke(cli, ["metrics", "--listen", text])
    assert result.exit_code == 2
    assert "is no address" in result.output


def test_where_nobody_can_listen_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=rf"--listen 127.0.0.1:{port}: nobody can listen there: address .* in use$"
        ):
            serving(("127.0.0.1", port), FleetCollector(Source(), Outage("here"))).__enter__()  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nobody can listen there"):
        serving(("no.such.host.invalid", 1), FleetCollector(Source(), Outage("here"))).__enter__()  # type: ignore[arg-type]
