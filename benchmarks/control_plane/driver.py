"""`python -m benchmarks.control_plane.driver`: speaks for many workers that have nothing to fetch.

Standard input is a line of JSON: the port of Redis, the number of the first worker, how many, and how many in
all. Each worker has two connections, as a real one has, and claims and completes as fast as Redis
answers, with the product's own commands, in the handfuls that a real one would take: while it claims it
reports, all that has come together meanwhile. Its heartbeat beats. At SIGTERM it prints what its reports were
answered with, and in how many calls.
"""

from __future__ import annotations

import json
import random
import select
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import cache

from benchmarks.control_plane.crowd import SLOTS, status_of
from benchmarks.control_plane.filling import SIZE
from benchmarks.control_plane.setting import patient
from benchmarks.control_plane.wire import Phrases, Reply, UnfinishedError, read
from benchmarks.waiting import BenchmarkError
from distributed_downloader import completions, heartbeat, slots
from distributed_downloader.redis_client import Done, RedisClient
from distributed_downloader.redis_lua import lua_sources

#: Seconds that a claim waits.
_WAIT = 5.0
#: Of the pulses of a heart each so-manieth extends the lease.
_BEAT = 10

Then = Callable[[Reply], None]


class Link:
    """One connection, whose replies come in the order of what was asked."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._then: deque[Then] = deque()
        self._rest = b""

    def ask(self, phrase: bytes, then: Then) -> None:
        """Send a command; `then` gets its reply."""
        if self.socket.send(phrase) != len(phrase):
            raise BenchmarkError("Redis does not read what it is sent")
        self._then.append(then)

    def receive(self) -> None:
        """Hand out the replies that have come."""
        got = self.socket.recv(1 << 16)
        if not got:
            raise BenchmarkError("Redis hung up")
        data, at = self._rest + got, 0
        while at < len(data):
            try:
                reply, at = read(data, at)
            except UnfinishedError:
                break
            self._then.popleft()(reply)
        self._rest = data[at:]


class Tally:
    """What reports were answered with, as the product understands it."""

    def __init__(self, phrases: Phrases) -> None:
        self.answers: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._meaning = cache(lambda answer: phrases.meaning(_completed_one, [answer]))

    def add(self, answers: Reply) -> None:
        """Count the answers to one call."""
        self.calls["complete"] += 1
        for answer in answers:
            self.answers[self._meaning(answer)] += 1


def _completed_one(queue: RedisClient) -> str:
    return queue.complete_all("", "", [Done("", SIZE)])[0].name


class Speech:
    """What workers say, with gaps for who says it and of what."""

    def __init__(self, phrases: Phrases, workers: int) -> None:
        gap, most = phrases.GAP, SLOTS + max(1, SLOTS // 2)
        self.workers = workers
        self.begin = phrases.of(lambda queue: queue.begin(gap, gap))
        self.more = phrases.of(lambda queue: queue.more(gap, most))
        self.tick = phrases.of(lambda queue: queue.tick()) % ()
        self.complete = cache(
            lambda count: phrases.of(lambda queue: queue.complete_all(gap, gap, [Done(gap, SIZE)] * count))
        )


def _said(phrase: bytes, *words: bytes) -> bytes:
    """Fill the gaps of a phrase."""
    return phrase % tuple(part for word in words for part in (len(word), word))


class Actor:
    """One worker, whose tasks are done when they begin."""

    def __init__(self, number: int, port: int, phrases: Phrases, speech: Speech, tally: Tally) -> None:
        self.links = self._claims, self._commands = Link(port), Link(port)
        self._speech, self._tally, self._pulses = speech, tally, number % _BEAT
        about = status_of(number)
        self._id, self._host = about.id.encode(), about.host.encode()
        self._claim = phrases.of(lambda queue: queue.claim(about.id, _WAIT)) % ()
        self._report = phrases.of(lambda queue: queue.report(about)) % ()
        self._beat = phrases.of(lambda queue: queue.beat(about.id, about.host)) % ()
        self._phrases = phrases
        self._done: deque[bytes] = deque()
        #: Tasks whose report is on its way, and whether a call that claims is.
        self._reported = 0
        self._fetching = False
        self._keeps_house = False

    def claim(self) -> None:
        """Wait for a task."""
        self._fetching = True
        self._claims.ask(self._claim, self._claimed)

    def pulse(self) -> None:
        """Do what a heartbeat does each second."""
        self._pulses += 1
        if self._pulses % _BEAT == 0:
            self._commands.ask(self._beat, self._alive)
        self._commands.ask(self._report, _ignore)
        if self._keeps_house or random.random() * self._speech.workers < heartbeat._HOUSEKEEPERS:
            self._commands.ask(self._speech.tick, self._kept_house)

    def _claimed(self, token: Reply) -> None:
        if token is None:
            self.claim()
            return
        self._tally.calls["begin"] += 1
        self._claims.ask(_said(self._speech.begin, self._id, token), lambda task: self._begun(token, task))

    def _begun(self, token: bytes, task: Reply) -> None:
        if task is None:
            raise BenchmarkError(f"{token!r} was claimed, and refused")
        self._take([token])

    def _more(self, tasks: Reply) -> None:
        self._tally.calls["more"] += 1
        if tasks:
            self._take([task[0] for task in tasks])
        else:
            self.claim()

    def _take(self, tokens: list[bytes]) -> None:
        """Be done with tasks, report them, and claim others."""
        self._done.extend(tokens)
        self._fetching = False
        self._tell()
        self._fetch()

    def _fetch(self) -> None:
        if not self._fetching and len(self._done) + self._reported <= slots._MOST_UNREPORTED:
            self._fetching = True
            self._claims.ask(_said(self._speech.more, self._id), self._more)

    def _tell(self) -> None:
        """Report what is done, unless a report is on its way."""
        if self._reported or not self._done:
            return
        self._reported = min(len(self._done), completions._MOST)
        tokens = [self._done.popleft() for _ in range(self._reported)]
        phrase = self._speech.complete(self._reported)
        self._commands.ask(_said(phrase, self._id, self._host, *tokens), self._completed)

    def _completed(self, answers: Reply) -> None:
        self._tally.add(answers)
        self._reported = 0
        self._tell()
        self._fetch()

    def _kept_house(self, answer: Reply) -> None:
        self._keeps_house = answer >= 0  # else somebody else just did

    def _alive(self, answer: Reply) -> None:
        if answer is None:
            raise BenchmarkError("a worker was declared dead")
        beat = self._phrases.meaning(lambda queue: queue.beat("", ""), answer)
        self._keeps_house |= beat is not None and not beat.house


def _ignore(_: Reply) -> None:
    pass


class Crowd:
    """Many workers in one thread."""

    def __init__(self, port: int, first: int, count: int, workers: int) -> None:
        phrases = Phrases()
        self.tally, speech = Tally(phrases), Speech(phrases, workers)
        self._actors = [Actor(first + n, port, phrases, speech, self.tally) for n in range(count)]
        self._links = {link.socket.fileno(): link for actor in self._actors for link in actor.links}
        began = time.monotonic()
        #: When each heart beats next, the first one first.
        self._due = deque(
            (began + heartbeat._PULSE * (1 + n / count), actor) for n, actor in enumerate(self._actors)
        )

    def work(self, until: Callable[[], bool]) -> None:
        """Work, until that is so at a moment when something happens, or soon after."""
        poll = select.epoll()
        for number in self._links:
            poll.register(number, select.EPOLLIN)
        for actor in self._actors:
            actor.claim()
        while not until():
            wait = max(0.0, self._due[0][0] - time.monotonic())
            for number, _ in poll.poll(wait):
                self._links[number].receive()
            self._pulse()

    def _pulse(self) -> None:
        now = time.monotonic()
        while self._due[0][0] <= now:
            due, actor = self._due.popleft()
            actor.pulse()
            self._due.append((due + heartbeat._PULSE, actor))


def main() -> None:
    """Join the fleet, work until SIGTERM, and tell."""
    about = json.loads(sys.stdin.readline())
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    queue = patient(about["port"])
    for text in lua_sources().values():
        queue.commands.script_load(text)
    for number in range(about["first"], about["first"] + about["count"]):
        queue.register(status_of(number))
    crowd = Crowd(about["port"], about["first"], about["count"], about["workers"])
    crowd.work(lambda: bool(over))
    tally = crowd.tally
    told = {"answers": tally.answers, "calls": tally.calls, "cpu": time.process_time()}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
