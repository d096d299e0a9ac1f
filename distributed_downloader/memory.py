"""How much memory is in use: of this machine, and of each control group with a limit that we are in.

Memory that only keeps what was read from files counts as free, for the kernel takes it back when somebody
needs it: `MemAvailable` of proc(5), and of a group what it uses less `inactive_file` (the kernel's
Documentation/admin-guide/cgroup-v2.rst; version 1 calls it `total_inactive_file`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from distributed_downloader.imports import whole_imports

#: What version 1 says where there is no limit, or more.
_NO_LIMIT = 1 << 60


class Memory(NamedTuple):
    """The memory of the machine or of a group, in bytes."""

    whose: str
    used: int
    total: int

    @property
    def free(self) -> int:
        """Bytes that are left."""
        return max(0, self.total - self.used)

    @property
    def percent(self) -> float:
        """Percent of it that are in use."""
        return 100 * self.used / max(self.total, 1)


class _Version(NamedTuple):
    """What the files of a control group are called."""

    used: str
    limits: tuple[str, ...]
    cache: str


_V1 = _Version("memory.usage_in_bytes", ("memory.limit_in_bytes",), "total_inactive_file")
_V2 = _Version("memory.current", ("memory.max", "memory.high"), "inactive_file")


class MemoryGauge:
    """Reads the memory of this machine and of our control groups; each look is a few small reads."""

    def __init__(self, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> None:
        self._groups = list(_groups(proc, groups))

    def read(self) -> list[Memory]:
        """Return the memory of the machine, and of each group that has a limit at the moment."""
        found = [_machine()]
        for folder, version in self._groups:
            with suppress(OSError, ValueError):  # the group has gone, or the kernel tells no such thing
                limit = min(_limit(folder / name) for name in version.limits)
                if limit < _NO_LIMIT:
                    found.append(Memory("control group", _used(folder, version), limit))
        return found

    def tightest(self) -> Memory:
        """Return that of which most is in use."""
        return max(self.read(), key=lambda memory: memory.percent)


def _machine() -> Memory:
    with whole_imports():  # only now: most workers never ask
        import psutil  # noqa: PLC0415
    memory = psutil.virtual_memory()
    return Memory("machine", memory.total - memory.available, memory.total)


def _groups(proc: Path, root: Path) -> Iterator[tuple[Path, _Version]]:
    """Yield the groups that bound our memory: ours, and those that it lies in."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        # Number, controllers, path; a container may not see its own path, but it sees its group as the root.
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, version = root, _V2
        elif "memory" in controllers.split(","):
            base, version = root / "memory", _V1
        else:
            continue
        own = PurePosixPath("/" if ".." in path else path)
        for each in (own, *own.parents):
            folder = base / each.relative_to("/")
            if (folder / version.used).is_file():
                yield folder, version


def _limit(path: Path) -> int:
    text = path.read_text().strip()
    return _NO_LIMIT if text == "max" else int(text)


def _used(folder: Path, version: _Version) -> int:
    cache = re.search(rf"^{version.cache} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
    return max(0, int((folder / version.used).read_text()) - int(cache[1] if cache else 0))
