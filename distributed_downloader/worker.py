"""The worker: claims tasks as long as it has free slots, until it is told to stop."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field

from distributed_downloader import __version__
from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError, UsageError
from distributed_downloader.heartbeat import Heartbeat
from distributed_downloader.models import WorkerStatus
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from distributed_downloader.retry import RetryPolicy
from distributed_downloader.slots import Runner, Slots

log = logging.getLogger(__name__)

#: Seconds that a claim waits in Redis; whole seconds, for Redis before 7.0.8 takes a fraction for "for ever".
_CLAIM_SECONDS = 5
_CLAIM_SECONDS_WHEN_DRAINING = 1
#: Seconds between two looks at things that end a wait: a free slot, a fresh lease, Redis being back.
_LOOK = 0.5
#: Seconds that running tasks get to notice that we stop.
_STOP_SECONDS = 2.0
#: Seconds without claiming after this machine failed a task; doubles while it goes on.
_SHORTEST_REST, _LONGEST_REST = 5.0, 300.0

_WORKER_ID = re.compile(r"[\w.:@-]{1,128}", re.ASCII)


def new_worker_id() -> str:
    """Return `host-pid-random`."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)[:90]
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class Life:
    """One name in the fleet; a worker that was taken for dead comes back with another."""

    id: str
    cancel: Cancel = field(default_factory=Cancel)


