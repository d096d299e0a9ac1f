"""What `files` reads: each file of one job, where it stands, and how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from pydantic import ValidationError

from distributed_downloader.checks import number_or
from distributed_downloader.errors import RefusedError
from distributed_downloader.models import (
    Descriptor,
    Failure,
    Model,
    RepoFile,
    TaskStatus,
    Token,
    WorkerStatus,
)
from distributed_downloader.outcome import Range
from distributed_downloader.plan import in_chunks
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import Answer, translated
from distributed_downloader.redis_waiting import read_reason

#: Files that one round trip reads.
_CHUNK = 1000
#: Seconds; a time that somebody else wrote there may be far away.
_LONGEST_WAIT = 1e9
#: Bytes for each task that say where it lies, and since when: lua/complete.lua.
_WHERE = 6


class FileProgress(Model):
    """One file of a job, where it stands, on which host it lies, and how far it is."""

    path: str
    size: int
    status: TaskStatus
    host: str = ""
    #: Why it failed, or why its last try did, or "".
    error: str = ""
    #: Bytes that are there of a file under way, and all of one that is done; 0 where nobody has it in hand.
    bytes_done: int = 0
    #: Seconds until its next try, or until others may try than the host that has a part of it; or None.
    next_try: float | None = None


@dataclass(frozen=True)
class _Places:
    """Where the tasks of one job are, as far as their own lists do not tell."""

    active: set[int]
    #: Seconds until the next try.
    delayed: Mapping[int, float]
    #: Seconds until others than the host that has a part of it may have it.
    parked: Mapping[int, float]
    #: By path: what workers have fetched of whole files and of parts that are not done.
    flying: Mapping[str, int]
    hosts: Mapping[int, str]

    def of(self, task: int) -> TaskStatus:
        """Return where a task stands that is neither done, failed nor held."""
        if task in self.active:
            return TaskStatus.ACTIVE
        return TaskStatus.DELAYED if task in self.delayed else TaskStatus.PENDING

    def wait(self, task: int) -> float | None:
        """Return the seconds until the next try of a task that waits for one."""
        return self.delayed.get(task, self.parked.get(task))


@dataclass(frozen=True)
class Row:
    """One task as it lies in Redis."""

    task: int
    line: str | None
    failure: str | None
    held: bool
    done: bool
    #: Number of the host where it lies, and how many seconds after the job was made it was done.
    host: int
    second: int
    #: Why its last try went wrong, as it lies there.
    why: str | None

    @cached_property
    def about(self) -> Descriptor:
        """What the task is about."""
        return _about(self.line or "")

    @property
    def is_file(self) -> bool:
        """Whether it is about a file as a whole, or its seal."""
        return not (self.about.part or self.about.closing)


class RedisFiles:
    """Reads the files of one job in chunks, so that the list may be a long one."""

    def __init__(self, client: RedisClient, job: int) -> None:
        self._client, self._redis, self._job = client, client.commands, job

    def all(self, total: int, workers: Iterable[WorkerStatus]) -> Iterator[FileProgress]:
        """Yield the files of `total` tasks, in the order of the listing; `workers` tell how far they are."""
        places = self._places(workers)
        for tasks in self._chunks(total):
            yield from self._chunk(tasks, places)

    def failed(self, failures: Mapping[int, Failure]) -> Iterator[FileProgress]:
        """Yield the files of these failures, which are told by task."""
        for chunk in in_chunks(sorted(failures), _CHUNK):
            with translated(self._client.address):
                lines: Answer = self._redis.hmget(self._key("tasks"), list(map(str, chunk)))
            for task, line in zip(chunk, lines, strict=True):
                size = _about(line).size if line else 0
                path, error = failures[task].path, failures[task].error
                yield FileProgress(path=path, size=size, status=TaskStatus.FAILED, error=error)

    def rows(self) -> Iterator[Row]:
        """Yield how each file stands, in the order of the listing, as it lies in Redis."""
        with translated(self._client.address):
            about: Answer = self._redis.hmget(self._client.key(f"job:{self._job}"), ["total"])
        for tasks in self._chunks(number_or(about[0], 0)):
            yield from (row for row in self._rows(tasks) if row.line is not None and row.is_file)

    def _chunks(self, total: int) -> Iterator[range]:
        """Yield the tasks that one round trip reads, until all are read."""
        with translated(self._client.address):
            listed: Answer = self._redis.hlen(self._key("tasks"))
        total = min(total, listed + _CHUNK)  # whatever somebody wrote: nobody waits for what is not there
        for first in range(0, total, _CHUNK):
            yield range(first, min(first + _CHUNK, total))

    def hosts(self) -> dict[int, str]:
        """Return the hosts where files of the job lie, by the number that a row has."""
        with translated(self._client.address):
            numbers: Answer = self._redis.hgetall(self._key("hosts"))
        return {number_or(number, 0): host for host, number in numbers.items()}

    def _chunk(self, tasks: range, places: _Places) -> Iterator[FileProgress]:
        rows = [row for row in self._rows(tasks) if row.line is not None and row.is_file]
        written = self._written([row.task for row in rows if row.held])
        for row in rows:
            file, about = row.about.file, row.about
            base = {"path": file.path, "size": file.size}
            if row.done:
                host = places.hosts.get(row.host, "")
                yield FileProgress(**base, status=TaskStatus.DONE, host=host, bytes_done=file.size)
            elif row.failure is not None:
                yield FileProgress(**base, status=TaskStatus.FAILED, error=read_failure(row.failure).error)
            elif row.held:
                there = written[row.task] + places.flying.get(file.path, 0)
                yield FileProgress(**base, status=TaskStatus.HELD, bytes_done=min(there, file.size))
            else:
                # All parts of a seal that nothing holds are there.
                there = file.size if about.is_seal else places.flying.get(file.path, 0)
                wait = places.wait(row.task)
                why = read_reason(row.why) if wait is not None else None
                yield FileProgress(
                    **base,
                    status=places.of(row.task),
                    bytes_done=min(there, file.size),
                    error=why.error if why else "",
                    next_try=wait,
                )

    def _rows(self, tasks: range) -> Iterator[Row]:
        first, last = tasks[0], tasks[-1]
        names = [str(task) for task in tasks]
        with translated(self._client.address), self._redis.pipeline(transaction=True) as pipe:
            for part in ("tasks", "failed", "held", "why"):
                pipe.hmget(self._key(part), names)
            pipe.getrange(self._key("done"), first // 8, last // 8)
            pipe.getrange(self._key("where"), _WHERE * first, _WHERE * last + _WHERE - 1)
            lines, failed, held, why, done, where = pipe.execute()
        bits, hosts = _bytes(done), _bytes(where)
        for i, task in enumerate(tasks):
            where = hosts[_WHERE * i : _WHERE * (i + 1)]
            host, second = int.from_bytes(where[:2], "big"), int.from_bytes(where[2:], "big")
            is_done = _bit(bits, task - first // 8 * 8)
            yield Row(task, lines[i], failed[i], held[i] is not None, is_done, host, second, why[i])

    def _written(self, seals: Sequence[int]) -> dict[int, int]:
        """Return the bytes that split files have of parts that are done, and of what was there before."""
        with translated(self._client.address), self._redis.pipeline(transaction=False) as pipe:
            for seal in seals:
                pipe.hget(self._key("records"), str(seal))
            counts = [number_or(count, 0) for count in pipe.execute()]
            for seal, count in zip(seals, counts, strict=True):
                pipe.hmget(self._key("records"), [f"{seal}.{n}" for n in range(max(count, 1))])
            return {seal: _sum(records) for seal, records in zip(seals, pipe.execute(), strict=True)}

    def _places(self, workers: Iterable[WorkerStatus]) -> _Places:
        key = self._client.key
        with translated(self._client.address), self._redis.pipeline(transaction=True) as pipe:
            pipe.zrange(key("workers"), 0, -1)
            pipe.zrange(key("dead"), 0, -1)
            pipe.smembers(key("parked"))
            pipe.time()
            living, dead, hosts_parked, (now, _) = pipe.execute()
            for worker in (*living, *dead):
                pipe.lrange(key(f"active:{worker}"), 0, -1)
            active = [token for tokens in pipe.execute() for token in tokens]
            delayed = dict(self._redis.zscan_iter(key("delayed"), count=_CHUNK))
            parked: dict[str, float] = {}
            for host in hosts_parked:
                parked |= self._redis.zscan_iter(key(f"parked:{host}"), count=_CHUNK)
        return _Places(
            active={*_tasks_of(self._job, active)},
            delayed=_waits_of(self._job, delayed, now),
            parked=_waits_of(self._job, parked, now),
            flying=_flying(self._job, workers),
            hosts=self.hosts(),
        )

    def _key(self, part: str) -> str:
        return self._client.key(f"job:{self._job}:{part}")


def _flying(job: int, workers: Iterable[WorkerStatus]) -> Mapping[str, int]:
    found: Counter[str] = Counter()
    for transfer in (each for worker in workers for each in worker.transfers):
        if transfer.job == job and not transfer.sealing:
            found[transfer.path] += transfer.bytes_done
    return found


def read_failure(text: str) -> Failure:
    """Read a failure; the epoch that stands before it is the queue's own business."""
    text = text.partition("\t")[2]
    try:
        return Failure.model_validate_json(text)
    except ValidationError:
        return Failure(path="?", error=f"unreadable in Redis: {text!a}", host="", tries=0, at=0)


