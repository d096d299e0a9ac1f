"""What is logged and complained of, made safe for a terminal: file names and headers are other people's."""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
from datetime import datetime, timezone
from typing import TextIO

#: How our own lines, and click's, begin where they are more than news.
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING}
_MARKED = re.compile(r"(error|warning): ", re.IGNORECASE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def safe_lines(text: str) -> str:
    """Return `text` with all that could steer a terminal spelled out, but for ends of lines."""
    from distributed_downloader.display.units import safe

    return text if text.isascii() and text.isprintable() else "\n".join(map(safe, text.split("\n")))


def set_up(level: str, log_format: str) -> None:
    """Log to standard error from `level` on, as `log_format` ("text" or "json") wants it."""
    if log_format == "json":
        speak_json()
    speaker = sys.stderr
    if isinstance(speaker, JsonLines):
        handler = logging.StreamHandler(speaker.stream)
        handler.setFormatter(JsonFormatter())
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler])
    _leave_out_origins()


def speak_json() -> None:
    """From now on, let every line on standard error be a JSON object, whoever prints it."""
    if not isinstance(sys.stderr, JsonLines):
        sys.stderr = JsonLines(sys.stderr)


def _leave_out_origins() -> None:
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


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time (RFC 3339, UTC), level, logger, message; at DEBUG, trace."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, in ASCII: what is in a file's name cannot steer a terminal."""
        import json

        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        words = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.levelno <= logging.DEBUG:
            words["trace"] = self.formatException(record.exc_info)
        return json.dumps(words)


class JsonLines(io.TextIOBase):
    """A standard error on which each line of text becomes one JSON object on `stream`; safe for threads."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._begun = threading.local()
        self._formatter = JsonFormatter()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream, for whoever asks before printing."""
        return self.stream.encoding

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return that of the stream."""
        return self.stream.fileno()

    def write(self, text: str) -> int:
        """Write the lines that are complete; the rest waits for its end, or for `flush`."""
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        for line in lines:
            self._say(line)
        return len(text)

    def flush(self) -> None:
        """Write what this thread has begun."""
        begun, self._begun.text = getattr(self._begun, "text", ""), ""
        self._say(begun)
        self.stream.flush()

    def _say(self, line: str) -> None:
        line = _COLOURS.sub("", line)
        if not line.strip():
            return
        mark = _MARKED.match(line)
        level = _LEVELS[mark[1].lower()] if mark else logging.INFO
        said = line[mark.end() :] if mark else line
        record = logging.LogRecord("distributed_downloader.cli", level, "", 0, said, None, None)
        self.stream.write(f"{self._formatter.format(record)}\n")
