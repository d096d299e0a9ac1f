"""Faults at random while repos are fetched: whatever breaks, nothing may be lost, wrong, miscounted or stuck.

A hub that misbehaves, a real Redis, worker processes, disks and a NAS; in each round three repos are asked
for and faults are injected and healed until all is there. All that strikes follows from the seed; how far the
processes are when it strikes does not. Mounting disks takes root; without it these faults are left out.
The report (Markdown) goes to standard output, progress to standard error; the exit code is 1 if a figure that
must be zero is not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.chaos import disks, network, processes, redis_faults
from benchmarks.chaos.judge import Judge, Verdict, truth_of
from benchmarks.chaos.kinds import Kind
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.mounts import may_mount
from benchmarks.chaos.rounds import Round
from benchmarks.chaos.schedule import Strike, schedule
from benchmarks.chaos.stores import Group, Single
from benchmarks.chaos.world import World, write_repos
from benchmarks.waiting import BenchmarkError
from distributed_downloader.local_hub import LocalHub
from distributed_downloader.local_hub.repo import LocalRepo
from tests.hub.tls import self_signed
from tests.servers import binaries

KINDS = [*network.KINDS, *processes.KINDS, *redis_faults.KINDS, *disks.KINDS]
#: Seconds of a round in which new faults may strike.
_STORM = 40.0
#: Every so many rounds, Redis is a group that sentinels watch; every so many, workers share no output folder.
_SENTINELS_EVERY, _OWN_EVERY = 4, 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command line."""
    parser.add_argument("--minutes", type=float, default=10, help="how long to go on (10)")
    parser.add_argument("--seed", type=int, default=1, help="what the faults follow from (1)")
    parser.add_argument("--workers", type=int, default=4, help="worker processes (4)")
    parser.add_argument("--first", type=int, default=1, help="the first round, to see one again (1)")
    parser.add_argument(
        "--only", action="append", metavar="FAULT", help="only faults with this word in group or name"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run rounds until the time is over; raises BenchmarkError if anything was found."""
    with tempfile.TemporaryDirectory(prefix=f"hfd-{os.getpid()}-") as name:
        _Chaos(arguments, Path(name)).run()


class _Chaos:
    """One run of many rounds."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._mounts = may_mount()
        self._sources = write_repos(folder / "hub")
        self._truth = truth_of(self._sources)
        self._repos = {repo: LocalRepo(source) for repo, source in self._sources.items()}
        sizes = [path.stat().st_size for path in (folder / "hub").rglob("*") if path.is_file()]
        self._ledger = Ledger(options.seed, options.workers, len(sizes), sum(sizes))
        self._kinds = [kind for kind in KINDS if self._is_wanted(kind)]

    def _is_wanted(self, kind: Kind) -> bool:
        words = self._options.only or [""]
        wanted = any(word in f"{kind.group} {kind.name}" for word in words)
        return wanted and (self._mounts or not kind.mounts)

    def run(self) -> None:
        """Run one calm round, and then stormy ones."""
        end = time.monotonic() + self._options.minutes * 60
        if not self._mounts:
            _say("mounting takes root on Linux: faults of whole disks are left out")
        with self._impostor() as impostor:
            self._one(0, _store(0), (), impostor)
            number = self._options.first
            while time.monotonic() < end and self._ledger.verdict.clean:
                store = _store(number)
                names = [kind.name for kind in self._kinds if kind.redis in ("", store.kind)]
                self._one(number, store, schedule(names, self._options.seed, number, _STORM), impostor)
                number += 1
        if not self._ledger.rounds:
            raise BenchmarkError("the time was over before the first fault: give it more --minutes")
        print(self._ledger.text(self._kinds))
        if not self._ledger.verdict.clean:
            raise BenchmarkError("something was found that must not be")

    @contextmanager
    def _impostor(self) -> Iterator[LocalHub]:
        """Serve the same repos over TLS, with the certificate of another host."""
        (self._folder / "tls").mkdir()
        tls = self_signed(self._folder / "tls", ("another.example",)).server()
        with LocalHub(self._repos, tls=tls) as hub:
            yield hub

    def _one(self, number: int, store: Single | Group, strikes: Sequence[Strike], impostor: LocalHub) -> None:
        world = World(
            self._folder / f"round-{number}",
            self._repos,
            self._sources,
            impostor,
            store,
            workers=self._options.workers,
            mounts=self._mounts,
            shared=number % _OWN_EVERY != _OWN_EVERY - 1,
        )
        with world:
            judge = Judge(world, self._truth)
            one = Round(world, judge, strikes, {kind.name: kind for kind in self._kinds})
            one.run()
        stormy = self._ledger.stormy if world.shared else self._ledger.stormy_own
        (stormy if strikes else self._ledger.calm).append(one.seconds)
        self._note(number, world, one, judge.verdict)

    def _note(self, number: int, world: World, one: Round, verdict: Verdict) -> None:
        ledger = self._ledger
        ledger.struck += one.struck
        ledger.asked_again += one.asked_again
        ledger.answers_spoiled += world.answers_spoiled
        ledger.ended += world.tally.crashed
        ledger.add(verdict)
        _say(
            f"round {number}: {one.seconds:.1f} s, {one.struck.total()} faults, "
            f"{world.tally.crashed} workers ended, {one.asked_again} commands again"
        )
        if verdict.clean:
            shutil.rmtree(world.folder)
        else:
            self._complain(number, world, verdict)

    def _complain(self, number: int, world: World, verdict: Verdict) -> None:
        kept = Path(tempfile.mkdtemp(prefix=f"hfd-chaos-{self._options.seed}-{number}-"))
        for log in filter(Path.is_file, world.folder.iterdir()):
            shutil.copy(log, kept)
        for what, found in vars(verdict).items():
            for each in sorted(found):
                _say(f"  {what}: {each}")
        _say(f"  logs are in {kept}; the same faults again: --seed {self._options.seed} --first {number}")


def _store(number: int) -> Single | Group:
    """Return the Redis of a round: each server of this machine in turn, every third time with Sentinel."""
    servers = binaries()
    turn, place = divmod(number, _SENTINELS_EVERY)
    if place == _SENTINELS_EVERY - 1:
        return Group(servers[turn % len(servers)])
    return Single(servers[number % len(servers)])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