def _about(line: str) -> Descriptor:
    try:
        return Descriptor.from_line(line)
    except ValueError:
        return Descriptor(file=RepoFile(path=f"unreadable in Redis: {line!a}", size=0))


def _sum(records: Iterable[str | None]) -> int:
    """Return the bytes of the ranges in a split file's reports; what cannot be read is not there."""
    total = 0
    for text in (word for record in records for word in (record or "").split()):
        with suppress(ValueError):
            total += Range.parse(text).length
    return total


def _waits_of(job: int, tokens: Mapping[str, float], now: int) -> dict[int, float]:
    """Return the seconds until the time, in ms, that stands with each token of the job; by task."""
    return {
        task: min(max(0.0, tokens[text] / 1000 - now), _LONGEST_WAIT)
        for task, text in _tasks_of(job, tokens).items()
    }


def _tasks_of(job: int, tokens: Iterable[str]) -> dict[int, str]:
    """Return the tokens that are of the job, by task."""
    found = {}
    for text in tokens:
        try:
            token = Token.parse(text)
        except RefusedError:
            continue
        if token.job == job:
            found[token.task] = text
    return found


def _bytes(text: str) -> bytes:
    """Undo the decoding of a value that is no text."""
    return text.encode("utf-8", "surrogateescape")


def _bit(bits: bytes, n: int) -> bool:
    return n // 8 < len(bits) and bool(bits[n // 8] >> (7 - n % 8) & 1)
