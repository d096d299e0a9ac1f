"""What a process says of its times without Redis: each thing once, whichever of its threads notices."""

from __future__ import annotations

import logging
import threading
import time
from functools import cache

log = logging.getLogger(__name__)


class OutageLog:
    """The lines about one Redis; safe for threads."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._away: set[object] = set()
        self._said: set[str] = set()
        self._since = 0.0

    def away(self, who: object, error: Exception) -> None:
        """Say why Redis is away for `who`, unless that was said already since it went away."""
        with self._lock:
            if not self._away:
                self._since = time.monotonic()
            self._away.add(who)
            # What stands in brackets behind it differs from call to call.
            why = str(error).removeprefix(f"Redis at {self._address} ").partition(" (")[0]
            if why not in self._said:
                self._said.add(why)
                log.warning("%s; waiting for it", error)

    def back(self, who: object) -> None:
        """Say how long it took, once nobody misses Redis any more."""
        with self._lock:
            if who not in self._away:
                return
            self._away.discard(who)
            if not self._away:
                self._said.clear()
                log.info("Redis at %s is back after %.0f s", self._address, time.monotonic() - self._since)


@cache
def outage_log(address: str) -> OutageLog:
    """Return the one for this address."""
    return OutageLog(address)
