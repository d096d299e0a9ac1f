"""The picture of `status`, at fixed widths and on pipes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from distributed_downloader.display import notices, picture, plain
from distributed_downloader.display.canvas import Canvas
from distributed_downloader.display.snapshot import Silence, Snapshot
from distributed_downloader.display.speed import JobProgress
from distributed_downloader.models import JobState, RepoType, Transfer
from distributed_downloader.outage import Absence
from distributed_downloader.quota import HubBudget
from tests.unit.looking_on import (
    EVIL,
    EVIL_SHOWN,
    done,
    failure,
    job,
    next_try,
    progress,
    queue,
    transfer,
    words,
    worker,
)

PIPE = Canvas()
GATED = "the repo is gated: ask for access at https://huggingface.co/org/name, then `hf-downloader retry 4`"


def shown(*jobs: JobProgress, width: int = 80) -> str:
    """Return the picture of these jobs alone."""
    return words(picture.draw(Snapshot(jobs=jobs), Canvas(width)))


def fleet() -> Snapshot:
    """Return a busy fleet: a job in each state, failed files, workers of each kind."""
    llama = progress(job(3, "meta-llama/Llama-3.1-8B-Instruct"), rate=45_200_000)
    listing = progress(
        job(
            12,
            "HuggingFaceFW/fineweb-edu-score-2",
            repo_type=RepoType.DATASET,
            listed=False,
            total=25_868,
            done=1234,
            failed=2,
            delayed=3,
            bytes_total=10_400_000_000_000,
            bytes_done=1_200_000_000_000,
        ),
        rate=120_000_000,
    )
    paused = progress(job(13, "gpt2", JobState.PAUSED))
    ended = progress(done(14, "openai/whisper-large-v3"))
    failed = progress(
        job(15, "org/broken", JobState.FAILED, failed=1, active=0, pending=0, done=16, ended_at=1_000_037.0)
    )
    cancelled = progress(job(16, "org/gone", JobState.CANCELLED, ended_at=1_000_037.0))
    return Snapshot(
        jobs=[llama, listing, paused, ended, failed, cancelled],
        failures=[
            (12, failure("original/consolidated.00.pth", GATED, tries=1)),
            (12, failure("data/train-00001.parquet", "the connection broke after 12 MB")),
            (15, failure("x.bin", "sha256 differs")),
        ],
        workers=[
            worker("gpu-07-4711-ab12cd", transfer("model-00001-of-00004.safetensors"), transfer("a.json", 1)),
            worker("gpu-08-4712-cd34ef"),
            worker("login-1-99-ef56ab", trouble="/scratch is full, trying again in 30 s"),
        ],
        queue=queue(),
    )


# -- snapshots -------------------------------------------------------------------------------------------

AT_80 = """\
Jobs  2 running, 1 paused, 1 cancelled, 1 done, 1 failed
  3  meta-llama/Llama-3.1-8B-Instruct  ━━━━━━━━━━━━━━─────────────────────   42%
     12 of 17 files          6.8 of 16.1 GB  45.2 MB/s  ETA 3m 26s
 12  datasets/Hugging…web-edu-score-2  ━━━━───────────────────────────────
     1,234 of 25,868+ files  1.2 of 10.4 TB  120 MB/s
     listing…, 2 failed, 3 to retry
 13  gpt2                              ━━━━━━━━━━━━━━─────────────────────   42%
     12 of 17 files          6.8 of 16.1 GB             paused
 14  openai/whisper-large-v3           ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  100%
     17 files                16.1 GB                    done in 1h 00m
 15  org/broken                        ━━━━━━━━━━━━━━─────────────────────   42%
     16 of 17 files          6.8 of 16.1 GB             failed in 37s, 1 failed
 16  org/gone                          ━━━━━━━━━━━━━━─────────────────────   42%
     12 of 17 files          6.8 of 16.1 GB             cancelled in 37s

