"""The worker: claims tasks as long as it has free slots, until it is told to stop."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

from distributed_downloader import __version__
from distributed_downloader.cancel import Cancel
from distributed_downloader.claims import Claims, Wake
from distributed_downloader.completions import Completions
from distributed_downloader.deliverer import Deliverer, look_for_nas
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.headroom import Headroom
from distributed_downloader.health import HealthFile, State
from distributed_downloader.heartbeat import Heartbeat
from distributed_downloader.hold import now
from distributed_downloader.imports import whole_imports
from distributed_downloader.life import Life
from distributed_downloader.models import DownloadTask, WorkerStatus
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.reports import Reports
from distributed_downloader.rest import Rest
from distributed_downloader.retry import RetryPolicy
from distributed_downloader.running import Runner
from distributed_downloader.sealer import ReadAhead, Sealer
from distributed_downloader.slots import Room, Slots
from distributed_downloader.unexpected import dry

log = logging.getLogger(__name__)

#: Seconds between two looks at things that end a wait: a free slot, a fresh lease, Redis being back.
_LOOK = 0.5
#: Seconds after which a task that waits for a slot goes to others.
_LATE = 2.0
#: Seconds that running tasks get to notice that we stop.
_STOP_SECONDS = 2.0


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
        folder: Callable[[], str] = lambda: "",
        deliverer: Deliverer | None = None,
        ahead: ReadAhead | None = None,
        headroom: Headroom | None = None,
        health_file: str = "",
    ) -> None:
        """Make a worker that has not entered the fleet yet.

        `folder` tells the id of its own output folder.
        """
        self._redis = redis
        self._runner = runner
        self._drain_when_empty = drain_when_empty
        self._check_redis = check_redis
        self._life = Life.first(worker_id)
        self._host = socket.gethostname()
        self._started_at = time.time()
        self._outage = Outage(redis.address)
        self._rest = Rest(headroom)
        self._folder, self._deliverer = folder, deliverer
        self._slots = self._make_slots(runner, concurrency, policy or RetryPolicy())
        self._sealer = Sealer(redis, ahead, start=self._start_seal, life=self._present) if ahead else None
        self._heartbeat = Heartbeat(redis, self)
        self._health = HealthFile(health_file, redis.limits.lease)
        self._claims = Claims(
            redis, self._heartbeat, self._outage, self._slots, host=self._host, alert=drain_when_empty
        )
        self._stopping = threading.Event()
        self._draining = threading.Event()
        #: Whether there is nothing left to do, as far as we know.
        self._emptied = threading.Event()
        self._wake = Wake(redis, self._outage, _LOOK / 2)

    def _make_slots(self, runner: Runner, concurrency: int, policy: RetryPolicy) -> Slots:
        reports = Reports(
            self._redis,
            host=self._host,
            policy=policy,
            on_rest=self._rest.begin,
            on_refusal=self._rest.refuse,
            on_sealer=self._prepare_seal,
            on_owed=self._deliverer.bell if self._deliverer else lambda: None,
        )
        return Slots(
            concurrency,
            runner,
            reports,
            Completions(self._redis, self._outage),
            outage=self._outage,
            limits=self._redis.limits,
            pause_between=lambda: policy.delay(0),
        )

    @property
    def id(self) -> str:
        """The name under which the worker is in the fleet now."""
        return self._life.id

    @property
    def trouble(self) -> str:
        """Why nothing is claimed at the moment, or ""."""
        return self._rest.reason

    @property
    def stuck(self) -> str:
        """The same, where it does not end by itself, or ""."""
        return "" if self._rest.passes else self.trouble

    @property
    def state(self) -> State:
        """What it is at."""
        if not self._claiming:
            return State.LEAVING
        if not self._heartbeat.fresh:
            return State.WAITING
        return State.RESTING if self.trouble else State.RUNNING

    # -- what its master's voice may ask: any thread, any time ------------------------------------

    def stop(self) -> None:
        """Stop now: running tasks are given back, their partial bytes stay."""
        self._stopping.set()
        self._life.cancel.set("the worker stops")
        self._wake.insist()

    def drain(self) -> None:
        """Finish what runs, claim nothing new, then leave."""
        self._draining.set()
        self._wake.insist()

    def run(self) -> None:
        """Work until told to stop; waits for a Redis that is not there."""
        self._health.begin(self)
        try:
            self._work()
        finally:
            self._health.end()

    def _work(self) -> None:
        if self._deliverer:
            look_for_nas(self._deliverer, self._stopping, _STOP_SECONDS)
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
        transfers = self._slots.transfers()
        moving = any(each.bytes_per_second for each in transfers)
        return WorkerStatus(
            id=self.id,
            host=self._host,
            pid=os.getpid(),
            version=__version__,
            slots=self._slots.count,
            started_at=self._started_at,
            transfers=transfers,
            trouble=self.trouble or ("" if moving else self._rest.refusal),
            folder=self._folder(),
            nas=self._deliverer.nas if self._deliverer else "",
            nas_trouble=self._deliverer.trouble if self._deliverer else "",
            absence=self._heartbeat.outage.last,
        )

    def turn(self, thread: str) -> None:
        """Take note that one of the threads that matter goes on."""
        self._health.turn(thread, self)

    def holds(self) -> set[str]:
        """Return the tokens that run here."""
        return self._slots.tokens()

    def parts(self) -> Mapping[str, tuple[int, float]]:
        """Return how far each part is that runs here: token -> bytes, bytes a second."""
        return self._slots.parts()

    def renew(self, asked_at: float, asked: Mapping[str, tuple[int, float]], ours: Mapping[str, int]) -> None:
        """Take note of which of these parts are still ours, and how long they are now."""
        self._slots.renew(asked_at, asked, ours)

    def expects(self, token: str) -> bool:
        """Whether the sealer waits for this token, and will begin with it."""
        return self._sealer is not None and self._sealer.expects(token)

    def beaten(self, asked_at: float) -> None:
        """Take note that the lease was extended."""
        self._slots.beaten(asked_at)

    def drop(self, token: str, reason: str) -> None:
        """Stop one task."""
        self._slots.cancel(token, reason)

    def declared_dead(self) -> None:
        """Stop everything and take a new name."""
        before = self._life
        self._life = before.next()
        before.cancel.set("the lease was lost")

    # -- the fetcher ------------------------------------------------------------------------------

    def _enter(self) -> bool:
        while self._claiming:
            self.turn("fetcher")
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
        return not (self._stopping.is_set() or self._draining.is_set() or self._emptied.is_set())

    def _warn(self) -> None:
        for warning in self._redis.check():
            log.warning(warning)

    def _fetch(self) -> None:
        """Work until told to stop, or until all is done: what is on its way to the NAS may come back."""
        while True:
            self._claim_all()
            self._wake.heard.set()
            self._finish()
            if not self._emptied.is_set() or self._stopping.is_set() or self._draining.is_set():
                return
            if self._is_over():
                return
            self._emptied.clear()
            self._wake.heard.clear()

    def _is_over(self) -> bool:
        try:
            return self._nothing_left()
        except RedisUnavailableError as error:
            self._outage.note(error)
            return False

    def _claim_all(self) -> None:
        while self._claiming:
            self.turn("fetcher")
            try:
                room = self._slots.wait_room(_LOOK, ahead=self._claims.ahead)
                if room and self._claiming:
                    self._fill(self._life, room)
                self._give_back(_LATE)
            except RedisUnavailableError as error:
                self._outage.note(error)
                self._heartbeat.away()
                self._stopping.wait(_LOOK)
            except (MemoryError, OSError, RuntimeError, ImportError) as error:
                if (local := dry(error)) is None:
                    raise
                self._rest.begin(str(local), local)

    def _give_back(self, seconds: float) -> None:
        """Let others have what has waited for a slot so long."""
        if late := self._slots.overdue(seconds):
            self._claims.ahead = False
            self._redis.release(self.id, late)

    def _finish(self) -> None:
        """See what runs here, and what is owed from here, to its end; what does not run yet is for others."""
        try:
            self._give_back(0)
        except RedisUnavailableError as error:  # then the heartbeat does
            self._outage.note(error)
        while not self._slots.wait_idle(_LOOK) and not self._stopping.is_set():
            self.turn("fetcher")
        while self._deliverer and not self._stopping.is_set() and not self._deliverer.wait_done(_LOOK):
            self.turn("fetcher")

    def _fill(self, life: Life, room: Room) -> None:
        """Claim tasks for this room, if there are any."""
        if self._rest.look() or not self._heartbeat.fresh:
            self._stopping.wait(_LOOK)
            return
        tasks = self._claims.next(life.id, room)
        self._slots.start(life.id, tasks, life.cancel, self._claims.asked_at)
        if not tasks and room.free and self._drain_when_empty and self._nothing_left():
            self._emptied.set()

    def _nothing_left(self) -> bool:
        with whole_imports():  # only now: few workers end by themselves
            from distributed_downloader.redis_view import RedisView  # noqa: PLC0415
        return not RedisView(self._redis).running()

    # -- seals ------------------------------------------------------------------------------------

    def _present(self) -> tuple[str, Cancel]:
        life = self._life
        return life.id, life.cancel

    def _prepare_seal(self, worker_id: str, task: DownloadTask) -> None:
        if self._sealer:
            self._sealer.prepare(worker_id, task)

    def _start_seal(self, worker_id: str, task: DownloadTask) -> None:
        life = self._life
        if life.id == worker_id and not self._stopping.is_set():
            self._slots.start_beside(worker_id, task, life.cancel, now())

    def _leave(self) -> None:
        if self._deliverer:
            self._deliverer.stop()
        if self._slots.wait_idle(_STOP_SECONDS):
            self._runner.close()
        self._slots.close()
        if self._deliverer:
            self._deliverer.join(_STOP_SECONDS / 2)
        self._heartbeat.stop()
        self._wake.join(_STOP_SECONDS / 2)  # or whoever closes Redis next would do so under its hands
        try:
            self._redis.leave(self.id)
            log.info("worker %s has left", self.id)
        except RedisUnavailableError as error:
            log.warning("could not say good-bye: %s; the tasks are free when the lease ends", error)
