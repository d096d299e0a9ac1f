"""What nobody expected: told in one line, with its trace at DEBUG. A machine that runs dry is no bug."""

from __future__ import annotations

import errno
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

from distributed_downloader.errors import LocalError, TransferError, TransientError

#: What the system says that has none left of it, and what to do about it.
_DRY = {
    errno.EMFILE: "out of file descriptors: raise `ulimit -n`, or lower --concurrency",
    errno.ENFILE: "out of file descriptors: the whole machine has used them up",
    errno.ENOMEM: "out of memory: see what else runs here, or lower --concurrency",
    errno.ENOBUFS: "out of network buffers: see what else runs here",
}
#: What Python says of memory where it raises no MemoryError: for a thread, for a module to be loaded, and
#: of C code that gives up without a word when it gets none.
_NO_MEMORY = re.compile(
    "can't start new thread|failed to map segment|cannot allocate memory|error return without exception set",
    re.IGNORECASE,
)


def dry(error: BaseException) -> LocalError | None:
    """Return our error if memory, threads or file descriptors of this machine are used up; else None."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError) or (
            isinstance(cause, (RuntimeError, ImportError, SystemError)) and _NO_MEMORY.search(str(cause))
        ):
            return LocalError(f"this machine is {_DRY[errno.ENOMEM]}")
        if isinstance(cause, OSError) and cause.errno in _DRY:
            return LocalError(f"this machine is {_DRY[cause.errno]}")
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was made from; urllib3 hides them in `args`."""
    while error is not None:
        yield error
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        error = error.__cause__ or inner


def tell_of_the_unseen() -> None:
    """Let what nobody could catch be told in the log, in one line, and not as a trace on standard error."""
    log = logging.getLogger(__name__)

    def in_thread(what: threading.ExceptHookArgs) -> None:
        if isinstance(what.exc_value, Exception):
            tell(log, f"thread {what.thread.name if what.thread else '?'}", what.exc_value)

    def ignored(what: sys.UnraisableHookArgs) -> None:
        with suppress(MemoryError):  # else Python itself would show this one
            log.debug("ignored: %s", what.err_msg or what.object, exc_info=what.exc_value)

    threading.excepthook, sys.unraisablehook = in_thread, ignored


def as_transfer_error(error: Exception) -> TransferError:
    """Return what a task came to that ended with an error which is none of ours."""
    return dry(error) or TransientError(f"internal error, please report it: {type(error).__name__}: {error}")


def tell(log: logging.Logger, what: str, error: Exception) -> None:
    """Log an error that is none of ours, about `what`."""
    log.error("%s: %s", what, as_transfer_error(error))
    log.debug("the trace of this error:", exc_info=error)