Failed files  3  `hf-downloader retry JOB` tries them again
 12  original/consolidated.00.pth
     the repo is gated: ask for access at https://huggingface.co/org/name, then
     `hf-downloader retry 4` (1 try on gpu-07)
 12  data/train-00001.parquet
     the connection broke after 12 MB (3 tries on gpu-07)
 15  x.bin
     sha256 differs (3 tries on gpu-07)

Workers  3 with 12 slots, 2 busy
 gpu-07-4711-ab12cd  22.4 MB/s  model-00001-of-00004.safetensors   42% of 4.9 GB
                                a.json                            100% of 4.9 GB
 gpu-08-4712-cd34ef          -  idle
 login-1-99-ef56ab           -  waits: /scratch is full, trying again in 30 s

Queue  120 ready, 4 to retry
"""


def test_at_80_columns() -> None:
    assert words(picture.draw(fleet(), Canvas(80))) == AT_80


AT_120 = """\
Jobs  2 running, 1 paused, 1 cancelled, 1 done, 1 failed
  3  meta-llama/Llama-3.1-8B-Instruct            ━━━━━━━━━━━━━━━━━━━━━━━━━━━──────────────────────────────────────   42%
     12 of 17 files          6.8 of 16.1 GB  45.2 MB/s  ETA 3m 26s
 12  datasets/HuggingFaceFW/fineweb-edu-score-2  ━━━━━━━──────────────────────────────────────────────────────────
     1,234 of 25,868+ files  1.2 of 10.4 TB  120 MB/s   listing…, 2 failed, 3 to retry
"""  # noqa: E501


def test_at_120_columns_numbers_are_whole() -> None:
    lines = picture.draw(fleet(), Canvas(120))
    assert words(lines[:5]) == AT_120


AT_200 = """\
  3  meta-llama/Llama-3.1-8B-Instruct            ━━━━━━━━━━━━━━━━━━━━━━━━━━────────────────────────────────────   42%\
  12 of 17 files          6.8 of 16.1 GB  45.2 MB/s  ETA 3m 26s
"""  # noqa: E501


def test_at_200_columns_a_job_is_one_line() -> None:
    lines = picture.draw(fleet(), Canvas(200))
    assert words(lines[1:2]) == AT_200
    assert lines[2].plain.startswith(" 12  datasets/HuggingFaceFW/fineweb-edu-score-2  ")


AT_24_LINES = """\
Jobs  2 running, 1 paused, 1 cancelled, 1 done, 1 failed
  3  meta-llama/Llama-3.1-8B-Instruct  ━━━━━━━━━━━━━━─────────────────────   42%
     12 of 17 files          6.8 of 16.1 GB  45.2 MB/s  ETA 3m 26s
 12  datasets/Hugging…web-edu-score-2  ━━━━───────────────────────────────
     1,234 of 25,868+ files  1.2 of 10.4 TB  120 MB/s
     listing…, 2 failed, 3 to retry
 13  gpt2                              ━━━━━━━━━━━━━━─────────────────────   42%
     12 of 17 files          6.8 of 16.1 GB             paused
 14  openai/whisper-large-v3           ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  100%
     17 files                16.1 GB                    done in 1h 00m
 … and 2 more

Failed files  3  `hf-downloader retry JOB` tries them again
 12  original/consolidated.00.pth  the repo is gated: ask for access at https:/…
 12  data/train-00001.parquet  the connection broke after 12 MB
 15  x.bin  sha256 differs

Workers  3 with 12 slots, 2 busy
 gpu-07-4711-ab12cd  22.4 MB/s  model-00001-of-00004.safetensors  and 1 more
 gpu-08-4712-cd34ef          -  idle
 login-1-99-ef56ab           -  waits: /scratch is full, trying again in 30 s

