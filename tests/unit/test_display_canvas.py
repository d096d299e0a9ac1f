"""Lines that fit, on screens and pipes of every kind."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from distributed_downloader.display.canvas import Canvas, emit, is_screen
from tests.unit.looking_on import EVIL, EVIL_SHOWN, pipe, screen, words


def rows(*texts: tuple[str, ...]) -> list[list[Text]]:
    return [[Text(text) for text in row] for row in texts]


# -- which paper -----------------------------------------------------------------------------------------


def test_a_terminal_cuts_lines_but_scrolls() -> None:
    assert Canvas.of(screen(100, 30)[0]) == Canvas(100, None)


def test_a_picture_fills_the_terminal_and_no_more() -> None:
    assert Canvas.of(screen(100, 30)[0], full_screen=True) == Canvas(100, 30)


def test_a_pipe_cuts_nothing() -> None:
    assert Canvas.of(pipe()[0], full_screen=True) == Canvas(None, None)


@pytest.mark.parametrize(
    "environment", [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}], ids=["FORCE_COLOR", "TTY_COMPATIBLE"]
)
def test_a_pipe_is_no_screen_even_if_colour_is_forced(environment: dict[str, str]) -> None:
    console, _ = pipe(**environment)
    assert console.is_terminal
    assert not is_screen(console)


def test_a_dumb_terminal_is_no_screen() -> None:
    assert not is_screen(screen(term="dumb")[0])


@pytest.mark.parametrize(
    ("encoding", "ascii_only"), [("utf-8", False), ("UTF-8", False), ("ascii", True), ("iso-8859-1", True)]
)
def test_only_utf_terminals_get_more_than_ascii(encoding: str, ascii_only: bool) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert Canvas.of(Console(file=file)).ascii_only is ascii_only


def test_the_encoding_of_standard_output_is_seen_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert Canvas.of(Console()).ascii_only


def test_lower_leaves_room_for_other_lines() -> None:
    assert Canvas(80, 24).lower(4) == Canvas(80, 20)
    assert Canvas(80, 2).lower(9) == Canvas(80, 1)
    assert Canvas(80, None).lower(4) == Canvas(80, None)


# -- text ------------------------------------------------------------------------------------------------


def test_foreign_text_is_harmless_and_no_markup() -> None:
    text = Canvas(80).text(EVIL)
    assert text.plain == EVIL_SHOWN
    assert text.spans == []


def test_cut_says_that_something_is_missing() -> None:
    assert Canvas(10).cut(Text("0123456789")).plain == "0123456789"
    assert Canvas(10).cut(Text("0123456789a")).plain == "012345678…"
    assert Canvas(10, ascii_only=True).cut(Text("0123456789a")).plain == "0123456..."
    assert Canvas(None).cut(Text("x" * 1000)).plain == "x" * 1000


def test_cut_and_shorten_keep_the_style() -> None:
    styled = Text("0123456789a", "red")
    assert Canvas(10).cut(styled).style == "red"
    assert Canvas(10).shorten(styled, 5).style == "red"


@pytest.mark.parametrize(
    ("fraction", "bar"),
    [(0, "──────────"), (0.5, "━━━━━─────"), (0.999, "━━━━━━━━━─"), (1, "━━━━━━━━━━")],
)
def test_bar_is_full_only_at_the_end(fraction: float, bar: str) -> None:
    assert Canvas(80).bar(fraction, 10, "cyan").plain == bar


def test_bar_in_ascii() -> None:
    assert Canvas(80, ascii_only=True).bar(0.5, 10, "cyan").plain == "#####-----"


# -- columns -----------------------------------------------------------------------------------------------


def test_columns_are_aligned() -> None:
    lines = Canvas(80).columns(rows(("a", "12", "x"), ("bbb", "3", "yy")), right={1}, indent=1)
    assert words(lines) == " a    12  x\n bbb   3  yy\n"


def test_the_flexible_column_gives_way() -> None:
    lines = Canvas(24).columns(rows(("meta-llama/Llama-3.1-8B", "42 files")), flexible=0)
    assert words(lines) == "meta-ll…3.1-8B  42 files\n"


def test_without_a_flexible_column_the_end_is_cut() -> None:
    lines = Canvas(16).columns(rows(("meta-llama/Llama", "42 files")))
    assert words(lines) == "meta-llama/Llam…\n"


def test_a_short_row_spans_the_columns_that_it_lacks() -> None:
    lines = Canvas(80).columns(rows(("a", "b", "c"), ("a", "all the rest of it")))
    assert words(lines) == "a  b  c\na  all the rest of it\n"


def test_wide_characters_are_counted_as_they_look() -> None:
    lines = Canvas(80).columns(rows(("日本", "x"), ("abc", "y")))
    assert words(lines) == "日本  x\nabc   y\n"


def test_no_rows_no_lines() -> None:
    assert Canvas(80).columns([]) == []


@given(
    st.lists(st.tuples(*[st.text("ab日 ", max_size=30)] * 3), max_size=5),
    st.integers(min_value=0, max_value=60),
    st.one_of(st.none(), st.integers(0, 2)),
)
def test_columns_always_fit(texts: list[tuple[str, ...]], width: int, flexible: int | None) -> None:
    for line in Canvas(width).columns(rows(*texts), flexible=flexible, right={1}):
        assert line.cell_len <= max(width, 1)


# -- printing ------------------------------------------------------------------------------------------------


def test_emit_to_a_screen_has_colours_and_no_wraps() -> None:
    console, tty = screen(20, colors=True)
    emit(console, [Text("x" * 30, "red"), Text("[b]y[/b]")])
    assert tty.getvalue() == "\x1b[31m" + "x" * 30 + "\x1b[0m\n[b]y[/b]\n"


def test_a_str_is_neither_markup_nor_highlighted() -> None:
    console, tty = screen(20, colors=True)
    emit(console, ["[b]y[/b] 42 'x' " + "z" * 30])
    assert tty.getvalue() == "[b]y[/b] 42 'x' " + "z" * 30 + "\n"


def test_emit_to_a_pipe_has_only_characters() -> None:
    console, file = pipe(FORCE_COLOR="1")
    emit(console, [Text("x" * 300, "red"), Text("[b]y[/b]")])
    assert file.getvalue() == "x" * 300 + "\n[b]y[/b]\n"


def test_no_color_is_respected() -> None:
    console, tty = screen(colors=True, no_color=True)
    emit(console, [Text("x", "red")])
    assert tty.getvalue() == "x\n"


def test_emit_writes_line_by_line() -> None:
    """Long lists are printed while they are read."""
    console, file = pipe()
    seen: list[str] = []

    def lines() -> Iterator[Text]:
        for name in ("a", "b"):
            seen.append(file.getvalue())
            yield Text(name)

    emit(console, lines())
    assert seen == ["", "a\n"]
