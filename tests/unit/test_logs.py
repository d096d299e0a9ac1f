"""The lines on standard error: text for people, or one JSON object each."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from datetime import datetime, timezone
from typing import Any, TextIO, cast

import click
import pytest
from rich.console import Console

from distributed_downloader.cli import logs, run


@pytest.fixture
def lines() -> logs.JsonLines:
    return logs.JsonLines(io.StringIO())


def said(lines: logs.JsonLines) -> list[dict[str, Any]]:
    assert isinstance(lines.stream, io.StringIO)
    return [json.loads(line) for line in lines.stream.getvalue().splitlines()]


def messages(lines: logs.JsonLines) -> list[tuple[str, str]]:
    return [(each["level"], each["message"]) for each in said(lines)]


def a_record(**about: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "a.module", "levelname": "INFO", "levelno": 20, **about})


def test_a_record_is_an_object_with_its_time_in_utc() -> None:
    record = a_record(msg="done    %s", args=("f",), created=1_700_000_000.25)
    assert json.loads(logs.JsonFormatter().format(record)) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "INFO",
        "logger": "a.module",
        "message": "done    f",
    }


@pytest.mark.parametrize(("level", "told"), [(logging.DEBUG, True), (logging.ERROR, False)])
def test_a_trace_is_told_at_debug_only(level: int, told: bool) -> None:
    error = ValueError("why")
    record = a_record(msg="trace", levelno=level, exc_info=(ValueError, error, None))
    words = json.loads(logs.JsonFormatter().format(record))
    assert ("trace" in words) is told
    assert not told or words["trace"].endswith("ValueError: why")


@pytest.mark.parametrize("name", ["a\x1b[31m\x9b\u202eb", "a\nb", "a\ud800b", "雪"])
def test_what_is_in_a_name_can_steer_no_terminal_and_comes_back_as_it_was(name: str) -> None:
    line = logs.JsonFormatter().format(a_record(msg=name))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == name


def test_what_is_printed_has_the_level_that_its_words_have(lines: logs.JsonLines) -> None:
    for line in ("Job ID: 3", "warning: w", "error: e", "Error: No such option", "errors: none"):
        click.echo(line, file=cast(TextIO, lines))
    assert messages(lines) == [
        ("INFO", "Job ID: 3"),
        ("WARNING", "w"),
        ("ERROR", "e"),
        ("ERROR", "No such option"),
        ("INFO", "errors: none"),
    ]
    before = datetime.now(timezone.utc)
    assert all(datetime.fromisoformat(each["time"][:-1] + "+00:00") <= before for each in said(lines))


def test_a_line_is_told_when_it_ends_and_an_empty_one_never(lines: logs.JsonLines) -> None:
    assert lines.write("one ") == 4
    assert said(lines) == []
    lines.write("line\n\n  \nnext")
    assert messages(lines) == [("INFO", "one line")]
    lines.flush()
    assert messages(lines)[1:] == [("INFO", "next")]


def test_colours_stay_away(lines: logs.JsonLines) -> None:
    lines.write(f"{click.style('error:', fg='red', bold=True)} gone\n")
    console = Console(file=cast(TextIO, lines), force_terminal=True, color_system="standard")
    console.print("[bold]done")
    assert messages(lines) == [("ERROR", "gone"), ("INFO", "done")]
    assert not lines.isatty()


def test_threads_do_not_mix_their_words(lines: logs.JsonLines) -> None:
    barrier = threading.Barrier(4)

    def speak(number: int) -> None:
        barrier.wait()
        for _ in range(50):
            lines.write(f"{number}")
            lines.write(f"{number}\n")

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(text for _, text in messages(lines)) == sorted(
        f"{n}{n}" for n in range(4) for _ in range(50)
    )


@pytest.mark.parametrize("environment", [False, True])
def test_what_is_wrong_with_the_words_of_a_command_is_json_too(
    monkeypatch: pytest.MonkeyPatch, environment: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr := io.StringIO())
    monkeypatch.setenv("LOG_FORMAT", "JSON" if environment else "text")
    assert run([*([] if environment else ["--log-format", "json"]), "status", "--no-such"]) == 2
    found = [json.loads(line) for line in stderr.getvalue().splitlines()]
    assert found[-1]["level"] == "ERROR"
    assert found[-1]["message"].startswith("No such option")
