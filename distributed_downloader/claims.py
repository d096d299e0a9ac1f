"""Where a worker gets its next task: a retry that waits for its host, the queue, or the tail of a part."""

from __future__ import annotations

from collections.abc import Callable

from distributed_downloader.heartbeat import Heartbeat
from distributed_downloader.hold import now
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts

#: Seconds that a claim waits in Redis.
_SECONDS = 5.0
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
        *,
        host: str,
        alert: bool,
        speed: Callable[[], float],
    ) -> None:
        self._redis, self._parts = redis, RedisParts(redis)
        self._heartbeat, self._outage = heartbeat, outage
        self._host, self._alert, self._speed = host, alert, speed
        #: Whether parts were under way when we last looked.
        self._parts_about = False
        #: Claims since the last one that brought something.
        self._in_vain = 0
        #: hold.now() when the last token was asked for: from then on its owner is expected to report.
        self.asked_at = 0.0

    def next(self, worker_id: str) -> str | None:
        """Return a token that is the worker's now; None if there is none for a while.

        Raises RedisUnavailableError.
        """
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
        if token is None:
            token = self._tail(worker_id)
        self._in_vain = 0 if token else self._in_vain + 1
        return token

    def _seconds(self) -> float:
        if self._parts_about and self._in_vain < _CLAIMS_AT_THE_END:
            return _SECONDS_AT_THE_END
        return _SECONDS_WHEN_ALERT if self._alert or self._parts_about else _SECONDS

    def saw_part(self) -> None:
        """Take note that files are split at the moment."""
        self._parts_about = True

    def _tail(self, worker_id: str) -> str | None:
        self.asked_at = now()
        token, self._parts_about = self._parts.steal(worker_id, self._speed())
        return token
