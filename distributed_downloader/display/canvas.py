"""The paper that `display` draws on: its size, its characters, and lines that fit on it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.text import Text

from distributed_downloader.display import units

if TYPE_CHECKING:
    from rich.console import Console

#: What a column that gives way keeps at least.
_NARROWEST = 12
#: Columns between two cells.
GAP = 2


@dataclass(frozen=True)
class Canvas:
    """What may be drawn: `width` None where nothing cuts a line (a file, a pipe)."""

    width: int | None = None
    #: Lines that there is room for; None where they scroll.
    height: int | None = None
    ascii_only: bool = False

    @classmethod
    def of(cls, console: Console, *, full_screen: bool = False) -> Canvas:
        """Return the canvas that the console's terminal, or the lack of one, makes possible."""
        # Not `console.encoding`, which takes any standard output for UTF-8.
        encoding = getattr(console.file, "encoding", None) or "utf-8"
        ascii_only = not encoding.lower().startswith("utf")
        if not is_screen(console):
            return cls(ascii_only=ascii_only)
        return cls(console.size.width, console.size.height if full_screen else None, ascii_only)

    def lower(self, lines: int) -> Canvas:
        """Return the same canvas with that many lines less."""
        return self if self.height is None else replace(self, height=max(1, self.height - lines))

    @property
    def mark(self) -> str:
        """What stands for something left out."""
        return "..." if self.ascii_only else "…"

    def safe(self, foreign: str) -> str:
        """Return words that came from elsewhere, harmless."""
        return units.safe(foreign, ascii_only=self.ascii_only)

    def text(self, foreign: str, style: str = "") -> Text:
        """Return text that came from elsewhere, harmless, never read as markup."""
        return Text(self.safe(foreign), style)

    def cut(self, line: Text, width: int | None = None) -> Text:
        """Return the line, cut at its end if it is wider than `width` (default: the canvas)."""
        limit = width if width is not None else self.width
        if limit is None or line.cell_len <= limit:
            return line
        short = line.copy()
        short.truncate(max(0, limit - len(self.mark)))
        return short.append(self.mark)

    def shorten(self, line: Text, width: int) -> Text:
        """Return the line with its middle left out if it is wider than `width`."""
        if line.cell_len <= width:
            return line
        return Text(units.shorten(line.plain, width, self.mark), line.style)

    def wrap(self, line: Text, indent: int = 0) -> list[Text]:
        """Return the line on as many as it needs; where they scroll, an address stays whole, to be copied."""
        if self.width is None:
            return [Text.assemble(" " * indent, line)]
        width, breaks = max(8, self.width - indent), self.height is not None
        wrapped = textwrap.wrap(line.plain, width, break_long_words=breaks, break_on_hyphens=False)
        return [Text.assemble(" " * indent, (text, line.style)) for text in wrapped]

    def fill(self, line: Text, width: int) -> Text:
        """Return the line with spaces after it, up to `width`."""
        return Text.assemble(line, " " * (width - line.cell_len))

    def bar(self, fraction: float, width: int, style: str) -> Text:
        """Return a bar of `width` cells, of which `fraction` is in `style`."""
        full, empty = ("#", "-") if self.ascii_only else ("━", "─")
        filled = int(fraction * width)
        return Text.assemble((full * filled, style), (empty * (width - filled), "dim"))

    def columns(
        self,
        rows: Sequence[Sequence[Text]],
        *,
        flexible: int | None = None,
        right: Iterable[int] = (),
        indent: int = 0,
    ) -> list[Text]:
        """Align the rows; column `flexible` gives way, in its middle, where the canvas is too narrow.

        The last cell of a row that is shorter than others spans the columns that it lacks.
        """
        widths = _widths(rows)
        if self.width is not None and flexible is not None and flexible < len(widths):
            excess = indent + sum(widths) + GAP * (len(widths) - 1) - self.width
            widths[flexible] -= max(0, min(excess, widths[flexible] - _NARROWEST))
        right = frozenset(right)
        return [self._line(row, widths, flexible, right, indent) for row in rows]

    def _line(
        self, row: Sequence[Text], widths: list[int], flexible: int | None, right: frozenset[int], indent: int
    ) -> Text:
        line = Text(" " * indent)
        for number, cell in enumerate(row):
            spans = number == len(row) - 1 < len(widths) - 1
            fitted = self.shorten(cell, widths[number]) if number == flexible and not spans else cell
            space = " " * (widths[number] - fitted.cell_len)
            line.append_text(
                Text.assemble(space, fitted) if number in right else Text.assemble(fitted, space)
            )
            line.append(" " * GAP)
        line.rstrip()
        return self.cut(line)


def _widths(rows: Sequence[Sequence[Text]]) -> list[int]:
    count = max(map(len, rows), default=0)
    widths = [0] * count
    for row in rows:
        for number, cell in enumerate(row if len(row) == count else row[:-1]):
            widths[number] = max(widths[number], cell.cell_len)
    return widths


def is_screen(console: Console) -> bool:
    """Whether lines can be drawn over; FORCE_COLOR alone does not make a pipe a screen."""
    return console.is_terminal and not console.is_dumb_terminal and console.file.isatty()


def emit(console: Console, lines: Iterable[Text | str]) -> None:
    """Print lines that are already fitted; off a terminal only their characters. A str is no markup."""
    if is_screen(console):
        for line in lines:
            console.print(Text(line) if isinstance(line, str) else line, soft_wrap=True)
    else:
        console.file.writelines(f"{line}\n" for line in lines)
        console.file.flush()
