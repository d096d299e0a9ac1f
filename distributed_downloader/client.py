"""What a configuration leads to: Redis, the hub, and the rules; each made when it is first used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed_downloader.budget import Budgets
    from distributed_downloader.config import AppConfig
    from distributed_downloader.hub import Hub
    from distributed_downloader.redis_client import RedisClient
    from distributed_downloader.redis_view import RedisView
    from distributed_downloader.rules import Rules
    from distributed_downloader.ssl_config import HttpClient

log = logging.getLogger(__name__)


class Client:
    """One user's view of the world; nothing is read, imported or connected before it is needed."""

    def __init__(self, load: Callable[[], AppConfig]) -> None:
        """`load` returns the configuration, or raises ConfigError."""
        self._load = load
        #: Whether a job that cannot fit where it goes is refused; see fit.py.
        self.space_check = True
        self._opened = ExitStack()

    @cached_property
    def config(self) -> AppConfig:
        """The effective configuration."""
        return self._load()

    @cached_property
    def redis(self) -> RedisClient:
        """The fleet's Redis; connects when it is first asked something."""
        from distributed_downloader.redis_client import RedisClient

        return self._opened.enter_context(closing(RedisClient(self.config.redis)))

    @cached_property
    def view(self) -> RedisView:
        """What `status` and its kin read."""
        from distributed_downloader.redis_view import RedisView

        return RedisView(self.redis)

    @cached_property
    def hub(self) -> Hub:
        """The hub at the configured endpoint."""
        from distributed_downloader.hub import Hub

        return Hub(self._http, self.config.huggingface.endpoint)

    @cached_property
    def _http(self) -> HttpClient:
        from distributed_downloader.ssl_config import HttpClient

        return self._opened.enter_context(closing(HttpClient.of(self.config, self.budgets)))

    @cached_property
    def budgets(self) -> Budgets:
        """What the hub allows us; of this process alone, until it is shared."""
        from distributed_downloader.budget import Budgets

        return Budgets()

    @cached_property
    def rules(self) -> Rules:
        """What this machine takes part in."""
        from distributed_downloader.rules import Rules

        return Rules(self.config)

    @property
    def reserve(self) -> int | None:
        """Bytes that a master leaves free where a job goes; None for one that does not look."""
        return self.config.app.disk_reserve if self.space_check else None

    def share_budgets(self) -> None:
        """Ask the hub as one with the fleet from now on."""
        from distributed_downloader.redis_budgets import RedisBudgets

        self.budgets.share(RedisBudgets(self.redis))

    def warn_of_redis(self) -> None:
        """Connect, and say what this Redis could do better."""
        for warning in self.redis.check():
            log.warning(warning)

    def close(self) -> None:
        """Close all connections."""
        self._opened.close()
