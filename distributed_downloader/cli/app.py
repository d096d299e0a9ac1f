"""What a command needs beside Redis and the hub: its flags, logging, console."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from distributed_downloader.cli import logs
from distributed_downloader.client import Client
from distributed_downloader.imports import quick_imports

if TYPE_CHECKING:
    from rich.console import Console

    from distributed_downloader.config import AppConfig, AppSection, ConfigManager
    from distributed_downloader.redis_client import RedisClient

log = logging.getLogger(__name__)

#: Global flag -> the setting that it overrides.
FLAGS = {
    "redis_host": "redis.host",
    "redis_port": "redis.port",
    "redis_db": "redis.db",
    "redis_username": "redis.username",
    "redis_password": "redis.password",
    "redis_url": "redis.url",
    "endpoint": "huggingface.endpoint",
    "disable_ssl_verify": "huggingface.disable_ssl_verify",
    "log_level": "app.log_level",
    "log_format": "app.log_format",
}


class App(Client):
    """One command's view of the world."""

    def __init__(self, config_file: str | None, flags: Mapping[str, object]) -> None:
        super().__init__(self._load_config)
        self._config_file = Path(config_file) if config_file else None
        self._flags = {FLAGS[name]: value for name, value in flags.items() if value is not None}
        # Before the settings are read: what is wrong with them, or with a command's words, is told as well.
        if (flags.get("log_format") or os.environ.get("LOG_FORMAT", "").strip().lower()) == "json":
            logs.speak_json()

    def override(self, **settings: object) -> None:
        """Let a command's own flags win; `app_concurrency=4` sets `[app] concurrency`."""
        for name, value in settings.items():
            if value is not None:
                self._flags[name.replace("_", ".", 1)] = value

    @cached_property
    def manager(self) -> ConfigManager:
        """The configuration with its sources."""
        with quick_imports():
            from distributed_downloader.config import ConfigManager

        return ConfigManager(self._config_file, self._flags, os.environ)

    def _load_config(self) -> AppConfig:
        """Return the configuration; sets up logging as it says, and tells what is unwise in it."""
        config = self.manager.load()
        self.start_log(config.app)
        for warning in self.manager.warnings:
            click.echo(f"warning: {warning}", err=True)
        return config

    def start_log(self, settings: AppSection) -> None:
        """Log on standard error as these settings say."""
        from distributed_downloader.unexpected import tell_of_the_unseen

        logs.set_up(settings.log_level, settings.log_format)
        tell_of_the_unseen()

    def show_progress_not_log(self) -> None:
        """Leave the screen to a progress display; warnings, and everything at DEBUG, still appear."""
        if self.config.app.log_level != "DEBUG":
            logging.getLogger().setLevel(max(logging.WARNING, logging.getLogger().level))
            # The display itself tells of tries and failures.
            logging.getLogger("distributed_downloader.reports").setLevel(logging.CRITICAL)

    def warn_of_idle_settings(self) -> None:
        """Say so when a setting asks for what cannot be done here."""
        if not self.config.huggingface.enable_hf_transfer:
            return
        from distributed_downloader.transfer.hf_transfer import idle

        if why := idle(self.config):
            log.warning("[huggingface] enable_hf_transfer: %s; the standard engine is used", why)

    def require_worker(self) -> None:
        """Refuse to start a worker here that could never work; warn of what it will suffer from."""
        from distributed_downloader.doctor.at_start import require_worker

        require_worker(self.config, self.manager.sources)

    @cached_property
    def redis(self) -> RedisClient:
        """As in `Client`, imported fast."""
        with quick_imports():
            import distributed_downloader.redis_client  # noqa: F401

        return super().redis

    @cached_property
    def console(self) -> Console:
        """Where results go: standard output."""
        from rich.console import Console

        return Console(highlight=False, soft_wrap=True)

    @cached_property
    def progress_console(self) -> Console:
        """Where progress goes: standard error."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)
