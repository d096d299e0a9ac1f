"""The heartbeat of a worker: keeps its lease, notices lost tasks, drives the queue's clock."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.models import JobState, WorkerStatus
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import Beat, RedisClient

log = logging.getLogger(__name__)

#: Seconds between two looks at what is due: housekeeping of the queue, the lease, what `status` shows.
_PULSE = 1.0


class Owner(Protocol):
    """The worker whose heart this is."""

    def describe(self) -> WorkerStatus:
        """Say who and what for `status`."""

    def holds(self) -> set[str]:
        """Return the tokens that run here."""

    def drop(self, token: str, reason: str) -> None:
        """Stop a task whose job does not want it any more."""

    def declared_dead(self) -> None:
        """Stop everything and come back under a new name: others have our tasks."""


class Heartbeat:
    """A thread that beats for one worker until `stop`; Redis may come and go meanwhile."""

    def __init__(self, redis: RedisClient, owner: Owner) -> None:
        self._redis, self._owner = redis, owner
        self._outage = Outage(redis.address)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._strangers: set[str] = set()
        self._last_report: WorkerStatus | None = None
        #: Retries that wait for this host, because their first bytes lie here.
        self.parked = 0
        #: time.monotonic() of the last good beat.
        self.last_beat = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the lease is young enough to claim under it."""
        return time.monotonic() - self.last_beat < self._redis.limits.lease / 2

    def start(self) -> None:
        """Register the worker, then beat in the background; raises RedisUnavailableError."""
        self.register()
        self._thread.start()

    def register(self) -> None:
        """Enter the worker in the fleet, under the name that it has now."""
        self._redis.register(self._owner.describe())
        self._strangers = set()
        self.last_beat = time.monotonic()

    def doubt(self) -> None:
        """Beat before the next claim: Redis has just refused us a task."""
        self.last_beat = 0.0

    def stop(self) -> None:
        """End the thread; the worker leaves the fleet itself."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_PULSE)

    def _run(self) -> None:
        while not self._stop.wait(_PULSE):
            try:
                self._pulse()
                self._outage.over()
            except RedisUnavailableError as error:
                self._outage.note(error)
            except Exception:
                log.exception("heartbeat: unexpected; going on")

    def _pulse(self) -> None:
        status = self._owner.describe()
        due = time.monotonic() - self.last_beat >= self._redis.limits.lease / 3
        if due and not self._beat(status):
            return
        if due or status.transfers or status != self._last_report:
            self._redis.report(status)
            self._last_report = status
        self._redis.tick()

    def _beat(self, status: WorkerStatus) -> bool:
        """Extend the lease; False if it was over, and the worker had to start again."""
        asked = time.monotonic()
        beat = self._redis.beat(status.id, status.host)
        if beat is None:
            if not self._stop.is_set():  # a worker that is leaving must not come back
                log.warning("this worker was taken for dead, or Redis has lost its data; starting again")
                self._owner.declared_dead()
                self.register()
            return False
        self.last_beat = asked
        self.parked = beat.parked
        self._reconcile(status.id, beat)
        return True

    def _reconcile(self, worker_id: str, beat: Beat) -> None:
        for token, state in beat.tokens.items():
            if state in (None, JobState.CANCELLED):
                self._owner.drop(token, "the job was cancelled" if state else "the job was forgotten")
        # A claim on its way looks like a stranger once; a lost reply does so twice. It goes to whoever
        # is free, for our own slots may be busy for hours.
        strangers = set(beat.tokens) - self._owner.holds()
        if lost := strangers & self._strangers:
            log.info("the reply to a claim was lost; giving back %s", ", ".join(sorted(lost)))
            self._redis.release(worker_id, lost)
        self._strangers = strangers - self._strangers
