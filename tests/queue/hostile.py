"""A queue in which everything is going on, what somebody else may write into it, and a life that goes on."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import redis as redis_py
from hypothesis import strategies as st

from distributed_downloader.cli import cli
from distributed_downloader.errors import UnknownJobError
from distributed_downloader.models import DownloadTask, Transfer
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_deliveries import RedisDeliveries
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_view import RedisView
from tests.queue.base import LITTER, complete, spec_of, status_of
from tests.queue.steps import NS, a_job, a_split_job, a_worker, clock, failure, files, take, take_all

NOW = 1_000_000_000_000
FOLDER = "ab12"
#: Jobs of the scene: the waiting one is healthy, the others are what is written over.
SPLIT, MIXED, BLIND, ENDED, WAITING = range(1, 6)
FILES = 3
TYPES = ("string", "list", "hash", "set", "zset", "stream")

Dump = list[tuple[bytes, int, bytes]]


def set_scene(client: RedisClient) -> None:
    """Make every key that there is: parts, retries, debts, failures, the dead and the sleeping."""
    clock(client, NOW)
    a_worker(client, "w9")
    a_worker(client, "w0")
    parts = RedisParts(client)
    job, (first, second, *_) = a_split_job(client, parts=3, worker="w0")
    assert job == SPLIT
    parts.progress("w0", {str(first.token): (5, 1), str(second.token): (7, 1000)})
    complete(client, "w0", str(first.token), 0, "h1")
    _make_mixed(client)
    _make_blind(client, parts)
    assert a_job(client, 0, spec=spec_of(4)) == ENDED
    assert a_job(client, FILES, spec=spec_of(5)) == WAITING
    client.control("pause", WAITING)
    client.hold("http://hub", 5)
    client.commands.lpush(f"{NS}active:w0", "no token")
    client.release("w0", ["no token"])
    client.report(status_of("w0", 1))
    client.tick()


def _make_mixed(client: RedisClient) -> None:
    assert a_job(client, 12, spec=spec_of(2)) == MIXED
    done, failed, delayed, parked, *rest = take_all(client, "w0")
    complete(client, "w0", str(done.token), 0, "h1", owes=f"{FOLDER} /data")
    client.fail("w0", str(failed.token), failure("f1"), None)
    client.fail("w0", str(parked.token), failure("f3"), 0, parked_for=60)
    client.tick()
    client.fail("w0", str(delayed.token), failure("f2"), 60, parked_for=60)
    client.release("w0", [str(task.token) for task in rest[:2]])
    token = client.commands.rpoplpush(f"{NS}ready", f"{NS}active:w9")
    assert token
    client.leave("w9")
    client.commands.lpush(f"{NS}active:w9", str(rest[2].token))
    client.commands.lrem(f"{NS}active:w0", 1, str(rest[2].token))
    client.control("pause", MIXED)
    client.control("resume", MIXED)


def _make_blind(client: RedisClient, parts: RedisParts) -> None:
    client.control("pause", MIXED)
    assert a_job(client, 2, spec=spec_of(3)) == BLIND
    parts.blind("w0", str(take(client, "w0").token), "not mounted")
    client.control("resume", MIXED)


def dump(raw: redis_py.Redis) -> Dump:
    """Return all keys as they are; `raw` decodes nothing."""
    keys: Any = raw.keys("*")
    lives = ((key, raw.pttl(key)) for key in sorted(keys))
    return [(key, max(int(ms), 0), bytes(raw.dump(key))) for key, ms in lives]  # type: ignore[arg-type]


def restore(raw: redis_py.Redis, scene: Dump) -> None:
    """Make Redis hold just that."""
    with raw.pipeline(transaction=True) as pipe:
        pipe.flushall()
        for key, ms, value in scene:
            pipe.restore(key, ms, value, replace=True)
        pipe.execute()


# -- what somebody writes -------------------------------------------------------------------------

NUMBERS = (
    "",
    "-1",
    "0",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "1e308",
    "1.5",
    "0x10",
    "٣",
    "²",
    " 5",
    "1_000",
    "9" * 16,
    "9" * 30,
    "9" * 5000,
    str(2**63 - 1),
    str(2**53),
    "4294967295",
)
TOKENS = (*LITTER, "1.0.0", "1.1.0", "2.5.9", "5.0.0", "5.2.999999999999999", "2.4294967295.0", "2.0.0")
JSON = (
    "{}",
    "[]",
    "null",
    "NaN",
    '{"path": "x", "error": "y", "host": "z", "tries": -1, "at": NaN}',
    '{"path": "\\u001b[2J", "error": "\\n", "host": "", "tries": 1, "at": 1e300}',
    '{"path": "x", "error": "y", "host": "z", "tries": 99999999999999999999, "at": -1e300}',
    "[" * 5000,
)
LINES = (
    "5\t\t../../x",
    "5\t\t/etc/passwd",
    "5\t\ta\x1b[2Jb",
    "-5\t\tx",
    f"{2**63}\t\tx",
    f"{'9' * 30}\t\tx",
    "٣\t\tx",
    f"100\t\tx\tpart=0+{2**62}\tseal=0\tplace=ab12",
    "100\t\tx\tpart=0+0\tseal=0\tplace=ab12",
    "100\t\tx\tpart=-1+5\tseal=0\tplace=ab12",
    f"100\t\tx\tpart={'9' * 30}+{'9' * 30}\tseal={'9' * 30}\tplace=ab12",
    "100\t\tx\tpart=0+100\tseal=5\tplace=../..",
    "100\t\tx\tplace=zz",
    "100\t\tx\tclash\tclash",
)
WORDS = (
    "w0 5 1 0 0",
    f"w0 {'9' * 30} {'9' * 30} {'9' * 30} 0",
    f"w0 0 1 0 {'9' * 30}",
    "nobody 0 1 0 0",
    f"{'9' * 30} host",
    "60000 \udcff",
    "1 5 name",
    f"{'9' * 30} {'9' * 30} x:y",
    f"{2**40}.{2**40}",
    "4 - - h:1:1",
    f"{'9' * 400} - - x",
    "0+5 5+10",
    f"0+{10**15 - 1}",
    "running",
    "paused",
    "cancelled",
    "delivering",
    "done",
    "failed",
    "never",
    "model",
    "../../etc",
    "x" * 100_000,
    "a\tb\nc\0d",
    "h1",
    "w0",
    "w2",
)
TEXTS = (*NUMBERS, *TOKENS, *JSON, *LINES, *WORDS)
SCORES = (float("inf"), float("-inf"), 0.0, -1.0, -1e300, 1e300, 2.0**53, float(NOW), 1.5, NOW + 1e6)

texts = st.one_of(
    st.sampled_from(TEXTS),
    st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.integers(-(2**70), 2**70).map(str),
    st.tuples(st.integers(0, 6), st.integers(0, 14), st.integers(0, 3)).map(lambda t: ".".join(map(str, t))),
)
scores = st.one_of(st.sampled_from(SCORES), st.floats(allow_nan=False))


@dataclass(frozen=True)
class Write:
    """One thing that somebody writes into a key of the scene."""

    key: str
    type: str
    #: What it says, by field or member.
    entries: tuple[tuple[str, str, float], ...]
    #: Whether what was there goes.
    over: bool

    def do(self, redis: redis_py.Redis) -> None:
        if self.over:
            redis.delete(self.key)
        write: dict[str, Callable[[str, str, float], object]] = {
            "string": lambda one, _, __: redis.set(self.key, one),
            "list": lambda one, _, __: redis.rpush(self.key, one),
            "set": lambda one, _, __: redis.sadd(self.key, one),
            "hash": lambda one, other, _: redis.hset(self.key, one, other),
            "zset": lambda one, _, score: redis.zadd(self.key, {one: score}),
            "stream": lambda one, other, _: redis.xadd(self.key, {one: other}),
        }
        for entry in self.entries:
            write[self.type](*entry)


def wrong_types(redis: redis_py.Redis) -> Iterator[Write]:
    """Yield every key of the scene with every type that it has not."""
    names: Any = redis.keys("*")
    for key in sorted(names):
        for kind in TYPES:
            if kind != redis.type(key):
                yield Write(key, kind, (("1.0.0", "7", 1.0),), over=True)


def noise(redis: redis_py.Redis, seed: int, rounds: int) -> Iterator[Write]:
    """Yield every key of the scene with random bytes in it, as well as what was there and instead."""
    draw = random.Random(seed)
    names: Any = redis.keys("*")
    for key in sorted(names):
        kind = str(redis.type(key))
        for over in (False, True) * rounds:
            some = [draw.randbytes(draw.randrange(1, 60)).decode("utf-8", "surrogateescape") for _ in "12"]
            yield Write(key, kind, ((some[0], some[1], draw.uniform(-1e15, 1e15)),), over)


def members(redis: redis_py.Redis, key: str) -> list[str]:
    """Return the fields or members of a key, which are what a lie is best told about."""
    kind = redis.type(key)
    found: Any = []
    if kind == "hash":
        found = redis.hkeys(key)
    elif kind == "zset":
        found = redis.zrange(key, 0, -1)
    return sorted(found)


def lies(scene: dict[str, tuple[str, list[str]]]) -> st.SearchStrategy[Write]:
    """Return writes of the right type that look as if they were ours; `scene`: key -> type, members."""

    def of(key: str) -> st.SearchStrategy[Write]:
        kind, known = scene[key]
        first = st.one_of(st.sampled_from(known), texts) if known else texts
        entries = st.lists(st.tuples(first, texts, scores), min_size=1, max_size=3).map(tuple)
        return st.builds(Write, st.just(key), st.just(kind), entries, st.booleans())

    return st.sampled_from(sorted(scene)).flatmap(of)


def every_lie(redis: redis_py.Redis) -> Iterator[Write]:
    """Yield, for each field and member of the scene, each text or score in its place."""
    names: Any = redis.keys("*")
    for key in sorted(names):
        kind = str(redis.type(key))
        if kind == "hash":
            for field in members(redis, key):
                yield from (Write(key, kind, ((field, text, 0.0),), over=False) for text in TEXTS)
        elif kind == "zset":
            for member in members(redis, key):
                yield from (Write(key, kind, ((member, "", score),), over=False) for score in SCORES)
            yield from (Write(key, kind, ((text, "", 0.0),), over=False) for text in TEXTS if text)
        else:
            yield from (Write(key, kind, ((text, "", 0.0),), over=False) for text in TEXTS)


# -- the life that goes on ------------------------------------------------------------------------


class Life:
    """A worker, housekeeping and onlookers, one step after the other."""

    def __init__(self, client: RedisClient, redis: redis_py.Redis, url: str) -> None:
        self.client, self.redis, self.url = client, redis, url
        self.parts, self.deliveries = RedisParts(client), RedisDeliveries(client)
        self.view = RedisView(client)
        self.failed: set[int] = set()

    def goes_on(self, written: str) -> None:
        """Assert that healthy jobs end, old ones and new ones, and that nothing is raised on the way.

        `written` is the key that somebody wrote to: a job that has lost its own keys is not healthy.
        """
        waits = not written.startswith(f"{NS}job:{WAITING}")
        client = self.client
        client.register(status_of("w2", 1))
        client.control("resume", WAITING)
        fresh, _ = client.create_job(spec_of(99), 1)
        new = self._fill(fresh)
        for _ in range(80):
            self._round()
            if (self._is_done(WAITING) or not waits) and new and self._is_done(fresh):
                break
        else:
            about = [self.redis.hgetall(f"{NS}job:{job}") for job in (WAITING, fresh)]
            raise AssertionError(f"healthy jobs did not end: {about}")
        self._deliver()
        self._look(fresh)

    def _fill(self, job: int) -> bool:
        taken = self.client.submit(job, 0, files(FILES), "digest")
        self.client.seal(job, FILES)
        return taken

    def _is_done(self, job: int) -> bool:
        return self.redis.hget(f"{NS}job:{job}", "state") in ("done", "delivering")

    def _round(self) -> None:
        self.redis.delete(f"{NS}tick")
        self.client.tick()
        beat = self.client.beat("w2", "h1")
        if beat is None:
            self.client.register(status_of("w2", 1))
            return
        for token in (self.client.home("w2", "h1"), self._claim(), self.parts.steal("w2", 1000).token):
            if token:
                self._work(token)
        self.parts.fleet()
        self.parts.is_dry()

    def _claim(self) -> str | None:
        there = self.redis.type(f"{NS}ready") != "none"
        return self.client.claim("w2", 0.25) if there else None

    def _work(self, token: str) -> None:
        task = self.client.begin("w2", token)
        if task is None:
            return
        if task.about.part:
            self.parts.progress("w2", {token: (1, 1000.0)})
            self.parts.of_file("w2", task.token.job, task.about.part.seal, 0)
        if self._fails(task):
            self.client.fail("w2", token, failure(host="h1"), 0.0, parked_for=1)
        else:
            complete(
                self.client, "w2", token, 0, "h1", owes=f"{FOLDER} /data" if task.token.task == 1 else ""
            )

    def _fails(self, task: DownloadTask) -> bool:
        first = task.token.job not in self.failed
        self.failed.add(task.token.job)
        return first and task.token.job in (SPLIT, MIXED)

    def _deliver(self) -> None:
        for folder in self.deliveries.folders():
            for n, owed in enumerate(self.deliveries.take_owed(folder, 10, 60, ended_only=False)):
                self.deliveries.keep_owed(folder, [owed.token], 60)
                if n % 2:
                    self.deliveries.redo(folder, owed.token, failure())
                self.deliveries.delivered(folder, owed.token)
        self.client.leave("w0")

    def _look(self, healthy: int) -> None:
        moving = Transfer(job=1, task=0, path="big", size=9, bytes_done=1)
        self.client.report(status_of("w2", 1).model_copy(update={"transfers": (moving,)}))
        self.view.running()
        for words in (
            ["status"],
            ["status", "--json"],
            ["repos"],
            ["workers"],
            ["queue", "--json"],
            *(["files", str(job)] for job in (SPLIT, MIXED)),
            ["status", str(healthy)],
        ):
            self._say(words, needed=str(healthy) in words or len(words) == 1)

    def _say(self, words: list[str], *, needed: bool) -> None:
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = cli.main(["--redis-url", self.url, *words], standalone_mode=False)
            except UnknownJobError:
                code = int(needed)
        assert not code, f"{words}: {code}: {err.getvalue()}"
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out.getvalue()), f"{words}: {out.getvalue()!a}"
        if "--json" in words:
            json.loads(out.getvalue(), parse_constant=_no_constant)


def _no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def main() -> None:
    """Try every lie on the first server that there is; takes an hour."""
    from tests.queue.test_hostile import Stage
    from tests.servers import Server, binaries

    with Server(binaries()[0]) as server:
        stage, count = Stage(server), 0
        restore(stage.raw, stage.scene)
        for write in list(every_lie(stage.redis)):
            stage.survives(write)
            count += 1
        print(f"{count:,} lies, and life went on")


if __name__ == "__main__":
    main()
