"""A worker leaves disk and memory to others: what it looks at, how often, and what it says."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distributed_downloader import headroom as module
from distributed_downloader.config import AppConfig
from distributed_downloader.config.limits import LimitsSection
from distributed_downloader.errors import LocalError
from distributed_downloader.headroom import Headroom
from distributed_downloader.memory import Memory, MemoryGauge
from distributed_downloader.rest import Rest
from distributed_downloader.storage.room import Space, nearest

GB = 10**9


class Machine:
    """A machine whose free space, memory and clock the test decides."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
        self.free, self.used, self.now, self.looks, self.refills = 100 * GB, 10, 0.0, 0, False
        monkeypatch.setattr(module, "_space", self._space)
        self.headroom = Headroom(
            LimitsSection.model_validate(limits),
            [Path("/data")],
            lambda: cast(Any, SimpleNamespace(tightest=self._memory)),
            refills=lambda: self.refills,
            clock=lambda: self.now,
        )

    def _space(self, folder: Path) -> Space | None:
        self.looks += 1
        return Space(self.free, 1000 * GB) if self.free >= 0 else None

    def _memory(self) -> Memory:
        self.looks += 1
        return Memory("machine", self.used, 100)

    def look(self) -> str:
        """Look a second later."""
        self.now += 1.0
        return self.headroom.look()


def test_without_limits_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.free, machine.used = 0, 100
    assert machine.look() == ""
    assert machine.looks == 0


def test_a_disk_with_too_little_space(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    machine = Machine(monkeypatch, min_free_disk=50 * GB)
    assert machine.look() == ""
    machine.free = 49 * GB
    wanted = "/data: 49.0 GB are free, and [limits] min_free_disk wants 50.0 GB: free some space"
    assert machine.look() == wanted
    machine.free = 48 * GB
    assert "48.0 GB" in machine.look()
    assert machine.headroom.reason.startswith("/data: 48.0 GB")
    machine.free = 50 * GB
    assert machine.look() == machine.headroom.reason == ""
    # The log tells the begin and the end, once each.
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_too_much_memory_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, max_memory_percent=80)
    machine.used = 80
    assert machine.look() == ""
    machine.used = 81
    assert machine.look().startswith("81% of the memory of this machine (100 B) are in use")
    assert machine.headroom.passes


def test_a_look_counts_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, max_memory_percent=80)
    machine.look()
    machine.now += 0.9
    machine.used = 100
    assert machine.headroom.look() == ""
    assert machine.looks == 1
    machine.now += 0.1
    assert machine.headroom.look()


def test_whether_it_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """`download` waits for memory, and for a NAS that makes room; for a full disk it does not."""
    machine = Machine(monkeypatch, min_free_disk=50 * GB)
    machine.free = 0
    assert machine.look()
    assert not machine.headroom.passes
    machine.refills = True
    assert machine.look()
    assert machine.headroom.passes


def test_a_disk_that_tells_nothing_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, min_free_disk=50 * GB)
    machine.free = -1
    assert machine.look() == ""


def test_a_disk_that_hangs_counts_as_it_was_and_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, min_free_disk=50 * GB)
    machine.free = 0
    assert machine.look()
    hangs, release = threading.Event(), threading.Event()

    def hang(folder: Path) -> Space | None:
        hangs.set()
        release.wait(60)
        return Space(60 * GB, 1000 * GB)

    machine.headroom._disks._question = hang
    assert machine.look()
    assert hangs.is_set()
    assert machine.look()
    release.set()
    while machine.look():
        pass


def test_a_real_disk_and_real_memory(tmp_path: Path) -> None:
    config = AppConfig.model_validate(
        {
            "app": {"output_dir": str(tmp_path / "not" / "there")},
            "limits": {"min_free_disk": 1 << 60, "max_memory_percent": 1},
        }
    )
    assert f"{tmp_path}/not/there: " in Headroom.of(config, lambda: False).look()
    config = config.model_copy(update={"limits": LimitsSection(max_memory_percent=1)})
    assert "of the memory of this" in Headroom.of(config, lambda: False).look()