Queue  120 ready, 4 to retry
"""


def test_on_24_lines_what_matters_least_gives_way() -> None:
    assert words(picture.draw(fleet(), Canvas(80, 24))) == AT_24_LINES


ON_A_PIPE = f"""\
job 3 meta-llama/Llama-3.1-8B-Instruct: 12 of 17 files, 6.8 of 16.1 GB, 42%, 45.2 MB/s, ETA 3m 26s
job 12 datasets/HuggingFaceFW/fineweb-edu-score-2: 1,234 of 25,868+ files, 1.2 of 10.4 TB, 120 MB/s, \
listing…, 2 failed, 3 to retry
job 13 gpt2: 12 of 17 files, 6.8 of 16.1 GB, paused
job 14 openai/whisper-large-v3: 17 files, 16.1 GB, done in 1h 00m
job 15 org/broken: 16 of 17 files, 6.8 of 16.1 GB, failed in 37s, 1 failed
job 16 org/gone: 12 of 17 files, 6.8 of 16.1 GB, cancelled in 37s
job 12 failed: original/consolidated.00.pth: {GATED} (1 try on gpu-07)
job 12 failed: data/train-00001.parquet: the connection broke after 12 MB (3 tries on gpu-07)
job 15 failed: x.bin: sha256 differs (3 tries on gpu-07)
`hf-downloader retry JOB` tries them again
worker gpu-07-4711-ab12cd: 2 of 4 slots, 22.4 MB/s: model-00001-of-00004.safetensors 42%, a.json 100%
worker gpu-08-4712-cd34ef: 0 of 4 slots, idle
worker login-1-99-ef56ab: 0 of 4 slots, waits: /scratch is full, trying again in 30 s
queue: 120 ready, 4 to retry; 2 workers with 8 slots; jobs: 2 running, 1 paused
"""


def test_on_a_pipe_each_thing_is_one_whole_line() -> None:
    assert words(picture.status(fleet(), PIPE)) == ON_A_PIPE


ONE_JOB = """\
 3  org/name  ━━━━━━━━━━━━━━━━━━━━━━━─────────────────────────────────   42%
    12 of 17 files  6.8 of 16.1 GB  45.2 MB/s  ETA 3m 26s
"""


def test_one_job_that_was_asked_for_needs_no_title() -> None:
    assert shown(progress(job(), rate=45_200_000), width=76) == ONE_JOB


IN_ASCII = """\
 3  meta-lla...Instruct  #######----------   42%
    12 of 17 files  6.8 of 16.1 GB  45.2 MB/s
    ETA 3m 26s
