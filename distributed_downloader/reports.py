"""How the end of a task is reported to the queue: done, divided, given back, or failed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from distributed_downloader.completions import Completion
from distributed_downloader.errors import (
    FlawError,
    PlaceUnseenError,
    TransferError,
    TransientError,
    kind,
)
from distributed_downloader.models import DownloadTask, Failure
from distributed_downloader.outcome import Divided, Finished, Outcome
from distributed_downloader.queue_terms import Blind, Split
from distributed_downloader.redis_client import RedisClient, Settled, Verdict
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.retry import Action, Decision, RetryPolicy, park_seconds
from distributed_downloader.running import Running

log = logging.getLogger(__name__)

#: A call to the queue that may be repeated until Redis takes it.
Report = Callable[[], None]


class Reports:
    """Makes reports for one worker; `on_rest` and its kin tell the worker what follows."""

    def __init__(
        self,
        redis: RedisClient,
        *,
        host: str,
        policy: RetryPolicy,
        on_rest: Callable[[str, TransferError], None],
        on_refusal: Callable[[str], None] = lambda _reason: None,
        on_sealer: Callable[[str, DownloadTask], None] = lambda _worker, _task: None,
        on_owed: Callable[[], None] = lambda: None,
    ) -> None:
        self._redis, self._parts = redis, RedisParts(redis)
        self._host, self._policy = host, policy
        self._on_rest, self._on_refusal = on_rest, on_refusal
        self._on_sealer, self._on_owed = on_sealer, on_owed
        #: The jobs that were given back, whether they sleep, and why, so that it is told once.
        self._given_back: dict[int, tuple[bool, str]] = {}

    def success(self, running: Running, outcome: Outcome) -> Report | Completion:
        """Return the report of what a task came to."""
        if isinstance(outcome, Finished):
            return Completion(self._host, running, outcome, self._completed, self.failure)
        return lambda: self._divided(running, outcome)

    def failure(self, running: Running, error: TransferError) -> Report:
        """Return the report of a task that did not succeed, as the policy decides it."""
        task = running.task
        decision = self._policy.decide(error, task.tries, task.away, kept=_kept(running, error))
        action, reason = decision.action, _reason(error, task.file.path)
        if action is Action.BLIND:
            return lambda: self._blind(running, reason, error)
        if action is Action.REST:
            self._on_rest(reason, error)
        if action in (Action.RELEASE, Action.REST):
            # A trouble of this machine is told by the rest that it begins.
            level = logging.DEBUG if action is Action.REST else logging.INFO
            log.log(level, "back    %s: %s", task.name, reason)
            return lambda: self._released(running)
        return lambda: self._failed(running, error, decision)

    def _completed(self, completion: Completion, settled: Settled) -> None:
        running, task = completion.running, completion.running.task
        if settled is Settled.STALE:
            log.info("done    %s, but the task is not this worker's any more", running)
            return
        if self._given_back.pop(task.token.job, None):
            self._on_refusal("")
            log.info("job %d goes on", task.token.job)
        if task.about.is_seal:
            log.info("sealed  %s: complete, %s right", task.name, _proof(task))
        else:
            log.info("done    %s", running)
        if settled is Settled.SEALER:
            self._on_sealer(running.worker_id, task)
        if completion.outcome.owes:
            self._on_owed()

    def _divided(self, running: Running, outcome: Divided) -> None:
        task, parts = running.task, outcome.parts
        answer = self._parts.split(
            running.worker_id,
            running.token,
            outcome.place,
            parts,
            written=outcome.written,
            file=outcome.file,
        )
        if answer is Split.DONE:
            log.info("split   %s: %d parts for the whole fleet", task.name, len(parts))
        elif answer is Split.WAITS:
            log.info("back    %s: another job puts it together in the same folder", task.name)

    def _blind(self, running: Running, reason: str, error: TransferError) -> None:
        answer = self._parts.blind(running.worker_id, running.token, reason)
        if not isinstance(error, PlaceUnseenError):
            self._on_refusal(reason)
        elif answer is Blind.FOR_OTHERS:
            return self._on_rest(reason, error)  # or it would be our next claim again
        if answer is Blind.STALE:
            return None
        task = running.task
        job, asleep = task.token.job, answer is Blind.ASLEEP
        level = logging.DEBUG if self._given_back.get(job) == (asleep, reason) else logging.WARNING
        self._given_back[job] = asleep, reason
        what = "no living worker can go on with job" if asleep else "others may go on with job"
        log.log(level, "back    %s: %s; %s %d", task.name, reason, what, job)
        return None

    def _released(self, running: Running) -> None:
        self._redis.release(running.worker_id, [running.token])

    def _failed(self, running: Running, error: TransferError, decision: Decision) -> None:
        task = running.task
        if decision.hold:
            self._redis.hold(task.spec.endpoint, decision.hold)
        reason = _reason(error, task.file.path)
        kept = _kept(running, error)
        verdict = self._redis.fail(
            running.worker_id,
            running.token,
            Failure(
                path=task.name,
                error=reason,
                host=self._host,
                tries=task.tries + 1,
                at=time.time(),
                kept=kept,
                found=error.found if isinstance(error, FlawError) else "",
            ),
            None if decision.action is Action.BURY else decision.delay,
            parked_for=park_seconds(kept),
            excused_tries=decision.excused_tries,
            counted=decision.counted.value,
            kind=kind(error),
        )
        if verdict is Verdict.RETRY:
            log.warning("retry   %s in %.0f s: %s", task.name, decision.delay, reason)
        elif verdict is Verdict.BURIED:
            log.error("failed  %s: %s", task.name, reason)


def _kept(running: Running, error: TransferError) -> int:
    """Return the bytes that lie here alone; what is written of a part lies where all see it."""
    return running.bytes_done if isinstance(error, TransientError) and not running.task.about.place else 0


def _proof(task: DownloadTask) -> str:
    return "sha256" if task.file.sha256 else "git hash" if task.file.git_sha1 else "size"


def _reason(error: TransferError, path: str) -> str:
    """Return the error's text without the path, which is shown beside it, and as text that JSON can hold."""
    return str(error).removeprefix(f"{path}: ").encode("utf-8", "replace").decode()
