"""What was found to be so a moment ago need not be looked at again for each small file."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

#: Seconds for which a look is good: what could go wrong meanwhile is found where files are written.
MOMENT = 1.0
#: Things remembered; a worker meets few at a time.
_MOST = 64


class Lately:
    """Remembers when things were found to be so; for use from any thread."""

    def __init__(self, seconds: float = MOMENT, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._found: dict[Hashable, float] = {}

    def was(self, what: Hashable) -> bool:
        """Return whether this was noted a moment ago."""
        at = self._found.get(what)
        return at is not None and self._clock() - at < self._seconds

    def note(self, what: Hashable) -> None:
        """Take note that this has just been found."""
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[what] = self._clock()