"""


def test_in_ascii() -> None:
    llama = progress(job(3, "meta-llama/Llama-3.1-8B-Instruct", listed=True), rate=45_200_000)
    lines = picture.draw(Snapshot(jobs=[llama]), Canvas(48, ascii_only=True))
    assert all(line.plain.isascii() for line in lines)
    assert words(lines) == IN_ASCII


# -- large files and the NAS -----------------------------------------------------------------------------

MIB = 1 << 20
BIG = "model-00001-of-00004.safetensors"


def part(start: int, at: float) -> Transfer:
    """Return a transfer of a part of 64 MiB that begins at `start` MiB."""
    return transfer(BIG, at, 64 * MIB, start=start * MIB, bytes_per_second=1e6)


def large() -> Snapshot:
    """Return jobs of large files: in parts, on their way to the NAS, blocked, not split."""
    split = {"total": 657, "parts": 640, "parts_done": 12, "done": 24, "pending": 620, "active": 8, "held": 4}
    given = {
        "done": 17,
        "active": 0,
        "pending": 0,
        "bytes_done": 16_100_000_000,
        "bytes_delivered": 7 * 10**9,
    }
    full = "/scratch is full: 5.2 GB are needed, and 1.1 GB are free beside what other files take"
    unseen = "no living worker can go on with it: gpu-08: /nas is not there; mount it on this machine"
    apart = "the workers gpu-07 and gpu-08 share no folder"
    some = {"owed": 2, "delivered": 10, "bytes_delivered": 6 * 10**9}
    return Snapshot(
        jobs=[
            progress(job(3, "meta-llama/Llama-3.1-8B-Instruct").model_copy(update=split), rate=45_200_000),
            progress(job(4, "org/given", JobState.DELIVERING, owed=9, delivered=8).model_copy(update=given)),
            progress(job(5, "org/blocked", done=0, bytes_done=0, blocked=unseen)),
            progress(job(6, "org/apart", unsplit=apart).model_copy(update=some), rate=45_200_000),
            progress(job(7, "org/full", active=0), trouble=full),
        ],
        workers=[
            worker("gpu-07", part(0, 0.42), part(4608, 0.1), transfer(BIG, 0.02, sealing=True)),
            worker("gpu-08", nas_trouble="/mnt/nas is read-only, trying again in 40 s"),
            worker("gpu-09", trouble=full, nas_trouble="/mnt/nas is full"),
        ],
        queue=queue(),
    )


LARGE_AT_80 = """\
Jobs  4 running, 1 delivering
 3  meta-llama/Llama-3.1-8B-Instruct  ━━━━━━━━━━━━━━━─────────────────────   42%
    12 of 17 files  6.8 of 16.1 GB      45.2 MB/s  ETA 3m 26s
    12 of 640 parts of large files
 4  org/given                         ━━━━━━━━━━━━━━━─────────────────────   43%
    17 files        16.1 GB downloaded             delivering
    7.0 GB (43%) on the NAS, 8 of 17 files
 5  org/blocked                       ────────────────────────────────────    0%
    0 of 17 files   0 B of 16.1 GB                 blocked
    no living worker can go on with it: gpu-08: /nas is not there; mount it on
    this machine
 6  org/apart                         ━━━━━━━━━━━━━━━─────────────────────   42%
    12 of 17 files  6.8 of 16.1 GB      45.2 MB/s  ETA 3m 26s
    6.0 GB (10 files) on the NAS
    not split: the workers gpu-07 and gpu-08 share no folder
 7  org/full                          ━━━━━━━━━━━━━━━─────────────────────   42%
    12 of 17 files  6.8 of 16.1 GB      -          all workers wait
    /scratch is full: 5.2 GB are needed, and 1.1 GB are free beside what other
    files take

Workers  3 with 12 slots, 3 busy
 gpu-07  2.0 MB/s  model-00001-of-00004.safetensors        41% of 0-64 MiB
                   model-00001-of-00004.safetensors  9% of 4,608-4,672 MiB
                   model-00001-of-00004.safetensors  checking 2% of 4.9 GB
 gpu-08         -  idle
                   NAS: /mnt/nas is read-only, trying again in 40 s
 gpu-09         -  waits: /scratch is full: 5.2 GB are needed, and 1.1 GB are
                   free beside what other files take
                   NAS: /mnt/nas is full

