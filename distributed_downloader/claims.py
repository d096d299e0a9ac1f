"""Where a worker gets its next tasks: a retry that waits for its host, the queue, or the tail of a part."""

from __future__ import annotations

import threading

from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.heartbeat import Heartbeat
from distributed_downloader.hold import now
from distributed_downloader.models import DownloadTask
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.slots import Room, Slots

#: Seconds that a claim waits in Redis; and after so many in vain, for a fleet that idles is to cost little:
#: then it is the heartbeat that looks for what no claim waits for.
_SECONDS = 5.0
_SECONDS_WHEN_IDLE, _CLAIMS_UNTIL_IDLE = 60.0, 2
#: The same where parts are under way, whose tails an idle slot may take, and where we end when all is done.
_SECONDS_WHEN_ALERT = 1.0
#: The same for so many claims in vain, while a part may be late that the end of a file waits for.
_SECONDS_AT_THE_END, _CLAIMS_AT_THE_END = 0.25, 16


class Claims:
    """The claims of one worker, made by its fetcher alone."""

    def __init__(
        self,
        redis: RedisClient,
        heartbeat: Heartbeat,
        outage: Outage,
        slots: Slots,
        *,
        host: str,
        alert: bool,
    ) -> None:
        self._redis, self._parts = redis, RedisParts(redis)
        self._heartbeat, self._outage, self._slots = heartbeat, outage, slots
        self._host, self._alert = host, alert
        #: Whether parts were under way when we last looked.
        self._parts_about = False
        #: Claims since the last one that brought something.
        self._in_vain = 0
        #: Whether small files may be next, which a busy worker claims ahead.
        self.ahead = False
        #: hold.now() when the last token was asked for: from then on its owner is expected to report.
        self.asked_at = 0.0

    def next(self, worker_id: str, room: Room) -> list[DownloadTask]:
        """Return tasks that are the worker's now, and begun; none if there are none for a while.

        Raises RedisUnavailableError.
        """
        if self.ahead and not (room.free and self._heartbeat.parked > 0):
            self.asked_at = now()
            tasks = self._redis.more(worker_id, sum(room))
            self._outage.over()
            if tasks:
                self._in_vain = 0
                return tasks
            self.ahead = False
        token = self._token(worker_id) if room.free else None
        if token is None or token in self._slots.tokens():
            return []
        task = self._redis.begin(worker_id, token)
        if task is None:
            self._heartbeat.doubt()
            return []
        self._parts_about |= task.about.part is not None
        self.ahead = self._redis.limits.is_small(task.about)
        return [task]

    def _token(self, worker_id: str) -> str | None:
        """Wait for a token, and for no longer than is worth it."""
        if self._heartbeat.parked > 0:
            self._heartbeat.parked -= 1
            if token := self._redis.home(worker_id, self._host):
                self.asked_at = now()
                return token
        # Before the wait, for what can be claimed comes to whoever waits, and a tail never does.
        if self._parts_about and self._heartbeat.dry and (token := self._tail(worker_id)):
            return token
        token = self._redis.claim(worker_id, self._seconds())
        self.asked_at = now()  # nobody expects a report on what was only claimed
        self._outage.over()
        if token is None and (self._heartbeat.tails or not self._idle):
            token = self._tail(worker_id)
        self._in_vain = 0 if token else self._in_vain + 1
        return token

    def _seconds(self) -> float:
        if self._parts_about and self._in_vain < _CLAIMS_AT_THE_END:
            return _SECONDS_AT_THE_END
        if self._alert or self._parts_about:
            return _SECONDS_WHEN_ALERT
        return _SECONDS_WHEN_IDLE if self._idle else _SECONDS

    @property
    def _idle(self) -> bool:
        return self._in_vain >= _CLAIMS_UNTIL_IDLE and not (self._alert or self._parts_about)

    def _tail(self, worker_id: str) -> str | None:
        self.asked_at = now()
        token, self._parts_about = self._parts.steal(worker_id, self._slots.part_rate)
        return token


class Wake:
    """Makes the fetcher return from a claim that waits in Redis, from any thread."""

    def __init__(self, redis: RedisClient, outage: Outage, period: float) -> None:
        self._redis, self._outage, self._period = redis, outage, period
        #: Set while the fetcher is not in a claim, nor about to be.
        self.heard = threading.Event()
        self._insisting: list[threading.Thread] = []

    def insist(self) -> None:
        """Wake it again and again until it hears, for it may just be on its way there; returns at once."""
        thread = threading.Thread(target=self._insist, name="unblock", daemon=True)
        thread.start()
        self._insisting.append(thread)  # not before, for whoever leaves meanwhile joins what is there

    def _insist(self) -> None:
        while not self.heard.is_set():
            try:
                self._redis.unblock()
            except RedisUnavailableError as error:
                self._outage.note(error)
            self.heard.wait(self._period)

    def join(self, seconds: float) -> None:
        """Wait so long at most until nobody insists any more."""
        for thread in self._insisting:
            thread.join(seconds)
