"""What must hold of Redis at every moment, whatever happened before: I1-I4, I6, I10 and the tidiness of keys.

A snapshot reads all keys; `check` judges it. What needs a before and an after is in world.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import redis

Task = tuple[int, int]
#: What a key holds: text, or a list, set or mapping of it.
Value: TypeAlias = Any
#: Where a task can be, and which of the job's counters counts it.
COUNTED_AS = {
    "pending": "pending",
    "parked": "pending",
    "ready": "out",
    "active": "out",
    "delayed": "delayed",
    "held": "held",
    "failed": "failed",
    "done": "done",
}
TOKEN = re.compile(r"[1-9]\d{0,14}\.(0|[1-9]\d{0,14})\.\d{1,15}")
PART = re.compile(r"\tpart=(\d+)\+(\d+)\tseal=(\d+)\tplace=[0-9a-f]+$")
#: All keys with type, rest of life and value, as JSON: much faster than a command for each.
READ_ALL = """
local all, read = {}, {list = 'LRANGE', zset = 'ZRANGE', set = 'SMEMBERS', hash = 'HGETALL', string = 'GET'}
local more = {list = {0, -1}, zset = {0, -1, 'WITHSCORES'}}
local keys = redis.call('KEYS', '*')
table.sort(keys)   -- so that a seed means the same history on each server
for i, key in ipairs(keys) do
  local kind = redis.call('TYPE', key)['ok']
  local value = redis.call(read[kind], key, unpack(more[kind] or {}))
  if kind == 'string' then   -- bytes, maybe
    value = string.gsub(value, '.', function(c) return string.format('%02x', string.byte(c)) end)
  end
  all[i] = {key, kind, redis.call('PTTL', key), value}
end
return cjson.encode(all)
"""


@dataclass
class Snapshot:
    """Everything that lies in Redis under one namespace."""

    namespace: str
    values: dict[str, Any]
    expires: dict[str, bool]
    #: Of each task: where it is, with its epoch there (-1 where it has none).
    places: dict[Task, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    tokens: list[str] = field(default_factory=list)
    jobs: dict[int, dict[str, str]] = field(default_factory=dict)

    def value(self, name: str, default: Value = None) -> Value:
        """Return what a key holds."""
        return self.values.get(self.namespace + name, default)

    def value_of(self, key: str) -> tuple[Any, bool]:
        """Return what a key holds, and whether it expires."""
        return self.values.get(key), self.expires.get(key, False)

    def part(self, job: int, part: str, default: Value) -> Value:
        """Return what a job's own key holds."""
        return self.value(f"job:{job}:{part}", default)

    def queue(self, name: str) -> list[str]:
        """Return the tokens of a list or sorted set."""
        found = self.value(name, [])
        return [item[0] if isinstance(item, tuple) else item for item in found]

    def names(self, prefix: str) -> list[str]:
        """Return the rests of the keys with a prefix."""
        full = self.namespace + prefix
        return [key[len(full) :] for key in self.values if key.startswith(full)]


def take(client: redis.Redis, namespace: str) -> Snapshot:
    """Read all keys in one round trip."""
    answer: Any = client.eval(READ_ALL, 0)
    values, expires = {}, {}
    for key, kind, ttl, value in json.loads(answer):
        values[key] = _shape(kind, value)
        expires[key] = ttl >= 0
    snapshot = Snapshot(namespace, values, expires)
    _locate(snapshot)
    return snapshot


def _shape(kind: str, value: Value) -> Value:
    if kind == "hash":
        return dict(zip(value[::2], value[1::2], strict=True))
    if kind == "zset":
        return [(member, float(score)) for member, score in zip(value[::2], value[1::2], strict=True)]
    if kind == "string":
        return bytes.fromhex(value).decode("utf-8", "surrogateescape")
    return set(value) if kind == "set" else value


def _locate(snapshot: Snapshot) -> None:
    def put(tokens: list[str], where: str) -> None:
        for token in filter(TOKEN.fullmatch, tokens):
            job, task, epoch = map(int, token.split("."))
            snapshot.places[job, task].append((where, epoch))
            snapshot.tokens.append(token)

    put(snapshot.queue("ready"), "ready")
    put(snapshot.queue("delayed"), "delayed")
    for worker in snapshot.names("active:"):
        put(snapshot.queue(f"active:{worker}"), "active")
    for host in snapshot.names("parked:"):
        put(snapshot.queue(f"parked:{host}"), "parked")
    for name in snapshot.queue("jobs"):
        job = int(name)
        snapshot.jobs[job] = about = snapshot.value(f"job:{job}", {})
        put(snapshot.part(job, "pending", []), "pending")
        for task, record in snapshot.part(job, "failed", {}).items():
            snapshot.places[job, int(task)].append(("failed", int(record.split("\t")[0])))
        for task in snapshot.part(job, "held", {}):
            snapshot.places[job, int(task)].append(("held", -1))
        for task in range(int(about["total"])):
            if is_done(snapshot, job, task):
                snapshot.places[job, task].append(("done", -1))