Queue  120 ready, 4 to retry
"""


def test_large_files_at_80_columns() -> None:
    assert words(picture.draw(large(), Canvas(80))) == LARGE_AT_80


LARGE_ON_A_PIPE = """\
job 3 meta-llama/Llama-3.1-8B-Instruct: 12 of 17 files, 6.8 of 16.1 GB, 42%, 45.2 MB/s, ETA 3m 26s, 12 of 640 parts of large files
job 4 org/given: 17 files, 16.1 GB downloaded, delivering, 7.0 GB (43%) on the NAS, 8 of 17 files
job 5 org/blocked: 0 of 17 files, 0 B of 16.1 GB, 0%, blocked
job 5 blocked: no living worker can go on with it: gpu-08: /nas is not there; mount it on this machine
job 6 org/apart: 12 of 17 files, 6.8 of 16.1 GB, 42%, 45.2 MB/s, ETA 3m 26s, 6.0 GB (10 files) on the NAS
job 6 not split: the workers gpu-07 and gpu-08 share no folder
job 7 org/full: 12 of 17 files, 6.8 of 16.1 GB, 42%, -, all workers wait
job 7 all workers wait: /scratch is full: 5.2 GB are needed, and 1.1 GB are free beside what other files take
worker gpu-07: 3 of 4 slots, 2.0 MB/s: model-00001-of-00004.safetensors 0-64 MiB 41%, model-00001-of-00004.safetensors 4,608-4,672 MiB 9%, model-00001-of-00004.safetensors checking 2%
worker gpu-08: 0 of 4 slots, idle; NAS: /mnt/nas is read-only, trying again in 40 s
worker gpu-09: 0 of 4 slots, waits: /scratch is full: 5.2 GB are needed, and 1.1 GB are free beside what other files take; NAS: /mnt/nas is full
queue: 120 ready, 4 to retry; 2 workers with 8 slots; jobs: 2 running, 1 paused
"""  # noqa: E501


def test_large_files_on_a_pipe() -> None:
    assert words(plain.status(large(), PIPE)) == LARGE_ON_A_PIPE


@pytest.mark.parametrize("canvas", [Canvas(40), Canvas(80), Canvas(80, 5), Canvas(160, 4)])
def test_a_note_is_told_in_all_its_words(canvas: Canvas) -> None:
    lines = words(picture.draw(Snapshot(jobs=large().jobs[2:3]), canvas))
    assert " ".join(lines.split()).endswith(f"blocked {large().jobs[2].job.blocked}")


def test_where_room_is_scarce_the_trouble_of_one_worker_is_told_in_all_its_words() -> None:
    full = "/scratch is full: 5.2 GB are needed, and 1.1 GB are free beside what other files take"
    busy = worker("gpu-07", *(transfer(f"{n}.bin") for n in range(9)))
    crowd = Snapshot([progress(job())], workers=[busy, *(worker(f"gpu-{n}", trouble=full) for n in "89")])
    lines = words(picture.draw(crowd, Canvas(80, 10)))
    assert (
        " gpu-8          -  waits: /scratch is full: 5.2 GB are needed, and 1.1 GB are\n"
        "                   free beside what other files take\n"
        " gpu-9          -  waits: /scratch is full: 5.2 GB are needed, and 1.1 GB are f…\n"
    ) in lines


def test_a_delivery_says_why_nothing_moves_and_how_fast_it_is() -> None:
    given = job(4, state=JobState.DELIVERING, owed=1, delivered=3, bytes_done=16 * 10**9)
    given = given.model_copy(update={"bytes_delivered": 12 * 10**9})
    moving, away = progress(given, rate=4e7), progress(given, nas_trouble="/nas is not mounted")
    nobody = progress(given, workers=False)
    there = "12.0 GB (75%) on the NAS, 3 of 4 files"
    assert words(plain.status(Snapshot(jobs=[moving, away, nobody]), PIPE)).splitlines() == [
        f"job 4 org/name: 17 files, 16.0 GB downloaded, 40.0 MB/s, delivering, ETA 1m 40s, {there}",
        f"job 4 org/name: 17 files, 16.0 GB downloaded, waits for the NAS, {there}",
        "job 4 NAS: /nas is not mounted",
        f"job 4 org/name: 17 files, 16.0 GB downloaded, waits for a worker, {there}",
    ]


@pytest.mark.parametrize("state", [JobState.DONE, JobState.CANCELLED, JobState.DELIVERING])
def test_what_was_in_the_way_is_over_with_the_download(state: JobState) -> None:
    over = progress(job(state=state, blocked="unseen", unsplit="no shared folder", parts=5))
    (line,) = plain.status(Snapshot(jobs=[over]), PIPE)
    assert "split" not in line
    assert "parts" not in line


def test_the_last_bytes_are_checked() -> None:
    last = progress(job(bytes_done=16_100_000_000, pending=0, held=0, active=1))
    (line,) = plain.status(Snapshot(jobs=[last]), PIPE)
    assert line.endswith("-, checking")


def test_what_is_to_note_has_its_colour() -> None:
    styles = {str(span.style) for line in picture.draw(large(), Canvas(80)) for span in line.spans}
    assert {"yellow", "dim", "blue"} <= styles


# -- how a job stands --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "last"),
    [
        (progress(job(), rate=93e6), "93.0 MB/s, ETA 1m 40s"),
        (progress(job()), "-, ETA -"),
        (progress(job(), rate=1e6, workers=False), "1.0 MB/s, waits for a worker"),
        (progress(job(active=0, pending=5)), "-, waits for its turn"),
        (progress(job(active=0, pending=0, delayed=5)), "-, waits for the next try, 5 to retry"),
        (progress(job(active=1, pending=5), trouble="full"), "-, ETA -"),
        (progress(job(listed=False), rate=1e6), "1.0 MB/s, listing…"),
        (progress(job(delayed=2), rate=93e6), "ETA 1m 40s, 2 to retry"),
        (progress(job(failed=1, delayed=2), rate=93e6), "ETA 1m 40s, 1 failed, 2 to retry"),
        (progress(job(state=JobState.PAUSED)), "paused"),
        (progress(job(state=JobState.PAUSED, failed=1)), "paused, 1 failed"),
        (progress(done(ended_at=None)), "done"),
        (progress(done()), "done in 1h 00m"),
        (progress(done(delivered=17)), "done in 1h 00m, all on the NAS"),
        (progress(done(delivered=16)), "done in 1h 00m, 16 of 17 files on the NAS"),
        (
            progress(job(state=JobState.FAILED, failed=2, delayed=1, ended_at=1_000_001.0)),
            "failed in 1s, 2 failed",
        ),
    ],
)
def test_how_a_job_stands(seen: JobProgress, last: str) -> None:
    line, *_ = plain.status(Snapshot(jobs=[seen]), PIPE)
    assert line.endswith(f", {last}")


@pytest.mark.parametrize(
    ("seen", "files"),
    [
        (progress(job()), "12 of 17 files"),
        (progress(job(listed=False)), "12 of 17+ files"),
        (progress(done()), "17 files"),
        (progress(done(total=1, done=1)), "1 file"),
        (progress(done(total=0, done=0)), "0 files"),
    ],
)
def test_how_many_files(seen: JobProgress, files: str) -> None:
    (line,) = plain.status(Snapshot(jobs=[seen]), PIPE)
    assert line.startswith(f"job 3 org/name: {files}, ")


@pytest.mark.parametrize(
    ("seen", "style"),
    [
        (progress(job()), "cyan"),
        (progress(done()), "green"),
        (progress(job(state=JobState.FAILED)), "red"),
        (progress(job(state=JobState.PAUSED)), "yellow"),
    ],
)
def test_the_bar_has_the_colour_of_the_state(seen: JobProgress, style: str) -> None:
    bar = picture.draw(Snapshot(jobs=[seen]), Canvas(80))[0]
    assert style in {span.style for span in bar.spans}


def test_a_job_is_complete_only_when_it_is_done() -> None:
    nearly = progress(job(bytes_total=1000, bytes_done=999))
    assert "99%" in shown(nearly)


# -- other parts ---------------------------------------------------------------------------------------------


def test_no_jobs_is_no_error() -> None:
    assert words(picture.draw(Snapshot(queue=queue(ready=0, delayed=0, parked=0)), Canvas(80))) == (
        "Jobs\n"
        "No jobs yet. Queue one with: hf-downloader master org/name\n\n"
        "Workers\n"
        "No workers. Start one on each machine with: hf-downloader worker\n\n"
        "Queue  0 ready, 0 to retry\n"
    )


def test_no_jobs_on_a_pipe() -> None:
    assert words(plain.status(Snapshot(), PIPE)) == f"{plain.NO_JOBS}\n"


def test_failures_that_were_not_read_are_counted() -> None:
    many = Snapshot(jobs=[progress(job(failed=133))], failures=[(3, failure())])
    assert " … and 132 more: hf-downloader files 3 --failed\n" in words(picture.draw(many, Canvas(80)))


def test_a_long_address_in_a_reason_stays_whole_where_lines_scroll() -> None:
    url = "https://huggingface.co/" + "x" * 100
    many = Snapshot(jobs=[progress(job(failed=1))], failures=[(3, failure(error=f"gated: see {url} now"))])
    assert any(url in line.plain for line in picture.draw(many, Canvas(80)))


def test_the_footer_is_last() -> None:
    lines = picture.draw(fleet(), Canvas(80, 24), footer=Text("the end"))
    assert lines[-1].plain == "the end"
    assert len(lines) <= 24


def test_workers_without_jobs_asked_for_are_not_named() -> None:
    assert "Workers" not in shown(progress(job()))


# -- whatever comes ------------------------------------------------------------------------------------------


def evil() -> Snapshot:
    """Return a picture in which every foreign text is hostile."""
    return Snapshot(
        jobs=[progress(job(failed=1))],
        failures=[(3, failure(EVIL, f"error {EVIL}", host=EVIL))],
        workers=[worker(EVIL, transfer(EVIL)), worker(f"w{EVIL}", trouble=EVIL)],
        queue=queue(),
    )


@pytest.mark.parametrize("canvas", [PIPE, Canvas(80), Canvas(200), Canvas(80, 10)])
def test_hostile_text_never_reaches_the_terminal_raw(canvas: Canvas) -> None:
    for line in picture.status(evil(), canvas):
        assert str(line).isprintable(), line


def test_hostile_text_is_shown_as_it_is() -> None:
    assert EVIL_SHOWN in words(plain.status(evil(), PIPE))


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 100, 120, 150, 200, 300])
@pytest.mark.parametrize("height", [1, 5, 12, 24, 100])
def test_a_picture_fits_its_screen(width: int, height: int) -> None:
    lines = picture.draw(fleet(), Canvas(width, height), footer=Text("footer"))
    assert max(line.cell_len for line in lines) <= width
    assert len(lines) <= height


@pytest.mark.parametrize("height", [16, 24, 40])
@settings(max_examples=20, deadline=None)
@given(jobs=st.integers(0, 60), workers=st.integers(0, 60), failed=st.integers(0, 60))
def test_a_fleet_of_any_size_fits(height: int, jobs: int, workers: int, failed: int) -> None:
    crowd = Snapshot(
        jobs=[progress(job(id, failed=failed)) for id in range(jobs)],  # noqa: A001
        failures=[(1, failure(f"{n}")) for n in range(failed)],
        workers=[worker(f"w{n}", transfer(), transfer()) for n in range(workers)],
        queue=queue(),
    )
    lines = picture.draw(crowd, Canvas(80, height), footer=Text("footer"))
    assert len(lines) <= height


# -- next tries, and Redis --------------------------------------------------------------------------------

WAITING = Snapshot(
    jobs=[progress(job(delayed=7), rate=5e6)],
    waiting=[
        (3, next_try("c.bin", "503 Service Unavailable")),
        (3, next_try("big.bin", "timed out", parked=True, seconds=298, kept=1_200_000_000)),
        (3, next_try("d.bin", "", host="", tries=0, seconds=0)),
    ],
    absence=Absence(back_at=1_000_200.0, seconds=23.4),
    queue=queue(),
)
BACK = f"Redis is back since {time.strftime('%H:%M:%S', time.localtime(1_000_200))} (it was away for 23s)"


def test_who_waits_for_the_next_try_at_80_columns() -> None:
    shown = words(picture.draw(WAITING, Canvas(80)))
    assert shown.partition("To retry")[2].partition("Workers")[0] == (
        """  7
 3  c.bin
    503 Service Unavailable; next try in 12s (1 try on gpu-07)
 3  big.bin
    timed out; waits 4m 58s for gpu-07, which has 1.2 GB of it
 3  d.bin
    next try is due
 … and 4 more: hf-downloader files JOB

