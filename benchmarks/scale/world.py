"""A simulated fleet on the real queue: its scripts get our clock, and events happen in their order."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from benchmarks.control_plane.filling import fill
from benchmarks.scale.machine import Machine, Report
from benchmarks.scale.shapes import Shape
from benchmarks.waiting import BenchmarkError, check_interrupted
from distributed_downloader import sealer
from distributed_downloader.models import DownloadTask, JobState
from distributed_downloader.plan import part_size
from distributed_downloader.redis_client import RedisClient, Settled
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_view import RedisView
from distributed_downloader.storage.records import cut, gaps
from distributed_downloader.transfer.division import bounded

#: Milliseconds at which the simulation begins, as in a Redis of our days.
_BEGIN_MS = 1_800_000_000_000
#: Id of the folder that all machines share.
_PLACE = "0123456789abcdef" * 2
#: Events between two looks at whether a signal came.
_LOOK = 1000
#: Seconds between two housekeepings at least, and how many are run at most: nothing waits for them here.
_TICK, _TICKS = 1.0, 500
#: Seconds between two times that all parts are reported at once.
_ALL_REPORT = 0.5


class World:
    """Machines, events, and what they came to."""

    def __init__(self, queue: RedisClient, shape: Shape, *, slots: int, split_over: int, rate: float) -> None:
        self.queue, self._parts = queue, RedisParts(queue)
        self._shape, self._slots, self._split_over, self._rate = shape, slots, split_over, rate
        self.machines: list[Machine] = []
        #: Seconds since the fleet began.
        self.now = 0.0
        #: What was asked of the queue, by method.
        self.calls: Counter[str] = Counter()
        #: Tasks that were reported as done.
        self.tasks = 0
        #: Bytes that came over all links.
        self.fetched = 0.0
        #: Whether somebody found nothing to claim, so that tails of parts are wanted.
        self.tail = False
        self.tail_seconds = 0.0
        self._tail_since = -1.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._waiting: deque[tuple[int, Machine]] = deque()
        #: Who prepares which seal, and since when.
        self._sealers: dict[tuple[int, int], tuple[Machine, float]] = {}
        self._left = sum(files.count for files in shape.jobs)
        self._clock()

    # -- time -------------------------------------------------------------------------------------

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Let something happen so much later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    def _clock(self) -> None:
        self.queue.scripts.now = _BEGIN_MS + int(self.now * 1000)

    def run(self, halfway: Callable[[], None]) -> None:
        """Let the fleet fetch everything; `halfway` is called in the middle of it."""
        for machine in self.machines:
            machine.fetch()
        self._tick()
        self.after(self.ideal / 2, halfway)
        for number in itertools.count():
            if not self._left:
                break
            if number % _LOOK == 0:
                check_interrupted()
            self.now, _, event = heapq.heappop(self._events)
            self._clock()
            event()
        self.tail_seconds += self.now - self._tail_since if self.tail else 0.0
        self._check()

    @property
    def ideal(self) -> float:
        """Seconds that all bytes take over all links."""
        return self._shape.size / len(self.machines) / self._rate

    def enter(self, machines: int) -> None:
        """Let so many machines join the fleet."""
        for number in range(machines):
            check_interrupted()
            machine = Machine(self, f"m{number}", self._slots, self._rate)
            self.queue.register(machine.status())
            self.machines.append(machine)

    def submit(self) -> None:
        """Queue all jobs; how long a listing takes is another question."""
        for number, files in enumerate(self._shape.jobs):
            fill(self.queue, number, files.count, size=files.size, split_over=self._split_over)

    def _tick(self) -> None:
        self._count("tick")
        self.queue.tick()
        self._serve()
        self.after(max(_TICK, self.ideal / _TICKS), self._tick)

    def _check(self) -> None:
        for job in RedisView(self.queue).jobs():
            if job.state is not JobState.DONE or job.bytes_done != job.bytes_total:
                raise BenchmarkError(f"job {job.id} ended as {job.state.value}, {job.bytes_done} bytes done")

    # -- what machines ask of the queue -----------------------------------------------------------

    def _count(self, name: str) -> None:
        self.calls[name] += 1

    def pop(self, machine: Machine) -> str | None:
        """Claim without waiting."""
        self._count("claim")
        return self._pop(machine)

    def _pop(self, machine: Machine) -> str | None:
        token = self.queue.commands.rpoplpush(
            self.queue.key("ready"), self.queue.key(f"active:{machine.name}")
        )
        return None if token is None else str(token)

    def wait(self, machine: Machine) -> int:
        """Put a machine behind those that wait for a task, and return the number of its claim."""
        number = next(self._numbers)
        self._waiting.append((number, machine))
        self._begin_tail()
        return number

    def _serve(self) -> None:
        """Give what lies ready to those who wait, as Redis does by itself."""
        while self._waiting:
            number, machine = self._waiting[0]
            if machine.waits == number:
                token = self._pop(machine)
                if token is None:
                    return
                machine.got(token)
            if self._waiting and self._waiting[0][0] == number:
                self._waiting.popleft()

    def begin(self, machine: Machine, token: str) -> DownloadTask | None:
        """Begin what was claimed."""
        self._count("begin")
        return self.queue.begin(machine.name, token)

    def more(self, machine: Machine, most: int) -> list[DownloadTask]:
        """Claim small files ahead."""
        self._count("more")
        tasks = self.queue.more(machine.name, most)
        self._serve()
        return tasks

    def release(self, machine: Machine, task: DownloadTask) -> None:
        """Give a task back that was claimed ahead."""
        self._count("release")
        self.queue.release(machine.name, [str(task.token)])
        self._serve()

    def complete(self, machine: Machine, reports: Sequence[Report]) -> list[Settled]:
        """Report tasks as done."""
        self._count("complete")
        answers = self.queue.complete_all(machine.name, machine.name, [report.done for report in reports])
        for report, settled in zip(reports, answers, strict=True):
            self._settled(report.task, settled)
        self._serve()
        return answers

    def _settled(self, task: DownloadTask, settled: Settled) -> None:
        self.tasks += 1
        if part := task.about.part:
            self._part_done(task.token.job, part.seal)
        elif settled is Settled.DONE:
            self._left -= 1
        else:
            raise BenchmarkError(f"{task.token}: {settled.name}, and the only report of it")

    def steal(self, machine: Machine) -> tuple[str | None, bool]:
        """Take the tail of a part."""
        self._count("steal")
        token, under_way = self._parts.steal(machine.name, machine.part_rate)
        return token, under_way

    def progress(self, machine: Machine, parts: Mapping[str, tuple[int, float]]) -> dict[str, int]:
        """Say how far parts are, and return how long they are."""
        self._count("progress")
        return self._parts.progress(machine.name, parts)

    def is_dry(self) -> bool:
        """Return whether nothing is left to claim."""
        self.calls["is_dry"] += 2
        dry = self._parts.is_dry()
        if self.tail and not (dry or self._waiting):
            self.tail = False
            self.tail_seconds += self.now - self._tail_since
        return dry

    # -- split files ------------------------------------------------------------------------------

    def divide(self, machine: Machine, task: DownloadTask) -> bool:
        """Split a large file, as all machines see one folder; False if it is to be fetched."""
        size = task.file.size
        if task.about.place or size <= task.spec.split_over:
            return False
        length = part_size(size, len(self.machines) * self._slots)
        parts = bounded(list(cut(gaps([], size), length)))
        self._count("split")
        self._parts.split(
            machine.name, str(task.token), _PLACE, parts, file=f"{task.token.job}:{task.token.task}"
        )
        self._serve()
        return True

    def prepare(self, machine: Machine, task: DownloadTask) -> None:
        """Take note of who puts a file together."""
        assert task.about.part
        self._sealers.setdefault((task.token.job, task.about.part.seal), (machine, self.now))

    def _part_done(self, job: int, seal: int) -> None:
        if not self.queue.commands.hexists(self.queue.key(f"job:{job}:held"), str(seal)):
            self.after(sealer._LOOK_SOON, lambda: self._seal(job, seal))

    def _seal(self, job: int, seal: int) -> None:
        """Let the worker begin with the seal that has prepared it, and is given it with the last part."""
        prepared = self._sealers.pop((job, seal), None)
        if prepared is None:
            return  # it was the turn of another of the last parts, which were reported in one call
        machine, since = prepared
        self.calls["parts"] += int((self.now - since) / sealer._LOOK) + 1
        found = self._parts.of_file(machine.name, job, seal, 0)
        if found and found.token and (task := self.begin(machine, found.token)):
            machine.seal(task)

    # -- tails ------------------------------------------------------------------------------------

    def _begin_tail(self) -> None:
        """Report all parts: they were reported all the time before, but that was only counted."""
        if self.tail or self.now - self._tail_since < _ALL_REPORT:
            return
        self.tail, self._tail_since = True, self.now
        for machine in self.machines:
            machine.pulse()
