"""What a worker leaves to others of its machine: while disk or memory are scarce, it claims nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distributed_downloader.config.limits import LimitsSection
from distributed_downloader.display import units
from distributed_downloader.patience import Inquiry
from distributed_downloader.storage.room import Space, nearest, space

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig
    from distributed_downloader.memory import Memory, MemoryGauge

log = logging.getLogger(__name__)

#: Seconds for which a look counts.
_GOOD_FOR = 1.0
#: Seconds that a look at the disks may take; what hangs is asked nothing more, and counts as it was.
_PATIENCE = 0.5


class Headroom:
    """Whether a machine has disk and memory left for another task, looked at once a second at most."""

    def __init__(
        self,
        limits: LimitsSection | None = None,
        folders: Sequence[Path] = (),
        gauge: Callable[[], MemoryGauge] | None = None,
        *,
        refills: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folders` are those whose disks count; `refills` tells whether room on them will come by itself."""
        self._limits = limits or LimitsSection()
        self._refills, self._clock = refills, clock
        self._disks = Inquiry(_space)
        self._spaces: dict[Path, Space | None] = dict.fromkeys(folders if self._limits.min_free_disk else ())
        self._gauge = (gauge or _new_gauge)() if self._limits.max_memory_percent < 100 else None
        self._good_until = 0.0
        #: Why nothing may be claimed, as of the last look, or "".
        self.reason = ""
        #: Whether that ends by itself.
        self.passes = False

    @classmethod
    def of(cls, config: AppConfig, refills: Callable[[], bool]) -> Headroom:
        """Return that of a worker with these settings."""
        folders = [Path(folder) for folder in (config.app.output_dir, config.app.spool_dir) if folder]
        return cls(config.limits, folders, refills=refills)

    def look(self) -> str:
        """Return why nothing may be claimed at the moment, or ""; for one thread."""
        now = self._clock()
        if now >= self._good_until and (self._spaces or self._gauge):
            self._good_until = now + _GOOD_FOR
            self._note(self._scarce_disk(), self._scarce_memory())
        return self.reason

    def _note(self, disk: str, memory: str) -> None:
        before, self.reason = self.reason, disk or memory
        self.passes = not disk or self._refills()
        if self.reason and not before:  # the figures change; `status` shows them
            log.warning("%s; claiming nothing until then", self.reason)
        elif before and not self.reason:
            log.info("there is enough disk and memory again; claiming goes on")

    def _scarce_disk(self) -> str:
        if self._spaces:
            self._spaces |= self._disks.ask(self._spaces, _PATIENCE)
        reasons = (scarce_disk(self._limits, folder, found) for folder, found in self._spaces.items())
        return next(filter(None, reasons), "")

    def _scarce_memory(self) -> str:
        return scarce_memory(self._limits, self._gauge.tightest()) if self._gauge else ""


def scarce_disk(limits: LimitsSection, folder: Path, found: Space | None) -> str:
    """Return what is wrong where a disk has too little space, or ""."""
    if found is None or found.free >= limits.min_free_disk:
        return ""
    return (
        f"{folder}: {units.size(found.free)} are free, and [limits] min_free_disk wants "
        f"{units.size(limits.min_free_disk)}: free some space"
    )


def scarce_memory(limits: LimitsSection, found: Memory) -> str:
    """Return what is wrong where too much memory is in use, or ""."""
    if found.percent <= limits.max_memory_percent:
        return ""
    return (
        f"{found.percent:.0f}% of the memory of this {found.whose} ({units.size(found.total)}) are in use, "
        f"and [limits] max_memory_percent allows {limits.max_memory_percent}%: see what else runs here"
    )


def _space(folder: Path) -> Space | None:
    try:
        return space(nearest(folder))
    except OSError:  # what is wrong with the disk is told where a task meets it
        return None


def _new_gauge() -> MemoryGauge:
    from distributed_downloader.memory import MemoryGauge  # noqa: PLC0415 - few workers need one

    return MemoryGauge()
