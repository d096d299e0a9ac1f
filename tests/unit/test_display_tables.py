"""What `repos`, `queue`, `workers` and `files` show."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distributed_downloader.display import picture, plain, tables
from distributed_downloader.display.canvas import Canvas
from distributed_downloader.display.notices import FULL
from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import (
    JobState,
    RepoType,
    TaskStatus,
    WorkerStatus,
)
from distributed_downloader.redis_files import FileProgress
from tests.unit.looking_on import EVIL, EVIL_SHOWN, done, job, progress, queue, transfer, words, worker

PIPE, SCREEN = Canvas(), Canvas(80)
NOW = 1_000_000.0 + 7500

FILES = [
    FileProgress(path="model.safetensors", size=4_900_000_000, status=TaskStatus.DONE, host="gpu-07"),
    FileProgress(path="large.bin", size=40_000_000_000, status=TaskStatus.HELD, bytes_done=17_000_000_000),
    FileProgress(path="config.json", size=812, status=TaskStatus.ACTIVE, bytes_done=81),
    FileProgress(path="late.json", size=812, status=TaskStatus.DELAYED),
    FileProgress(path="empty", size=0, status=TaskStatus.PENDING),
    FileProgress(path="b.bin", size=12_300_000, status=TaskStatus.FAILED, error="sha256 differs"),
]


# -- repos -----------------------------------------------------------------------------------------------


def jobs() -> list[JobProgress]:
    """Return jobs of two repos, one of which has two."""
    llama = "meta-llama/Llama-3.1-8B-Instruct"
    return [
        progress(job(3, llama), bytes_now=7_500_000_000),
        progress(job(4, "org/data", repo_type=RepoType.DATASET, listed=False)),
        progress(done(12, llama, spec=job(repo_id=llama, revision="refs/convert/parquet/v2").spec)),
    ]


REPOS = """\
Repo                   Job  Revision          State    Files      Size
meta-llama…B-Instruct    3  main              running  12 of 17   7.5 of 16.1 GB
                        12  refs/con…quet/v2  done     17         16.1 GB
