"""Everything of one round: hub, Redis, disks, workers and the repos that are to arrive."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.chaos.members import Member, Members, Tally
from benchmarks.chaos.mounts import mount, unmount_all
from benchmarks.chaos.stores import Group, Single
from benchmarks.waiting import Child, environment
from distributed_downloader.local_hub import LocalHub
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_view import RedisView
from distributed_downloader.storage.place import make_place
from tests.hub.faults import Fault
from tests.hub.faulty import FaultyHub, Rule

#: Seconds after which a silent worker is taken for dead.
LEASE = 4.0
#: What each worker fetches in a second at most, so that a round lasts long enough for faults to strike.
RATE = "2MB/s"
SLOTS = 3
#: The disk for downloads, and the NAS: small enough to be filled.
DISK = "size=256m"


class World:
    """One round's world; a context manager that leaves nothing behind but the workers' logs."""

    def __init__(
        self,
        folder: Path,
        repos: Mapping[str, LocalRepo],
        sources: Mapping[str, Path],
        impostor: LocalHub,
        store: Single | Group,
        *,
        workers: int,
        mounts: bool,
        shared: bool,
    ) -> None:
        """Describe it; `shared` tells whether all workers see the folder for downloads."""
        self.repos, self.sources, self.impostor, self.store = repos, sources, impostor, store
        self.lease = LEASE
        self.mounts, self.shared = mounts, shared
        self.hub = FaultyHub(repos)
        self.rules: list[Rule] = []
        self.folder = folder
        self.disk, self.nas = folder / "disk", folder / "nas"
        #: What is mounted there; without root, the same folders.
        self.real_disk, self.real_nas = (
            folder / f"real-{each.name}" if mounts else each for each in (self.disk, self.nas)
        )
        self.redis = RedisClient(store.config)
        self.view = RedisView(self.redis)
        self.tally = Tally()
        names = ["shared"] if shared else [f"own-{n}" for n in range(workers)]
        #: The folders for downloads, as commands and workers call them, and where they really lie.
        self._outputs, self.outputs = ([top / name for name in names] for top in (self.disk, self.real_disk))
        #: What workers have for themselves where all share a folder: nothing may get there.
        self.unused = [folder / f"unused-{n}" for n in range(workers if shared else 0)]
        #: Commands that were started.
        self.commands: list[Child] = []
        #: Inodes that somebody else has changed, and repos of which that concerns a complete file since they
        #: were asked for.
        self.changed: set[tuple[int, int]] = set()
        self.spoiled: set[str] = set()
        self.members = Members([self._member(n) for n in range(workers)], self.tally)
        self._stack = ExitStack()

    def __enter__(self) -> World:
        with ExitStack() as stack:
            for folder in self._folders:
                folder.mkdir(parents=True, exist_ok=True)
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            for folder, real in self.mounted:
                mount(real, "-t", "tmpfs", "-o", DISK, "chaos")
                stack.callback(unmount_all, real)
                mount(folder, "--bind", str(real))
                stack.callback(unmount_all, folder)
            make_place(self.nas, create_root=False)
            if self.shared:
                # A master that finds it full could not, and a worker that starts without it makes it anew.
                make_place(self._outputs[0], create_root=True)
            stack.enter_context(self.store)
            stack.enter_context(self.hub)
            stack.callback(self.redis.close)
            settings = self.folder / "fleet.ini"
            settings.touch(0o600)
            settings.write_text(self._ini())
            stack.callback(self._end_commands)
            stack.callback(self.members.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def mounted(self) -> list[tuple[Path, Path]]:
        """The mount points, and what is mounted there."""
        return [(self.disk, self.real_disk), (self.nas, self.real_nas)] if self.mounts else []

    @property
    def forbidden(self) -> list[Path]:
        """Where no file may lie: below mounts, and in folders that no job names."""
        return [folder for folder, _ in self.mounted if self.shared or folder is self.nas] + self.unused

    @property
    def _folders(self) -> set[Path]:
        return {self.disk, self.nas, self.real_disk, self.real_nas, *self.unused}

    def command(self, name: str, *words: str) -> Child:
        """Start a command of the product as a user would."""
        child = Child(self._words(*words), folder=self.folder, name=name, environ=self._environ("head"))
        self.commands.append(child)
        return child

    @property
    def asking(self) -> bool:
        """Whether a command runs."""
        return any(command.running for command in self.commands)

    def _end_commands(self) -> None:
        for command in self.commands:
            command.end()

    def master(self, repo: str, number: int) -> Child:
        """Ask for a repo, for the n-th time."""
        where = ("--output-dir", str(self._outputs[0])) if self.shared else ()
        name = f"master-{repo.replace('/', '-')}-{number}"
        options = ("--split", "2MiB", "--no-space-check")  # disks are filled here, for a while
        return self.command(name, "master", repo.removeprefix("models/"), *where, *options)

    def spoil(self, fault: Fault, **where: Any) -> Rule:  # noqa: ANN401 passed on
        """Let the hub do something wrong; see FaultyHub.on."""
        rule = self.hub.on(fault, **where)
        self.rules.append(rule)
        return rule

    @property
    def answers_spoiled(self) -> int:
        """How many answers of the hub were wrong so far."""
        return sum(rule.struck for rule in self.rules)

    def note(self, text: str) -> None:
        """Write down what happens, to be read beside the workers' logs."""
        with (self.folder / "faults.log").open("a") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    @property
    def roots(self) -> list[Path]:
        """Where each file has to be in the end: not on a machine of its own, for any may have got it."""
        return [self.real_nas, *(self.outputs if self.shared else ())]

    def _member(self, number: int) -> Member:
        words = [str(LEASE), "--config", str(self.folder / "fleet.ini"), "worker"]
        words += ["--concurrency", str(SLOTS), "--max-bandwidth", RATE]
        output = (self.unused if self.shared else self._outputs)[number]
        environ = self._environ(f"machine-{number}") | {"OUTPUT_DIR": str(output)}
        return Member(number, self.folder, words, environ, self.tally)

    def _words(self, *words: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "distributed_downloader",
            "--config",
            str(self.folder / "fleet.ini"),
            *words,
        ]

    def _environ(self, machine: str) -> dict[str, str]:
        home = self.folder / machine
        trusted = str(self.folder.parent / "tls" / "cert.pem")  # the impostor's: only its name is wrong
        return environment(HOME=str(home), HF_HOME=str(home / "hf-home"), SSL_CERT_FILE=trusted)

    def _ini(self) -> str:
        nas = f"[nas]\nenabled = true\npath = {self.nas}\n"
        return f"[redis]\n{self.store.ini}[huggingface]\nendpoint = {self.hub.endpoint}\n{nas}"


def write_repos(folder: Path) -> dict[str, Path]:
    """Write many small files, large ones that are split, and a mix; return the folder of each repo."""
    small = {f"notes/{n % 7}/file {n}.txt": n * n * 3 for n in range(120)}
    large = {"config.json": 700, "model-1.safetensors": 17_000_001, "model-2.safetensors": 9_000_000}
    mixed = {f"data/{n:03}.parquet": 50_000 + n * 30_011 for n in range(20)}
    sizes = {
        "models/chaos/small": small,
        "models/chaos/large": large,
        "datasets/chaos/mixed": {**mixed, "README.md": 0, "data/all.bin": 12_345_678},
    }
    for repo, files in sizes.items():
        for name, size in files.items():
            path = folder / repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(random.Random(f"{repo} {name}").randbytes(size))
    return {repo: folder / repo for repo in sizes}
