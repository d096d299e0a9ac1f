"""What is set, where each value came from, and what is unwise or idle among it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distributed_downloader.config.effective import table
from distributed_downloader.findings import Finding, Subject
from distributed_downloader.transfer.hf_transfer import idle

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig, ConfigManager

CONFIGURATION = Subject("configuration")


def findings(manager: ConfigManager, config: AppConfig) -> Iterator[Finding]:
    """Yield the file, each value that is no default, and warnings."""
    yield CONFIGURATION.good("file", str(manager.file) if manager.file else "none found; defaults count")
    for row in table(config, manager.sources):
        if row.source != "default":
            yield CONFIGURATION.good(row.name, f"{row.text}  ({row.source})".strip())
    for warning in manager.warnings:
        yield CONFIGURATION.warning("doubt", "", warning)
    if config.huggingface.enable_hf_transfer and (why := idle(config)):
        advice = f"[huggingface] enable_hf_transfer: {why}; the standard engine is used"
        yield CONFIGURATION.warning("huggingface.enable_hf_transfer", "idle", advice)
