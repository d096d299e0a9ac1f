"""The part of the doctor that a worker does at its start: what is cheap, and what would never work."""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from distributed_downloader.display import units
from distributed_downloader.errors import ConfigError
from distributed_downloader.findings import Finding, Subject
from distributed_downloader.patience import Inquiry
from distributed_downloader.storage.disk import disk_error
from distributed_downloader.storage.room import nearest

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig

log = logging.getLogger(__name__)

MACHINE = Subject("machine")
#: Files and connections that a worker has open beside its slots, and each slot at most in ordinary times.
_OPEN, _OPEN_A_SLOT = 64, 16
#: What a disk says that does not pass by itself; what else it says may be gone when the first file comes.
_LASTING = (errno.EACCES, errno.EPERM, errno.ENOTDIR)
#: Seconds that the folders have to answer; one that hangs is waited for where it is needed.
_PATIENCE = 2.0


def require_worker(config: AppConfig, sources: Mapping[str, str]) -> None:
    """Warn of what a worker with these settings will suffer from.

    Raises ConfigError for a folder that the settings name and that this user can never write to. The
    default folder may be one that no job needs; nothing that may pass is a reason, a mount that is missing
    least of all.
    """
    named = {"app.output_dir": config.app.output_dir, "app.spool_dir": config.app.spool_dir}
    folders = {name: Path(folder) for name, folder in named.items() if folder and sources[name] != "default"}
    found = Inquiry(objection).ask(folders.values(), _PATIENCE)
    for name, folder in folders.items():
        error = found.get(folder)
        if error and error.errno in _LASTING:
            section, key = name.split(".")
            raise ConfigError(f"{sources[name]}: [{section}] {key}: {disk_error(error, folder, whole=True)}")
    if advice := open_files(config).advice:
        log.warning("%s", advice)


def objection(folder: Path) -> OSError | None:
    """Return what the disk would say to somebody who writes to a folder, which is made if it is missing."""
    above = nearest(folder)
    try:
        if not stat.S_ISDIR(above.stat().st_mode):
            return _error(errno.ENOTDIR)
        if os.access(above, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return None
        return _error(errno.EROFS if os.statvfs(above).f_flag & os.ST_RDONLY else errno.EACCES)
    except OSError as error:
        return error


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def open_files(config: AppConfig) -> Finding:
    """Compare the limit of open files with the slots."""
    limit, slots = resource.getrlimit(resource.RLIMIT_NOFILE)[0], config.app.concurrency
    if limit == resource.RLIM_INFINITY:
        return MACHINE.good("open files", "no limit")
    value, wanted = f"{limit:,} for {units.count(slots, 'slot')}", _OPEN + slots * _OPEN_A_SLOT
    if limit >= wanted:
        return MACHINE.good("open files", value)
    advice = (
        f"this machine lets a worker open {limit:,} files, and {units.count(slots, 'slot')} may need "
        f"{wanted:,}: raise `ulimit -n`, or lower --concurrency"
    )
    return MACHINE.warning("open files", value, advice)
