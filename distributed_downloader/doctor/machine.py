"""What this machine has: memory, open files, Python and the libraries."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from distributed_downloader import __version__
from distributed_downloader.display import units
from distributed_downloader.doctor.at_start import MACHINE, open_files
from distributed_downloader.findings import Finding
from distributed_downloader.headroom import scarce_memory

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig

#: Bytes of memory that a worker takes, and each slot: two buffers, and what TLS and hashing need.
_MEMORY, _MEMORY_A_SLOT = 128 << 20, 16 << 20
#: What a process may be asked about, in the order in which it is told.
_LIBRARIES = ("huggingface-hub", "hf-xet", "hf-transfer", "redis", "hiredis", "urllib3", "pydantic")
#: Those that are there only where the user wants them.
_OPTIONAL = frozenset(("hf-xet", "hf-transfer"))


def findings(config: AppConfig) -> Iterator[Finding]:
    """Yield what is found."""
    yield memory(config)
    yield open_files(config)
    yield MACHINE.good("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield MACHINE.good("hf-downloader", __version__)
    yield from libraries()


def memory(config: AppConfig) -> Finding:
    """Compare the memory that is left with the slots, and what is in use with [limits]."""
    from distributed_downloader.memory import MemoryGauge  # noqa: PLC0415 - few workers need one

    found = MemoryGauge().tightest()
    value = f"{units.sizes(found.free, found.total)} free ({found.whose})"
    if reason := scarce_memory(config.limits, found):
        return MACHINE.warning("memory", value, f"{reason}; until then a worker claims nothing")
    wanted = _MEMORY + config.app.concurrency * _MEMORY_A_SLOT
    if found.free >= wanted:
        return MACHINE.good("memory", value)
    advice = (
        f"this {found.whose} has {units.size(found.free)} of memory left, and a worker with "
        f"{units.count(config.app.concurrency, 'slot')} may need {units.size(wanted)}: see what else runs "
        "here, or lower --concurrency"
    )
    return MACHINE.warning("memory", value, advice)


def libraries() -> Iterator[Finding]:
    """Yield the versions of the libraries, and which of them are not there."""
    found = {name: _version(name) for name in _LIBRARIES}
    yield MACHINE.good(
        "libraries", ", ".join(f"{name} {version}" for name, version in found.items() if version)
    )
    for name in found.keys() - _OPTIONAL:
        if not found[name]:
            advice = f"the library {name} is not installed: install hf-downloader again (`uv tool install .`)"
            yield MACHINE.broken(name, "missing", advice)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