def is_done(snapshot: Snapshot, job: int, task: int) -> bool:
    """Return a task's bit."""
    bits = snapshot.part(job, "done", "").encode("utf-8", "surrogateescape")
    return task // 8 < len(bits) and bool(bits[task // 8] >> (7 - task % 8) & 1)


def host_of(snapshot: Snapshot, job: int, task: int) -> str:
    """Return the host that a task's six bytes name."""
    numbers = snapshot.part(job, "where", "").encode("utf-8", "surrogateescape")
    number = str(int.from_bytes(numbers[6 * task : 6 * task + 2], "big"))
    hosts = {number: host for host, number in snapshot.part(job, "hosts", {}).items()}
    return str(hosts.get(number, ""))


def check(snapshot: Snapshot) -> None:
    """Raise AssertionError for whatever is wrong in one snapshot."""
    _check_tokens(snapshot)
    for job, about in snapshot.jobs.items():
        _check_places(snapshot, job, about)
        _check_parts(snapshot, job, about)
        _check_state(snapshot, job, about)
        _check_lifetime(snapshot, job, about)
    _check_window(snapshot)
    _check_fleet(snapshot)
    _check_tails(snapshot)
    _check_indexes(snapshot)


def _check_tokens(snapshot: Snapshot) -> None:
    tokens = Counter(snapshot.tokens)
    for at in snapshot.places:
        if at[0] in snapshot.jobs and at[1] < int(snapshot.jobs[at[0]]["total"]):
            for _, epoch in snapshot.places[at]:
                assert tokens[f"{at[0]}.{at[1]}.{epoch}"] <= 1, f"I3: the token of {at} is in two places"


def _check_places(snapshot: Snapshot, job: int, about: Mapping[str, str]) -> None:
    sizes: Counter[str] = Counter()
    for task in range(int(about["total"])):
        where = snapshot.places.get((job, task), [])
        assert len(where) == 1, f"I1: task {job}.{task} is in {where}"
        sizes[COUNTED_AS[where[0][0]]] += 1
    for task in snapshot.part(job, "why", {}):
        place = snapshot.places[job, int(task)][0][0]
        assert place not in ("done", "failed", "held"), f"{job}.{task} is {place}, and has a reason to wait"
    counters = {name: int(about[name]) for name in set(COUNTED_AS.values())}
    assert counters == {name: sizes[name] for name in counters}, (
        f"I2: job {job} counts {counters}, has {sizes}"
    )


def _check_parts(snapshot: Snapshot, job: int, about: Mapping[str, str]) -> None:
    """The parts of a file are what was missing, and its seal waits for those that are not done."""
    parts: dict[int, list[tuple[int, int, bool]]] = defaultdict(list)
    sizes, done = {}, 0
    for task, line in snapshot.part(job, "tasks", {}).items():
        sizes[int(task)] = int(line.split("\t")[0])
        if found := PART.search(line):
            start, length, seal = map(int, found.groups())
            parts[seal].append((start, length, is_done(snapshot, job, int(task))))
            done += parts[seal][-1][2]
    counted = (int(about["parts"]), int(about["parts_done"]))
    assert counted == (sum(map(len, parts.values())), done), f"I2: job {job} counts {counted} parts"
    seals, held = snapshot.part(job, "seals", {}), snapshot.part(job, "held", {})
    assert parts.keys() <= {int(seal) for seal in seals}
    for seal, text in seals.items():
        found_parts, there = sorted(parts[int(seal)]), int(text.split()[1])
        missing = sum(not done for _, _, done in found_parts)
        assert held.get(seal) == (str(missing) if missing else None), f"I8: {job}.{seal} waits for {held}"
        assert sum(length for _, length, _ in found_parts) + there == sizes[int(seal)], (
            f"bytes of {job}.{seal}"
        )
        for (start, length, _), (after, _, _) in pairwise(found_parts):
            assert start + length <= after, f"two parts of {job}.{seal} overlap: {found_parts}"
    closing = {about["closing"].rstrip("!")} if "closing" in about else set()
    assert held.keys() - seals.keys() == closing, f"I8: job {job} holds {held}"


