"""A model of the queue's users: workers, zombies, masters and people, and what they may rightly expect.

Each event does one thing to a real queue and to the model, and compares. `Choices` decides which and how,
so that hypothesis, a seed or a soak run can drive the same world.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import redis

from distributed_downloader.errors import ConflictError
from distributed_downloader.models import (
    DownloadTask,
    Failure,
    JobSpec,
    RepoFile,
    RepoType,
    Token,
    WorkerStatus,
)
from distributed_downloader.redis_client import Limits, RedisClient, Settled, Verdict
from tests.queue.choices import Choices
from tests.queue.invariants import Snapshot, Task, check, host_of, is_done, take

Verb = Literal["pause", "resume", "cancel"]
HOSTS = ("h1", "h2")
DAY = 24 * 3600 * 1000
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
#: What a person may ask of a job in which state.
ALLOWED = {
    ("pause", "running"),
    ("pause", "paused"),
    ("resume", "paused"),
    ("resume", "cancelled"),
    ("resume", "running"),
    ("cancel", "running"),
    ("cancel", "paused"),
    ("cancel", "cancelled"),
}
WANTED = {"pause": "paused", "resume": "running", "cancel": "cancelled"}

#: How often each event happens, relative to the others.
WEIGHTS: Mapping[str, int] = {
    "claim": 30,
    "complete": 24,
    "fail": 14,
    "fail_for_good": 3,
    "disaster": 3,
    "release": 4,
    "begin_again": 3,
    "claim_without_reply": 4,
    "beat": 8,
    "adopt": 4,
    "home": 8,
    "crash": 3,
    "zombie_reports": 4,
    "zombie_claims": 3,
    "enter": 2,
    "come_back": 3,
    "leave": 2,
    "tick": 14,
    "clock": 10,
    "age": 2,
    "make_job": 3,
    "same_job": 1,
    "submit": 6,
    "pause": 3,
    "resume": 3,
    "cancel": 2,
    "retry": 3,
    "forget": 1,
    "hold": 1,
    "litter": 1,
}

#: What one call moves into the window at most (lua/_common.lua).
MOST_FED = 128


@dataclass
class Job:
    """A job as its master knows it."""

    id: int
    spec: JobSpec
    #: The listing, chunk by chunk: (kind, file) as `submit` takes them.
    chunks: list[list[tuple[str, RepoFile]]]
    sent: list[tuple[str, RepoFile]] = field(default_factory=list)
    #: Parts by the task that waits for them.
    parts: dict[int, list[int]] = field(default_factory=dict)

    def waits_for(self, task: int) -> str:
        """Return the task that waits for this one, or ""."""
        return next((str(whole) for whole, parts in self.parts.items() if task in parts), "")


@dataclass
class World:
    """Everybody who uses one queue, and the queue."""

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
            batch=choose.of([1, 2, 500]),
            window=choose.of([(2, 2), (3, 8), (8, 4096)]),
            tick=0,
        )
        self.queue = RedisClient.over(self.redis, limits=limits, sources=self.sources)
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
        self.epochs: dict[Task, int] = {}
        self.on_hold = False
        for _ in range(choose.number(1, 3)):
            self.make_job()
        for _ in range(choose.number(1, 3)):
            self.enter()

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

    def known(self) -> set[str]:
        """Return the workers that the housekeeping looks after: the living, and the dead of the last hour."""
        snapshot = self.look()
        return {*snapshot.queue("workers"), *snapshot.queue("dead")}

    def holds(self, worker: str) -> list[str]:
        """Return a worker's processing list."""
        found: list[str] = self.redis.lrange(self.queue.key(f"active:{worker}"), 0, -1)  # type: ignore[assignment]
        return found

    @contextmanager
    def unchanged(self, why: str) -> Iterator[None]:
        """Assert that nothing at all changes in Redis: I5 and I11."""
        before = self.look()
        yield
        after = self.look()
        changed = {key for key in before.values | after.values if before.value_of(key) != after.value_of(key)}
        assert not changed, f"{why}, and yet {changed} changed"

    def check(self) -> None:
        """Compare all of Redis with the model."""
        snapshot = self.look()
        check(snapshot)
        assert set(snapshot.jobs) == set(self.jobs)
        for (job, task), host in self.done.items():
            assert is_done(snapshot, job, task), f"I4: the bit of {job}.{task} was cleared"
            assert host_of(snapshot, job, task) == host, f"{job}.{task} lies on {host}"
        for token in snapshot.tokens:
            where = snapshot.places[Token.parse(token)[:2]]
            assert token not in self.claimed or where[0][0] == "active", f"I3: {token} was handed out before"
        for at, places in snapshot.places.items():
            assert self.epochs.get(at, -1) <= max(places[0][1], 0) or places[0][0] == "done", (
                f"I3: epoch of {at}"
            )
            self.epochs[at] = places[0][1]
        for job, about in snapshot.jobs.items():
            sizes = [self.jobs[job].sent[task][1].size for at, task in self.done if at == job]
            assert int(about["bytes_done"]) == sum(sizes), f"I2: bytes of job {job}"
            assert int(about["done"]) == len(sizes), f"I2: done of job {job}"

    # -- steps ------------------------------------------------------------------------------------

    def step(self) -> str:
        """Let something happen; returns what."""
        event = self.choose.of([name for name, weight in WEIGHTS.items() for _ in range(weight)])
        getattr(self, event)()
        return event

    def drain(self) -> None:
        """From any state, one living worker brings every job to its end: I9."""
        for job in self.jobs.values():
            while job.chunks:
                self.send_chunk(job)
            self.queue.seal(job.id)
            self.queue.control("resume", job.id)
        self.zombies |= self.alive
        self.alive = {}
        worker = self.enter()
        for _ in range(50 + 3 * sum(len(job.sent) for job in self.jobs.values())):
            self.pass_time(61_000, worker)
            self.tick()
            while token := self.queue.home(worker, "h1") or self.pop(worker):
                if task := self.begin(worker, token):
                    self.finish(worker, str(task.token), must=Settled.DONE)
            self.check()
            if all(self.state(job) in ("done", "failed") for job in self.jobs):
                return
        raise AssertionError(f"I9: jobs do not end: {self.look().jobs}")

    def close(self) -> None:
        """Forget everything; only the queue's own few keys stay: I13."""
        for job in list(self.jobs):
            self.forget_job(job)
        self.check()

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

    # -- masters ----------------------------------------------------------------------------------

    def make_job(self) -> None:
        """Create a job with the first chunks of its listing, or one that is there already."""
        if len(self.jobs) >= 5:
            return
        self.serial += 1
        spec = spec_of(self.serial)
        id_, created = self.queue.create_job(spec, self.choose.of([1, 1, 4]))
        assert created
        assert id_ not in self.jobs.keys() | self.gone, "job ids are never used again"
        job = self.jobs[id_] = Job(id_, spec, self.plan())
        for _ in range(self.choose.number(0, 3)):
            self.send_chunk(job)

    def same_job(self) -> None:
        """Create a job twice, and one of another repo type for the same folder."""
        if (job := self.some_job()) is None:
            return
        again = job.spec.model_copy(update={"endpoint": f"http://mirror{self.now}"})
        assert self.queue.create_job(again, 2) == (job.id, False)
        about = self.look().jobs[job.id]
        assert (about["weight"], about["endpoint"]) == ("2", again.endpoint)
        job.spec = again
        other = job.spec.model_copy(update={"repo_type": RepoType.DATASET})
        with self.unchanged("refused"):
            try:
                self.queue.create_job(other, 1)
            except ConflictError:
                return
            raise AssertionError("a dataset and a model share a folder")

    def plan(self) -> list[list[tuple[str, RepoFile]]]:
        """Make up a listing: whole files, and files in parts with a last task that waits for them."""
        chunks: list[list[tuple[str, RepoFile]]] = []
        for _ in range(self.choose.number(0, 3)):
            chunk: list[tuple[str, RepoFile]] = []
            for _ in range(self.choose.number(1, 5)):
                parts = self.choose.of([0, 0, 0, 2, 3])
                kinds = [str(parts), *["q"] * parts] if parts else ["q"]
                for kind in kinds:
                    chunk.append(
                        (kind, RepoFile(path=f"dir/f {len(chunks)}\té{len(chunk)}", size=10 + len(chunk)))
                    )
            chunks.append(chunk)
        return chunks

    def submit(self) -> None:
        """Send the next chunk of a listing, or say that it is complete."""
        if (job := self.some_job()) is None:
            return
        if job.chunks:
            self.send_chunk(job)
            return
        self.queue.seal(job.id)
        with self.unchanged("sealed twice"):
            self.queue.seal(job.id)
            assert not self.send(job, len(job.sent), [("q", RepoFile(path="late", size=1))])

    def send_chunk(self, job: Job) -> None:
        """Send a chunk, sometimes twice."""
        if not job.chunks:
            return
        chunk, base = job.chunks.pop(0), len(job.sent)
        assert self.send(job, base, chunk)
        job.sent += chunk
        for i, (kind, _) in enumerate(chunk):
            if kind != "q":
                job.parts[base + i] = [base + i + 1 + part for part in range(int(kind))]
        assert self.queue.listed(job.id) == (len(job.sent), str(len(job.sent)), False)
        if self.choose.number(0, 2) == 0:
            with self.unchanged("I11: the same chunk twice"):
                assert not self.send(job, base, chunk)

    def send(self, job: Job, base: int, chunk: Sequence[tuple[str, RepoFile]]) -> bool:
        """Call the script itself: `RedisClient.submit` knows no parts yet."""
        words = [word for kind, file in chunk for word in (kind, file.to_line())]
        size = sum(file.size for _, file in chunk)
        return bool(self.queue.scripts.run("submit", job.id, base, size, str(base + len(chunk)), *words))

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
        assert self.registered(worker), f"{token} was handed out to a dead worker"
        self.judge(task)
        assert str(task.token) not in self.claimed, f"I3: {token} was handed out twice"
        self.claimed.add(str(task.token))
        return task

    def judge(self, task: DownloadTask) -> None:
        """Compare what a worker gets with what was submitted."""
        job, at = self.jobs[task.token.job], task.token[:2]
        assert at not in self.done, f"I4: {at} is done, and was handed out again"
        assert task.file == job.sent[task.token.task][1]
        assert task.spec == job.spec
        assert task.tries == self.tries[at]
        assert (task.hold > 0) == self.on_hold or task.spec.endpoint != "http://hub"
        missing = [part for part in job.parts.get(task.token.task, []) if (job.id, part) not in self.done]
        assert not missing, f"I8: {task.token} was handed out before its parts {missing}"

    def claim(self) -> None:
        """A worker takes the next token."""
        worker = self.someone()
        if token := self.pop(worker):
            if task := self.begin(worker, token):
                self.alive[worker].add(str(task.token))
            elif not self.registered(worker):
                self.fence(worker)

    def claim_without_reply(self) -> None:
        """Redis moves a token, and the worker never hears of it."""
        if (worker := self.someone()) in self.known():
            self.pop(worker)

    def begin_again(self) -> None:
        """The reply to `begin` was lost, so it is called again."""
        if (pair := self.some_token(self.alive)) is None:
            return
        worker, token = pair
        mine, running = token in self.holds(worker), self.state(int(token.split(".")[0])) == "running"
        if not mine:
            with self.unchanged("I5: not mine"):
                assert self.queue.begin(worker, token) is None
        elif task := self.queue.begin(worker, token):
            assert running
            self.judge(task)
            return
        else:
            assert not running or not self.registered(worker)
        self.alive[worker].discard(token)

    def beat(self) -> None:
        """A worker learns whether it lives, and what it holds."""
        worker = self.someone()
        expected = self.registered(worker)
        beat = self.queue.beat(worker, "h1")
        assert (beat is not None) == expected
        if beat is None:
            return self.fence(worker)
        assert list(beat.tokens) == self.holds(worker)
        for token, state in beat.tokens.items():
            assert token in LITTER or (state.value if state else "") == self.state(Token.parse(token).job)
        assert beat.parked == len(self.look().queue("parked:h1"))
        return None

    def adopt(self) -> None:
        """A worker takes up tokens in its list that it does not know."""
        worker = self.someone()
        beat = self.queue.beat(worker, "h1")
        if beat is None:
            return self.fence(worker)
        for token in beat.tokens.keys() - self.alive[worker]:
            if task := self.begin(worker, token):
                self.alive[worker].add(str(task.token))
        return None

    def home(self) -> None:
        """A worker takes a retry whose first bytes it has."""
        worker = self.someone()
        before = self.look()
        token = self.queue.home(worker, "h1")
        self.judge_batch(before, "home")
        if token is None:
            return
        assert token in before.queue("parked:h1")
        assert self.state(Token.parse(token).job) == "running", f"I6: {token} of a job that does not run"
        if task := self.begin(worker, token):
            self.alive[worker].add(str(task.token))

    def complete(self) -> None:
        """A worker is done with a task."""
        if pair := self.some_token(self.alive):
            self.alive[pair[0]].discard(pair[1])
            self.finish(*pair)

    def finish(self, worker: str, token: str, must: Settled | None = None) -> None:
        """Report a task as done: counted once, stale, or done before."""
        job, task, _ = Token.parse(token)
        host = self.choose.of(HOSTS)
        if token not in self.holds(worker):
            assert must is None
            with self.unchanged("I5: a stale report"):
                answer = self.settle(worker, token, host)
            assert answer is (Settled.ALREADY_DONE if (job, task) in self.done else Settled.STALE)
            return
        answer = self.settle(worker, token, host)
        assert answer is (Settled.DONE if job in self.jobs else Settled.STALE)
        if answer is Settled.DONE:
            assert (job, task) not in self.done, f"I4: {token} was counted twice"
            self.done[job, task] = host
        with self.unchanged("I11: a report sent twice"):
            again = self.settle(worker, token, host)
        assert again is (Settled.ALREADY_DONE if answer is Settled.DONE else Settled.STALE)

    def settle(self, worker: str, token: str, host: str) -> Settled:
        """Call the script itself: `RedisClient.complete` knows no parts yet."""
        job, task, _ = Token.parse(token)
        if job not in self.jobs:
            return self.queue.complete(worker, token, 1, host)
        size, waiting = self.jobs[job].sent[task][1].size, self.jobs[job].waits_for(task)
        return Settled(self.queue.scripts.run("complete", worker, token, size, host, waiting))

    def fail(self, *, for_good: bool = False, whose: Mapping[str, set[str]] | None = None) -> None:
        """A try goes wrong."""
        if (pair := self.some_token(self.alive if whose is None else whose)) is None:
            return
        worker, token = pair
        job, task, epoch = Token.parse(token)
        (self.alive if whose is None else whose)[worker].discard(token)
        failure = Failure(path=f"{task}", error="no", host=self.choose.of(["h1", *HOSTS]), tries=1, at=1)
        delay, parked_for = self.choose.of([0.0, 0.0, 1.0, 60.0]), self.choose.of([0, 300])

        def report() -> Verdict:
            return self.queue.fail(worker, token, failure, None if for_good else delay, parked_for=parked_for)

        if token not in self.holds(worker) or job in self.gone:
            was_mine = token in self.holds(worker)
            before = self.look()
            assert report() is Verdict.STALE
            assert was_mine or self.look().values == before.values, "I5: a stale failure changed something"
            return
        self.tries[job, task] += 1
        last = for_good or self.tries[job, task] >= self.queue.limits.max_tries
        assert report() is (Verdict.BURIED if last else Verdict.RETRY), f"I7: try {self.tries[job, task]}"
        place = self.look().places[job, task]
        assert place == [("failed", epoch) if last else ("delayed", epoch + 1)]
        with self.unchanged("I11: a failure sent twice"):
            assert report() is Verdict.STALE

    def fail_for_good(self) -> None:
        """Another try cannot help."""
        self.fail(for_good=True)

    def disaster(self) -> None:
        """A worker can do none of its tasks."""
        worker = self.someone()
        for token in sorted(self.alive[worker]):
            self.fail(for_good=True, whose={worker: {token}})
        self.alive[worker].clear()

    def release(self) -> None:
        """A worker gives back all that it believes to hold."""
        worker = self.someone()
        tokens, held = sorted(self.alive[worker]), self.holds(worker)
        self.alive[worker].clear()
        mine = [token for token in tokens if token in held]
        assert self.queue.release(worker, tokens) == len(mine)
        places = self.look().places
        for token in mine:
            job, task, epoch = Token.parse(token)
            assert job in self.gone or places[job, task][0] in (("pending", epoch + 1), ("ready", epoch + 1))
        with self.unchanged("I11: released twice"):
            assert self.queue.release(worker, tokens) == 0

    def crash(self) -> None:
        """A worker is not heard of any more; it may not know."""
        worker = self.someone()
        self.zombies[worker] = self.alive.pop(worker)

    def zombie_reports(self) -> None:
        """It wakes up, and says what became of a task."""
        if self.choose.number(0, 1):
            self.fail(whose=self.zombies)
        elif pair := self.some_token(self.zombies):
            self.zombies[pair[0]].discard(pair[1])
            self.finish(*pair)

    def zombie_claims(self) -> None:
        """Its last BRPOPLPUSH is served after its death."""
        if not (known := self.known() & self.zombies.keys()):
            return
        worker = self.choose.of(sorted(known))
        token = self.pop(worker)
        if token and self.choose.number(0, 1) and (task := self.begin(worker, token)):
            self.zombies[worker].add(str(task.token))

    def come_back(self) -> None:
        """A process starts under the name of one that crashed, or repeats its own registration."""
        if not self.zombies:
            return
        worker = self.choose.of(sorted(self.zombies))
        lease = self.redis.zscore(self.queue.key("workers"), worker)
        self.serial += 1
        status = status_of(worker, self.serial)
        if lease is not None and lease >= self.now:
            with self.unchanged("refused"):
                try:
                    self.queue.register(status)
                except ConflictError:
                    return
                raise AssertionError("two living processes have one name")
        with self.losing([worker]):
            self.queue.register(status)
        assert self.holds(worker) == []
        self.zombies.pop(worker)
        self.alive[worker] = set()
        with self.unchanged("registered twice"):
            self.queue.register(status)

    def leave(self) -> None:
        """A worker says good-bye; a claim of it may still be on its way."""
        worker = self.someone()
        held = [token for token in self.holds(worker) if is_token(token)]
        self.queue.leave(worker)
        self.zombies[worker] = self.alive.pop(worker)
        places = self.look().places
        for token in held:
            job, task, epoch = Token.parse(token)
            assert job in self.gone or places[job, task][0] in (("pending", epoch + 1), ("ready", epoch + 1))
        with self.unchanged("left twice"):
            self.queue.leave(worker)

    # -- time -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Somebody keeps house."""
        before = self.look()
        overdue = {worker for worker, lease in before.value("workers", []) if lease < self.now}
        with self.losing(sorted(overdue | set(before.queue("dead")))):
            self.queue.tick()
        after = self.judge_batch(before, "tick")
        assert not after.queue("fair") or after.queue("ready"), "I9: nothing is fed"
        assert not overdue & set(after.queue("workers")) or len(overdue) > 100
        due = {int(job) for job, at in before.value("ended", []) if at <= self.now}
        assert len(due) <= 10
        for job in due:
            self.drop_job(job)

    @contextmanager
    def losing(self, workers: Sequence[str]) -> Iterator[None]:
        """Count what is lost with these workers, and judge where it went: I7."""
        before = {token for worker in workers for token in self.holds(worker) if is_token(token)}
        yield
        places = self.look().places
        for token in before - {token for worker in workers for token in self.holds(worker)}:
            job, task, epoch = Token.parse(token)
            if job in self.gone or token in LITTER:
                continue
            self.losses[job, task] += 1
            lost_for_good = self.losses[job, task] >= self.queue.limits.max_losses
            allowed = [("failed", epoch)] if lost_for_good else [("pending", epoch + 1), ("ready", epoch + 1)]
            assert places[job, task][0] in allowed, (
                f"I7: {token}, lost {self.losses[job, task]} times: {places}"
            )

    def judge_batch(self, before: Snapshot, script: str) -> Snapshot:
        """Assert that a script moved and fed no more tasks than it may: I14."""
        after = self.look()
        moved = [
            at for at in before.places if at[0] in after.jobs and before.places[at] != after.places.get(at)
        ]
        fed = [
            at
            for at in moved
            if before.places[at][0][0] == "pending"
            and after.places.get(at) == [("ready", before.places[at][0][1])]
        ]
        assert len(moved) - len(fed) <= self.queue.limits.batch, f"I14: {script} moved {moved}"
        assert len(fed) <= MOST_FED, f"I14: {script} fed {fed}"
        return after

    def clock(self) -> None:
        """Time passes."""
        self.pass_time(self.choose.of([500, 5_000, 20_000, 40_000]))

    def age(self) -> None:
        """Nobody is there for long."""
        self.pass_time(self.choose.of([DAY // 12, 31 * DAY]))

    # -- people -----------------------------------------------------------------------------------

    def pause(self) -> None:
        """Stop a job for a while."""
        self.control("pause")

    def resume(self) -> None:
        """Let it go on, also after a cancel."""
        self.control("resume")

    def cancel(self) -> None:
        """Give it up."""
        self.control("cancel")

    def control(self, verb: Verb) -> None:
        """Ask something of a job, twice."""
        if (job := self.some_job()) is None:
            return
        state = self.state(job.id)
        answer = self.queue.control(verb, job.id)
        assert answer == ((verb, state) in ALLOWED), f"{verb} of a {state} job said {answer}"
        now = self.state(job.id)
        wanted = WANTED[verb] if answer else state
        assert now == wanted or (verb == "resume" and now in ("done", "failed")), f"{verb}: {state} -> {now}"
        with self.unchanged("I11: asked twice"):
            assert self.queue.control(verb, job.id) == ((verb, now) in ALLOWED)

    def retry(self) -> None:
        """Queue a job's failed tasks again, batch by batch."""
        before = self.look()
        candidates = [job for job in sorted(self.jobs) if before.part(job, "failed", {})]
        if (job := self.jobs[self.choose.of(candidates)] if candidates else self.some_job()) is None:
            return
        failed = {
            task: where[0][1]
            for (at, task), where in before.places.items()
            if at == job.id and where[0][0] == "failed"
        }
        n, _ = self.queue.scripts.run("retry", job.id, "0", self.queue.limits.batch)
        self.judge_batch(before, "retry")
        again = self.queue.control("retry", job.id)
        after = self.look()
        if before.jobs[job.id]["state"] in ("cancelled", "done"):
            assert (n, again, after.values) == (0, False, before.values)
            return
        assert n == min(len(failed), self.queue.limits.batch)
        for task, epoch in failed.items():
            assert after.places[job.id, task] in ([("pending", epoch + 1)], [("ready", epoch + 1)])
            self.tries[job.id, task] = self.losses[job.id, task] = 0
        with self.unchanged("I11: nothing to retry"):
            assert not self.queue.control("retry", job.id)

    def forget(self) -> None:
        """Remove a job, whatever it is doing."""
        if job := self.some_job():
            self.forget_job(job.id)

    def forget_job(self, job: int) -> None:
        """Remove a job: once."""
        assert self.queue.forget(job)
        with self.unchanged("forgotten twice"):
            assert not self.queue.forget(job)
        self.drop_job(job)

    def drop_job(self, job: int) -> None:
        """Take a job out of the model."""
        del self.jobs[job]
        self.gone.add(job)
        for kept in (self.done, self.tries, self.losses, self.epochs):
            for at in [at for at in kept if at[0] == job]:
                del kept[at]

    def hold(self) -> None:
        """The hub asks for a pause, which lasts longer than the test."""
        self.on_hold = True
        self.queue.hold("http://hub", 10_000)

    def litter(self) -> None:
        """Another program writes into our list."""
        self.redis.rpush(self.queue.key("ready"), self.choose.of(self.litter_words))


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


def run(
    client: redis.Redis,
    choose: Choices,
    steps: int,
    sources: Mapping[str, str] | None = None,
    litter: Sequence[str] = LITTER,
) -> None:
    """Let a whole history happen, and check it every few steps and after a drain."""
    world = World(client, choose, sources, litter)
    for i in range(steps):
        world.step()
        if i % 3 == 0:
            world.check()
    world.check()
    world.drain()
    world.close()
