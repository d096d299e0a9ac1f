"""Events around split files: they come into being, are reported, lose their tails, and are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from distributed_downloader import queue_terms
from distributed_downloader.models import Descriptor, JobState, Part, Token
from distributed_downloader.outcome import Range
from distributed_downloader.queue_terms import Blind, FileParts
from tests.queue.base import MANY, Base, Job, Split, is_token
from tests.queue.invariants import Snapshot

PLACE = "ab12"
#: The numbers of lua/steal.lua.
BLOCK, LOOKED_AT, LATE_MS, TAKEN_WHOLE, BLIND_MS = 65536, 16, 300, 3, 60000


@dataclass
class Victim:
    """A part that somebody may take from, as the model knows it."""

    token: str
    owner: str
    #: Bytes that are there, as far as anybody can tell, and bytes a second.
    position: int
    rate: int
    silent: bool

    def lost_to(self, worker: str) -> bool:
        """Return whether another worker may have it as a whole: it was silent."""
        return self.silent and self.owner != worker


class Thief(NamedTuple):
    """Who takes: its bytes a second, and those of a part on average; None where that is hard to say."""

    worker: str
    speed: int
    usual: float | None


def stalled_at(part: Part, victim: Victim) -> int:
    """Return the bytes that a stalled part keeps: the full blocks that are there, but one at least."""
    return max((part.start + victim.position) // BLOCK * BLOCK - part.start, BLOCK)


def reckon(done: int, rate: int, since: int, length: int) -> tuple[int, int]:
    """Return where a part is by now, and its bytes a second; one that is late is where it was last seen."""
    left = length - done
    if rate > 1 and left > 0 and since > left * 1000 / rate + LATE_MS:
        return done, max(left * 1000 // since, 2)
    return min(done + rate * since // 1000, length), rate


def judge_cut(victim: Victim, part: Part, cut: int, thief: Thief) -> None:
    """Both end at the same time as nearly as borders of blocks allow, and sooner than one alone."""
    if thief.usual is None:
        return
    rate = victim.rate if victim.rate > 1 else thief.usual or max(thief.speed, 1)
    speed = thief.speed or thief.usual or rate
    left = part.length - victim.position

    def ends(kept: int) -> float:
        return max((kept - victim.position) / rate, (part.length - kept) / speed)

    fair = victim.position + left * rate / (rate + speed)
    assert abs(cut - fair) <= BLOCK + 1, f"{victim} keeps {cut}, fair is {fair:.0f}"
    for other in (cut - BLOCK, cut + BLOCK):
        assert not 0 < other < part.length or ends(cut) <= ends(other) * 1.0001, f"{other} had been better"
    assert ends(cut) < left / rate, f"{victim} had been done as soon"


@dataclass
class Tails(Base):
    """The world as far as parts are concerned."""

    # -- splitting --------------------------------------------------------------------------------

    def split(self) -> None:
        """A worker finds that its file is large."""
        self.split_one(self.alive)

    def split_one(self, whose: Mapping[str, set[str]]) -> None:
        """Turn a file into parts: once, and only by the worker that has it in hand."""
        if (pair := self.some_token(whose)) is None:
            return
        worker, token = pair
        id_, task, epoch = Token.parse(token)
        job, mine = self.jobs.get(id_), token in self.holds(worker)
        if job and mine and (job.tasks[task].place or job.tasks[task].closing or len(job.tasks) > MANY):
            return
        whose[worker].discard(token)
        size = job.tasks[task].file.size if job and task < len(job.tasks) else 9
        missing = self.some_ranges(size)
        there = size - sum(each.length for each in missing)
        written = [Range(0, there)] if there and self.choose.number(0, 1) else []

        def report() -> bool:
            return self.parts.split(worker, token, PLACE, missing, written=written) is queue_terms.Split.DONE

        if not mine:
            with self.unchanged("I5: a stale split"):
                assert not report()
            return
        assert report() == (job is not None)
        if job:
            self.note_split(job, task, epoch, missing, there)
            job.splits[task].reports += map(str, written)
            if missing:
                assert self.look().places[id_, task] == [("held", -1)]
            else:
                self.goes_back(token)
        with self.unchanged("I11: split twice"):
            assert not report()

    def note_split(self, job: Job, task: int, epoch: int, missing: list[Range], there: int) -> None:
        """Enter a split file into the model."""
        file, first = job.tasks[task].file, len(job.tasks)
        job.tasks[task] = Descriptor(file=file, place=PLACE)
        for start, length in missing:
            part = Part(start=start, length=length, seal=task)
            job.tasks.append(Descriptor(file=file, part=part, place=PLACE))
        parts = list(range(first, len(job.tasks)))
        job.splits[task] = Split([(*each,) for each in missing], there, self.after(epoch), parts)
        places = self.look().places
        for part_task in parts:
            assert places[job.id, part_task][0] in (("pending", self.now), ("ready", self.now))

    def some_ranges(self, size: int) -> list[Range]:
        """Return what is missing of a file: nothing, all of it in one, or some of it in several."""
        cuts = {self.choose.number(0, size) for _ in range(self.choose.of([0, 1, 2, 4]))}
        bounds = sorted({0, size, *cuts})
        ranges = [Range(low, high - low) for low, high in pairwise(bounds)]
        kept = self.choose.of(["all", "all", "some", "none"])
        if kept == "some":
            return [each for each in ranges if self.choose.number(0, 2)]
        return ranges if kept == "all" else []

    # -- progress ---------------------------------------------------------------------------------

    def progress(self) -> None:
        """A worker says how far its parts are."""
        if busy := sorted(worker for worker in {*self.alive, *self.zombies} if self.holds(worker)):
            self.progress_of(self.choose.of(busy))

    def progress_of(self, worker: str) -> None:
        """Report progress of all that a worker holds or believes to hold, and judge the answer."""
        held = self.holds(worker)
        asked = {*held, *self.alive.get(worker, ()), *self.zombies.get(worker, ())}
        told, expected = {}, {}
        for token in sorted(asked):
            part = self.part_of(token)
            length = part.length if part else 10
            rate = self.choose.of([0, 1, 10_000, 10**6, 10**7])
            told[token] = (self.choose.of([0, length // 3, length]), rate)
            if part and token in held:
                expected[token] = length
                self.heard[token] = (*told[token], self.now, self.now)
                self.told[worker, token] = min(length, self.told.get((worker, token), length))
        before = self.look()
        assert self.parts.progress(worker, told) == expected
        changed = self.changed_since(before)
        jobs = {Token.parse(token).job for token in expected}
        if not {str(job) for job in jobs} & set(before.queue("asleep")):  # else they are fed again
            may = {
                self.queue.key(name) for name in ("tails", "progress", *(f"job:{job}:blind" for job in jobs))
            }
            assert changed <= may, f"progress changed {changed - may}"
        after = self.look()
        assert not [job for job in jobs if worker in after.part(job, "blind", {})]

    def part_of(self, token: str) -> Part | None:
        """Return the part that a token is about, if it is one."""
        if not is_token(token):
            return None
        job, task, _ = Token.parse(token)
        known = job in self.jobs and task < len(self.jobs[job].tasks)
        return self.jobs[job].tasks[task].part if known else None

    # -- tails ------------------------------------------------------------------------------------

    def steal(self) -> None:
        """A worker has nothing to do."""
        self.steal_as(self.choose.of(sorted({*self.alive, *self.zombies, self.someone()})))

    def scramble(self) -> None:
        """Everybody is busy with parts, and somebody has nothing to do."""
        self.share_out()
        for _ in range(self.choose.of([1, 1, 2, 8])):
            self.pass_time(self.choose.of([0, 100, 2000, 11_000, 11_000]), *self.alive)
            thief = self.someone()
            self.steal_as(thief)
            if self.choose.number(0, 2):
                self.progress_of(thief)

    def share_out(self) -> None:
        """Let somebody split files, and everybody take what there is."""
        worker = self.someone()
        self.take_all(worker)
        for _ in range(3):
            self.split_one({worker: self.alive.get(worker, set())})
        for other in sorted(self.alive):
            self.take_all(other)
            self.progress_of(other)

    def take_all(self, worker: str) -> None:
        """Claim and begin all that lies ready."""
        while worker in self.alive and (token := self.pop(worker)):
            if task := self.begin(worker, token):
                self.alive[worker].add(str(task.token))
            elif not self.registered(worker):
                self.fence(worker)

    def steal_as(self, worker: str) -> None:
        """Take from others, judge what it is, and begin it, unless the reply is lost."""
        speed, before = self.choose.of([0, 0, 50_000, 10**7]), self.look()
        victims, thief = self.victims(before), Thief(worker, speed, self.usual(before))
        token, under_way = self.parts.steal(worker, speed)
        after = self.look()
        assert under_way == bool(before.queue("tails"))
        if token is None:
            assert not self.surely(thief, victims, after), f"nothing was taken of {victims}"
            assert not self.moved(before, after), "nothing was taken, and yet something moved"
            return
        job, task, epoch = Token.parse(token)
        assert self.registered(worker), f"{token} was taken by a dead worker"
        assert not after.queue("ready"), f"{token} was taken, and other work was there"
        assert self.state(job) == "running", f"I6: {token} of a job that does not run was taken"
        assert token in self.holds(worker)
        assert not self.is_blind(worker, job, before), f"{token} was taken by who does not see its folder"
        if task == len(self.jobs[job].tasks):
            assert epoch == self.now
            self.judge_tail(thief, token, victims, after)
        else:
            self.judge_whole(worker, token, victims)
        assert self.moved(before, after) <= {(job, task)}, f"more moved than {token}"
        if self.choose.number(0, 4):
            self.start(worker, token)

    def start(self, worker: str, token: str) -> None:
        """Begin a token that did not come through `ready`."""
        whose = self.alive if worker in self.alive else self.zombies
        if task := self.begin(worker, token):
            whose[worker].add(str(task.token))

    def victims(self, snapshot: Snapshot) -> list[Victim]:
        """Return the parts that may lose something, of running jobs."""
        found = []
        for owner in snapshot.names("active:"):
            for token in snapshot.queue(f"active:{owner}"):
                part = self.part_of(token) if token in self.heard else None
                if part and snapshot.jobs[Token.parse(token).job]["state"] == "running":
                    done, rate, at, heard = self.heard[token]
                    position, rate = reckon(min(done, part.length), rate, self.now - at, part.length)
                    silent = self.now - heard >= self.queue.limits.silence * 1000
                    found.append(Victim(token, owner, position, rate, silent))
        return found

    def usual(self, before: Snapshot) -> float | None:
        """Return the bytes a second that parts get on average, 0 if nobody knows; None for too many parts."""
        tails = before.queue("tails")
        rates = [self.heard[token][1] for token in tails if token in self.heard and self.heard[token][1] > 1]
        return None if len(tails) > LOOKED_AT else sum(rates) / len(rates) if rates else 0

    def is_blind(self, worker: str, job: int, snapshot: Snapshot) -> bool:
        at, _, _ = snapshot.part(job, "blind", {}).get(worker, "").partition(" ")
        return bool(at) and self.now - int(at) < BLIND_MS

    def surely(self, thief: Thief, victims: list[Victim], after: Snapshot) -> bool:
        """Return whether one of the parts is to be had in any case."""
        worker, speed, _ = thief
        if not self.registered(worker) or after.queue("ready") or len(after.queue("tails")) > LOOKED_AT:
            return False
        least, usual = self.queue.limits.least_tail, thief.usual
        for each in victims:
            part, at = self.part_of(each.token), Token.parse(each.token)[:2]
            assert part
            if self.is_blind(worker, at[0], after):  # it would give it back
                continue
            if each.lost_to(worker):
                if self.losses[at] < TAKEN_WHOLE:
                    return True
                continue
            left = part.length - each.position
            if each.rate == 0 and left > 0 and part.length > stalled_at(part, each):
                return True
            no_faster = each.rate == 1 or (usual and each.rate <= usual and left * 1000 >= 300 * each.rate)
            if no_faster and speed == 0 and each.owner != worker and left // 2 - BLOCK >= least:
                return True
        return False

    def judge_whole(self, worker: str, token: str, victims: list[Victim]) -> None:
        """A part was taken from a worker that was silent."""
        job, task, epoch = Token.parse(token)
        victim = next((each for each in victims if Token.parse(each.token)[:2] == (job, task)), None)
        assert victim, f"I3: {token} was nobody's"
        assert epoch == self.after(Token.parse(victim.token).epoch), f"I3: {token} comes after {victim}"
        assert victim.lost_to(worker), f"{victim} was not silent"
        assert victim.token not in self.holds(victim.owner), f"{victim} still has it"
        self.losses[job, task] += 1
        assert self.losses[job, task] <= TAKEN_WHOLE, f"I7: {token} was taken too often"

    def judge_tail(self, thief: Thief, token: str, victims: list[Victim], after: Snapshot) -> None:
        """The end of a part was taken; both parts together are what the one was."""
        worker, speed, _ = thief
        id_, task, _ = Token.parse(token)
        job, least = self.jobs[id_], self.queue.limits.least_tail
        tail = Descriptor.from_line(after.part(id_, "tasks", {})[str(task)])
        assert tail.part
        parts = job.splits[tail.part.seal].parts
        ours = {Token.parse(each.token).task: each for each in victims if Token.parse(each.token).job == id_}
        at = next((at for at in parts if at in ours and self.end_of(job, at) == tail.part.end), -1)
        assert at >= 0, f"{tail.part} is nobody's tail"
        victim, old = ours[at], job.tasks[at].part
        assert old
        left, cut = old.length - victim.position, tail.part.start - old.start
        assert tail.part.length >= least or victim.rate == 0, f"{tail.part} is not worth it"
        assert left * 1000 >= 300 * victim.rate, f"{victim} would soon have been done"
        assert not victim.lost_to(worker), f"{victim} should have lost all of it"
        assert victim.owner != worker or victim.rate == 0 or left >= 128 * least, f"{victim} is our own"
        if victim.rate == 0:
            assert cut == stalled_at(old, victim)
        else:
            judge_cut(victim, old, cut, thief)
        assert 0 < cut < old.length, f"{tail.part} is not the tail of {old}"
        shorter = Part(start=old.start, length=cut, seal=old.seal)
        job.tasks[at] = job.tasks[at].model_copy(update={"part": shorter})
        job.tasks.append(job.tasks[at].model_copy(update={"part": tail.part}))
        parts.append(task)
        self.heard[victim.token] = (victim.position, victim.rate, self.now, self.heard[victim.token][3])
        self.heard[token] = (0, max(speed, 1), self.now, self.now)

    def end_of(self, job: Job, task: int) -> int:
        """Return the byte behind a part."""
        part = job.tasks[task].part
        return part.end if part else -1

    def moved(self, before: Snapshot, after: Snapshot) -> set[tuple[int, int]]:
        """Return the tasks that are elsewhere now, but for those that were fed."""
        return {
            at
            for at, places in after.places.items()
            if before.places.get(at) != places
            and not (places[0][0] == "ready" and before.places.get(at) == [("pending", places[0][1])])
        }

    def check_tails(self, snapshot: Snapshot) -> None:
        """Only parts in somebody's hands may lose their tails, and what is left covers the file."""
        active = {
            token for worker in snapshot.names("active:") for token in snapshot.queue(f"active:{worker}")
        }
        assert set(snapshot.queue("tails")) == self.heard.keys() & active, "tails of parts in nobody's hands"
        for job in self.jobs.values():
            for seal, split in job.splits.items():
                covered = {(each.start, each.end) for at in split.parts if (each := job.tasks[at].part)}
                wanted = {(start, start + length) for start, length in split.missing}
                assert joined(covered) == joined(wanted), (
                    f"parts of {job.id}.{seal} are {covered}, not {wanted}"
                )

    # -- seals ------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Somebody asks how far a split file is, and may find its seal in its own hands."""
        files = [(job, seal) for job in self.jobs.values() for seal in job.splits]
        if not files:
            return
        job, seal = self.choose.of(files)
        split = job.splits[seal]
        worker = self.choose.of(sorted({split.sealer or self.someone(), self.someone()}))
        first, snapshot = self.choose.number(0, len(split.reports)), self.look()
        with self.unchanged("parts is read only"):
            found = self.parts.of_file(worker, job.id, seal, first)
        if snapshot.places[job.id, seal][0][0] in ("done", "failed"):
            assert found is None
            return
        held = [token for token in self.holds(worker) if token.startswith(f"{job.id}.{seal}.")]
        held = [*filter(is_token, held)]
        reports = split.reports[first:]
        records = [Range.parse(text) for report in reports for text in report.split()]
        token = held[0] if held else ""
        state = JobState(self.state(job.id))
        assert found == FileParts(state, len(self.missing(job, seal)), token, records, len(reports))
        if token and token not in self.claimed and worker in {*self.alive, *self.zombies}:
            self.start(worker, token)

    # -- folders that are not seen ----------------------------------------------------------------

    def blind(self) -> None:
        """A worker does not see the folder of a task."""
        if (pair := self.some_token(self.alive)) is None:
            return
        worker, token = pair
        job, mine = Token.parse(token).job, token in self.holds(worker)
        self.alive[worker].discard(token)
        if not mine:
            with self.unchanged("I5: blind, and not mine"):
                self.parts.blind(worker, token, "nothing")
            return
        sleeps = self.parts.blind(worker, token, "nothing is there")
        self.goes_back(token)
        after = self.look()
        if job in self.jobs:
            blind, living = after.part(job, "blind", {}), set(after.queue("workers"))
            asleep = living <= blind.keys() and self.state(job) == "running"
            assert sleeps == (Blind.ASLEEP if asleep else Blind.FOR_OTHERS)
            assert blind.get(worker) == (f"{self.now} nothing is there" if worker in living else None)
            assert blind.keys() <= living
            if asleep:
                assert not [token for token in after.queue("ready") if token.startswith(f"{job}.")]
                assert dict(after.value("asleep", []))[str(job)] == self.now + 15_000
        with self.unchanged("I11: blind twice"):
            self.parts.blind(worker, token, "nothing is there")


def joined(ranges: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same bytes in as few ranges as possible; raises AssertionError if two overlap."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        assert not found or start >= found[-1][1], f"two parts overlap: {sorted(ranges)}"
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        elif end > start:
            found.append((start, end))
    return found
