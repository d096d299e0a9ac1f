"""One bucket of an account's requests at a hub: what this process knows of it, and what it has in hand."""

from __future__ import annotations

import random
from typing import NamedTuple

from distributed_downloader.quota import Told, spare

#: Requests that are taken from the fleet's budget at once, at most.
HANDFUL = 64
#: Seconds after which a handful that nobody uses goes back.
IDLE = 1.0
#: Seconds over which the workers spread when a window begins, and how much of their rest that may be.
_SPREAD, _SPREAD_PART = 1.0, 1 / 5


class Grant(NamedTuple):
    """Requests that may be sent within the next `seconds`; then a new window begins."""

    requests: int
    seconds: float
    #: Seconds for which there are no more.
    rest: float = 0.0


class Bucket:
    """One bucket of an account, as this process knows it; times are those of `time.monotonic`."""

    def __init__(self, account: str, endpoint: str, heard: Told, now: float) -> None:
        self.account, self.endpoint = account, endpoint
        self._told, self._at = heard, now
        #: When the window ends of which the hub told last.
        self._ends = now + heard.seconds
        #: Requests that are left, and until when: later than `_ends` in a window that our clock began.
        self._left, self._until = self._usable(heard), self._ends
        #: Requests in hand, until when they are good, and how many the last handful had.
        self._held, self._good_until, self._handful = 0, 0.0, 0
        #: Requests that are on their way.
        self._flying = 0
        #: Until when there is nothing to be had.
        self._rests_until = 0.0
        self._used = now
        #: Slots that wait for a request; whether Redis is being asked.
        self.waiting, self.asked = 0, False
        #: When Redis last answered.
        self.answered = now
        #: Windows that began since the first one.
        self.windows = 0

    @property
    def in_use(self) -> bool:
        """Whether a request is on its way or waits, or Redis is being asked for one."""
        return bool(self._flying or self.waiting or self.asked)

    @staticmethod
    def _usable(heard: Told) -> int:
        return max(0, heard.left - spare(heard.quota))

    def known(self, now: float) -> bool:
        """Return whether the hub has told of it lately."""
        return now < self._at + 2 * self._told.window

    def forgotten(self, now: float) -> bool:
        """Return whether neither the hub nor Redis has told of it lately."""
        return now >= max(self._at, self.answered) + 2 * self._told.window

    def hear(self, heard: Told, now: float) -> bool:
        """Take note of an answer; return whether it tells of a new window, or of when ours really ends.

        Within a window the lower number counts: answers may overtake each other.
        """
        ends = now + heard.seconds
        new = ends >= self._ends + heard.window / 2
        if new:
            self._held, self._rests_until = 0, 0.0  # of the window before, or as long as we guessed
            self.windows += 1
        elif self._until > self._ends or ends <= self._ends - heard.window / 2:
            return False  # of a window that is over
        else:
            heard, ends = heard._replace(left=min(heard.left, self._told.left)), min(ends, self._ends)
        self._left, self._ends, self._until = self._usable(heard), ends, ends
        self._told, self._at = heard, now
        return new

    def take(self, now: float) -> bool:
        """Take one request of those in hand; False if there is none."""
        if not self._held or now >= self._good_until:
            return False
        self._held -= 1
        self._flying += 1
        self._used = now
        return True

    def land(self) -> None:
        """Take note that a request was answered, or never will be."""
        self._flying -= 1

    def out(self, now: float) -> int:
        """Return how many requests are in hand or on their way."""
        return self._flying + (self._held if now < self._good_until else 0)

    def rest(self, now: float) -> float:
        """Return the seconds for which nothing is to be had."""
        return max(0.0, self._rests_until - now)

    def wants(self, now: float) -> bool:
        """Return whether it is time for another handful: before the last one is used up."""
        if self.asked or self.rest(now):
            return False
        held = self._held if now < self._good_until else 0
        return held < self._handful // 2 or bool(self.waiting and not held)

    def unused(self, now: float) -> int:
        """Return how many requests lie here that nobody has wanted for a while."""
        idle = now - self._used > IDLE and now < self._good_until - IDLE
        return 0 if self.waiting or not idle else self._held

    def holds(self, now: float) -> bool:
        """Return whether requests are in hand."""
        return bool(self._held) and now < self._good_until

    def let_go(self) -> None:
        """Keep no requests in hand."""
        self._held = self._handful = 0

    def heard(self, now: float) -> Told:
        """Return what the hub told last, as of now."""
        return self._told._replace(seconds=self._told.seconds - (now - self._at))

    def alone(self, now: float) -> Grant:
        """Return a handful of what this process itself knows to be left."""
        if now >= self._until:
            self._left = self._told.quota - spare(self._told.quota)
            self._until = now + self._told.window + 1
        count = max(0, min(HANDFUL, self._left - self.out(now)))
        return Grant(count, self._until - now, 0.0 if count else self._until - now)

    def accept(self, grant: Grant, now: float) -> None:
        """Take a handful into the hand; or none, and rest."""
        self._held = grant.requests + (self._held if now < self._good_until else 0)
        self._good_until, self._handful = now + grant.seconds, grant.requests
        if grant.rest:
            jitter = random.uniform(0, min(_SPREAD, grant.rest * _SPREAD_PART))
            self._rests_until = now + grant.rest + jitter
