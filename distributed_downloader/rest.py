"""The pauses of a worker whose machine is at fault: it claims nothing, for longer if that goes on."""

from __future__ import annotations

import logging
import time

from distributed_downloader.errors import PlaceUnseenError, TransferError, WaitsForNasError

log = logging.getLogger(__name__)

#: Seconds without claiming after this machine failed a task; doubles while it goes on.
_SHORTEST, _LONGEST = 5.0, 300.0
#: The longest where a folder is not seen, which a mount mends in a moment.
_LONGEST_BLIND = 60.0


class Rest:
    """For all threads of one worker; a race between two only makes a pause a little longer."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._until = 0.0
        self._reason = ""
        self._passes = False

    @property
    def reason(self) -> str:
        """Why nothing is claimed at the moment, or ""."""
        return self._reason if time.monotonic() < self._until else ""

    @property
    def passes(self) -> bool:
        """Whether the trouble ends by itself, when files have got to the NAS."""
        return self._passes

    def begin(self, reason: str, error: TransferError) -> None:
        """Claim nothing for a while because of `error`, for longer if it happens again right afterwards."""
        blind = isinstance(error, PlaceUnseenError)
        now, longest = time.monotonic(), _LONGEST_BLIND if blind else _LONGEST
        if now >= self._until:
            again = now < self._until + longest
            longer = min(longest, 2 * self._seconds)
            self._seconds = max(_SHORTEST, longer if again else 0)
            self._until = now + self._seconds
            # Once is enough for the log; `status` shows it as long as it lasts.
            level = logging.DEBUG if again and reason == self._reason else logging.ERROR
            log.log(level, "%s; claiming nothing for %.0f s", reason, self._seconds)
        self._reason, self._passes = reason, isinstance(error, WaitsForNasError)
