"""The pauses of a worker whose machine is at fault: it claims nothing, for longer if that goes on."""

from __future__ import annotations

import logging
import time

from distributed_downloader.errors import HubAwayError, PlaceUnseenError, TransferError, WaitsForNasError
from distributed_downloader.headroom import Headroom

log = logging.getLogger(__name__)

#: Seconds without claiming after this machine failed a task; doubles while it goes on.
_SHORTEST, _LONGEST = 5.0, 300.0
#: The longest where a folder or a hub is not seen, which may be mended any moment.
_LONGEST_BLIND = 60.0


class Rest:
    """For all threads of one worker; a race between two only makes a pause a little longer."""

    def __init__(self, headroom: Headroom | None = None) -> None:
        self._headroom = headroom or Headroom()
        self._seconds = 0.0
        self._until = 0.0
        self._reason = ""
        self._passes = False
        self._refusal, self._refused_at = "", 0.0

    @property
    def reason(self) -> str:
        """Why nothing is claimed at the moment, or ""."""
        return self._rests or self._headroom.reason

    @property
    def _rests(self) -> str:
        return self._reason if time.monotonic() < self._until else ""

    @property
    def passes(self) -> bool:
        """Whether the trouble ends by itself."""
        return self._passes if self._rests else self._headroom.passes

    def look(self) -> str:
        """Look at what the machine has left, and return `reason`; for the one thread that claims."""
        return self._rests or self._headroom.look()

    @property
    def refusal(self) -> str:
        """Why a job was refused of late, or ""; others are claimed all the same."""
        return self._refusal if time.monotonic() < self._refused_at + _LONGEST_BLIND else ""

    def refuse(self, reason: str) -> None:
        """Take note of a job that is not for this machine: its rules forbid it, or the hub is not reached.

        "" = it is again.
        """
        self._refusal, self._refused_at = reason, time.monotonic()

    def begin(self, reason: str, error: TransferError) -> None:
        """Claim nothing for a while because of `error`, for longer if it happens again right afterwards."""
        blind = isinstance(error, (PlaceUnseenError, HubAwayError))
        now, longest = time.monotonic(), _LONGEST_BLIND if blind else _LONGEST
        if now >= self._until:
            again = now < self._until + longest
            longer = min(longest, 2 * self._seconds)
            self._seconds = max(_SHORTEST, longer if again else 0)
            self._until = now + self._seconds
            # Once is enough for the log; `status` shows it as long as it lasts.
            level = logging.DEBUG if again and reason == self._reason else logging.ERROR
            log.log(level, "%s; claiming nothing for %.0f s", reason, self._seconds)
        self._reason, self._passes = reason, _passes(error)


def _passes(error: TransferError) -> bool:
    """Return whether it ends by itself: when files have got to the NAS, when the network is back."""
    return isinstance(error, WaitsForNasError) or (isinstance(error, HubAwayError) and error.passes)
