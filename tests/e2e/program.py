"""A user's program: each function here is one, run by `python -m tests.e2e.program NAME`, and prints JSON.

It is type-checked as a user's would be, with what must not pass marked as such.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from distributed_downloader import (
    Cancel,
    DownloaderError,
    FilesFailedError,
    JobState,
    JobStatus,
    download,
    status,
    submit,
    watch,
)

#: Seconds that a daemon thread gets to see that it is over.
PATIENCE = 30.0

if TYPE_CHECKING:
    from typing_extensions import assert_type

    from distributed_downloader import no_such_name  # type: ignore[attr-defined]  # noqa: F401

    assert_type(download("org/name"), Path)
    assert_type(submit("org/name"), int)
    assert_type(status(1), JobStatus)
    assert_type(watch(1), Iterator[JobStatus])
    download("org/name", repo_type="modle")  # type: ignore[arg-type]
    download("org/name", on_progres=print)  # type: ignore[call-arg]


def two_at_once() -> dict[str, object]:
    """Fetch two repos, in two threads, and look at what that does to the process."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    seen: dict[str, list[JobStatus]] = {"org/model": [], "org/data": []}
    with ThreadPoolExecutor(2) as pool:
        calls = {
            repo: pool.submit(download, repo, output_dir="out", on_progress=looks.append)
            for repo, looks in seen.items()
        }
        folders = {repo: str(call.result()) for repo, call in calls.items()}
    last = {repo: looks[-1] for repo, looks in seen.items()}
    return {
        "folders": folders,
        "ends": {repo: [now.state, now.files_done, now.bytes_done] for repo, now in last.items()},
        "same signals": before == {number: signal.getsignal(number) for number in signal.valid_signals()},
        "root handlers": len(logging.getLogger().handlers),
        "huggingface_hub": "huggingface_hub" in sys.modules,
        "still a function": callable(sys.modules["distributed_downloader"].download),
    }


def as_cache() -> dict[str, object]:
    """Fetch a repo as huggingface_hub keeps it, and once more though it is there."""
    folder = download("org/name", output_dir="cache", layout="hf-cache")
    again = download("org/name", output_dir="cache", layout="hf-cache", force=True)
    return {"folder": str(folder), "same": folder == again}


def refused() -> dict[str, object]:
    """Ask for what cannot be had, in many ways."""
    return {
        "no repo": raised(lambda: download("org/none")),
        "no revision": raised(lambda: download("org/model", revision="nope")),
        "no file": raised(lambda: download("org/model", include="nothing*")),
        "no name": raised(lambda: download("../../etc")),
        "no type": raised(lambda: download("org/model", repo_type="modle")),  # type: ignore[arg-type]
        "no layout": raised(lambda: submit("org/model", layout="hf-cache")),
        "no setting": raised(lambda: download("org/model", settings={"app.speed": 1})),
        "bad setting": raised(lambda: download("org/model", settings={"app.concurrency": 0})),
        "no config": raised(lambda: download("org/model", config_file="nowhere.ini")),
        "no folder": raised(lambda: download("org/model", output_dir="/proc/nowhere")),
        "two repos": raised(lambda: download("org/both")),
        "another repo's": raised(lambda: (download("models/org/both"), download("datasets/org/both"))),
        "cancelled": raised(lambda: download("org/model", cancel=cancelled())),
        "no redis": raised(lambda: submit("org/model", settings={"redis.url": "redis://127.0.0.1:1"})),
        "no job": raised(lambda: status(99)),
        "no watch": raised(lambda: next(watch(99))),
        "no interval": raised(lambda: next(watch(1, interval=-1))),
        "no priority": raised(lambda: submit("org/model", priority=0)),
    }


def one_file_fails() -> dict[str, object]:
    """Fetch a repo of which one file cannot be had; before that, have enough of it in the callback."""

    def show(job: JobStatus) -> None:
        if job.bytes_done:
            raise ZeroDivisionError("enough")

    enough = raised(lambda: download("org/model", output_dir="out", on_progress=show))
    try:
        download("org/model", output_dir="out")
    except FilesFailedError as error:
        return {"enough": enough, "reasons": error.reasons, "count": error.count, "text": str(error)}
    return {}


def stopped_by_cancel() -> dict[str, object]:
    """Stop a download from another thread; the test says when."""
    cancel = Cancel()

    def when_told() -> None:
        sys.stdin.readline()
        cancel.set("the user left")

    threading.Thread(target=when_told).start()
    return {"error": raised(lambda: download("org/model", output_dir="out", cancel=cancel))}


def stopped_by_interrupt() -> dict[str, object]:
    """Stop a download with Ctrl+C, as in a notebook, and go on."""
    return {"error": raised(lambda: download("org/model", output_dir="out"))}


def of_the_fleet() -> dict[str, object]:
    """Queue a repo and wait for it."""
    job = submit("org/model", output_dir="shared", priority=7)
    again = submit("org/model", output_dir="shared")
    looks: list[JobStatus] = []
    error = raised(lambda: looks.extend(watch(job, interval=0.05)))
    return {"same": job == again, "error": error, "first": status(job).id == job, "state": status(job).state}


def raised(call: Callable[[], object]) -> str:
    """Return what a call raises, in words."""
    try:
        call()
    except (DownloaderError, ZeroDivisionError, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def cancelled() -> Cancel:
    """Return a signal that is set already."""
    cancel = Cancel()
    cancel.set("before it began")
    return cancel


def left() -> list[str]:
    """Return what a download has left, when it has had time to go."""
    deadline = time.monotonic() + PATIENCE
    while (found := _left()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _left() -> list[str]:
    process = psutil.Process()
    return [
        *(thread.name for thread in threading.enumerate() if thread is not threading.main_thread()),
        *(child.name() for child in process.children(recursive=True)),
        *(str(each) for each in process.net_connections("all")),
        *(path.name for path in Path(tempfile.gettempdir()).glob("hfd-*")),
    ]


if __name__ == "__main__":
    assert JobState.DONE.ended
    told = globals()[sys.argv[1]]()
    print(json.dumps(told | {"left": left()}))
