"""The queue: one method per transition, each of them atomic; docs/queue.md draws them.

All of them may be called again after an error: a call whose reply was lost changes nothing the second
time. All raise RedisUnavailableError when Redis does not answer or refuses us, and only that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from distributed_downloader.errors import ConflictError, UnknownJobError
from distributed_downloader.layout import folder_of
from distributed_downloader.models import DownloadTask, Failure, JobSpec, JobState, RepoFile, WorkerStatus
from distributed_downloader.queue_terms import Beat, Done, Limits, Settled, Verdict
from distributed_downloader.redis_claim import BlockingClaim
from distributed_downloader.redis_connection import (
    Scripts,
    address_of,
    connect,
    translated,
)
from distributed_downloader.redis_health import check_server
from distributed_downloader.redis_tasks import read_task

if TYPE_CHECKING:
    import redis

    from distributed_downloader.config import RedisConfig

__all__ = ["Beat", "Done", "Limits", "RedisClient", "Settled", "Verdict"]

#: By the answer of lua/complete.lua.
_SETTLED = {settled.value: settled for settled in Settled}


class RedisClient:
    """One Redis, as the master and the workers use it; connects when first used."""

    def __init__(
        self, config: RedisConfig, *, namespace: str = "{hfd}:", limits: Limits | None = None
    ) -> None:
        self._set_up(connect(config), namespace, limits, None, config)

    @classmethod
    def over(
        cls,
        client: redis.Redis,
        *,
        namespace: str = "{hfd}:",
        limits: Limits | None = None,
        sources: Mapping[str, str] | None = None,
    ) -> RedisClient:
        """Use a client that is there already (one that decodes its responses), and maybe other scripts."""
        self = cls.__new__(cls)
        self._set_up(client, namespace, limits, sources, None)
        return self

    def _set_up(
        self,
        client: redis.Redis,
        namespace: str,
        limits: Limits | None,
        sources: Mapping[str, str] | None,
        config: RedisConfig | None,
    ) -> None:
        #: For RedisView: every other reader wants one of the methods below.
        self.commands = client
        self.limits = limits or Limits()
        self.namespace = namespace
        #: `host:port/db`, for messages; no secrets.
        self.address = address_of(client)
        self.scripts = Scripts(client, namespace, self.address, sources)
        #: Identities of the jobs made here: a Redis that lost its data may give a number to another job.
        self._made: dict[int, str] = {}
        self._claim = BlockingClaim(config, client, self.scripts)

    def key(self, name: str) -> str:
        """Return the full name of a key."""
        return self.namespace + name

    def check(self) -> list[str]:
        """Ask whether this Redis will do, and return warnings.

        Raises RedisUnavailableError, and ConfigError for a server that is too old.
        """
        return check_server(self.commands, self.address)

    # -- the master's part ------------------------------------------------------------------------

    def create_job(self, spec: JobSpec, weight: int) -> tuple[int, bool]:
        """Make a job, or find the one with the same identity; returns (job, whether it is new).

        One that is there already takes over endpoint and weight. Raises ConflictError when another
        type of repo with the same name goes to the same folder.
        """
        place = hashlib.sha256(f"{spec.output_dir}\0{folder_of(spec)}".encode()).hexdigest()[:32]
        repo_type = spec.repo_type.value
        answer = self.scripts.run(
            "create", spec.identity(), place, repo_type, spec.model_dump_json(), spec.endpoint, weight
        )
        job, outcome = int(answer[0]), answer[1]
        if outcome == "conflict":
            raise ConflictError(
                f"job {job} fills the same folder with the {answer[2]} {spec.repo_id}: give this "
                f"{repo_type} another --output-dir, or `hf-downloader forget {job}` first"
            )
        self._made[job] = spec.identity()
        return job, outcome == "created"

    def submit(self, job: int, base: int, files: Sequence[RepoFile], digest: str) -> bool:
        """Add a chunk of the listing behind the first `base` files; False if it was not taken.

        It is not when `base` is not the job's total (a chunk sent twice), when the listing is complete,
        or when the job is gone, whoever has its number now: `listed` tells. `digest` is kept with the total.
        """
        if len(files) > self.limits.chunk:
            raise ValueError(f"a chunk has {self.limits.chunk} files at most, not {len(files)}")
        size = sum(file.size for file in files)
        lines = (file.to_line() for file in files)
        return bool(self.scripts.run("submit", job, base, size, digest, self._made.get(job, ""), *lines))

    def whole(self, job: int, reason: str) -> None:
        """Say why large files of the job are not split, for `status`; nothing depends on it."""
        self.scripts.run("whole", job, reason)

    def listed(self, job: int) -> tuple[int, str, bool]:
        """Return (files so far, digest of the listing so far, whether it is complete).

        Raises UnknownJobError when the job is gone.
        """
        with translated(self.address), self.commands.pipeline(transaction=True) as pipe:
            pipe.hmget(self.key(f"job:{job}"), ["total", "parts", "closings", "digest", "sealed"])
            pipe.hget(self.key("names"), str(job))
            (total, parts, closings, digest, sealed), name = pipe.execute()
        self.require_ours(job, str(name).partition(" ")[0])
        if total is None:
            raise self._gone(job)
        return int(total) - int(parts or 0) - int(closings or 0), str(digest), sealed == "1"

    def require_ours(self, job: int, identity: str) -> None:
        """Raise UnknownJobError if the job was made here, and its number is another's now."""
        if self._made.get(job, identity) != identity:
            raise self._gone(job)

    def _gone(self, job: int) -> UnknownJobError:
        return UnknownJobError(
            f"job {job} is gone: somebody made Redis forget it, or Redis at {self.address} lost its data; "
            "run the same command again: what is on disk is kept"
        )

    def seal(self, job: int, files: int, closing: str = "", *, always: bool = False) -> bool:
        """Say that the listing is complete, so that the job may end; False if it has not that many files.

        `closing` describes its last task, which is handed out when all else is done, and on the NAS; `always`
        if it may have failed as well.
        """
        made = self._made.get(job, "")
        return bool(self.scripts.run("seal", job, files, made, closing, int(always)))

    # -- the worker's part ------------------------------------------------------------------------

    def register(self, worker: WorkerStatus) -> int:
        """Join the fleet under a lease; tasks that an earlier process of that name held are recovered.

        Returns how many workers there are. Raises ConflictError while another process of that name is alive.
        """
        limits = self.limits
        incarnation = f"{worker.host}:{worker.pid}:{worker.started_at}"
        args = (worker.id, incarnation, worker.slots, _ms(limits.lease), limits.batch, limits.max_losses)
        folders = (worker.folder or "-", worker.nas or "-")
        while (answer := self.scripts.run("register", *args, *limits.window, *folders)) == "again":
            pass
        if not isinstance(answer, int):
            holder, left = answer
            raise ConflictError(
                f"the worker id {worker.id} is in use (host:pid:start {holder}): choose another --worker-id, "
                f"or wait {math.ceil(left / 1000)} s if that process is dead"
            )
        self.report(worker)
        return answer

    def beat(self, worker_id: str, host: str, longer: float = 0.0) -> Beat | None:
        """Extend the lease; None if it was over and the worker's tasks are others' now.

        It gets `longer` seconds longer, unless there is something that only a beat tells an idle worker of.
        """
        answer = self.scripts.run("beat", worker_id, _ms(self.limits.lease), host, _ms(longer))
        if answer is None:
            return None
        states = {state.value: state for state in JobState}
        parked, workers, tails, extra, kept, *held = answer
        tokens = {token: states.get(state) for token, state in zip(held[::2], held[1::2], strict=True)}
        return Beat(tokens, int(parked), int(workers), int(tails) > 0, int(extra) / 1000, int(kept) > 0)

    def has_lost(self, worker_id: str) -> bool:
        """Return whether Redis knows nothing of a worker that did not leave: it lost that, and maybe all."""
        with translated(self.address):
            return self.commands.zscore(self.key("dead"), worker_id) is None

    def report(self, worker: WorkerStatus) -> None:
        """Say what the worker is doing, for `status`, which lasts while it beats; nothing depends on it."""
        with translated(self.address):
            kept = _ms(self.limits.longest_lease)
            words = worker.model_dump_json(exclude_defaults=True)  # `status` reads those of a whole fleet
            self.commands.set(self.key(f"worker:{worker.id}"), words, px=kept)

    def claim(self, worker_id: str, timeout: float) -> str | None:
        """Wait up to `timeout` seconds for a token: BRPOPLPUSH ready -> the worker's own list.

        For one thread at a time. A token whose reply is lost stays in the list, and `beat` shows it.
        """
        with translated(self.address):
            return self._claim.wait(self.key("ready"), self.key(f"active:{worker_id}"), timeout)

    def unblock(self) -> None:
        """End a `claim` that waits in another thread; harmless if none does, so call again until it ended."""
        with translated(self.address):
            self._claim.wake()

    def begin(self, worker_id: str, token: str) -> DownloadTask | None:
        """Return the task of a claimed token; None if it is not, or no longer, for this worker.

        What cannot be read fails for good, with a reason.
        """
        answer = self.scripts.run("begin", worker_id, token)
        return None if answer is None else self._task(worker_id, token, answer)

    def more(self, worker_id: str, most: int) -> list[DownloadTask]:
        """Claim and begin up to `most` small files that lie ready, without waiting, for a busy worker.

        None where something else is next. Tokens whose reply is lost stay in the list, and `beat` shows them.
        """
        tasks, spec = [], ""
        for token, line, text, *rest in self.scripts.run("more", worker_id, most, self.limits.small):
            spec = spec if text == "=" else text
            if task := self._task(worker_id, token, [line, spec, *rest]):
                tasks.append(task)
        return tasks

    def _task(self, worker_id: str, token: str, answer: list[Any]) -> DownloadTask | None:
        found = read_task(token, answer, self.limits.hold)
        if isinstance(found, DownloadTask):
            return found
        self.fail(worker_id, token, found, None)
        return None

    def home(self, worker_id: str, host: str) -> str | None:
        """Take a retry whose partial bytes lie on this host: a token for `begin`, or None."""
        token = self.scripts.run("home", worker_id, host, self.limits.batch)
        return None if token is None else str(token)

    def complete_all(self, worker_id: str, host: str, done: Sequence[Done]) -> list[Settled]:
        """Count tasks as done, each by itself: where one report is stale, the others count."""
        words = [word for each in done for word in each.words()]
        return [_SETTLED[answer] for answer in self.scripts.run("complete", worker_id, host, *words)]

    def fail(
        self,
        worker_id: str,
        token: str,
        failure: Failure,
        delay: float | None,
        *,
        parked_for: float = 0,
        excused_tries: int = 0,
        counted: str = "",
        kind: str = "other",
    ) -> Verdict:
        """Count a failed try: again after `delay` seconds, or never (None, or the tries are used up).

        With `parked_for`, the retry is offered to `failure.host` alone for that many seconds first.
        With `excused_tries`, the failure says little about the file: it is counted apart, with others of
        that kind (`counted`: see fail.lua), to that limit. `kind` (errors.kind) is counted for `metrics`.
        """
        return Verdict(
            self.scripts.run(
                "fail",
                worker_id,
                token,
                failure.model_dump_json(),
                -1 if delay is None else _ms(delay),
                excused_tries or self.limits.max_tries,
                counted,
                _ms(parked_for),
                failure.host,
                kind,
            )
        )

    def hold(self, endpoint: str, seconds: float) -> None:
        """Keep the whole fleet away from a hub that asked for a pause; the longest pause counts."""
        if (pause := _ms(seconds)) > 0:
            self.scripts.run("hold", endpoint, pause)

    def release(self, worker_id: str, tokens: Iterable[str]) -> int:
        """Give tasks back unfinished, without penalty; returns how many were still the worker's."""
        mine, batch = list(tokens), self.limits.batch
        parts = [mine[i : i + batch] for i in range(0, len(mine), batch)]
        return sum(int(self.scripts.run("release", worker_id, *part)) for part in parts)

    def leave(self, worker_id: str) -> None:
        """Give back all that the worker still holds, and leave the fleet."""
        while self.scripts.run("leave", worker_id, self.limits.batch, *self.limits.window):
            pass

    # -- for everybody ----------------------------------------------------------------------------

    def tick(self) -> bool:
        """Keep house: reap the dead, promote retries, feed; False, and cheap, if somebody else just did."""
        limits = self.limits
        answer = self.scripts.run("tick", _ms(limits.tick), limits.max_losses, limits.batch, *limits.window)
        return int(answer) >= 0

    def control(self, verb: Literal["pause", "resume", "cancel", "retry"], job: int) -> bool:
        """Pause, resume or cancel a job, or queue its failed files again.

        Returns whether the job is now as asked: False for one that is done or gone, and for a `retry`
        that found nothing to try. `resume` also brings a cancelled job back.
        """
        if verb == "retry":
            return self._retry(job) > 0
        return bool(self.scripts.run("control", verb, job))

    def _retry(self, job: int) -> int:
        with translated(self.address):
            left = int(self.commands.hlen(self.key(f"job:{job}:failed")))
        queued, cursor = 0, "0"
        while left > queued:
            n, cursor = self.scripts.run("retry", job, cursor, self.limits.batch)
            queued += int(n)
            if n == 0 and cursor == "0":
                break
        return queued

    def forget(self, job: int) -> bool:
        """Remove a job in any state, with all its keys; False if there is none."""
        return bool(self.scripts.run("forget", job))

    def close(self) -> None:
        """Close the connections."""
        self._claim.close()
        self.commands.close()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
