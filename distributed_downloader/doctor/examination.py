"""What the doctor looks at, in two rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distributed_downloader.doctor import Looks, configuration, folders, hub, look, machine
from distributed_downloader.doctor.at_start import MACHINE
from distributed_downloader.findings import Finding
from distributed_downloader.redis_health import REDIS, RedisHealth

if TYPE_CHECKING:
    from pathlib import Path

    from distributed_downloader.config import AppConfig, ConfigManager
    from distributed_downloader.master import JobRequest


def examine(
    manager: ConfigManager, config: AppConfig, request: JobRequest | None, output: Path
) -> list[Finding]:
    """Return all findings; `output` is where the job of `request`, or any job, puts its files.

    Folders come last: the queue tells who shares them, and the hub how much has to fit.
    """
    redis, site = RedisHealth(config.redis), hub.HubHealth(manager, config, request)
    first: Looks = {
        configuration.CONFIGURATION: lambda: configuration.findings(manager, config),
        MACHINE: lambda: machine.findings(config),
        REDIS: redis.findings,
        hub.HUB: site.findings,
    }
    found = look(first)
    around = folders.Surroundings(redis.workers, site.need)
    return found + look(folders.looks(config, output, around))
