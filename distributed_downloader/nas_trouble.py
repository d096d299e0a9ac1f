"""Why files do not get to the NAS: what `status` shows, what the log says, and how long to wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

#: Seconds to wait after a trouble; doubles while it goes on.
SHORTEST, LONGEST = 5.0, 300.0
#: Files with a trouble of their own that are remembered, which bounds the memory.
_REMEMBERED = 1000

#: A file, as the queue calls it: `models.Token`.
Key = tuple[int, ...]


@dataclass
class _Bad:
    """A file that cannot be delivered."""

    #: "" if the NAS was to blame.
    reason: str
    pause: float
    #: Whether what lies here was read and is not the file.
    damaged: bool
    #: When it is forgotten, for others may have delivered it, or its job is gone.
    until: float


class Troubles:
    """The troubles of one worker's copying; for use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._nas, self._since = "", 0.0
        self._away = False
        self._pause, self._rest_until = 0.0, 0.0
        self._files: OrderedDict[Key, _Bad] = OrderedDict()

    @property
    def with_nas(self) -> str:
        """Why nothing at all gets there, or ""."""
        return self._nas

    @property
    def resting(self) -> bool:
        """Whether the NAS is to be left alone for a while."""
        return bool(self._nas) and self._clock() < self._rest_until

    @property
    def text(self) -> str:
        """Say what is wrong, or ""."""
        with self._lock:
            if self._nas:
                return self._nas
            now = self._clock()
            for key in [key for key, bad in self._files.items() if bad.until < now]:
                del self._files[key]
            reasons = [bad.reason for bad in self._files.values() if bad.reason]
        if len(reasons) > 1:
            return f"{len(reasons):,} files do not get to the NAS; the last: {reasons[-1]}"
        return "".join(reasons)

    def nas_is_away(self, reason: str) -> None:
        """The NAS is not mounted here."""
        with self._lock:
            self._begin(reason)
            self._away = True

    def nas_is_back(self) -> None:
        """The NAS is mounted here."""
        with self._lock:
            if self._away:
                self._end()

    def nas_failed(self, key: Key, reason: str) -> float:
        """The NAS did not take a file: leave it alone, for longer if that goes on.

        Return the seconds until the next try of this file, which grow too: the NAS may have room for others.
        """
        with self._lock:
            now = self._clock()
            if now >= self._rest_until:
                self._pause = min(LONGEST, max(SHORTEST, 2 * self._pause))
                self._rest_until = now + self._pause
            self._begin(reason)
            return self._note(key, "", SHORTEST)

    def nas_works(self) -> None:
        """The NAS took a file."""
        with self._lock:
            self._end()

    def nothing_is_owed(self) -> None:
        """What could not be delivered from here was by others, or its job is gone."""
        with self._lock:
            self._files.clear()

    def file_failed(self, key: Key, path: str, reason: str, *, damaged: bool = False) -> float:
        """Take note of a file that cannot be delivered; return the seconds until the next try.

        One that is `damaged` will hardly get well by itself, and each look at it reads it as a whole.
        """
        with self._lock:
            before = self._files.get(key)
            text = reason if path in reason else f"{path}: {reason}"
            pause = self._note(key, text, LONGEST if damaged else SHORTEST, damaged=damaged)
        level = logging.DEBUG if before and before.reason else logging.WARNING
        log.log(level, "not on the NAS yet: %s: %s", path, reason.removeprefix(f"{path}: "))
        return pause

    def is_damaged(self, key: Key) -> bool:
        """Whether the last try found that what lies here is not the file."""
        with self._lock:
            return key in self._files and self._files[key].damaged

    def file_works(self, key: Key) -> None:
        """The file is on the NAS."""
        with self._lock:
            self._files.pop(key, None)

    def _note(self, key: Key, reason: str, shortest: float, *, damaged: bool = False) -> float:
        before = self._files.pop(key, None)
        pause = min(LONGEST, max(shortest, 2 * before.pause if before else 0.0))
        self._files[key] = _Bad(reason, pause, damaged, self._clock() + 2 * pause + LONGEST)
        if len(self._files) > _REMEMBERED:
            self._files.popitem(last=False)
        return pause

    def _begin(self, reason: str) -> None:
        if not self._nas:
            self._since = self._clock()
            log.warning("NAS: %s; files stay where they are until it is well", reason)
        self._nas = reason

    def _end(self) -> None:
        if self._nas:
            log.info("NAS: well again after %.0f s", self._clock() - self._since)
        self._nas, self._away = "", False
        self._pause, self._rest_until = 0.0, 0.0
