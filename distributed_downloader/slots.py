"""The slots of a worker: each runs one task at a time and reports how it ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import RedisUnavailableError, TransferError, TransientError
from distributed_downloader.models import DownloadTask, Failure, Transfer
from distributed_downloader.outage import Outage
from distributed_downloader.redis_client import RedisClient, Settled, Verdict
from distributed_downloader.retry import Action, Decision, RetryPolicy, park_seconds

log = logging.getLogger(__name__)

#: Seconds between two attempts to report a result while Redis is away.
_REPORT_AGAIN = 1.0


class Runner(Protocol):
    """Turns a task into a published, verified file; `download.downloader.Downloader` is the real one."""

    def run(self, task: DownloadTask, cancel: Cancel, progress: Callable[[int], None]) -> None:
        """Return when the file is published; raises TransferError."""

    def close(self) -> None:
        """Let go of connections; nothing may be running."""


@dataclass
class Running:
    """One task in a slot."""

    task: DownloadTask
    cancel: Cancel
    bytes_done: int = 0
    _last: tuple[float, int] = field(default_factory=lambda: (time.monotonic(), 0))

    def progress(self, bytes_done: int) -> None:
        """Take note of the bytes that are on disk."""
        self.bytes_done = bytes_done

    def snapshot(self) -> Transfer:
        """Describe the transfer, with its rate since the snapshot before."""
        now, done = time.monotonic(), self.bytes_done
        before, earlier = self._last
        self._last = (now, done)
        return Transfer(
            job=self.task.token.job,
            task=self.task.token.task,
            path=self.task.file.path,
            size=self.task.file.size,
            bytes_done=done,
            bytes_per_second=max(0.0, (done - earlier) / max(now - before, 1e-3)),
        )


class Slots:
    """A fixed number of tasks at once, each in a thread of its own.

    `wait_free`, `give_back` and `start` are the fetcher's; the rest is anybody's.
    """

    def __init__(
        self,
        count: int,
        redis: RedisClient,
        runner: Runner,
        *,
        host: str,
        outage: Outage,
        policy: RetryPolicy,
        rest: Callable[[str], None],
    ) -> None:
        self.count = count
        self._redis, self._runner, self._host, self._outage = redis, runner, host, outage
        self._policy, self._rest = policy, rest
        self._free = threading.Semaphore(count)
        self._lock = threading.Lock()
        self._running: dict[str, Running] = {}

    def wait_free(self, seconds: float) -> bool:
        """Take a free slot, waiting so long; the caller must `start` in it or `give_back`."""
        return self._free.acquire(timeout=seconds)

    def give_back(self) -> None:
        """Free a slot that was taken and not used."""
        self._free.release()

    def start(self, worker_id: str, task: DownloadTask, cancel: Cancel) -> None:
        """Run `task` in the slot that was taken; returns at once."""
        token = str(task.token)
        running = Running(task, cancel)
        with self._lock:
            self._running[token] = running
        # A daemon, so that a thread that hangs in a name server's silence cannot hold up our exit.
        threading.Thread(
            target=self._slot, args=(worker_id, token, running), name="slot", daemon=True
        ).start()

    def tokens(self) -> set[str]:
        """Return the tokens that run here now."""
        with self._lock:
            return set(self._running)

    def cancel(self, token: str, reason: str) -> None:
        """Stop one task, if it runs here."""
        with self._lock:
            running = self._running.get(token)
        if running:
            running.cancel.set(reason)

    def transfers(self) -> tuple[Transfer, ...]:
        """Describe what runs now."""
        with self._lock:
            running = list(self._running.values())
        return tuple(each.snapshot() for each in running)

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing runs, so long at most; True if nothing does."""
        deadline = time.monotonic() + seconds
        taken = 0
        while taken < self.count and self._free.acquire(timeout=max(0.0, deadline - time.monotonic())):
            taken += 1
        for _ in range(taken):
            self._free.release()
        return taken == self.count

    def _slot(self, worker_id: str, token: str, running: Running) -> None:
        try:
            self._deliver(self._run(worker_id, token, running), running.cancel)
        except Exception:
            log.exception("slot: %s could not be reported; the heartbeat will give it back", token)
        finally:
            with self._lock:
                del self._running[token]
            self._free.release()

    def _deliver(self, report: Callable[[], None], cancel: Cancel) -> None:
        """Repeat a report until Redis took it, for a result must not be lost; or until we are stopped."""
        while True:
            try:
                return report()
            except RedisUnavailableError as error:
                self._outage.note(error)
                if cancel.wait(_REPORT_AGAIN):
                    return None

    def _run(self, worker_id: str, token: str, running: Running) -> Callable[[], None]:
        """Run the task and return the call that reports how it ended."""
        task = running.task
        try:
            if task.hold:
                log.info("the hub asks for a pause of %.0f s", task.hold)
                running.cancel.wait(task.hold + self._policy.delay(0))
                running.cancel.check()
            self._runner.run(task, running.cancel, running.progress)
        except TransferError as error:
            return self._unsuccessful(worker_id, token, running, error)
        except Exception as error:
            log.exception("%s: unexpected", task.file.path)
            internal = TransientError(f"internal error, please report it: {type(error).__name__}: {error}")
            return self._unsuccessful(worker_id, token, running, internal)
        return lambda: self._completed(worker_id, token, task)

    def _completed(self, worker_id: str, token: str, task: DownloadTask) -> None:
        settled = self._redis.complete(worker_id, token, task.file.size, self._host)
        if settled is Settled.STALE:
            log.info("done    %s, but the task had been given to another worker", task.file.path)
        else:
            log.info("done    %s", task.file.path)

    def _unsuccessful(
        self, worker_id: str, token: str, running: Running, error: TransferError
    ) -> Callable[[], None]:
        decision = self._policy.decide(error, running.task.tries)
        if decision.action is Action.REST:
            self._rest(str(error))
        if decision.action in (Action.RELEASE, Action.REST):
            log.info("back    %s: %s", running.task.file.path, error)
            return lambda: self._released(worker_id, token)
        return lambda: self._failed(worker_id, token, running, error, decision)

    def _released(self, worker_id: str, token: str) -> None:
        self._redis.release(worker_id, [token])

    def _failed(
        self, worker_id: str, token: str, running: Running, error: TransferError, decision: Decision
    ) -> None:
        task = running.task
        if decision.hold:
            self._redis.hold(task.spec.endpoint, decision.hold)
        reason = _reason(error, task.file.path)
        kept = running.bytes_done if isinstance(error, TransientError) else 0
        verdict = self._redis.fail(
            worker_id,
            token,
            Failure(path=task.file.path, error=reason, host=self._host, tries=task.tries + 1, at=time.time()),
            None if decision.action is Action.BURY else decision.delay,
            parked_for=park_seconds(kept),
            excused_tries=decision.excused_tries,
        )
        if verdict is Verdict.RETRY:
            log.warning("retry   %s in %.0f s: %s", task.file.path, decision.delay, reason)
        elif verdict is Verdict.BURIED:
            log.error("failed  %s: %s", task.file.path, reason)


def _reason(error: TransferError, path: str) -> str:
    """Return the error's text without the path, which is shown beside it, and as text that JSON can hold."""
    return str(error).removeprefix(f"{path}: ").encode("utf-8", "replace").decode()
