"""What every event of the world needs: the queue, the model of it, and how both are looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import redis

from distributed_downloader.models import (
    Descriptor,
    DownloadTask,
    JobSpec,
    RepoFile,
    RepoType,
    Token,
    WorkerStatus,
)
from distributed_downloader.redis_client import Done, Limits, RedisClient, Settled
from distributed_downloader.redis_deliveries import RedisDeliveries
from distributed_downloader.redis_parts import RedisParts
from tests.queue.choices import Choices
from tests.queue.invariants import Snapshot, Task, take

#: What other programs may leave in our lists; none of it is a token of ours.
LITTER = (
    "junk",
    "1.2",
    "999.0.0",
    "1.999.0",
    "1.00.0",
    "1.0.0.0",
    "\udcff\udcfe",
    "1.99999999999999999999.0",
)
#: Tasks of a job in the model at most, so that a long history stays a short one.
MANY = 200


@dataclass
class Split:
    """A file in parts, as those know it who split it."""

    #: First byte and length of what was missing then, and how many bytes were there.
    missing: list[tuple[int, int]]
    there: int
    #: Of the first token of the seal.
    epoch: int
    #: Tasks of the parts.
    parts: list[int]
    #: What the seal may read: one text for each report.
    reports: list[str] = field(default_factory=list)
    #: Who is to prepare the seal.
    sealer: str = ""


@dataclass
class Job:
    """A job as its master and its workers know it."""

    id: int
    spec: JobSpec
    #: What is not listed yet, chunk by chunk.
    chunks: list[list[RepoFile]]
    #: How many files are.
    files: int = 0
    #: What each task is about.
    tasks: list[Descriptor] = field(default_factory=list)
    #: Split files by the task of their seal.
    splits: dict[int, Split] = field(default_factory=dict)

    #: Whether it is closed also where files have failed; and whether these may have been tried again since.
    always: bool = False
    retried: bool = False

    @property
    def closing(self) -> int | None:
        """The task that closes the job, if one does."""
        return next((task for task, about in enumerate(self.tasks) if about.closing), None)


@dataclass
class Base:
    """One queue, and what is known about it without asking it."""

    redis: redis.Redis
    choose: Choices
    sources: Mapping[str, str] | None = None
    litter_words: Sequence[str] = LITTER

    def __post_init__(self) -> None:
        self.redis.flushall()
        choose = self.choose
        limits = Limits(
            max_tries=choose.of([1, 2, 3, 3]),
            max_losses=choose.of([1, 2, 3, 1000]),
            max_damages=choose.of([1, 2, 3, 10]),
            batch=choose.of([1, 2, 500]),
            window=choose.of([(2, 2), (3, 8), (8, 4096)]),
            tick=0,
            least_tail=choose.of([1, 1, 128 * 1024]),
        )
        self.queue = RedisClient.over(self.redis, limits=limits, sources=self.sources)
        self.parts, self.deliveries = RedisParts(self.queue), RedisDeliveries(self.queue)
        self.queue.scripts.now = self.now = 1_000_000_000
        self.serial = 0
        self.alive: dict[str, set[str]] = {}
        self.zombies: dict[str, set[str]] = {}
        self.jobs: dict[int, Job] = {}
        self.gone: set[int] = set()
        self.claimed: set[str] = set()
        self.done: dict[Task, str] = {}
        self.tries: Counter[Task] = Counter()
        self.losses: Counter[Task] = Counter()
        #: How often each file was found damaged before it got to the NAS.
        self.damages: Counter[Task] = Counter()
        self.epochs: dict[Task, int] = {}
        self.on_hold = False
        #: When each part was heard of, how far it was and how fast.
        self.heard: dict[str, tuple[int, int, int, int]] = {}
        #: How long each part is, as its worker was told last.
        self.told: dict[tuple[str, str], int] = {}
        #: Folder -> token -> when others may have the file; and the bytes that are on the NAS, by task.
        self.owed: dict[str, dict[Token, int]] = {}
        self.folders: dict[str, str] = {}
        self.delivered: dict[Task, int] = {}

    # -- looking ----------------------------------------------------------------------------------

    def look(self) -> Snapshot:
        """Read everything."""
        return take(self.redis, self.queue.namespace)

    def state(self, job: int) -> str:
        """Return what Redis says of a job, "" when it is gone."""
        return str(self.redis.hget(self.queue.key(f"job:{job}"), "state") or "")

    def registered(self, worker: str) -> bool:
        """Return whether a worker is in the fleet."""
        return self.redis.zscore(self.queue.key("workers"), worker) is not None

    def holds(self, worker: str) -> list[str]:
        """Return a worker's processing list."""
        found: list[str] = self.redis.lrange(self.queue.key(f"active:{worker}"), 0, -1)  # type: ignore[assignment]
        return found

    @contextmanager
    def unchanged(self, why: str) -> Iterator[None]:
        """Assert that nothing at all changes in Redis: I5 and I11."""
        before = self.look()
        yield
        changed = self.changed_since(before)
        assert not changed, f"{why}, and yet {changed} changed"

    def changed_since(self, before: Snapshot) -> set[str]:
        """Return the keys that hold something else now."""
        after = self.look()
        return {key for key in before.values | after.values if before.value_of(key) != after.value_of(key)}

    def missing(self, job: Job, seal: int) -> list[int]:
        """Return the parts that a seal waits for."""
        split = job.splits.get(seal)
        return [part for part in split.parts if (job.id, part) not in self.done] if split else []

    def goes_back(self, token: str) -> None:
        """Assert that a token was given back: it is next in line, under a new epoch."""
        job, task, epoch = Token.parse(token)
        if job not in self.gone:
            assert self.look().places[job, task][0] in self.queued(epoch)

    def after(self, epoch: int) -> int:
        """Return the epoch of the next token of a task."""
        return max(epoch + 1, self.now)

    def queued(self, epoch: int) -> list[tuple[str, int]]:
        """Return where a task may be that goes back into a queue."""
        return [("pending", self.after(epoch)), ("ready", self.after(epoch))]

    def pass_time(self, ms: int, *keep: str) -> None:
        """Move the clock; the workers to keep beat right afterwards."""
        self.now += ms
        self.queue.scripts.now = self.now
        for worker in keep:
            self.queue.beat(worker, "h1")

    # -- choosing ---------------------------------------------------------------------------------

    def someone(self) -> str:
        """Return a living worker."""
        return self.choose.of(sorted(self.alive)) if self.alive else self.enter()

    def some_token(self, whose: Mapping[str, set[str]]) -> tuple[str, str] | None:
        """Return a worker and a token that it believes to hold."""
        pairs = sorted((worker, token) for worker, tokens in whose.items() for token in tokens)
        return self.choose.of(pairs) if pairs else None

    def some_job(self) -> Job | None:
        """Return a job."""
        return self.jobs[self.choose.of(sorted(self.jobs))] if self.jobs else None

    # -- workers ----------------------------------------------------------------------------------

    def enter(self) -> str:
        """A new worker joins."""
        self.serial += 1
        worker = f"w{self.serial}"
        self.queue.register(status_of(worker, self.serial))
        self.alive[worker] = set()
        return worker

    def fence(self, worker: str) -> None:
        """A worker learns that it was declared dead: it forgets everything and takes another name."""
        assert not self.registered(worker)
        self.alive.pop(worker, None)
        self.enter()

    def pop(self, worker: str) -> str | None:
        """BRPOPLPUSH without waiting."""
        token = self.redis.rpoplpush(self.queue.key("ready"), self.queue.key(f"active:{worker}"))
        return None if token is None else str(token)

    def begin(self, worker: str, token: str) -> DownloadTask | None:
        """Begin a token that the worker has just got, and judge the answer."""
        running = self.state(int(token.split(".", maxsplit=1)[0])) == "running" if is_token(token) else False
        task = self.queue.begin(worker, token)
        if task is None:
            assert not (running and self.registered(worker)) or token in LITTER, f"{token} was not handed out"
            assert token in LITTER or token not in self.holds(worker), f"{token} was refused, and stays"
            return None
        assert running, f"I6: {token} of a job that does not run was handed out"
        self.got(worker, task)
        return task

    def got(self, worker: str, task: DownloadTask) -> None:
        """Judge a task that a worker was handed out."""
        token = str(task.token)
        assert self.registered(worker), f"{token} was handed out to a dead worker"
        self.judge(task)
        assert token not in self.claimed, f"I3: {token} was handed out twice"
        self.claimed.add(token)
        if token not in {*self.alive.get(worker, ()), *self.zombies.get(worker, ())}:
            self.told.pop((worker, token), None)  # it begins anew

    def judge(self, task: DownloadTask) -> None:
        """Compare what a worker gets with what was submitted."""
        job, at = self.jobs[task.token.job], task.token[:2]
        assert at not in self.done, f"I4: {at} is done, and was handed out again"
        assert task.about == job.tasks[task.token.task]
        assert task.spec == job.spec
        assert task.tries == self.tries[at]
        assert (task.hold > 0) == self.on_hold or task.spec.endpoint != "http://hub"
        missing = self.missing(job, task.token.task)
        assert not missing, f"I8: {task.token} was handed out before its parts {missing}"
        if task.about.closing:
            others = {(job.id, other) for other in range(len(job.tasks))} - {at, *self.done}
            places = self.look().places
            waiting = [at for at in others if not job.always or places[at][0][0] not in ("failed", "held")]
            assert job.retried or not waiting, (
                f"I8: {task.token} closes a job of which {waiting} are not done"
            )
            owed = [file for files in self.owed.values() for file in files if file.job == job.id]
            assert job.always or not owed, f"I8: {task.token} closes a job that owes {owed}"


def is_token(text: str) -> bool:
    """Return whether this is a token of ours."""
    return bool(text not in LITTER)


def spec_of(n: int, **changes: object) -> JobSpec:
    """Return the n-th job to make."""
    spec = JobSpec(
        repo_type=RepoType.MODEL,
        repo_id=f"org/repo{n}",
        revision="main",
        commit="c" * 40,
        endpoint="http://hub",
    )
    return spec.model_copy(update=changes)


def status_of(worker: str, started_at: float, host: str = "h1", slots: int = 1) -> WorkerStatus:
    """Return a worker's description of itself."""
    return WorkerStatus(id=worker, host=host, pid=1, version="0", slots=slots, started_at=started_at)


def complete(
    client: RedisClient,
    worker: str,
    token: str,
    size: int,
    host: str,
    *,
    written: bool = True,
    length: int | None = None,
    owes: str = "",
) -> Settled:
    """Report one task as done."""
    return client.complete_all(worker, host, [Done(token, size, written, length, owes)])[0]