def _check_tails(snapshot: Snapshot) -> None:
    """An idle worker may take from what others have in hand, and from nothing else."""
    progress = snapshot.value("progress", {})
    assert set(snapshot.queue("tails")) == progress.keys(), "tails and progress differ"
    for token, text in progress.items():
        owner = text.split()[0]
        assert token in snapshot.queue(f"active:{owner}"), f"the tail of {token} is not {owner}'s"
        job, task, _ = token.split(".")
        if int(job) in snapshot.jobs:
            assert PART.search(snapshot.part(int(job), "tasks", {})[task]), f"{token} is no part"


def _check_state(snapshot: Snapshot, job: int, about: Mapping[str, str]) -> None:
    state, n = about["state"], {name: int(about[name]) for name in set(COUNTED_AS.values())}
    movable = n["pending"] + n["out"] + n["delayed"]
    if state in ("done", "delivering"):
        waiting = "closing" in about and state == "delivering"
        assert n["done"] + waiting == int(about["total"]), f"I10: job {job} ended early: {n}"
        assert (state == "delivering") == (int(about["owed"]) > 0), f"I10: job {job} is {state}: {about}"
        assert about["sealed"] == "1", f"I10: job {job} is {state} before it is listed"
    if state == "failed":
        assert not about.get("closing", "").endswith("!"), f"I8: job {job} failed, and was not closed"
        assert not movable, f"I10: job {job} failed, but can move: {n}"
    if state in ("running", "paused") and about["sealed"] == "1":
        assert movable, f"I10: job {job} is over and has not ended: {n}"
    if state == "cancelled":
        assert ("ended_at" in about) == (n["out"] == 0), f"I6: job {job} is cancelled: {n}"


def _check_lifetime(snapshot: Snapshot, job: int, about: Mapping[str, str]) -> None:
    ended = "ended_at" in about
    assert ended == (str(job) in snapshot.queue("ended")), f"job {job} is missing in the list of the ended"
    fades = ended and int(about.get("owed", 0)) <= 0
    keys = [f"job:{job}", *(f"job:{job}:{rest}" for rest in snapshot.names(f"job:{job}:"))]
    for key in keys:
        # What a cancelled job still gets (chunks, due retries, its closing) goes when the whole job does.
        if not (ended and about["state"] == "cancelled" and key.endswith((":pending", ":tasks", ":held"))):
            assert snapshot.expires[snapshot.namespace + key] == fades, f"retention: {key}, ended: {ended}"


def _check_window(snapshot: Snapshot) -> None:
    for token in filter(TOKEN.fullmatch, snapshot.queue("ready")):
        job, task, _ = map(int, token.split("."))
        about = snapshot.jobs.get(job)
        if about and task < int(about["total"]):
            assert about["state"] == "running", f"I6: {token} is ready, its job {about}"
    waiting = {
        str(job)
        for job, about in snapshot.jobs.items()
        if about["state"] == "running" and snapshot.part(job, "pending", [])
    }
    waiting -= set(snapshot.queue("asleep"))
    assert set(snapshot.queue("fair")) == waiting, f"I9: fed: {snapshot.queue('fair')}, waiting: {waiting}"


def _check_fleet(snapshot: Snapshot) -> None:
    workers = set(snapshot.queue("workers"))
    assert workers == set(snapshot.value("fleet", {})), "the registry and the leases differ"
    assert not workers & set(snapshot.queue("dead")), "a living worker is among the dead"
    parked = {host for host in snapshot.names("parked:") if snapshot.queue(f"parked:{host}")}
    assert parked <= set(snapshot.value("parked", set())), "I9: a host with parked retries is not known"


def _check_indexes(snapshot: Snapshot) -> None:
    for key in snapshot.values:
        assert key.startswith(snapshot.namespace), f"I13: {key} lacks the namespace"
    jobs = set(map(str, snapshot.jobs))
    named = {name.split(":")[0] for name in snapshot.names("job:")}
    assert named == jobs, f"I13: keys name the jobs {named}, there are {jobs}"
    assert set(snapshot.value("names", {})) == jobs, "I13: names of jobs that are gone"
    assert set(snapshot.value("identities", {}).values()) == jobs, "I13: identities of jobs that are gone"
    placed = {job for place in snapshot.names("place:") for job in snapshot.queue(f"place:{place}")}
    assert placed == jobs, "I13: places of jobs that are gone"
