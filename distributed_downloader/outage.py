"""Logs the times without Redis: the begin and the end of each, once; and remembers the last one."""

from __future__ import annotations

import threading
import time

from pydantic import BaseModel, ConfigDict

from distributed_downloader.errors import RedisCutOffError, RedisFullError
from distributed_downloader.outage_log import outage_log


class Absence(BaseModel):
    """A time without Redis that is over, as one process saw it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Unix time of its end, and how long it took.
    back_at: float
    seconds: float = 0
    #: Whether Redis came back without what it knew.
    lost: bool = False


class Outage:
    """One thread's, or one kind of call's, view of whether Redis is there."""

    def __init__(self, address: str) -> None:
        self._address, self._log = address, outage_log(address)
        self._noted = False
        self._since: float | None = None
        self._lock = threading.Lock()
        #: The last one that is over, if there was one.
        self.last: Absence | None = None

    def note(self, error: Exception) -> None:
        """Say so, the first time. A Redis that is only full is not away.

        Nor need one be that cut off a wait: it was restarted, or somebody between forgot us. The next call
        tells.
        """
        if isinstance(error, RedisCutOffError):
            return
        with self._lock:
            self._noted = True
            if self._since is None and not isinstance(error, RedisFullError):
                self._since = time.monotonic()
            self._log.away(self, error)

    def over(self) -> None:
        """Say how long it took, if there was one."""
        with self._lock:
            if not self._noted:
                return
            self._noted = False
            self._log.back(self)
            if self._since is not None:
                seconds = time.monotonic() - self._since
                self.last = Absence(back_at=time.time(), seconds=seconds)
                self._since = None

    def lost(self) -> None:
        """Take note that Redis, which answers again, has lost its data."""
        was_away = self._since is not None
        self.over()
        with self._lock:
            seconds = self.last.seconds if was_away and self.last else 0.0
            self.last = Absence(back_at=time.time(), seconds=seconds, lost=True)
