"""Faults of the disks: the one for downloads, and the NAS."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.chaos.kinds import Heal, Kind, NotNowError, nothing
from benchmarks.chaos.mounts import mount, unmount
from benchmarks.chaos.world import World

_STATE = ".hf-downloader"
_CHUNK = 1 << 20


def _fill(folder: Path) -> Heal:
    """Take all room that is left."""
    litter = folder / "litter"
    try:
        with litter.open("wb", buffering=0) as file:
            while file.write(bytes(_CHUNK)) == _CHUNK:
                pass
    except OSError:
        pass  # that is what it is for
    return lambda: litter.unlink(missing_ok=True)


def _full_disk(world: World, chance: random.Random) -> Heal:
    return _fill(world.real_disk)


def _full_nas(world: World, chance: random.Random) -> Heal:
    return _fill(world.real_nas)


def _no_nas(world: World, chance: random.Random) -> Heal:
    return _unmounted(world.nas, world.real_nas)


def _no_disk(world: World, chance: random.Random) -> Heal:
    """Take the disk away, but not from a master: it marks the folder that it names, wherever that lies."""
    if world.shared and world.asking:
        raise NotNowError
    return _unmounted(world.disk, world.real_disk)


def _unmounted(folder: Path, real: Path) -> Heal:
    unmount(folder)
    return lambda: mount(folder, "--bind", str(real))


def _read_only(at: Callable[[World], Path]) -> Callable[[World, random.Random], Heal]:
    def strike(world: World, chance: random.Random) -> Heal:
        # A second mount over the first one: that itself cannot change while somebody writes to it.
        mount(at(world), "--bind", "-o", "ro", str(at(world)))
        return lambda: unmount(at(world))

    return strike


def _io_errors(world: World, chance: random.Random) -> Heal:
    switch = chance.choice(world.members.all).broken
    switch.touch()
    return lambda: switch.unlink(missing_ok=True)


def _spoil(world: World, path: Path, chance: random.Random) -> None:
    """Remove a file, or change a byte of it; raises NotNowError if it has just been renamed."""
    world.note(f"somebody's eye is on {path}")
    try:
        path.unlink() if chance.random() < 0.5 else _change(world, path, chance)
    except FileNotFoundError:
        raise NotNowError from None


def _change(world: World, path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        info = os.fstat(file.fileno())
        world.changed.add((info.st_dev, info.st_ino))
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(chance.randrange(size))
            byte = file.read(1)[0] ^ 0xFF
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte]))


def _spoil_complete(world: World, chance: random.Random) -> Heal:
    found = [
        (repo, path)
        for repo in world.repos
        for root in (world.real_nas, *world.outputs)
        for path in sorted((root / repo.partition("/")[2]).rglob("*"))
        if path.is_file()
    ]
    if not found:
        raise NotNowError
    repo, path = chance.choice(found)
    _spoil(world, path, chance)
    world.spoiled.add(repo)
    return nothing


def _spoil_partial(world: World, chance: random.Random) -> Heal:
    folders = [root / _STATE / "partial" for root in (world.real_nas, *world.outputs)]
    found = [
        path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()) if path.is_file()
    ]
    if not found:
        raise NotNowError
    _spoil(world, chance.choice(found), chance)
    return nothing


def _kinds() -> Iterator[tuple[str, Callable[[World, random.Random], Heal], bool]]:
    yield "disk full", _full_disk, True
    yield "NAS full", _full_nas, True
    yield "NAS unmounted and mounted again", _no_nas, True
    yield "disk unmounted and mounted again", _no_disk, True
    yield "disk read-only", _read_only(lambda world: world.disk), True
    yield "NAS read-only", _read_only(lambda world: world.nas), True
    yield "EIO on a machine's disks", _io_errors, False
    yield "a complete file removed or damaged by somebody", _spoil_complete, False
    yield "a partial file removed or damaged by somebody", _spoil_partial, False


KINDS = [Kind("disks", name, strike, mounts=mounts, alone=True) for name, strike, mounts in _kinds()]
