"""Where a worker gets its next task: a retry that waits for its host, the queue, or the tail of a part."""

from __future__ import annotations

from collections.abc import Callable

from distributed_downloader.heartbeat import Heartbeat
from distributed_downloader.hold import now
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts

#: Seconds that a claim waits in Redis; whole seconds, for Redis before 7.0.8 takes a fraction for "for ever".
_SECONDS = 5
#: The same where parts are under way, whose tails an idle slot may take, and where we end when all is done.
_SECONDS_WHEN_ALERT = 1


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
        alert = self._alert or self._parts_about
        token = self._redis.claim(worker_id, _SECONDS_WHEN_ALERT if alert else _SECONDS)
        self.asked_at = now()  # nobody expects a report on what was only claimed
        self._outage.over()
        return self._tail(worker_id) if token is None else token

    def saw_part(self) -> None:
        """Take note that files are split at the moment."""
        self._parts_about = True

    def _tail(self, worker_id: str) -> str | None:
        self.asked_at = now()
        token, self._parts_about = self._parts.steal(worker_id, self._speed())
        return token