def test_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert nearest(tmp_path / "a" / "b") == tmp_path
    assert nearest(tmp_path) == tmp_path
    assert nearest(Path("/")) == Path("/")


def test_a_rest_says_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, min_free_disk=50 * GB)
    rest = Rest(machine.headroom)
    machine.free = 0
    assert rest.reason == ""
    assert rest.look() == rest.reason != ""
    assert not rest.passes
    rest.begin("the disk is full", LocalError("the disk is full"))
    assert rest.reason == rest.look() == "the disk is full"


# -- memory ---------------------------------------------------------------------------------------


class System:
    """Files as the kernel shows them, in a folder."""

    def __init__(self, folder: Path, membership: str) -> None:
        self.proc, self.groups = folder / "proc", folder / "cgroup"
        self.write(self.proc / "self/cgroup", membership)

    def write(self, path: Path, text: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")

    def v2(self, group: str, *, used: int, cache: int, limit: object = "max", high: object = "max") -> None:
        folder = self.groups / group
        self.write(folder / "memory.current", used)
        self.write(folder / "memory.max", limit)
        self.write(folder / "memory.high", high)
        self.write(folder / "memory.stat", f"anon 7\nactive_file 99\ninactive_file {cache}\nslab 3")

    def read(self) -> list[Memory]:
        """Return what is known of groups."""
        return MemoryGauge(self.proc, self.groups).read()[1:]


def test_the_machine_is_always_known(tmp_path: Path) -> None:
    (memory,) = MemoryGauge(tmp_path, tmp_path).read()
    assert memory.whose == "machine"
    assert 0 < memory.used < memory.total == memory.used + memory.free
    assert 0 < memory.percent < 100
    assert memory.total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_a_group_keeps_of_files_is_free(tmp_path: Path) -> None:
    system = System(tmp_path, "0::/slice/job")
    system.v2("slice/job", used=1000, cache=400, limit=1200)
    assert system.read() == [Memory("control group", 600, 1200)]
    gauge = MemoryGauge(system.proc, system.groups)
    system.v2("slice/job", used=1_000, cache=10, limit=1000)
    assert gauge.tightest() == Memory("control group", 990, 1000)


def test_the_groups_above_count_and_those_without_a_limit_do_not(tmp_path: Path) -> None:
    system = System(tmp_path, "0::/slice/job/step")
    system.v2("slice/job/step", used=10, cache=0)
    system.v2("slice/job", used=20, cache=5, limit=100, high=50)
    system.v2("slice", used=30, cache=0, limit=200)
    assert system.read() == [Memory("control group", 15, 50), Memory("control group", 30, 200)]


def test_a_container_sees_its_group_as_the_root(tmp_path: Path) -> None:
    system = System(tmp_path, "0::/../../elsewhere")
    system.v2(".", used=10, cache=0, limit=100)
    assert system.read() == [Memory("control group", 10, 100)]


def test_version_1(tmp_path: Path) -> None:
    system = System(tmp_path, "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n1:name=systemd:/docker/x")
    folder = system.groups / "memory/docker/x"
    system.write(folder / "memory.usage_in_bytes", 1000)
    system.write(folder / "memory.limit_in_bytes", 2000)
    system.write(folder / "memory.stat", "inactive_file 1\ntotal_inactive_file 300")
    root = system.groups / "memory"
    system.write(root / "memory.usage_in_bytes", 5000)
    system.write(root / "memory.limit_in_bytes", 9223372036854771712)
    system.write(root / "memory.stat", "")
    assert system.read() == [Memory("control group", 700, 2000)]


@pytest.mark.parametrize("name", ["memory.current", "memory.max", "memory.stat"])
def test_a_group_that_tells_nonsense_is_left_out(name: str, tmp_path: Path) -> None:
    system = System(tmp_path, "0::/job")
    system.v2("job", used=1000, cache=400, limit=1200)
    gauge = MemoryGauge(system.proc, system.groups)
    (system.groups / "job" / name).unlink()
    assert len(gauge.read()) == 1
    system.write(system.groups / "job" / name, "what")
    assert len(gauge.read()) == (2 if name == "memory.stat" else 1)
