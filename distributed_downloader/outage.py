"""Logs the times without Redis: the begin and the end of each, once."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger(__name__)


class Outage:
    """One thread's, or one kind of call's, view of whether Redis is there."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._since: float | None = None
        self._lock = threading.Lock()

    @property
    def noted(self) -> bool:
        """Whether Redis is away, as far as we know."""
        return self._since is not None

    def note(self, error: Exception) -> None:
        """Say so, the first time."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                log.warning("%s; waiting for it", error)

    def over(self) -> None:
        """Say how long it took, if there was one."""
        with self._lock:
            if self._since is not None:
                log.info("Redis at %s is back after %.0f s", self._address, time.monotonic() - self._since)
                self._since = None
