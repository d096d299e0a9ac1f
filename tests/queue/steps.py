"""Short words for what the deterministic tests do again and again."""

from __future__ import annotations

from typing import Any

import redis

from distributed_downloader.models import DownloadTask, Failure, JobSpec, RepoFile, Token
from distributed_downloader.outcome import Range
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts
from tests.queue.base import spec_of, status_of

NS = "{hfd}:"


def files(n: int, first: int = 0) -> list[RepoFile]:
    """Return n files; file i has i bytes."""
    return [RepoFile(path=f"f{i}", size=i) for i in range(first, first + n)]


def failure(path: str = "f", error: str = "no", host: str = "h1") -> Failure:
    """Return why something failed."""
    return Failure(path=path, error=error, host=host, tries=1, at=1.5)


def a_job(
    client: RedisClient, n: int = 3, *, spec: JobSpec | None = None, weight: int = 1, seal: bool = True
) -> int:
    """Make a job of n files."""
    job, created = client.create_job(spec or spec_of(1), weight)
    assert created
    for first in range(0, n, 1000):
        assert client.submit(job, first, files(min(1000, n - first), first), "digest")
    if seal:
        client.seal(job, n)
    return job


def a_worker(client: RedisClient, name: str = "w1", *, host: str = "h1", slots: int = 1) -> str:
    """Let a worker join."""
    client.register(status_of(name, 1, host, slots))
    return name


def a_split_job(
    client: RedisClient,
    parts: int = 2,
    size: int = 100_000_000,
    worker: str = "w1",
    spec: JobSpec | None = None,
) -> tuple[int, list[DownloadTask]]:
    """Make a job of one file, and let a worker split it; return the job and the parts, begun."""
    job = a_job(client, 0, seal=False, spec=spec)
    assert client.submit(job, 0, [RepoFile(path="big", size=size)], "digest")
    client.seal(job, 1)
    token, length = str(take(client, worker).token), size // parts
    ranges = [Range(n * length, length if n < parts - 1 else size - n * length) for n in range(parts)]
    assert RedisParts(client).split(worker, token, "ab12", ranges)
    return job, take_all(client, worker)


def record(task: DownloadTask) -> Range:
    """Return what Redis tells of a part that was written."""
    part = task.about.part
    assert part
    return Range(part.start, part.length)


def take(client: RedisClient, worker: str = "w1") -> DownloadTask:
    """Claim and begin a task; there must be one."""
    token = client.claim(worker, 1)
    assert token
    task = client.begin(worker, token)
    assert task
    return task


def take_all(client: RedisClient, worker: str = "w1") -> list[DownloadTask]:
    """Claim and begin all there is."""
    tasks = []
    while token := client.commands.rpoplpush(f"{NS}ready", f"{NS}active:{worker}"):
        task = client.begin(worker, str(token))
        assert task
        tasks.append(task)
    return tasks


def owed_token(client: RedisClient, folder: str, job: int, task: int) -> Token:
    """Return the token of a file that a folder owes; one of nothing if it does not."""
    names: Any = client.commands.zrange(f"{NS}owed:{folder}", 0, -1)
    found = [Token.parse(name) for name in names]
    return next((token for token in found if token[:2] == (job, task)), Token(job, task, 0))


def seal_of(client: RedisClient, job: int, task: int = 0) -> str:
    """Return the token of a seal that is still held, or was let go as it is."""
    words: Any = client.commands.hget(f"{NS}job:{job}:seals", str(task))
    return f"{job}.{task}.{words.split()[0]}"


def clock(client: RedisClient, now: int) -> None:
    """Set the time of a client's scripts, in ms."""
    client.scripts.now = now


def dump(redis_client: redis.Redis) -> dict[str, Any]:
    """Return every key byte for byte, with whether it expires."""
    raw = redis.Redis(
        connection_pool=redis.ConnectionPool(
            connection_class=redis.UnixDomainSocketConnection,
            path=redis_client.connection_pool.connection_kwargs["path"],
        )
    )
    try:
        keys: Any = raw.keys("*")
        return {key.decode(): (raw.dump(key), raw.pttl(key) == -1) for key in keys}
    finally:
        raw.close()


def keys(redis_client: redis.Redis) -> set[str]:
    """Return the names of all keys, without the namespace."""
    found: Any = redis_client.keys("*")
    return {key.removeprefix(NS) for key in found}


def about(client: RedisClient, job: int) -> dict[str, str]:
    """Return a job's hash."""
    found: Any = client.commands.hgetall(f"{NS}job:{job}")
    return dict(found)
