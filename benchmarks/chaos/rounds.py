"""One round: repos are asked for, faults strike and are healed, and everything has to arrive all the same."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from benchmarks.chaos.judge import Judge
from benchmarks.chaos.kinds import Heal, Kind, NotNowError
from benchmarks.chaos.schedule import Strike
from benchmarks.chaos.world import World
from benchmarks.waiting import Child, check_interrupted, until
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.models import JobState, JobStatus

_LOOK = 0.05
#: Seconds between two looks of the user at the jobs, and between two tries of a command.
_ASK = 1.0
#: Seconds after the last fault in which everything has to be done, and a command has to end.
END_SECONDS = 180.0


@dataclass
class _Fault:
    """One that lasts."""

    kind: Kind
    until: float
    heal: Heal


class Round:
    """Runs a world until all is done, and says how it was."""

    def __init__(
        self, world: World, judge: Judge, strikes: Sequence[Strike], kinds: Mapping[str, Kind]
    ) -> None:
        self._world, self._judge, self._kinds = world, judge, kinds
        self._waiting = deque(strikes)
        self._lasting: list[_Fault] = []
        self._users = {repo: _User(world, repo) for repo in world.repos}
        self.struck: Counter[str] = Counter()
        #: Seconds from the first command until everything had arrived.
        self.seconds = 0.0
        #: How often a user had to say the same again, because Redis had lost it or files had failed.
        self.asked_again = 0

    def run(self) -> None:
        """Go on until all has arrived, or it is hopeless."""
        begin = time.monotonic()
        deadline = begin + (self._waiting[-1].at if self._waiting else 0) + END_SECONDS
        asked = 0.0
        while time.monotonic() < deadline:
            check_interrupted()
            now = time.monotonic()
            self._heal(now)
            self._strike(now, now - begin)
            if not self._waiting and not self._lasting:
                self._world.hub.heal()  # of what it still has in store
            self._world.members.tend()
            if now - asked > _ASK and not self._lasts("Redis"):
                asked = now
                self._judge.look()
                if self._ask():
                    break
            time.sleep(_LOOK)
        self.seconds = time.monotonic() - begin
        self._end()

    def _strike(self, now: float, age: float) -> None:
        for _ in range(len(self._waiting)):
            strike = self._waiting.popleft()
            if strike.at > age or not self._try(strike, now):
                self._waiting.append(strike)

    def _try(self, strike: Strike, now: float) -> bool:
        kind = self._kinds[strike.kind]
        if kind.alone and self._lasts(kind.group):
            return False
        try:
            heal = kind.strike(self._world, random.Random(strike.seed))
        except NotNowError:
            return False
        self._world.note(f"{strike.kind}, for {strike.seconds * kind.lasts:.1f} s")
        self.struck[strike.kind] += 1
        self._lasting.append(_Fault(kind, now + strike.seconds * kind.lasts, heal))
        return True

    def _lasts(self, group: str) -> bool:
        return any(fault.kind.group == group and fault.kind.alone for fault in self._lasting)

    def _heal(self, now: float) -> None:
        for fault in [fault for fault in self._lasting if fault.until <= now]:
            self._lasting.remove(fault)
            fault.heal()
            self._world.note(f"healed: {fault.kind.name}")

    def _ask(self) -> bool:
        """Be the users for a moment; True if all have what they want."""
        jobs = self._jobs()
        if jobs is None:
            return False
        satisfied = [user.act(jobs.get(repo)) for repo, user in self._users.items()]
        return all(satisfied)

    def _end(self) -> None:
        self._heal(float("inf"))
        self._world.hub.heal()
        self._waiting.clear()
        stuck = [user.end() for user in self._users.values() if not user.satisfied]
        self._judge.verdict.hung += stuck or self._still_troubled()
        self.asked_again = sum(user.commands - 1 for user in self._users.values())
        self._world.members.close()
        if self._world.tally.hung:
            self._judge.verdict.hung.append(f"{self._world.tally.hung} workers did not leave when asked to")
        jobs = until(self._jobs, "jobs in Redis", END_SECONDS)
        with closing(self._world.store.administrator()) as client:
            self._judge.look_into(client, self._world.redis.namespace)
        self._judge.conclude(jobs)

    def _still_troubled(self) -> list[str]:
        """Return what ails workers for longer than a pause of theirs, although nothing is wrong any more."""
        deadline = time.monotonic() + END_SECONDS
        while (troubles := self._troubles()) and time.monotonic() < deadline:
            check_interrupted()
            self._world.members.tend()
            time.sleep(_LOOK)
        return troubles

    def _troubles(self) -> list[str]:
        try:
            workers = self._world.view.workers()
        except RedisUnavailableError as error:
            return [str(error)]
        return [
            f"{each.id}: {each.trouble or each.nas_trouble}"
            for each in workers
            if each.trouble or each.nas_trouble
        ]

    def _jobs(self) -> dict[str, JobStatus] | None:
        """Return the jobs by their repos; None while Redis is away."""
        try:
            jobs = self._world.view.jobs()
        except RedisUnavailableError:
            return None
        return {f"{job.spec.repo_type.value}s/{job.spec.repo_id}": job for job in jobs}


class _User:
    """Wants one repo, and says so again as often as it takes."""

    def __init__(self, world: World, repo: str) -> None:
        self._world, self._repo = world, repo
        self._command: Child | None = None
        #: The job that was there when somebody last damaged a complete file: it does not check it again.
        self._unaware = 0
        self.commands = 0
        self.satisfied = False

    def act(self, job: JobStatus | None) -> bool:
        """Do what a user does who sees this; True if there is nothing to do any more."""
        if self._command and self._command.running:
            return False
        if self._repo in self._world.spoiled:
            self._world.spoiled.remove(self._repo)
            self._unaware = job.id if job else 0
        self.satisfied = False
        if job is None or self._command is None or self._needs_help(job):
            self._ask()
        elif job.state is JobState.DONE and job.id == self._unaware:
            words = ("forget", str(job.id), "--yes")
            self._command = self._world.command(f"forget-{job.id}-{self.commands}", *words)
        elif job.state is JobState.DONE:
            self.satisfied = True
        return self.satisfied

    @staticmethod
    def _needs_help(job: JobStatus) -> bool:
        """Return whether files have failed, or a master has died in mid-listing."""
        silent = job.state is JobState.RUNNING and not job.listed and job.listing_silent > _ASK
        return silent or job.state is JobState.FAILED

    def end(self) -> str:
        """Give up; say what there is instead of the repo."""
        running = self._command is not None and self._command.running
        if self._command:
            self._command.end()
        return f"{self._repo}: " + ("its command does not end" if running else "its job does not end")

    def _ask(self) -> None:
        if self._world.shared and self._world.mounts and not self._world.disk.is_mount():
            return  # who asks for files in a folder mounts it first
        self.commands += 1
        self._command = self._world.master(self._repo, self.commands)
