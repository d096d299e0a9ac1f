"""What nobody expected: one line for people, the trace at DEBUG; a machine that runs dry blames no file."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading

import pytest
from urllib3.exceptions import NewConnectionError, ProtocolError

from distributed_downloader.errors import LocalError, NetworkError, TransientError
from distributed_downloader.unexpected import as_transfer_error, dry, tell, tell_of_the_unseen

DRY = [
    (MemoryError(), "out of memory"),
    (RuntimeError("can't start new thread"), "out of memory"),
    (ImportError("x.so: failed to map segment from shared object"), "out of memory"),
    (SystemError("error return without exception set"), "out of memory"),
    (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
    (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "out of file descriptors"),
    (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out of memory"),
    (OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)), "network buffers"),
]


def raised_from(cause: BaseException) -> NetworkError:
    error = NetworkError("no connection")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(("error", "words"), DRY)
def test_a_machine_that_runs_dry_is_at_fault_itself(error: Exception, words: str) -> None:
    for each in (error, raised_from(error), raised_from(ProtocolError("broken", error))):
        found = dry(each)
        assert isinstance(found, LocalError)
        assert words in str(found)
        assert isinstance(as_transfer_error(each), LocalError)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        RuntimeError("x"),
        OSError(errno.EIO, "x"),
        raised_from(NewConnectionError(None, "refused")),  # type: ignore[arg-type]
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert dry(error) is None


def test_an_internal_error_asks_to_be_reported_and_is_tried_again() -> None:
    found = as_transfer_error(KeyError("a"))
    assert isinstance(found, TransientError)
    assert str(found) == "internal error, please report it: KeyError: 'a'"


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_the_trace_is_for_debug_only(caplog: pytest.LogCaptureFixture, level: str) -> None:
    log = logging.getLogger("distributed_downloader.test")
    with caplog.at_level(level):
        with pytest.raises(KeyError) as raised:
            os.environ["NO_SUCH_NAME"]
        tell(log, "heartbeat", raised.value)
    assert "heartbeat: internal error, please report it: KeyError: 'NO_SUCH_NAME'" in caplog.text
    assert ("Traceback" in caplog.text) == (level == "DEBUG")


def test_a_thread_that_dies_is_told_in_one_line(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    tell_of_the_unseen()
    thread = threading.Thread(target=lambda: os.environ["NO_SUCH_NAME"], name="copier")
    with caplog.at_level("INFO"):
        thread.start()
        thread.join()
    assert "thread copier: internal error, please report it: KeyError" in caplog.text
    assert capfd.readouterr().err == ""
    assert "Traceback" not in caplog.text


def test_what_is_raised_where_nobody_can_catch_it_is_for_debug(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    tell_of_the_unseen()

    class Dying:
        def __del__(self) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with caplog.at_level("DEBUG"):
        Dying()
    assert [record.levelname for record in caplog.records if "ignored" in record.message] == ["DEBUG"]


def test_without_memory_to_tell_of_it_nothing_is_told(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def debug(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(logging.getLogger("distributed_downloader.unexpected"), "debug", debug)
    tell_of_the_unseen()

    class Dying:
        def __del__(self) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    Dying()
    assert capfd.readouterr().err == ""
