"""How values are written."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.config import parse_bytes, parse_size
from distributed_downloader.config.sentinels import SentinelUrl, parse_sentinel_url, sentinel_addresses
from distributed_downloader.config.sources import decided_by
from distributed_downloader.config.values import redact, write_bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0MB/s", 0),
        ("1", 1),
        ("500", 500),
        ("500B", 500),
        ("500k", 500_000),
        ("500kB/s", 500_000),
        ("500kb", 500_000),
        ("500K", 500_000),
        ("1KiB", 1024),
        ("10MB/s", 10_000_000),
        ("10mb/s", 10_000_000),
        ("10MBps", 10_000_000),
        ("10 MB/s", 10_000_000),
        (" 10MB ", 10_000_000),
        ("10M", 10_000_000),
        ("1.5MiB/s", 1_572_864),
        ("1 MiB", 1_048_576),
        ("1Mi", 1_048_576),
        ("2G", 2_000_000_000),
        ("1GiB", 2**30),
        ("1TB", 10**12),
        ("1TiB", 2**40),
        ("0.1", 1),
    ],
)
def test_parse_bytes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MB",
        "fast",
        "-1",
        "1e6",
        "10 M B",
        "10MB/h",
        "1,5MB",
        "0x10",
        "10Mbit",
        "1 PB",
        "\u0661",
        "inf",
        "10i",
    ],
)
def test_what_is_no_number_of_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number of bytes"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["10Mb/s", "1Gb", "5Kb", "5Mib"])
def test_bits_are_refused_for_they_would_be_eight_times_as_much(text: str) -> None:
    with pytest.raises(ValueError, match="would mean bits, write"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "value"), [("128MiB", 2**27), (" 1.5 GB ", 1_500_000_000), ("0", 0)])
def test_parse_size(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "big", "-1", "10MB/s", "10MBps"])
def test_a_size_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number of bytes such as 128MiB, "):
        parse_size(text)


@given(st.integers(min_value=0, max_value=10**15))
def test_plain_numbers_are_themselves(number: int) -> None:
    assert parse_bytes(str(number)) == number


@given(
    st.integers(min_value=1, max_value=9999),
    st.sampled_from("kMGT"),
    st.sampled_from(["", "B", "B/s", "/s"]),
    st.sampled_from(["", " "]),
)
def test_binary_prefixes_are_larger_than_decimal_ones(number: int, prefix: str, unit: str, gap: str) -> None:
    decimal, binary = (
        parse_bytes(f"{number}{gap}{prefix}{unit}"),
        parse_bytes(f"{number}{gap}{prefix}i{unit}"),
    )
    power = "kMGT".index(prefix) + 1
    assert decimal == number * 1000**power
    assert binary == number * 1024**power


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (1, "1"),
        (1000, "1KB"),
        (1024, "1KiB"),
        (10_000_000, "10MB"),
        (2**27, "128MiB"),
        (2**30, "1GiB"),
        (3 * 2**29, "1536MiB"),
        (2**40, "1TiB"),
        (123_457, "123457"),
    ],
)
def test_amounts_are_written_with_the_unit_that_makes_them_short(count: int, text: str) -> None:
    assert write_bytes(count) == text


@given(st.integers(0, 2**50) | st.integers(0, 2**20).map(lambda n: n << 20))
def test_what_is_written_is_read_as_the_same(count: int) -> None:
    assert parse_bytes(write_bytes(count)) == count
    assert len(write_bytes(count)) <= len(str(count)) + 2


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_bytes(text) >= 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://head:6379/0", "redis://head:6379/0"),
        ("redis://me:s3cret@head/0", "redis://...@head/0"),
        ("redis://:p@ss@head", "redis://...@head"),
        ("unix:///run/x.sock?db=1&password=s3cret", "unix:///run/x.sock?..."),
        ("https://host/path?sig=s3cret\nmore=s3cret", "https://host/path?..."),
        ("plain", "plain"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_url_of_sentinels() -> None:
    said = parse_sentinel_url("rediss+sentinel://m%40e:p%2Fw@one,[::1]:1/my.fleet-1/7")
    assert said == SentinelUrl("one,[::1]:1", "my.fleet-1", tls=True, username="m@e", password="p/w", db=7)
    assert sentinel_addresses(said.sentinels) == (("one", 26379), ("::1", 1))


ADDRESS = {"host", "port", "tls"}


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        ("", set()),
        ("redis://head", ADDRESS),
        ("redis://head/", ADDRESS),
        ("redis://head/3", ADDRESS | {"db"}),
        ("redis://head?db=3", ADDRESS | {"db"}),
        ("redis://me@head", ADDRESS | {"username"}),
        ("redis://:pw@head", ADDRESS | {"password"}),
        ("redis://me:pw@head/1", ADDRESS | {"username", "password", "db"}),
        ("unix:///run/x.sock", ADDRESS),
        ("unix:///run/x.sock?db=1&username=me&password=pw", ADDRESS | {"username", "password", "db"}),
        ("redis://[broken", set()),
        ("redis+sentinel://one,two/fleet", ADDRESS),
        ("redis+sentinel://me@one:1,two/fleet/2", ADDRESS | {"username", "db"}),
        ("rediss+sentinel://:pw@[::1]:1/fleet/", ADDRESS | {"password"}),
        ("redis+sentinel://one", set()),
    ],
)
def test_what_a_url_decides(url: str, keys: set[str]) -> None:
    assert decided_by(url) == keys


def test_what_we_think_a_url_decides_is_what_the_library_takes_from_it() -> None:
    """Keeps `decided_by` honest: redis-py gives the URL's options precedence over arguments."""
    from redis.connection import parse_url

    for url in ("redis://me:pw@head:1/3", "redis://head?db=3", "redis://head/", "unix:///x?db=1&password=p"):
        options = set(parse_url(url))  # type: ignore[no-untyped-call]
        assert options & {"username", "password", "db"} == decided_by(url) - ADDRESS
