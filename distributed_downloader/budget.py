"""The hub's budget: every request to a hub takes one of those that it allows, and waits where none is left.

A hub counts the requests of an account in windows and tells in each answer what is left (quota.py). The
workers of a fleet share that through Redis, a handful at a time. While a hub tells nothing, nothing is slowed
and nothing asked of Redis; while Redis is away, what this process heard counts.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from distributed_downloader.bucket import HANDFUL, IDLE, Bucket, Grant
from distributed_downloader.cancel import Cancel
from distributed_downloader.checks import origin
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.quota import Told, account, kind, told

log = logging.getLogger(__name__)

#: Seconds that requests wait for an answer of Redis before what this process heard has to do.
PATIENCE = 3.0
#: Seconds after which a Redis that was away is asked again.
_AWAY = 5.0
#: Seconds that an answer of Redis which is on its way gets at the end.
_LEAVE = 1.0
#: Buckets that are remembered, beside those in use: a hub may name another one in each answer.
MOST_BUCKETS = 64


class Ledger(Protocol):
    """Where a fleet keeps its budgets; RedisBudgets is the real one."""

    def spend(self, account: str, endpoint: str, heard: Told, out: int, wanted: int) -> Grant:
        """Tell what was heard, and how many requests are in hand or on their way; take up to `wanted`.

        What is neither any more has been used, or goes back. Raises RedisUnavailableError.
        """


class Budgets:
    """The budgets of all hubs that this process asks; for all its threads."""

    def __init__(self, ledger: Ledger | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._clock = ledger, clock
        self._host = socket.gethostname()
        lock = threading.RLock()
        #: For the slots that wait for a request, and for the thread that asks Redis for them.
        self._came, self._wanted = threading.Condition(lock), threading.Condition(lock)
        self._asker: threading.Thread | None = None
        self._closed = False
        self._away_until = 0.0
        #: Who asks where for what -> the bucket that the hub named for it.
        self._named: dict[tuple[str, str, str], Bucket] = {}
        #: Whose -> each; what was heard of last is at the end.
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._log_again = 0.0

    def share(self, ledger: Ledger) -> None:
        """Share the budgets with a fleet from now on."""
        with self._came:
            self._ledger = ledger

    def take(self, url: str, token: str, cancel: Cancel) -> Bucket | None:
        """Take one request, or wait for one, and return it for `done`; raises StoppedError.

        None costs nothing: the hub has told nothing, or nothing more.
        """
        bucket = self._named.get(self._key(url, token)) if self._named else None
        now = self._clock()
        if bucket is None or not bucket.known(now):
            return None
        with self._came:
            if bucket.take(now):
                self._look(bucket, now)
                return bucket
        return bucket if self._wait(bucket, cancel) else None

    def done(self, taken: Bucket | None) -> None:
        """Take note that a request has come to its end, and what its answer tells is learned."""
        if taken:
            with self._came:
                taken.land()

    def learn(self, url: str, token: str, headers: Mapping[str, str]) -> None:
        """Take note of what an answer tells."""
        heard = told(headers)
        if heard is None:
            return
        where, now = origin(url), self._clock()
        name = account(where, token, self._host)
        with self._came:
            bucket = self._buckets.pop((name, heard.bucket), None) or Bucket(name, where, heard, now)
            self._buckets[name, heard.bucket] = self._named[self._key(url, token)] = bucket
            if bucket.hear(heard, now):
                self._came.notify_all()
            self._forget()

    def close(self) -> None:
        """Ask Redis nothing more; what is in hand is void when its window ends."""
        with self._came:
            self._closed, asker = True, self._asker
            self._wanted.notify_all()
        if asker and asker.is_alive():
            asker.join(_LEAVE)  # or whoever closes Redis next would do so under its hands

    def _forget(self) -> None:
        """Forget what was not heard of for longest, of too many buckets; the lock is held."""
        if len(self._buckets) <= MOST_BUCKETS:
            return
        gone = next((bucket for bucket in self._buckets.values() if not bucket.in_use), None)
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if bucket is not gone}
        self._named = {place: bucket for place, bucket in self._named.items() if bucket is not gone}

    @staticmethod
    def _key(url: str, token: str) -> tuple[str, str, str]:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}", token, kind(parts.path)

    # -- those who wait ---------------------------------------------------------------------------

    def _wait(self, bucket: Bucket, cancel: Cancel) -> bool:
        with cancel.closing(self._wake), self._came:
            bucket.waiting += 1
            try:
                taken = self._wait_for(bucket, cancel)
            finally:
                bucket.waiting -= 1
        if not taken:
            cancel.check()
        return taken

    def _wait_for(self, bucket: Bucket, cancel: Cancel) -> bool:
        """Return whether there was a request before the stop signal, or the end of all that is known.

        The lock is held.
        """
        since = now = self._clock()
        while not bucket.take(now):
            if cancel.is_set() or bucket.forgotten(now):
                return False
            self._look(bucket, now)
            rest = bucket.rest(now)
            if rest:
                self._say(bucket, rest, now)
            elif self._is_alone(now) or now - max(since, bucket.answered) >= PATIENCE:
                bucket.accept(bucket.alone(now), now)
                continue
            self._came.wait(rest or PATIENCE)
            now = self._clock()
            since = now if rest else since
        return True

    def _wake(self) -> None:
        with self._came:
            self._came.notify_all()

    def _is_alone(self, now: float) -> bool:
        return self._ledger is None or self._closed or now < self._away_until

    def _say(self, bucket: Bucket, rest: float, now: float) -> None:
        if rest < 1 or now < self._log_again:
            return
        self._log_again, heard = now + rest, bucket.heard(now)
        about = (heard.quota, heard.window, heard.bucket)
        log.info("the hub's %d requests in %d s (%s) are used up: waiting for %.0f s", *about, rest)

    # -- the thread that asks Redis ---------------------------------------------------------------

    def _look(self, bucket: Bucket, now: float) -> None:
        """Have Redis asked if it is time to; the lock is held."""
        if self._is_alone(now) or not bucket.wants(now):
            return
        try:
            self._start()
        except (RuntimeError, MemoryError) as error:  # the machine has no thread left, for the time being
            log.debug("the hub's budget is not shared: %s", error)
            self._away_until = now + _AWAY
        self._wanted.notify_all()

    def _start(self) -> None:
        if self._asker is None or not self._asker.is_alive():
            self._asker = threading.Thread(target=self._ask_for_all, name="budget", daemon=True)
            self._asker.start()  # which may fail when it runs already

    def _ask_for_all(self) -> None:
        while ledger := self._next():
            now = self._clock()
            with self._came:
                due = [bucket for bucket in self._buckets.values() if bucket.wants(now)]
                idle = [bucket for bucket in self._buckets.values() if bucket.unused(now)]
            try:
                for bucket in due:
                    self._ask(ledger, bucket)
                for bucket in idle:
                    self._return(ledger, bucket)
            except RedisUnavailableError as error:
                log.debug("the hub's budget is not shared: %s", error)
                with self._came:
                    self._away_until = self._clock() + _AWAY
                    self._came.notify_all()

    def _next(self) -> Ledger | None:
        """Wait until there is something to ask; None if nobody wants anything any more."""
        with self._came:
            while not self._closed:
                now = self._clock()
                buckets = self._buckets.values()
                due = any(bucket.unused(now) or bucket.wants(now) for bucket in buckets)
                if due and not self._is_alone(now):
                    return self._ledger
                holding = any(bucket.holds(now) for bucket in buckets)
                self._wanted.wait(IDLE if holding else None)
            return None

    def _ask(self, ledger: Ledger, bucket: Bucket) -> None:
        grant: Grant | None = None
        try:
            with self._came:
                bucket.asked, windows, now = True, bucket.windows, self._clock()
                heard, out = bucket.heard(now), bucket.out(now)
            grant = ledger.spend(bucket.account, bucket.endpoint, heard, out, HANDFUL)
        finally:
            with self._came:
                bucket.asked = False
                if grant:
                    bucket.answered = self._clock()
                if grant and bucket.windows == windows:  # else it is about one that is over
                    bucket.accept(grant, bucket.answered)
                self._came.notify_all()

    def _return(self, ledger: Ledger, bucket: Bucket) -> None:
        with self._came:
            now = self._clock()
            if not bucket.unused(now):
                return
            bucket.let_go()
            heard, out = bucket.heard(now), bucket.out(now)
        ledger.spend(bucket.account, bucket.endpoint, heard, out, 0)
