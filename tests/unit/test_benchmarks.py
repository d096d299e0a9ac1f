"""The benchmarks' own reckoning: what a figure begins with, and what a memory's growth is."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.contestant import looked_at
from benchmarks.costs import Cost, measure
from benchmarks.data_plane import Memory
from benchmarks.here import Here, cpu_of_ended
from benchmarks.racing import CURL, Race, ways
from benchmarks.waiting import environment
from distributed_downloader.config import SETTINGS

_MIB = 1 << 20
_LOOKS = 200


@pytest.mark.parametrize("name", sorted({setting.source.env for setting in SETTINGS.values()} - {""}))
def test_no_setting_of_the_user_reaches_what_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert name not in environment()
    assert environment(**{name: "2"})[name] == "2"


@pytest.mark.parametrize("name", ["https_proxy", "PYTHONSTARTUP", "TOKIO_WORKER_THREADS", "HF_HUB_OFFLINE"])
def test_nor_does_what_libraries_and_interpreter_heed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert name not in environment()


@pytest.mark.parametrize("tasks", [range(4), range(1)], ids=["every task", "only the first of each slot"])
def test_what_tasks_leave_behind_is_growth(tasks: range) -> None:
    """Eight slots, four tasks for each: 8 MiB stay when a task is over, always or once."""
    over = [(task + 1) * _LOOKS // 4 for task in tasks]
    seen = [(100 + 64 * sum(end <= look for end in over)) * _MIB for look in range(_LOOKS)]
    memory = Memory(*looked_at(seen), rest=seen[-1], libraries=90 * _MIB)
    assert memory.growth >= 64
    assert memory.above == max(seen) // _MIB - 90


def test_buffers_that_come_and_go_are_none() -> None:
    seen = [(100 + look % 10) * _MIB for look in range(_LOOKS)]
    assert Memory(*looked_at(seen), rest=0, libraries=0).growth == 0
    assert looked_at([]) == (0, 0, 0)


def test_a_programs_call_is_what_it_took_beyond_its_bare_start() -> None:
    starts = [Cost(wall, cpu, 1, "") for wall, cpu in ((0.02, 0.01), (0.9, 0.8), (0.03, 0.02))]
    call = Cost(1.03, 0.52, 7, "said").beyond(starts)
    assert (round(call.wall, 9), round(call.cpu, 9)) == (1.0, 0.5)
    assert (call.rss, call.output) == (7, "said")
    assert Cost(0.01, 0.01, 7, "").beyond(starts).wall > 0, "it divides others"


class _Watched(Here):
    """Takes note of the programs instead of running them."""

    authority = Path("authority")

    def __init__(self) -> None:
        self.hub, self.commits, self.ran = "http://hub.invalid", {"org/name": "c0"}, list[list[str]]()

    def measure(self, words: list[str], **_: object) -> Cost:  # type: ignore[override]
        self.ran.append(words)
        return Cost(1, 1, 1, "")

    def close(self) -> None:
        """Nothing runs."""


def test_to_a_disk_curl_syncs_what_ours_syncs_and_no_more(tmp_path: Path) -> None:
    here = _Watched()
    dict(ways("disk", 1))[CURL](Race(here, "org/name", "file", tmp_path))
    runs = [words for words in here.ran if words[1:] != ["--version"]]
    assert runs[-1] == ["sync", str(tmp_path / "file"), str(tmp_path)]
    assert [words[0] for words in runs] == ["curl", "sync"]


def test_the_processor_time_of_whole_processes_is_counted_to_their_end(tmp_path: Path) -> None:
    before = cpu_of_ended()
    cost = measure(["sh", "-c", "exit"], folder=tmp_path, name="sh", environ=environment(), seconds=60)
    assert cpu_of_ended() - before == pytest.approx(cost.cpu, abs=1e-4)
