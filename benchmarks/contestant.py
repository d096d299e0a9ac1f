"""`python -m benchmarks.contestant`: one Python library, or our own transfer, fetches one thing.

Standard input is a line of JSON with the fields of `Order`; standard output becomes one with those of
`Result`. The time is that of the call, without what is imported before it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple, TypedDict

from benchmarks.workloads import sha256_of

#: Connections and bytes of a piece with which hf_transfer has been fastest.
_TRANSFER_CONNECTIONS, _TRANSFER_PIECE = 8, 1 << 20
#: Seconds between two looks at our memory.
_LOOK = 0.01


class Order(TypedDict):
    """What to fetch, and by which of `WAYS`."""

    way: str
    endpoint: str
    repo: str
    commit: str
    #: The file, where it is not the whole repo.
    path: str
    #: A folder to fill.
    output: str
    #: Redis, for a worker.
    redis: str
    #: The file's address and bytes, for a way that knows nothing of repos.
    url: str
    size: int
    #: For a process that only imports them.
    modules: list[str]


class Result(TypedDict):
    """What it took."""

    #: Seconds of the call, and of processor time in it, children included.
    wall: float
    cpu: float
    #: The file or folder that was filled.
    got: str
    #: Bytes of memory in the end, and at most as in `Seen`.
    rss: int
    most: int
    first: int
    second: int
    #: What is imported in the end.
    modules: list[str]


def order(
    way: str,
    *,
    endpoint: str = "",
    repo: str = "",
    commit: str = "",
    path: str = "",
    output: Path | None = None,
    redis: str = "",
    url: str = "",
    size: int = 0,
    modules: Sequence[str] = (),
) -> Order:
    """Return an order; what its way does not use may be left out."""
    return Order(
        way=way,
        endpoint=endpoint,
        repo=repo,
        commit=commit,
        path=path,
        output=str(output or ""),
        redis=redis,
        url=url,
        size=size,
        modules=list(modules),
    )


#: Does it, and returns what it filled.
Call = Callable[[], str]


def _hub_download(asked: Order) -> Call:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - each process has its own libraries

    return lambda: hf_hub_download(
        asked["repo"], asked["path"], revision=asked["commit"], cache_dir=asked["output"]
    )


def _hub_download_hashed(asked: Order) -> Call:
    fetch = _hub_download(asked)

    def both() -> str:
        got = fetch()
        sha256_of(Path(got))
        return got

    return both


def _snapshot(asked: Order) -> Call:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    return lambda: snapshot_download(asked["repo"], revision=asked["commit"], cache_dir=asked["output"])


def _snapshot_local(asked: Order) -> Call:
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    return lambda: snapshot_download(asked["repo"], revision=asked["commit"], local_dir=asked["output"])


def _hf_transfer(asked: Order) -> Call:
    from hf_transfer import download  # noqa: PLC0415

    got = str(Path(asked["output"], "file"))
    url = f"{asked['endpoint']}/{asked['repo']}/resolve/{asked['commit']}/{asked['path']}"

    def fetch() -> str:
        download(url, got, _TRANSFER_CONNECTIONS, _TRANSFER_PIECE)
        return got

    return fetch


def _ours(asked: Order) -> Call:
    from benchmarks.transfer import transfer  # noqa: PLC0415

    return transfer(asked["endpoint"], asked["repo"], asked["path"], Path(asked["output"]))


def _ours_by_hf_transfer(asked: Order) -> Call:
    from benchmarks.transfer import transfer  # noqa: PLC0415

    endpoint, output = asked["endpoint"], Path(asked["output"])
    return transfer(endpoint, asked["repo"], asked["path"], output, by_hf_transfer=True)


def _bare(asked: Order) -> Call:
    from benchmarks import bare  # noqa: PLC0415

    got = Path(asked["output"], "file")

    def fetch() -> str:
        bare.fetch(asked["url"], got)
        return str(got)

    return fetch


def _hash_alone(asked: Order) -> Call:
    from benchmarks import bare  # noqa: PLC0415

    def hash_alone() -> str:
        bare.hash_alone(asked["size"])
        return ""

    return hash_alone


def _worker(asked: Order) -> Call:
    from benchmarks.transfer import worker  # noqa: PLC0415

    return worker(asked["endpoint"], asked["redis"], Path(asked["output"]))


def _imports(asked: Order) -> Call:
    for name in asked["modules"]:
        with suppress(Exception):  # parts of a library that are not for every system
            importlib.import_module(name)
    return lambda: ""


WAYS: dict[str, Callable[[Order], Call]] = {
    "hf_hub_download": _hub_download,
    "hf_hub_download, then its hash": _hub_download_hashed,
    "snapshot_download": _snapshot,
    "snapshot_download to local_dir": _snapshot_local,
    "hf_transfer": _hf_transfer,
    "ours": _ours,
    "ours through hf_transfer": _ours_by_hf_transfer,
    "http.client and a hash": _bare,
    "sha256 alone": _hash_alone,
    "worker": _worker,
    "imports": _imports,
}


def run(asked: Order) -> Result:
    """Do it, and look at the clock and at our memory."""
    call = WAYS[asked["way"]](asked)
    memory = _Memory()
    is_worker = asked["way"] == "worker"
    cpu, began = _cpu(), time.monotonic()
    with memory if is_worker else nullcontext():  # elsewhere, looking would cost what is measured
        got = call()
    wall = time.monotonic() - began
    cpu = _cpu() - cpu
    seen = looked_at(memory.seen)
    return Result(
        wall=wall,
        cpu=cpu,
        got=got,
        rss=_rss(),
        most=seen.most,
        first=seen.first,
        second=seen.second,
        modules=sorted(sys.modules) if is_worker else [],
    )


def _cpu() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Seen(NamedTuple):
    """Bytes of memory at most: at all, in the first eighth of the time, and in its second half."""

    most: int
    first: int
    second: int


def looked_at(seen: Sequence[int]) -> Seen:
    """Return what was seen of a memory, look by look.

    The first eighth is over before a task is, where several follow each other in each slot: so what tasks
    leave behind is in the second half alone.
    """
    early, late = seen[: max(1, len(seen) // 8)], seen[len(seen) // 2 :]
    return Seen(*(max(part, default=0) for part in (seen, early, late)))


class _Memory(threading.Thread):
    """Looks at our memory again and again, while it is entered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self.seen: list[int] = []

    def run(self) -> None:
        """Look."""
        while not self._over.wait(_LOOK):
            self.seen.append(_rss())

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def main() -> None:
    """Take the order."""
    print(json.dumps(run(json.loads(sys.stdin.readline()))))


if __name__ == "__main__":
    main()
