"""Sizes, rates, times and names as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from distributed_downloader.display import units
from distributed_downloader.models import RepoType
from tests.unit.looking_on import EVIL, EVIL_SHOWN, spec


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1049, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_000_000, "1.0 MB"),
        (16_100_000_000, "16.1 GB"),
        (161_000_000_000, "161 GB"),
        (5.5e12, "5.5 TB"),
        (1e18, "1.0 EB"),
        (5e21, "5000 EB"),
    ],
)
def test_size_is_decimal_with_three_digits_at_most(count: float, shown: str) -> None:
    assert units.size(count) == shown


@given(st.integers(min_value=0, max_value=10**20))
def test_size_never_grows_beyond_its_column(count: int) -> None:
    assert len(units.size(count)) <= 7


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (6_800_000_000, 16_100_000_000, "6.8 of 16.1 GB"),
        (12_000_000, 16_100_000_000, "12.0 MB of 16.1 GB"),
        (0, 16_100_000_000, "0 B of 16.1 GB"),
        (0, 0, "0 of 0 B"),
    ],
)
def test_sizes_name_their_unit_once_if_they_share_it(part: int, whole: int, shown: str) -> None:
    assert units.sizes(part, whole) == shown


@pytest.mark.parametrize(
    ("bytes_per_second", "shown"),
    [(0, "-"), (0.9, "-"), (1, "1 B/s"), (1_000_000, "1.0 MB/s"), (45_200_000, "45.2 MB/s")],
)
def test_rate(bytes_per_second: float, shown: str) -> None:
    assert units.rate(bytes_per_second) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0.4, "0s"),
        (42, "42s"),
        (59.6, "1m 00s"),
        (205, "3m 25s"),
        (3600, "1h 00m"),
        (7500, "2h 05m"),
        (86_400, "1d 00h"),
        (3 * 86_400 + 4 * 3600 + 59 * 60, "3d 04h"),
        (1e12, "years"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert units.duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1_000_000, "1,000,000 files")]
)
def test_count(number: int, shown: str) -> None:
    assert units.count(number, "file") == shown


@pytest.mark.parametrize(("number", "shown"), [(0, "0 tries"), (1, "1 try"), (3, "3 tries")])
def test_tries(number: int, shown: str) -> None:
    assert units.tries(number) == shown


@pytest.mark.parametrize(
    ("repo_type", "name"),
    [
        (RepoType.MODEL, "org/name"),
        (RepoType.DATASET, "datasets/org/name"),
        (RepoType.SPACE, "spaces/org/name"),
    ],
)
def test_repo_is_named_as_commands_take_it(repo_type: RepoType, name: str) -> None:
    assert units.repo(spec("org/name", repo_type)) == name


def test_safe_shows_what_would_steer_a_terminal() -> None:
    assert units.safe(EVIL) == EVIL_SHOWN


def test_safe_leaves_ordinary_names_alone() -> None:
    assert units.safe("a b/ü 日本語 #%?.bin") == "a b/ü 日本語 #%?.bin"


def test_safe_for_a_terminal_that_knows_only_ascii() -> None:
    assert units.safe("ü日\x1b.bin", ascii_only=True) == r"\xfc\u65e5\x1b.bin"


@given(st.text(st.characters(codec=None)))
def test_safe_text_can_always_be_printed_and_never_steers(text: str) -> None:
    shown = units.safe(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    units.safe(text, ascii_only=True).encode("ascii")


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, "meta-llama/Llama-3.1-8B-Instruct"),
        (32, "meta-llama/Llama-3.1-8B-Instruct"),
        (31, "meta-llama/Llam…3.1-8B-Instruct"),
        (12, "meta-l…truct"),
        (2, "m…"),
        (1, "…"),
        (0, ""),
    ],
)
def test_shorten_leaves_out_the_middle(width: int, shown: str) -> None:
    assert units.shorten("meta-llama/Llama-3.1-8B-Instruct", width) == shown


def test_shorten_with_the_mark_of_ascii() -> None:
    assert units.shorten("meta-llama/Llama-3.1-8B-Instruct", 13, "...") == "meta-...truct"


@given(st.text(st.sampled_from("ab日本\u0301ü"), max_size=40), st.integers(min_value=0, max_value=40))
def test_shortened_text_fits_its_cells(text: str, width: int) -> None:
    assert cell_len(units.shorten(text, width)) <= width


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (0, 64 << 20, "0-64 MiB"),
        (64 << 20, 128 << 20, "64-128 MiB"),
        (4608 << 20, 4_900_000_000, "4,608-4,673 MiB"),
        (1 << 20, 3 << 19, "1.0-1.5 MiB"),
    ],
)
def test_a_part_is_shown_by_its_range(start: int, end: int, text: str) -> None:
    assert units.span(start, end) == text