datasets/org/data        4  main              running  12 of 17+  6.8 of 16.1 GB
"""


REPOS_PIPED = """\
Repo                              Job  Revision          State    Files      Size
meta-llama/Llama-3.1-8B-Instruct    3  main              running  12 of 17   7.5 of 16.1 GB
meta-llama/Llama-3.1-8B-Instruct   12  refs/con…quet/v2  done     17         16.1 GB
datasets/org/data                   4  main              running  12 of 17+  6.8 of 16.1 GB
"""


def test_repos_on_a_pipe_name_themselves_in_each_line() -> None:
    assert words(tables.repos(jobs(), PIPE)) == REPOS_PIPED


def test_repos_on_a_screen() -> None:
    assert words(tables.repos(jobs(), SCREEN)) == REPOS


def test_no_repos() -> None:
    assert words(tables.repos([], SCREEN)) == f"{plain.NO_JOBS}\n"


def test_by_repo_keeps_models_and_datasets_apart() -> None:
    same = [job(1), job(2, repo_type=RepoType.DATASET), job(3)]
    assert {name: [j.id for j in some] for name, some in tables.by_repo(same).items()} == {
        "org/name": [1, 3],
        "datasets/org/name": [2],
    }


@pytest.mark.parametrize("state", list(JobState))
def test_states_have_their_colours(state: JobState) -> None:
    line = tables.repos([progress(job(state=state))], SCREEN)[1]
    assert picture.STYLES[state] in {span.style for span in line.spans}


# -- queue -----------------------------------------------------------------------------------------------

QUEUE = """\
Ready     120  files and parts that the next free slots take
To retry    3  files and parts that wait for their next try
Parked      1  files whose next try is offered first to the host that has a part of them
Workers     2  with 8 slots
Jobs        3  2 running, 1 paused
"""


def test_queue() -> None:
    assert words(tables.queue(queue(), PIPE)) == QUEUE


@pytest.mark.parametrize("canvas", [PIPE, SCREEN, Canvas(40)])
def test_what_stands_in_the_way_is_below_the_queue(canvas: Canvas) -> None:
    held = queue(full=True, pauses={"https://hub.example:8080/mirror": 48.2})
    lines = [line.plain for line in tables.queue(held, canvas)][5:]
    assert " ".join(lines) == f"{FULL} the hub (hub.example:8080) asks for a pause: 48s left"
    assert canvas.width is None or max(map(len, lines)) <= canvas.width


def test_queue_of_an_empty_redis() -> None:
    empty = queue(ready=0, delayed=0, parked=0, workers=0, slots=0, jobs={})
    assert words(tables.queue(empty, PIPE)).endswith("Workers   0  with 0 slots\nJobs      0\n")


# -- workers -----------------------------------------------------------------------------------------------

WORKERS = """\
Worker              Slots        Rate      Up  Lease  Doing
gpu-07-4711-ab12cd  2 of 4  22.4 MB/s  2h 05m    24s  model.safetensors 42%, a.…
gpu-08-4712-cd34ef  0 of 4          -  2h 05m     8s  idle
login-1-99-ef56ab   0 of 4          -  2h 05m    24s  waits: /scratch is full
"""


def test_workers() -> None:
    fleet = [
        worker("gpu-07-4711-ab12cd", transfer(), transfer("a.json", 1)),
        worker("gpu-08-4712-cd34ef", lease=8),
        worker("login-1-99-ef56ab", trouble="/scratch is full"),
    ]
    lines = tables.workers(fleet, NOW, SCREEN)
    assert words(lines) == WORKERS
    assert "yellow" in {span.style for span in lines[2].spans}
    assert "model.safetensors 42%, a.json 100%" in words(tables.workers(fleet, NOW, PIPE))


def test_no_workers() -> None:
    assert words(tables.workers([], NOW, SCREEN)) == f"{picture.NO_WORKERS}\n"


def test_worker_names_give_way_to_what_they_do() -> None:
    (_, line) = tables.workers([worker("w" * 70, transfer())], NOW, SCREEN)
    assert line.plain.startswith("wwwwwwwwwwww…wwwwwwwwwww  1 of 4")


# -- files -----------------------------------------------------------------------------------------------

LISTED = """\
done            4.9 GB  gpu-07          model.safetensors
in parts  42%  40.0 GB  -               large.bin
active     9%    812 B  -               config.json
to retry         812 B  -               late.json
pending            0 B  -               empty
failed         12.3 MB  -               b.bin: sha256 differs
"""


@pytest.mark.parametrize("canvas", [PIPE, SCREEN])
def test_files(canvas: Canvas) -> None:
    assert words(list(tables.files(FILES, canvas))) == LISTED


def test_long_paths_are_cut_on_a_screen_only() -> None:
    long = FileProgress(path="data/" + "x" * 200 + "/train.parquet", size=1, status=TaskStatus.DONE)
    (on_screen,), (piped,) = tables.files([long], SCREEN), tables.files([long], PIPE)
    assert on_screen.cell_len == 80
    assert on_screen.plain.endswith("xxx/train.parquet")
    assert piped.plain.endswith(long.path)


def test_why_a_file_failed_is_never_cut() -> None:
    reason = "no space left on /scratch: " + "free some " * 20
    failed = FileProgress(path="a", size=1, status=TaskStatus.FAILED, error=reason)
    (line,) = tables.files([failed], SCREEN)
    assert reason in line.plain


def test_files_are_read_one_by_one() -> None:
    read: list[str] = []

    def some() -> Iterator[FileProgress]:
        for file in FILES:
            read.append(file.path)
            yield file

    lines = iter(tables.files(some(), PIPE))
    next(lines)
    assert read == ["model.safetensors"]


@pytest.mark.parametrize("canvas", [PIPE, SCREEN])
def test_hostile_names_are_harmless(canvas: Canvas) -> None:
    file = FileProgress(path=EVIL, size=1, status=TaskStatus.FAILED, host=EVIL, error=EVIL)
    lines = [
        *tables.files([file], canvas),
        *tables.workers([worker(EVIL, transfer(EVIL)), worker(trouble=EVIL)], NOW, canvas),
        *tables.repos([progress(job(revision=EVIL))], canvas),
    ]
    assert all(line.plain.isprintable() for line in lines)
    assert EVIL_SHOWN in words(list(tables.files([file], PIPE)))


@pytest.mark.parametrize(
    ("shown", "doing"),
    [
        (worker(), "idle; NAS: read-only"),
        (worker("w", trouble="full"), "waits: full; NAS: read-only"),
        (worker("w", transfer("a", start=0, size=64 << 20)), "a 0-64 MiB 41%; NAS: read-only"),
        (worker("w", transfer("a", sealing=True)), "a checking 42%; NAS: read-only"),
    ],
)
def test_trouble_with_the_nas_stands_beside_what_a_worker_does(shown: WorkerStatus, doing: str) -> None:
    lines = tables.workers([shown.model_copy(update={"nas_trouble": "read-only"})], 1_000_100.0, Canvas())
    assert lines[1].plain.endswith(f"  {doing}")
