"""What is logged and complained of, made safe for a terminal: file names and headers are other people's."""

from __future__ import annotations

import logging


def safe_lines(text: str) -> str:
    """Return `text` with all that could steer a terminal spelled out, but for ends of lines."""
    from distributed_downloader.display.units import safe

    return text if text.isascii() and text.isprintable() else "\n".join(map(safe, text.split("\n")))


def leave_out_origins() -> None:
    """Have no record say what no line of ours shows, which costs as much as the rest of it.

    Python's logging HOWTO tells of it ("Optimization").
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class SafeFormatter(logging.Formatter):
    """Formats a record, traces included, as lines that are safe to print."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        return safe_lines(super().format(record))
