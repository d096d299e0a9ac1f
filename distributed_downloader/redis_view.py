"""What `status` and its kin read: jobs, workers, failures and files; it changes nothing."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from pydantic import TypeAdapter, ValidationError

from distributed_downloader.checks import number_or, origin
from distributed_downloader.descriptor import Extra
from distributed_downloader.errors import UnknownJobError
from distributed_downloader.models import (
    Failure,
    JobSpec,
    JobState,
    JobStatus,
    RepoType,
    WorkerStatus,
)
from distributed_downloader.queue_terms import QueueStatus
from distributed_downloader.quota import HubBudget
from distributed_downloader.redis_budgets import RedisBudgets
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import Answer, translated
from distributed_downloader.redis_files import FileProgress, RedisFiles, read_failure
from distributed_downloader.redis_waiting import NextTry, RedisWaiting

#: Behind a task's number: all that is counted of it but for losses, see retry.Counted.
_KINDS_OF_TRIES = ("", "~", "?")
_TYPES = {f"{kind.value}s": kind for kind in RepoType}
_WORKERS = TypeAdapter(list[WorkerStatus])


class RedisView:
    """Reads one Redis; all but `files` cost the same for ten files and ten million.

    Every method raises RedisUnavailableError when Redis does not answer.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._redis = client.commands

    # -- jobs -------------------------------------------------------------------------------------

    def jobs(self) -> list[JobStatus]:
        """Return all jobs, oldest first; one that cannot be read is left out."""
        with translated(self._client.address):
            ids: Answer = self._redis.zrange(self._key("jobs"), 0, -1)
        return self._read([found for job in ids if (found := number_or(job, 0))])

    def running(self) -> bool:
        """Return whether any job is running; costs little while none is, or few have not ended."""
        with translated(self._client.address):
            every, ended = self._redis.zcard(self._key("jobs")), self._redis.zcard(self._key("ended"))
            if every == ended:
                return False
            open_ones = set(self._ids("jobs")) - set(self._ids("ended"))
            states = [self._redis.hget(self._key(f"job:{job}"), "state") for job in open_ones]
        return JobState.RUNNING.value in states

    def _ids(self, index: str) -> list[str]:
        answer: Answer = self._redis.zrange(self._key(index), 0, -1)
        return [str(job) for job in answer]

    def job(self, id: int) -> JobStatus:  # noqa: A002
        """Return one job; raises UnknownJobError, also if one of that number that we made is another now."""
        if found := self._read([id]):
            self._client.require_ours(id, found[0].spec.identity())
            return found[0]
        raise UnknownJobError(f"there is no job {id}; `hf-downloader repos` lists them all")

    def find(self, name: str) -> list[JobStatus]:
        """Return the jobs that a user means by "12", "org/name" or "datasets/org/name".

        Raises UnknownJobError, with near names, when there is none.
        """
        if (number := number_or(name, 0)) and (found := self._read([number])):
            return found
        prefix, _, rest = name.partition("/")
        kind, repo_id = (_TYPES[prefix], rest) if prefix in _TYPES and rest else (None, name)
        jobs = self.jobs()
        if found := [j for j in jobs if j.spec.repo_id == repo_id and kind in (None, j.spec.repo_type)]:
            return found
        names = {j.spec.repo_id: None for j in jobs}
        near = difflib.get_close_matches(repo_id, names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UnknownJobError(f"there is no job or repo {name!r}; {hint}`hf-downloader repos` lists them all")

    def _read(self, ids: Sequence[int]) -> list[JobStatus]:
        """Of what is out, what lies in the window was counted a moment before: it is still to be claimed."""
        waiting = self._window()
        with translated(self._client.address), self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            for job in ids:
                pipe.hgetall(self._key(f"job:{job}"))
                pipe.hgetall(self._key(f"job:{job}:blind"))
            (seconds, _), *hashes = pipe.execute()
            # A thousand names that nobody asks for while no worker is blind.
            workers = self._ids("workers") if any(hashes[1::2]) else []
        rows = zip(ids, hashes[::2], hashes[1::2], strict=True)
        found = (
            _job(id, about, waiting.get(str(id), 0), seconds, _blocked(workers, blind))
            for id, about, blind in rows  # noqa: A001
        )
        return [job for job in found if job]

    def _window(self) -> dict[str, int]:
        """Return of each job how many tasks lie ready."""
        flat = self._client.scripts.run("window")
        return {str(job): int(count) for job, count in zip(flat[::2], flat[1::2], strict=True)}

    def failures(self, job: int, limit: int = 20) -> list[Failure]:
        """Return up to `limit` of a job's failed files with their reasons, by path."""
        found: dict[int, Failure] = {}  # by task: a scan may show an entry twice
        for task, failure in self._failed(job):
            found[task] = failure
            if len(found) >= limit:
                break
        return sorted(self._with_all_tries(job, found), key=lambda failure: failure.path)

    def _with_all_tries(self, job: int, found: Mapping[int, Failure]) -> Iterator[Failure]:
        """Count the tries that were excused as well, of which the last one to fail did not know."""
        names = [f"{task}{kind}" for task in found for kind in _KINDS_OF_TRIES]
        with translated(self._client.address):
            counts: Answer = self._redis.hmget(self._key(f"job:{job}:tries"), names) if names else []
        numbers = (number_or(count, 0) for count in counts)
        for failure in found.values():
            tries = sum(islice(numbers, len(_KINDS_OF_TRIES)))
            yield failure.model_copy(update={"tries": max(failure.tries, tries)})

    def next_tries(self, jobs: Collection[int], limit: int) -> list[tuple[int, NextTry]]:
        """Return of each job the next `limit` tasks that wait for another try, with its id."""
        return RedisWaiting(self._client).soon(jobs, limit)

    def _failed(self, job: int) -> Iterator[tuple[int, Failure]]:
        with translated(self._client.address):
            for task, text in self._redis.hscan_iter(self._key(f"job:{job}:failed"), count=100):
                yield number_or(task, 0), read_failure(text)

    # -- the fleet --------------------------------------------------------------------------------

    def workers(self) -> list[WorkerStatus]:
        """Return the workers by id, each with the rest of its lease.

        One whose lease is over is left out: it is dead, though nobody may be there to declare it so. The same
        goes for one that cannot be read.
        """
        now, *lines = self._client.scripts.run("fleet")
        found = self._without_done(_workers(lines, int(now)))
        return sorted(found, key=lambda worker: worker.id)

    def overdue(self) -> list[str]:
        """Return the workers whose lease is over, and whom nobody has declared dead yet."""
        with translated(self._client.address):
            seconds, micros = self._redis.time()
            now = seconds * 1000 + micros // 1000
            found: Answer = self._redis.zrangebyscore(self._key("workers"), "-inf", f"({now}")
        return [str(worker) for worker in found]

    def _without_done(self, workers: Iterable[WorkerStatus]) -> list[WorkerStatus]:
        """Leave out parts that are done since their worker reported: the counters have them already."""
        found = list(workers)
        parts = {(t.job, t.task) for w in found for t in w.transfers if t.start is not None}
        if not parts:
            return found
        with translated(self._client.address), self._redis.pipeline(transaction=False) as pipe:
            for job, task in parts:
                pipe.getbit(self._key(f"job:{job}:done"), task)
            done = {part for part, bit in zip(parts, pipe.execute(), strict=True) if bit}
        left = ([t for t in w.transfers if (t.job, t.task) not in done] for w in found)
        return [
            w if len(t) == len(w.transfers) else w.model_copy(update={"transfers": tuple(t)})
            for w, t in zip(found, left, strict=True)
        ]

    def queue(self, jobs: Sequence[JobStatus] | None = None) -> QueueStatus:
        """Return the whole queue in counters; `jobs` are all of them, if they have just been read."""
        with translated(self._client.address), self._redis.pipeline(transaction=True) as pipe:
            pipe.llen(self._key("ready"))
            pipe.zcard(self._key("delayed"))
            pipe.hlen(self._key("fleet"))
            pipe.smembers(self._key("parked"))
            ready, delayed, fleet, hosts = pipe.execute()
            for host in hosts:
                pipe.zcard(self._key(f"parked:{host}"))
            parked = sum(pipe.execute())
        jobs = self.jobs() if jobs is None else jobs
        return QueueStatus(
            ready=ready,
            delayed=delayed,
            parked=parked,
            workers=fleet,
            slots=int(self._client.scripts.run("slots")),
            full=self.full(),
            pauses=self.pauses(jobs),
            jobs=dict(Counter(job.state.value for job in jobs)),
        )

    def full(self) -> bool:
        """Return whether Redis takes nothing new, for its memory is full."""
        with translated(self._client.address):
            about: Answer = self._redis.info("memory")
        used = int(about.get("used_memory", 0)) - int(about.get("mem_not_counted_for_evict", 0))
        return used > int(about.get("maxmemory", 0)) > 0

    def pauses(self, jobs: Iterable[JobStatus]) -> dict[str, float]:
        """Return the seconds left of the pauses that the hubs of these jobs asked for; not of ended jobs."""
        hubs = sorted({job.spec.endpoint for job in jobs if not job.state.ended})
        with translated(self._client.address), self._redis.pipeline(transaction=False) as pipe:
            for hub in hubs:
                pipe.pttl(self._key(f"hold:{hub}"))
            left = [min(ms / 1000, self._client.limits.hold) for ms in pipe.execute()]
        return {hub: seconds for hub, seconds in zip(hubs, left, strict=True) if seconds > 0}

    def budgets(self, jobs: Iterable[JobStatus]) -> list[HubBudget]:
        """Return what the hubs of these jobs still allow, where that slows them down or may do so soon."""
        hubs = {origin(job.spec.endpoint): job.spec.endpoint for job in jobs if not job.state.ended}
        found = RedisBudgets(self._client).all() if hubs else []
        scarce = [budget for budget in found if budget.endpoint in hubs and budget.scarce]
        return [replace(budget, endpoint=hubs[budget.endpoint]) for budget in scarce]

    # -- files ------------------------------------------------------------------------------------

    def files(self, job: int, *, failed_only: bool = False) -> Iterator[FileProgress]:
        """Yield a job's files in the order of the listing; reads them in chunks, so it can be a long one.

        Raises UnknownJobError. An ended job's list of files is kept for 7 days; the failed ones for 30.
        """
        total, files = self.job(job).total, RedisFiles(self._client, job)
        return files.failed(dict(self._failed(job))) if failed_only else files.all(total, self.workers())

    def _key(self, name: str) -> str:
        return self._client.key(name)


def _blocked(workers: Sequence[str], blind: Mapping[str, str]) -> str:
    """Return why no living worker can go on with a job, "" if one can, or none is there at all."""
    if not workers or not all(worker in blind for worker in workers):
        return ""
    return f"no living worker can go on with it: {workers[0]}: {blind[workers[0]].partition(' ')[2]}"


def _job(
    id: int,  # noqa: A002
    about: Mapping[str, str],
    waiting: int,
    now: int,
    blocked: str,
) -> JobStatus | None:
    listed = about.get("sealed") == "1"
    try:
        extra = Extra.model_validate_json(about["extra"]) if "extra" in about else Extra()
        waiting = min(waiting, int(about["out"]))
        return JobStatus(
            id=id,
            spec=JobSpec.model_validate_json(about["spec"]),
            state=JobState(about["state"]),
            listed=listed,
            listing_silent=0 if listed else max(0.0, now - int(about["listed_at"]) / 1000),
            weight=int(about["weight"]),
            total=int(about["total"]) - int(about.get("closings", 0)),
            pending=int(about["pending"]) + waiting,
            active=int(about["out"]) - waiting,
            delayed=int(about["delayed"]),
            held=int(about["held"]) - ("closing" in about),
            failed=int(about["failed"]),
            done=int(about["done"]) - int(about.get("closed", 0)),
            parts=int(about.get("parts", 0)),
            parts_done=int(about.get("parts_done", 0)),
            bytes_total=int(about["bytes"]),
            bytes_done=int(about["bytes_done"]),
            owed=int(about.get("owed", 0)),
            delivered=int(about.get("delivered", 0)),
            bytes_delivered=int(about.get("bytes_delivered", 0)),
            unsplit=about.get("unsplit", ""),
            blocked=blocked if about["state"] == JobState.RUNNING.value else "",
            extra=extra.first,
            extra_count=extra.count,
            created_at=int(about["created_at"]) / 1000,
            ended_at=int(about["ended_at"]) / 1000 if "ended_at" in about else None,
        )
    except (KeyError, ValueError):
        return None


def _workers(lines: Sequence[str], now: int) -> Iterator[WorkerStatus]:
    """Read what lua/fleet.lua tells of workers at that time in ms."""
    ends, words = [], []
    for line in lines:
        end, _, said = line.partition(" ")
        ends.append(end)
        words.append(said)
    for end, worker in zip(ends, _read_workers(words), strict=True):
        if worker:
            # Nobody has seen it yet, and a copy would take as long as all the rest.
            vars(worker)["lease"] = (float(end) - now) / 1000
            yield worker


def _read_workers(words: Sequence[str]) -> Sequence[WorkerStatus | None]:
    """Read what each worker says of itself: all at once, which is faster, if all of it is good."""
    try:
        found = _WORKERS.validate_json(f"[{','.join(words)}]")
    except ValidationError:
        found = []
    return found if len(found) == len(words) else [_read_worker(each) for each in words]


def _read_worker(words: str) -> WorkerStatus | None:
    try:
        return WorkerStatus.model_validate_json(words)
    except ValidationError:
        return None