class WorkerNode:
    """One worker process: a fetcher, its slots and its heartbeat.

    `run` works until `stop` or `drain` is called (from any thread), and leaves the fleet cleanly.
    """

    def __init__(
        self,
        redis: RedisClient,
        runner: Runner,
        *,
        concurrency: int,
        worker_id: str | None = None,
        drain_when_empty: bool = False,
        check_redis: bool = True,
        policy: RetryPolicy | None = None,
    ) -> None:
        if worker_id is not None and not _WORKER_ID.fullmatch(worker_id):
            raise UsageError(f"worker id {worker_id!r}: use letters, digits and . : @ _ - (128 at most)")
        self._redis = redis
        self._runner = runner
        self._drain_when_empty = drain_when_empty
        self._check_redis = check_redis
        self._name = worker_id or new_worker_id()
        self._life = Life(self._name)
        self._host = socket.gethostname()
        self._started_at = time.time()
        self._outage = Outage(redis.address)
        self._slots = Slots(
            concurrency,
            redis,
            runner,
            host=self._host,
            outage=self._outage,
            policy=policy or RetryPolicy(),
            rest=self._rest,
        )
        self._heartbeat = Heartbeat(redis, self)
        self._stopping = threading.Event()
        self._draining = threading.Event()
        self._fetched = threading.Event()
        self._rest_seconds = 0.0
        self._rest_until = 0.0
        self._trouble = ""

    @property
    def id(self) -> str:
        """The name under which the worker is in the fleet now."""
        return self._life.id

    @property
    def trouble(self) -> str:
        """Why nothing is claimed at the moment, or ""."""
        return self._trouble if time.monotonic() < self._rest_until else ""

    # -- what its master's voice may ask: any thread, any time ------------------------------------

    def stop(self) -> None:
        """Stop now: running tasks are given back, their partial bytes stay."""
        self._stopping.set()
        self._life.cancel.set("the worker stops")
        self._end_claim()

    def drain(self) -> None:
        """Finish what runs, claim nothing new, then leave."""
        self._draining.set()
        self._end_claim()

    def run(self) -> None:
        """Work until told to stop; waits for a Redis that is not there."""
        if not self._enter():
            return
        log.info("worker %s: %d slots, Redis at %s", self.id, self._slots.count, self._redis.address)
        try:
            self._fetch()
        finally:
            self._leave()

    # -- what the heartbeat asks ------------------------------------------------------------------

    def describe(self) -> WorkerStatus:
        """Say who and what for `status`."""
        return WorkerStatus(
            id=self.id,
            host=self._host,
            pid=os.getpid(),
            version=__version__,
            slots=self._slots.count,
            started_at=self._started_at,
            transfers=self._slots.transfers(),
            trouble=self.trouble,
        )

    def holds(self) -> set[str]:
        """Return the tokens that run here."""
        return self._slots.tokens()

    def drop(self, token: str, reason: str) -> None:
        """Stop one task."""
        self._slots.cancel(token, reason)

    def declared_dead(self) -> None:
        """Stop everything and take a new name."""
        before = self._life
        self._life = Life(f"{self._name}.{secrets.token_hex(2)}")
        before.cancel.set("the lease was lost")

    # -- the fetcher ------------------------------------------------------------------------------

    def _enter(self) -> bool:
        while self._claiming:
            try:
                if self._check_redis:
                    self._warn()
                    self._check_redis = False
                self._heartbeat.start()
            except RedisUnavailableError as error:
                self._outage.note(error)
                self._stopping.wait(_LOOK)
            else:
                self._outage.over()
                return True
        return False

    @property
    def _claiming(self) -> bool:
        return not (self._stopping.is_set() or self._draining.is_set())

    def _warn(self) -> None:
        for warning in self._redis.check():
            log.warning(warning)

    def _fetch(self) -> None:
        while self._claiming:
            if not self._slots.wait_free(_LOOK):
                continue
            started = False
            try:
                started = self._claiming and self._fill_slot(self._life)
            except RedisUnavailableError as error:
                self._outage.note(error)
                self._stopping.wait(_LOOK)
            finally:
                if not started:
                    self._slots.give_back()
        self._fetched.set()
        while not self._slots.wait_idle(_LOOK) and not self._stopping.is_set():
            pass

    def _end_claim(self) -> None:
        """Make the fetcher return from Redis; again and again, for it may just be on its way there."""

        def insist() -> None:
            while not self._fetched.is_set():
                try:
                    self._redis.unblock()
                except RedisUnavailableError as error:
                    self._outage.note(error)
                self._fetched.wait(_LOOK / 2)

        threading.Thread(target=insist, name="unblock", daemon=True).start()

    def _fill_slot(self, life: Life) -> bool:
        """Claim one task for the slot that was taken; False if there is none."""
        if self.trouble or not self._heartbeat.fresh:
            self._stopping.wait(_LOOK)
            return False
        token = self._next_token(life)
        if token is None or token in self._slots.tokens():
            return False
        task = self._redis.begin(life.id, token)
        if task is None:
            self._heartbeat.doubt()
            return False
        self._slots.start(life.id, task, life.cancel.child())
        return True

    def _next_token(self, life: Life) -> str | None:
        if self._heartbeat.parked > 0:
            self._heartbeat.parked -= 1
            if token := self._redis.home(life.id, self._host):
                return token
        wait = _CLAIM_SECONDS_WHEN_DRAINING if self._drain_when_empty else _CLAIM_SECONDS
        token = self._redis.claim(life.id, wait)
        self._outage.over()
        if token is None and self._drain_when_empty and self._nothing_left():
            self._draining.set()
        return token

    def _nothing_left(self) -> bool:
        return not RedisView(self._redis).running()

    def _rest(self, reason: str) -> None:
        """Claim nothing for a while, for longer if it happens again right afterwards."""
        now = time.monotonic()
        if now >= self._rest_until:
            again = now < self._rest_until + _LONGEST_REST
            longer = min(_LONGEST_REST, 2 * self._rest_seconds)
            self._rest_seconds = max(_SHORTEST_REST, longer if again else 0)
            self._rest_until = now + self._rest_seconds
            log.error("%s; claiming nothing for %.0f s", reason, self._rest_seconds)
        self._trouble = reason

    def _leave(self) -> None:
        if self._slots.wait_idle(_STOP_SECONDS):
            self._runner.close()
        self._heartbeat.stop()
        try:
            self._redis.leave(self.id)
            log.info("worker %s has left", self.id)
        except RedisUnavailableError as error:
            log.warning("could not say good-bye: %s; the tasks are free when the lease ends", error)
