"""A model of the queue's users: workers, zombies, masters and people, and what they may rightly expect.

Each event does one thing to a real queue and to the model, and compares. `Choices` decides which and how,
so that hypothesis, a seed or a soak run can drive the same world. Events of split files are in tails.py,
those of the NAS in deliveries.py, and those of lost data in lost.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import redis

from distributed_downloader.errors import ConflictError
from distributed_downloader.models import Descriptor, Failure, RepoFile, RepoType, Token
from distributed_downloader.redis_client import Done, Limits, Settled, Verdict
from tests.queue.base import LITTER, Job, complete, is_token, spec_of, status_of
from tests.queue.choices import Choices
from tests.queue.invariants import Snapshot, check, host_of, is_done
from tests.queue.lost import Lost

__all__ = ["LITTER", "WEIGHTS", "World", "run", "spec_of", "status_of"]

Verb = Literal["pause", "resume", "cancel"]
HOSTS = ("h1", "h2")
CLOSING = Descriptor.of_closing(whole=True)
DAY = 24 * 3600 * 1000
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
    "more": 10,
    "complete": 24,
    "complete_many": 8,
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
    "split": 8,
    "progress": 8,
    "steal": 6,
    "scramble": 6,
    "poll": 6,
    "blind": 4,
    "give_back": 2,
    "finish_parts": 4,
    "take_owed": 5,
    "keep_owed": 2,
    "deliver": 5,
    "redo": 5,
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
    "remember": 5,
    "lose_steps": 3,
    "lose_all": 1,
    "lose_tails": 4,
}

#: What one call moves into the window at most (lua/_common.lua).
MOST_FED = 128


#: Bytes of a file: none, few, and so many that a tail is worth taking.
SIZES = (0, 10, 17, 200_000, 1_000_000, 40_000_000)


def _is_small(about: Descriptor) -> bool:
    return Limits().is_small(about)


@dataclass
class World(Lost):
    """Everybody who uses one queue, and the queue."""

    def __post_init__(self) -> None:
        super().__post_init__()
        #: What each line in Redis says, because reading one takes long.
        self.read: dict[str, Descriptor] = {}
        for _ in range(self.choose.number(1, 3)):
            self.make_job()
        for _ in range(self.choose.number(1, 3)):
            self.enter()

    def check(self) -> None:
        """Compare all of Redis with the model."""
        snapshot = self.look()
        check(snapshot)
        assert set(snapshot.jobs) == set(self.jobs)
        for (job, task), host in self.done.items():
            assert is_done(snapshot, job, task), f"I4: the bit of {job}.{task} was cleared"
            assert host_of(snapshot, job, task) == host, f"{job}.{task} lies on {host}"
        for token in snapshot.tokens:
            (where, _), *_ = snapshot.places[Token.parse(token)[:2]]
            assert token not in self.claimed or where == "active", f"I3: {token} was handed out before"
        for at, ((where, epoch), *_) in snapshot.places.items():
            if where not in ("held", "done"):
                assert self.epochs.get(at, -1) <= epoch, f"I3: epoch of {at}"
                self.epochs[at] = epoch
        for job, about in snapshot.jobs.items():
            self.check_job(snapshot, self.jobs[job], about)
        self.check_tails(snapshot)
        self.check_deliveries(snapshot)
        self.check_meanings(snapshot)

    def check_job(self, snapshot: Snapshot, job: Job, about: Mapping[str, str]) -> None:
        """Compare one job with the model."""
        for task, line in snapshot.part(job.id, "tasks", {}).items():
            if line not in self.read:
                self.read[line] = Descriptor.from_line(line)
            assert self.read[line] == job.tasks[int(task)], f"task {job.id}.{task} is {line!r}"
        done = [task for at, task in self.done if at == job.id]
        parts = sum(len(split.parts) for split in job.splits.values())
        there = sum(split.there for split in job.splits.values())
        closing = job.closing
        expected = {
            "bytes_done": sum(job.tasks[task].size for task in done) + there,
            "done": len(done),
            "total": job.files + parts + (closing is not None),
            "closings": int(closing is not None),
            "closed": int(closing in done),
            "parts": parts,
            "parts_done": sum(job.tasks[task].part is not None for task in done),
        }
        counted = {name: int(about.get(name, 0)) for name in expected}
        assert counted == expected, f"I2: job {job.id} counts {about}"

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
            self.seal(job)
            self.queue.control("resume", job.id)
        self.zombies |= self.alive
        self.alive = {}
        worker = self.enter()
        for _ in range(50 + 3 * sum(len(job.tasks) for job in self.jobs.values())):
            self.pass_time(61_000, worker)
            self.tick()
            while (
                token := self.queue.home(worker, "h1")
                or self.pop(worker)
                or next(iter(self.holds(worker)), "")
            ):
                if task := self.begin(worker, token):
                    self.finish(worker, str(task.token))
                    assert self.done[task.token[:2]]
            for folder in [*self.owed]:
                for owed in self.take_from(folder, 10):
                    self.choose.of([self.bring, self.bring, self.find_damaged])(folder, owed.token)
            self.check()
            if all(self.state(job) in ("done", "failed") for job in self.jobs):
                return
        raise AssertionError(f"I9: jobs do not end: {self.look().jobs}")

    def close(self) -> None:
        """Forget everything; only the queue's own few keys stay: I13."""
        for job in list(self.jobs):
            self.forget_job(job)
        self.check()
        self.pass_time(2 * DAY)
        while self.folders:
            for folder in [*self.folders]:
                assert self.take_from(folder, 10) == []
        while self.queue.scripts.run("tick", 0, 1, 500, 2, 2):
            pass
        self.check()
        snapshot = self.look()
        for name in ("tails", "progress", "folders"):
            assert not snapshot.value(name), f"I13: {name} is left"
        assert not snapshot.names("owed:") + snapshot.names("active:")

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

    def plan(self) -> list[list[RepoFile]]:
        """Make up a listing."""
        chunks: list[list[RepoFile]] = []
        for n in range(self.choose.number(0, 3)):
            sizes = [self.choose.of(SIZES) for _ in range(self.choose.number(1, 5))]
            names = (f"dir/f {n} é{i}" for i in range(len(sizes)))
            chunks.append(
                [
                    RepoFile(path=name, size=size, clash=size == 17)
                    for name, size in zip(names, sizes, strict=True)
                ]
            )
        return chunks

    def submit(self) -> None:
        """Send the next chunk of a listing, or say that it is complete."""
        if (job := self.some_job()) is None:
            return
        if job.chunks:
            self.send_chunk(job)
            return
        self.seal(job)
        with self.unchanged("sealed twice"):
            assert self.queue.seal(job.id, job.files, self.choose.of(["", CLOSING.to_line()]))
            assert not self.queue.submit(job.id, job.files, [RepoFile(path="late", size=1)], "late")

    def seal(self, job: Job) -> None:
        """Say that a listing is complete, maybe with a task that closes the job then."""
        last, complete = self.choose.of(["", CLOSING.to_line()]), self.look().jobs[job.id]["sealed"] == "1"
        always = self.choose.of([False, True])
        assert self.queue.seal(job.id, job.files, last, always=always)
        if last and not complete:
            job.tasks.append(CLOSING)
            job.always = always

    def send_chunk(self, job: Job) -> None:
        """Send a chunk, sometimes twice; parts may have come into being in between."""
        if not job.chunks:
            return
        chunk, base = job.chunks.pop(0), job.files
        assert self.queue.submit(job.id, base, chunk, str(base + len(chunk)))
        job.files += len(chunk)
        job.tasks += [Descriptor(file=file) for file in chunk]
        assert self.queue.listed(job.id) == (job.files, str(job.files), False)
        if self.choose.number(0, 2) == 0:
            with self.unchanged("I11: the same chunk twice"):
                assert not self.queue.submit(job.id, base, chunk, str(base + len(chunk)))

    # -- workers ----------------------------------------------------------------------------------

    def claim(self) -> None:
        """A worker takes the next token."""
        worker = self.someone()
        if token := self.pop(worker):
            if task := self.begin(worker, token):
                self.alive[worker].add(str(task.token))
            elif not self.registered(worker):
                self.fence(worker)

    def more(self) -> None:
        """A busy worker takes small files that lie ready, as they come."""
        worker, most, before = self.someone(), self.choose.number(1, 4), self.look()
        running = {str(job) for job in self.jobs if self.state(job) == "running"}
        first = next(iter(before.queue("ready")[-1:]), "")
        tasks = self.queue.more(worker, most)
        if not self.registered(worker):
            assert not self.changed_since(before), "a dead worker changed something"
            return self.fence(worker)
        assert len(tasks) <= most
        if is_token(first) and first not in LITTER and first.partition(".")[0] in running:
            id_, number, _ = Token.parse(first)
            wanted = _is_small(self.jobs[id_].tasks[number])
            assert [str(task.token) for task in tasks[:1]] == [first] * wanted
        for task in tasks:
            assert _is_small(task.about)
            assert str(task.token.job) in running, f"I6: {task.token} of a job that does not run"
            self.got(worker, task)
            self.alive[worker].add(str(task.token))
        return None

    def claim_without_reply(self) -> None:
        """Redis moves a token, and the worker never hears of it."""
        self.pop(self.someone())

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
        snapshot = self.look()
        assert (beat.parked, beat.tails) == (
            len(snapshot.queue("parked:h1")),
            bool(snapshot.queue("tails")),
        )
        return None

    def adopt(self) -> None:
        """A worker takes up tokens in its list that it does not know."""
        worker = self.someone()
        beat = self.queue.beat(worker, "h1")
        if beat is None:
            return self.fence(worker)
        for token in sorted(beat.tokens.keys() - self.alive[worker]):
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

    def complete_many(self) -> None:
        """A worker is done with several files at once; it may say again that it is done with another."""
        worker = self.someone()
        held = [token for token in sorted(self.alive[worker]) if token in self.holds(worker)]
        held = [token for token in held if self.is_whole(token)]
        told = [*held, *(f"{job}.{task}.1" for job, task in sorted(self.done)[:1])]
        host = self.choose.of(HOSTS)
        answers = self.queue.complete_all(worker, host, [Done(token, self.size_of(token)) for token in told])
        again = [self.again(worker, *Token.parse(token)[:2]) for token in told[len(held) :]]
        assert answers == [Settled.DONE] * len(held) + again
        for token in held:
            id_, task, _ = Token.parse(token)
            assert (id_, task) not in self.done, f"I4: {token} was counted twice"
            self.done[id_, task] = host
            self.alive[worker].discard(token)

    def is_whole(self, token: str) -> bool:
        """Return whether a token is that of a whole file of a job that is there."""
        id_, task, _ = Token.parse(token)
        return id_ in self.jobs and not self.jobs[id_].tasks[task].place

    def size_of(self, token: str) -> int:
        """Return how many bytes the task of a token fetches; 0 if its job is gone."""
        id_, task, _ = Token.parse(token)
        return self.jobs[id_].tasks[task].size if id_ in self.jobs else 0

    def blind(self) -> None:
        """A worker does not see the folder of a task; maybe it sees it a moment later."""
        super().blind()
        marks = {job: self.look().part(job, "blind", {}) for job in self.jobs}
        again = [
            (worker, token)
            for worker, tokens in sorted(self.alive.items())
            for token in sorted(tokens)
            if worker in marks.get(Token.parse(token).job, {})
        ]
        if again and self.choose.number(0, 1):
            self.finish(*self.choose.of(again))

    def finish(self, worker: str, token: str) -> None:
        """Report a task as done: counted once, stale, or done before."""
        id_, task, _ = Token.parse(token)
        host, job = self.choose.of(HOSTS), self.jobs.get(id_)
        about = job.tasks[task] if job and task < len(job.tasks) else None
        part = about.part if about else None
        owes = "" if part or (about and about.closing) else self.some_debt()
        written = bool(part) and self.choose.number(0, 9) > 0
        size = about.size if about and not part else 12345  # a part's length is known in Redis
        told = self.told.get((worker, token))

        def report() -> Settled:
            return complete(self.queue, worker, token, size, host, written=written, length=told, owes=owes)

        if token not in self.holds(worker):
            with self.unchanged("I5: a stale report"):
                answer = report()
            done = (id_, task) in self.done
            assert answer is (self.again(worker, id_, task) if done else Settled.STALE)
            return
        before = self.look()
        answer = report()
        if part and told is not None and told < part.length:
            assert answer is Settled.STALE, f"{token} has {part.length} bytes, and its worker knew of {told}"
            self.goes_back(token)
            return
        if not job:
            assert answer is Settled.STALE
        else:
            assert (id_, task) not in self.done, f"I4: {token} was counted twice"
            self.done[id_, task] = host
            self.note_debt(Token.parse(token), owes)
            if part:
                job.splits[part.seal].reports.append(f"{part.start}+{part.length}" if written else "")
            sealer = part and self.note_part(worker, job, part.seal, before)
            assert answer is (Settled.SEALER if sealer else Settled.DONE)
            assert worker not in self.look().part(id_, "blind", {})
        with self.unchanged("I11: a report sent twice"):
            assert report() is (self.again(worker, id_, task) if job else Settled.STALE)

    def again(self, worker: str, id_: int, task: int) -> Settled:
        """Return what a worker hears that reports a done task once more."""
        part = self.jobs[id_].tasks[task].part
        if (
            part
            and self.jobs[id_].splits[part.seal].sealer == worker
            and self.missing(self.jobs[id_], part.seal)
        ):
            return Settled.SEALER
        return Settled.ALREADY_DONE

    def note_part(self, worker: str, job: Job, seal: int, before: Snapshot) -> bool:
        """Return whether the worker prepares the seal now; the last part lets it go."""
        split, state = job.splits[seal], before.jobs[job.id]["state"]
        lives = split.sealer in before.queue("workers")
        if self.missing(job, seal):
            if not lives:
                split.sealer = worker
            return split.sealer == worker
        where = self.look().places[job.id, seal]
        if lives and state == "running":
            assert f"{job.id}.{seal}.{split.epoch}" in self.holds(split.sealer), f"the seal went to {where}"
        else:
            assert where in ([("pending", split.epoch)], [("ready", split.epoch)]), f"I8: the seal is {where}"
        return False

    def finish_parts(self) -> None:
        """All parts of a file that somebody has in hand come to an end, one after the other."""
        pairs = sorted((worker, token) for worker, tokens in self.alive.items() for token in tokens)
        parts = [(worker, token, part.seal) for worker, token in pairs if (part := self.part_of(token))]
        if not parts:
            return
        _, some, seal = self.choose.of(parts)
        job = Token.parse(some).job
        stop = self.choose.number(0, 3) == 0
        for worker, token, of in parts:
            if Token.parse(token).job == job and of == seal:
                if stop and len(self.missing(self.jobs[job], seal)) == 1:
                    self.queue.control("pause", job)
                self.alive[worker].discard(token)
                self.finish(worker, token)

    def give_back(self) -> None:
        """A heartbeat finds tokens that the worker does not know of."""
        worker = self.someone()
        strangers = [token for token in self.holds(worker) if token not in self.alive[worker]]
        assert self.queue.release(worker, strangers) == len(strangers)
        for token in filter(is_token, strangers):
            self.goes_back(token)

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
        assert place == [("failed", epoch) if last else ("delayed", self.after(epoch))]
        with self.unchanged("I11: a failure sent twice"):
            assert report() is Verdict.STALE

    def fail_for_good(self) -> None:
        """Another try cannot help."""
        self.fail(for_good=True)

    def disaster(self) -> None:
        """A worker can do none of its tasks, and somebody may ask for them again."""
        worker = self.someone()
        for token in sorted(self.alive[worker]):
            self.fail(for_good=True, whose={worker: {token}})
        self.alive[worker].clear()
        if self.choose.number(0, 1):
            self.retry()

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
            assert job in self.gone or places[job, task][0] in self.queued(epoch)
        with self.unchanged("I11: released twice"):
            assert self.queue.release(worker, tokens) == 0

    def crash(self) -> None:
        """A worker is not heard of any more; it may not know."""
        worker = self.someone()
        self.zombies[worker] = self.alive.pop(worker)

    def zombie_reports(self) -> None:
        """It wakes up, and says what became of a task."""
        what = self.choose.number(0, 3)
        if what == 0:
            self.fail(whose=self.zombies)
        elif what == 1:
            self.split_one(self.zombies)
        elif pair := self.some_token(self.zombies):
            self.zombies[pair[0]].discard(pair[1])
            self.finish(*pair)

    def zombie_claims(self) -> None:
        """Its last BRPOPLPUSH is served after its death."""
        if not self.zombies:
            return
        worker = self.choose.of(sorted(self.zombies))
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
            try:
                self.queue.register(status)
            except ConflictError as error:
                raise AssertionError(f"{worker} is refused its own name") from error

    def leave(self) -> None:
        """A worker says good-bye; a claim of it may still be on its way."""
        worker = self.someone()
        held = [token for token in self.holds(worker) if is_token(token)]
        self.queue.leave(worker)
        self.zombies[worker] = self.alive.pop(worker)
        places = self.look().places
        for token in held:
            job, task, epoch = Token.parse(token)
            assert job in self.gone or places[job, task][0] in self.queued(epoch)
        with self.unchanged("left twice"):
            self.queue.leave(worker)

    # -- time -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Somebody keeps house."""
        before = self.look()
        overdue = {worker for worker, lease in before.value("workers", []) if lease < self.now}
        unknown = set(before.names("active:")) - set(before.queue("workers"))
        with self.losing(sorted(overdue | unknown)):
            self.queue.tick()
        after = self.judge_batch(before, "tick")
        assert not after.queue("fair") or after.queue("ready"), "I9: nothing is fed"
        assert not overdue & set(after.queue("workers")) or len(overdue) > 100
        assert all(until > self.now for _, until in after.value("asleep", [])), "I9: a job sleeps on"
        due = {int(job) for job, at in before.value("ended", []) if at <= self.now}
        assert len(due) <= 10
        for job in due:
            self.drop_job(job)

    @contextmanager
    def losing(self, workers: Sequence[str]) -> Iterator[None]:
        """Count what is lost with these workers, and judge where it went: I7."""
        died = dict(self.look().value("dead", []))
        before = {token: worker for worker in workers for token in self.holds(worker) if is_token(token)}
        yield
        places = self.look().places
        for token in set(before) - {token for worker in workers for token in self.holds(worker)}:
            job, task, epoch = Token.parse(token)
            if job in self.gone or token in LITTER:
                continue
            counts = died.get(before[token], self.now) >= self.now
            self.losses[job, task] += counts
            lost_for_good = counts and self.losses[job, task] >= self.queue.limits.max_losses
            allowed = [("failed", epoch)] if lost_for_good else self.queued(epoch)
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
        assert now == wanted or (verb == "resume" and now in ("done", "failed", "delivering")), (
            f"{verb}: {state} -> {now}"
        )
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
        job.retried = job.always
        n, _ = self.queue.scripts.run("retry", job.id, "0", self.queue.limits.batch)
        self.judge_batch(before, "retry")
        again = self.queue.control("retry", job.id)
        after = self.look()
        if before.jobs[job.id]["state"] in ("cancelled", "done"):
            assert (n, again, after.values) == (0, False, before.values)
            return
        assert n == min(len(failed), self.queue.limits.batch)
        for task, epoch in failed.items():
            assert after.places[job.id, task][0] in self.queued(epoch)
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
        for kept in (self.done, self.tries, self.losses, self.damages, self.epochs, self.delivered):
            for at in [at for at in kept if at[0] == job]:
                del kept[at]

    def hold(self) -> None:
        """The hub asks for a pause, which lasts longer than the test."""
        self.on_hold = True
        self.queue.hold("http://hub", 10_000)

    def litter(self) -> None:
        """Another program writes into our list."""
        self.redis.rpush(self.queue.key("ready"), self.choose.of(self.litter_words))


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
