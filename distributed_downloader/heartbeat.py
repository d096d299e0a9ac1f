"""The heartbeat of a worker: keeps its lease, notices lost tasks, drives the queue's clock."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.hold import now
from distributed_downloader.models import JobState, WorkerStatus
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import Beat, RedisClient
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.unexpected import tell

log = logging.getLogger(__name__)

#: Seconds between two looks at what is due: housekeeping of the queue, the lease, what `status` shows.
_PULSE = 1.0
#: Workers that offer to do the queue's housekeeping in a second, on average, beside the one who did it last:
#: that one goes on, so that nothing waits where the fleet is much smaller than its workers have heard.
_HOUSEKEEPERS = 1
#: Beats a second of a fleet that idles, for which its workers' leases are made longer.
_BEATS_AT_REST = 10
#: As the time of a beat: a machine that has just started has a monotonic clock of a few seconds.
_NEVER = float("-inf")
#: Leases for which a report counts that says what the one before said.
_LONGEST_REPORT = 10
#: Seconds between two looks at the progress of parts; and when nothing else is left to claim, so that tails
#: are shared well.
_PARTS_PULSE, _TAIL_PULSE = 0.5, 0.25


class Owner(Protocol):
    """The worker whose heart this is."""

    @property
    def id(self) -> str:
        """Its name in the fleet."""

    def describe(self) -> WorkerStatus:
        """Say who and what for `status`."""

    def turn(self, thread: str) -> None:
        """Take note that one of the threads that matter goes on."""

    def holds(self) -> set[str]:
        """Return the tokens that run here."""

    def parts(self) -> Mapping[str, tuple[int, float]]:
        """Return how far each part is that runs here: token -> bytes, bytes a second."""

    def renew(self, asked_at: float, asked: Mapping[str, tuple[int, float]], ours: Mapping[str, int]) -> None:
        """Take note of which of these parts are still the worker's, and how long they are now."""

    def expects(self, token: str) -> bool:
        """Return whether the worker waits for this token, and will begin with it by itself."""

    def beaten(self, asked_at: float) -> None:
        """Take note that the lease was extended."""

    def drop(self, token: str, reason: str) -> None:
        """Stop a task whose job does not want it any more."""

    def declared_dead(self) -> None:
        """Stop everything and come back under a new name: others have our tasks."""