"""
    )
    assert BACK in shown.splitlines()


def test_who_waits_for_the_next_try_on_a_pipe() -> None:
    lines = words(plain.status(WAITING, Canvas(None))).splitlines()
    assert lines[1:4] == [
        "job 3 to retry: c.bin: 503 Service Unavailable; next try in 12s (1 try on gpu-07)",
        "job 3 to retry: big.bin: timed out; waits 4m 58s for gpu-07, which has 1.2 GB of it",
        "job 3 to retry: d.bin: next try is due",
    ]
    assert lines[-1] == BACK


def test_on_few_lines_each_that_waits_has_one() -> None:
    shown = words(picture.draw(WAITING, Canvas(80, 14)))
    assert " 3  c.bin  503 Service Unavailable; next try in 12s (1 try on gpu-07)" in shown.splitlines()
    assert len(shown.splitlines()) <= 14


TROUBLE = Snapshot(
    jobs=[progress(job(failed=6))],
    failures=[(3, failure(f"{n}.bin")) for n in range(5)],
    pauses={"https://hub.example": 48},
    budgets=[HubBudget("https://hub.example", "resolvers", left=12, quota=5000, seconds=48)],
    full=True,
    absence=Absence(back_at=1_000_200.0, lost=True),
    silence=Silence(1_000_200.0, "Redis at h:1/0 cannot be reached: is it running? (refused)", "h:1/0"),
)


@pytest.mark.parametrize("canvas", [PIPE, Canvas(80), Canvas(80, 30), Canvas(30, 60)])
def test_what_concerns_all_is_told_in_all_its_words_the_worst_first(canvas: Canvas) -> None:
    assert TROUBLE.silence
    assert TROUBLE.absence
    told = [
        notices.silence(TROUBLE.silence),
        notices.FULL,
        "the hub (hub.example) asks for a pause: 48s left",
        "hub budget: 12 left of 5,000, resets in 48s (hub.example, resolvers)",
        notices.back(TROUBLE.absence),
    ]
    assert " ".join(words(picture.draw(TROUBLE, canvas)).split()).endswith(" ".join(told))


def test_an_outage_is_told_with_its_begin_and_with_what_is_wrong() -> None:
    assert TROUBLE.silence
    clock = time.strftime("%H:%M:%S", time.localtime(1_000_200))
    assert notices.silence(TROUBLE.silence) == (
        f"Redis at h:1/0 does not answer since {clock}, trying again: "
        "it cannot be reached: is it running? (refused)"
    )


@pytest.mark.parametrize("address", ["h:1/0", "fleet/0 (sentinels a:1 and 2 more)"])
def test_what_is_wrong_is_told_as_it_is(address: str) -> None:
    wrong = "refuses the login: check [redis] username and password (REDIS_USERNAME, REDIS_PASSWORD)"
    told = notices.silence(Silence(1_000_200.0, f"Redis at {address} {wrong}", address))
    assert told.startswith(f"Redis at {address} does not answer since ")
    assert told.endswith(f", trying again: it {wrong}")


def test_failed_files_that_are_not_shown_are_counted_on_a_pipe() -> None:
    lines = words(plain.status(TROUBLE, PIPE)).splitlines()
    assert lines[6:8] == [
        "job 3 failed: and 1 more: `hf-downloader files 3 --failed`",
        "`hf-downloader retry 3` tries them again",
    ]


def test_failed_files_of_which_none_is_shown_are_counted_too() -> None:
    _, failed, _ = words(plain.status(Snapshot([progress(job(failed=6))]), PIPE)).splitlines()
    assert failed == "job 3 failed: 6 files: `hf-downloader files 3 --failed`"


def test_a_cancelled_job_cannot_be_retried() -> None:
    gone = Snapshot([progress(job(state=JobState.CANCELLED, failed=1))], [(3, failure())])
    assert "retry" not in words(plain.status(gone, PIPE))


def test_redis_without_its_data_says_what_to_do() -> None:
    lost = Absence(back_at=1_000_200.0, lost=True)
    _, line = words(plain.status(Snapshot(absence=lost), Canvas(None))).splitlines()
    since = BACK.partition(" (")[0]
    assert line == (
        f"{since} without its data: run the same `master` commands again; what is on disk is kept"
    )