class Heartbeat:
    """A thread that beats for one worker until `stop`; Redis may come and go meanwhile."""

    def __init__(self, redis: RedisClient, owner: Owner) -> None:
        self._redis, self._parts, self._owner = redis, RedisParts(redis), owner
        #: Its view of whether Redis is there.
        self.outage = Outage(redis.address)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._strangers: set[str] = set()
        self._last_report: WorkerStatus | None = None
        self._reported_at = 0.0
        self._seen = ("", "")
        self._workers = 1
        self._keeps_house = False
        #: Seconds by which the lease is longer than usual.
        self._longer = 0.0
        self._pulsed_at = 0.0
        #: Retries that wait for this host, because their first bytes lie here.
        self.parked = 0
        #: Whether parts are in somebody's hands, whose tails an idle slot may take.
        self.tails = False
        #: time.monotonic() of the last good beat.
        self.last_beat = _NEVER
        #: Whether nothing was left to claim when the progress of parts was last reported.
        self.dry = False

    @property
    def fresh(self) -> bool:
        """Whether the lease is young enough to claim under it."""
        return time.monotonic() - self.last_beat < self._redis.limits.lease / 2 + self._longer

    def start(self) -> None:
        """Register the worker, then beat in the background; raises RedisUnavailableError."""
        self.register()
        self._thread.start()

    def register(self) -> None:
        """Enter the worker in the fleet, under the name that it has now."""
        status = self._owner.describe()
        self._workers = self._redis.register(status)
        self._seen = (status.folder, status.nas)
        self._last_report, self._reported_at = status, time.monotonic()
        self._strangers = set()
        self.last_beat, self._longer = time.monotonic(), 0.0

    def doubt(self) -> None:
        """Beat before the next claim: Redis has just refused us a task.

        Not for each of them: where somebody filled the queue with junk, all of it goes through our hands.
        """
        if time.monotonic() - self.last_beat > _PULSE:
            self.last_beat = _NEVER

    def away(self) -> None:
        """Beat before the next claim: Redis does not answer, and may have lost who we are when it does."""
        self.last_beat = _NEVER

    def stop(self) -> None:
        """End the thread; the worker leaves the fleet itself."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_PULSE)

    def _run(self) -> None:
        wait = _PULSE
        while not self._stop.wait(wait):
            try:
                self._owner.turn("heartbeat")
                wait = self._say_parts()
                if time.monotonic() - self._pulsed_at >= _PULSE:
                    self._pulse()
                    self._pulsed_at = time.monotonic()
                    self.outage.over()  # and not after a loop that had nothing to ask
            except RedisUnavailableError as error:
                self.outage.note(error)
                self.away()
            except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
                tell(log, "heartbeat", error)

    def _pulse(self) -> None:
        status = self._owner.describe()
        if self._is_due and not self._beat(status):
            return
        if (status.folder, status.nas) != self._seen:
            self.register()  # what the worker sees has changed, and others split files by it
        if status.transfers or status != self._last_report or self._report_is_old:
            self._redis.report(status)
            self._last_report, self._reported_at = status, time.monotonic()
        if self._keeps_house or random.random() * self._workers < _HOUSEKEEPERS:
            self._keeps_house = self._redis.tick()

    @property
    def _is_due(self) -> bool:
        """Whether to beat; with nothing in hand, it is time enough just before it is not `fresh` any more."""
        if self._longer and self._owner.holds():
            return True  # if we die, others wait for the tasks
        # A fleet that has shrunk asks for less than was granted.
        calm = self._calm + min(self._longer, self._asked)
        period = calm if self._idle else self._redis.limits.lease / 3
        return time.monotonic() - self.last_beat >= period

    @property
    def _idle(self) -> bool:
        return not self._strangers and not self._owner.holds()

    @property
    def _calm(self) -> float:
        """Seconds between two beats of a worker that is idle, under the usual lease."""
        lease = self._redis.limits.lease
        return max(lease / 3, lease / 2 - _PULSE)

    @property
    def _asked(self) -> float:
        """By how much longer the lease shall be: the more workers idle, the less often each beats."""
        limits = self._redis.limits
        longer = min(self._workers / _BEATS_AT_REST - self._calm, limits.longest_lease - limits.lease)
        return max(0.0, longer) if self._idle else 0.0

    @property
    def _report_is_old(self) -> bool:
        """Whether to say again what was reported: a Redis may have lost it, and nobody noticed."""
        return time.monotonic() - self._reported_at >= _LONGEST_REPORT * self._redis.limits.lease

    def _say_parts(self) -> float:
        """Report the parts; what goes wrong with that must not cost the lease."""
        try:
            return self._report_parts()
        except RedisUnavailableError as error:
            self.outage.note(error)
        except Exception as error:  # noqa: BLE001 - the edge of a thread, which goes on
            tell(log, "heartbeat: the progress of parts cannot be reported", error)
        return _PULSE

    def _report_parts(self) -> float:
        """Say how far the parts are; return the seconds until that is due again."""
        asked = self._owner.parts()
        if not asked:
            return _PULSE
        asked_at = now()
        self._owner.renew(asked_at, asked, self._parts.progress(self._owner.id, asked))
        self.dry = self._parts.is_dry()
        return _TAIL_PULSE if self.dry else _PARTS_PULSE

    def _beat(self, status: WorkerStatus) -> bool:
        """Extend the lease; False if it was over, and the worker had to start again."""
        asked, asked_at = time.monotonic(), now()
        beat = self._redis.beat(status.id, status.host, self._asked)
        if beat is None:
            if not self._stop.is_set():  # a worker that is leaving must not come back
                self._say_why(status.id)
                self._owner.declared_dead()
                self.register()
                self._redis.unblock()  # a claim under the old name is one for others
            return False
        self.last_beat, self._longer = asked, beat.longer
        self._owner.beaten(asked_at)
        self.parked, self.tails, self._workers = beat.parked, beat.tails, beat.workers
        self._keeps_house |= not beat.house
        if beat.parked or beat.tails:
            self._redis.unblock()  # the claim of an idle worker waits for long, and for neither of these
        self._reconcile(status.id, beat)
        return True

    def _say_why(self, worker_id: str) -> None:
        if not self._redis.has_lost(worker_id):
            log.warning("this worker was taken for dead; starting again")
            return
        self.outage.lost()
        log.warning(
            "Redis at %s has lost data, this worker and its tasks among it: run the same `hf-downloader "
            "master` commands again; what is on disk is kept",
            self._redis.address,
        )

    def _reconcile(self, worker_id: str, beat: Beat) -> None:
        for token, state in beat.tokens.items():
            if state in (None, JobState.CANCELLED):
                self._owner.drop(token, "the job was cancelled" if state else "the job was forgotten")
        # A claim on its way looks like a stranger once; a lost reply does so twice. It goes to whoever
        # is free, for our own slots may be busy for hours.
        expected = {token for token in beat.tokens if self._owner.expects(token)}
        strangers = set(beat.tokens) - self._owner.holds() - expected
        if lost := strangers & self._strangers:
            log.info("the reply to a claim was lost; giving back %s", ", ".join(sorted(lost)))
            self._redis.release(worker_id, lost)
        self._strangers = strangers - self._strangers
