"""From a task to a published file: engines, proof, resumption after a kill, writers that meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.config import AppConfig, AppSection, HuggingFaceConfig
from distributed_downloader.errors import (
    AccessError,
    CorruptError,
    EngineError,
    LocalError,
    NetworkError,
    NotFoundError,
    RangeError,
    RateLimitError,
    RefusedError,
    ServerError,
    StalledError,
    StoppedError,
    TransferError,
)
from distributed_downloader.models import Descriptor, DownloadTask, JobSpec, RepoFile, RepoType, Token
from distributed_downloader.outcome import Outcome
from distributed_downloader.transfer.downloader import Downloader
from distributed_downloader.transfer.engine import Context, Engine
from tests.hub.faults import Corrupt, ErrorPage, Fault, Gzip, Stall, Status, Truncate, WrongLength
from tests.hub.sample import ODD_NAMES
from tests.net.kit import LONG, Bench, RawServer, Say, in_thread, reply


class FakeEngine:
    """An engine that does what a test says."""

    def __init__(self, name: str, *does: Callable[[Context], None]) -> None:
        self.name = name
        self._does = list(does)
        self.fetched = 0

    def fetch(self, context: Context) -> None:
        self.fetched += 1
        self._does.pop(0)(context)

    def close(self) -> None:
        self.fetched = -1


def writes(content: bytes) -> Callable[[Context], None]:
    def write(context: Context) -> None:
        context.sink.reset()
        context.write(content)

    return write


def fails(error: TransferError) -> Callable[[Context], None]:
    def fail(_context: Context) -> None:
        raise error

    return fail


class Fakes:
    """A downloader with its engines replaced; `xet` has no file."""

    def __init__(self, bench: Bench, choice: str, http: Engine, hub: Engine) -> None:
        self.bench = bench
        self.downloader = Downloader(bench.config(engine=choice), http_engine=http)
        no_xet = FakeEngine("xet", *[fails(EngineError("not a Xet file"))] * 3)
        self.downloader._engines._made |= {"hub": hub, "xet": no_xet}

    def run(self, path: str = "other.bin") -> bytes:
        self.downloader.run(self.bench.task(path), Cancel(), lambda _: None)
        return self.bench.published(path).read_bytes()


# -- what goes right ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "http", "hub"])
def test_a_whole_repo(bench: Bench, engine: str) -> None:
    downloader = bench.downloader(engine)
    files = [entry.path for entry in bench._snapshot().entries if not entry.folder]
    for path in files:
        downloader.run(bench.task(path), Cancel(), lambda _: None)
    assert subprocess.run(["diff", "-r", bench.source, bench.out / "org" / "name"], check=True)
    assert len(files) == 6 + len(ODD_NAMES)
    assert bench.partials() == []


def test_progress_ends_at_the_size(bench: Bench) -> None:
    progress = list[int]()
    bench.downloader().run(bench.task("big.bin"), Cancel(), progress.append)
    assert progress[-1] == 300_000


def test_an_empty_file(bench: Bench) -> None:
    assert bench.run("empty.txt") == b""
    assert bench.hub.log.records() == []


def test_a_small_page_of_the_repo(bench: Bench) -> None:
    assert bench.run("page.html") == bench.content("page.html")


def test_the_jobs_folder_wins_over_the_workers(bench: Bench, tmp_path: Path) -> None:
    task = bench.task("small.json", bench.spec(output_dir=str(tmp_path / "of the job")))
    bench.downloader().run(task, Cancel(), lambda _: None)
    assert (tmp_path / "of the job" / "org" / "name" / "small.json").exists()
    assert not bench.out.exists()


def test_a_relative_folder_is_the_workers_own(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = AppConfig(huggingface=bench.settings(), app=AppSection(output_dir="here"))
    Downloader(config).run(bench.task("small.json"), Cancel(), lambda _: None)
    assert (tmp_path / "here" / "org" / "name" / "small.json").exists()


def test_a_home_folder_is_nobodys_to_guess(bench: Bench) -> None:
    """The master has made it absolute; in Redis, it would be another one for each user."""
    with pytest.raises(ValueError, match="must be an absolute path"):
        bench.spec(output_dir="~/models")


def test_a_repo_without_an_organisation(bench: Bench) -> None:
    bench.downloader().run(bench.task("small.json", bench.spec(repo_id="single")), Cancel(), lambda _: None)
    assert (bench.out / "single" / "small.json").exists()


def test_many_slots_share_a_downloader(bench: Bench) -> None:
    downloader = bench.downloader()
    names = [*ODD_NAMES, "big.bin", "other.bin", "small.json"]

    def run(path: str) -> Callable[[], Outcome]:
        return lambda: downloader.run(bench.task(path), Cancel(), lambda _: None)

    futures = [in_thread(run(path)) for path in names]
    for future in futures:
        future.result(LONG)
    assert [path for path in names if bench.published(path).read_bytes() != bench.content(path)] == []


def test_the_slots_share_the_bandwidth(bench: Bench) -> None:
    app = AppSection(output_dir=str(bench.out), max_bandwidth=2_000_000)
    downloader = Downloader(AppConfig(huggingface=bench.settings(), app=app))
    taken = list[int]()
    take = downloader._throttle.take

    def noted(count: int, cancel: Cancel) -> None:
        taken.append(count)
        take(count, cancel)

    downloader._throttle.take = noted  # type: ignore[method-assign]
    for path in ("big.bin", "other.bin"):
        downloader.run(bench.task(path), Cancel(), lambda _: None)
    assert sum(taken) == 305_000
    assert max(taken) <= 200_000


# -- what is already there ------------------------------------------------------------------------


def test_what_is_there_is_not_downloaded_again(bench: Bench) -> None:
    bench.run("big.bin")
    requests, progress = len(bench.hub.log.records()), list[int]()
    bench.downloader().run(bench.task("big.bin"), Cancel(), progress.append)
    assert len(bench.hub.log.records()) == requests
    assert progress == [300_000]


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 300_000, b"x" * 300_001])
def test_what_is_there_and_wrong_is_replaced(bench: Bench, content: bytes) -> None:
    target = bench.published("big.bin")
    target.parent.mkdir(parents=True)
    target.write_bytes(content)
    assert bench.run("big.bin") == bench.content("big.bin")


def test_a_wrong_file_stays_until_the_right_one_is_there(bench: Bench) -> None:
    target = bench.published("big.bin")
    target.parent.mkdir(parents=True)
    target.write_bytes(b"yesterday's")
    bench.hub.on(Status(500), route="resolve", times=None)
    with pytest.raises(ServerError):
        bench.run("big.bin")
    assert target.read_bytes() == b"yesterday's"


def test_a_model_and_a_dataset_do_not_mix(bench: Bench) -> None:
    bench.run("small.json")
    task = bench.task("small.json", bench.spec(RepoType.DATASET))
    with pytest.raises(RefusedError, match="already holds the model"):
        bench.downloader().run(task, Cancel(), lambda _: None)


def test_a_link_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    bench.published("x").parent.mkdir(parents=True)
    bench.published("big.bin").symlink_to(tmp_path / "victim")
    with pytest.raises(RefusedError, match="symbolic link"):
        bench.run("big.bin")
    assert bench.hub.log.records() == []
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_an_unsafe_path_is_refused(bench: Bench) -> None:
    for path in ("../../escaped", "/escaped", "a/../../../escaped"):
        with pytest.raises(RefusedError):
            bench.downloader().run(bench.task(RepoFile(path=path, size=1)), Cancel(), lambda _: None)
    assert list(bench.out.parent.rglob("escaped")) == []
    assert bench.hub.log.records() == []


def test_old_leftovers_are_swept_once(bench: Bench) -> None:
    bench.run("small.json")
    old = bench.out / ".hf-downloader" / "partial" / "old.part"
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    downloader = bench.downloader()
    downloader.run(bench.task("small.json"), Cancel(), lambda _: None)
    assert not old.exists()
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    downloader.run(bench.task("small.json"), Cancel(), lambda _: None)
    assert old.exists()


def test_leftovers_that_cannot_be_swept_are_no_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_root: Path) -> int:
        raise LocalError("permission denied")

    monkeypatch.setattr("distributed_downloader.transfer.downloader.sweep", refuse)
    bench.run("small.json")
    assert "old partial data stays: permission denied" in caplog.text


# -- which engine ---------------------------------------------------------------------------------

RIGHT = "other.bin"


@pytest.mark.parametrize(
    "error", [EngineError("odd"), RangeError("no ranges"), CorruptError("a page"), StalledError("silence")]
)
def test_auto_changes_the_engine_where_that_may_help(bench: Bench, error: TransferError) -> None:
    http, hub = FakeEngine("http", fails(error)), FakeEngine("hub", writes(bench.content(RIGHT)))
    assert Fakes(bench, "auto", http, hub).run() == bench.content(RIGHT)
    assert (http.fetched, hub.fetched) == (1, 1)


@pytest.mark.parametrize(
    "error",
    [
        NetworkError("reset"),
        ServerError("500"),
        RateLimitError("429", 5),
        AccessError("401"),
        NotFoundError("404"),
        RefusedError("link"),
        LocalError("full"),
        StoppedError("shutdown"),
    ],
)
def test_auto_does_not_where_it_may_not(bench: Bench, error: TransferError) -> None:
    http, hub = FakeEngine("http", fails(error)), FakeEngine("hub")
    with pytest.raises(type(error)) as caught:
        Fakes(bench, "auto", http, hub).run()
    assert caught.value is error
    assert (http.fetched, hub.fetched) == (1, 0)


def test_a_wrong_hash_changes_the_engine_too(bench: Bench) -> None:
    http, hub = FakeEngine("http", writes(b"x" * 5000)), FakeEngine("hub", writes(bench.content(RIGHT)))
    assert Fakes(bench, "auto", http, hub).run() == bench.content(RIGHT)


def test_the_second_engine_starts_from_an_empty_partial_after_a_wrong_hash(bench: Bench) -> None:
    sizes = list[int]()

    def look(context: Context) -> None:
        sizes.append(context.sink.size)
        writes(bench.content(RIGHT))(context)

    Fakes(bench, "auto", FakeEngine("http", writes(b"x" * 5000)), FakeEngine("hub", look)).run()
    assert sizes == [0]


def test_a_refused_answer_does_not_cost_what_is_there(bench: Bench) -> None:
    """A login page in the middle of 40 GB must not throw 40 GB away."""
    half = bench.content(RIGHT)[:2500]

    def write_and_fail(context: Context) -> None:
        context.write(half)
        raise CorruptError("a web page came in its place")

    http, hub = FakeEngine("http", write_and_fail), FakeEngine("hub", fails(EngineError("no")))
    with pytest.raises(EngineError, match="no"):
        Fakes(bench, "auto", http, hub).run()
    assert [path.read_bytes() for path in bench.partials()] == [half]


@pytest.mark.parametrize(("choice", "expected"), [("http", (1, 0)), ("hub", (0, 1)), ("direct", (1, 0))])
def test_who_chooses_one_engine_gets_no_other(bench: Bench, choice: str, expected: tuple[int, int]) -> None:
    http, hub = FakeEngine("http", fails(EngineError("a"))), FakeEngine("hub", fails(EngineError("b")))
    with pytest.raises(EngineError):
        Fakes(bench, choice, http, hub).run()
    assert (http.fetched, hub.fetched) == expected


def test_the_last_engines_error_is_the_tasks(bench: Bench) -> None:
    http, hub = FakeEngine("http", fails(RangeError("a"))), FakeEngine("hub", fails(StalledError("b")))
    with pytest.raises(StalledError, match="b"):
        Fakes(bench, "auto", http, hub).run()


@pytest.mark.parametrize("fault", [Gzip(), WrongLength(3), ErrorPage(), Corrupt(at=7), Status(400)])
def test_faults_that_only_one_engine_meets(bench: Bench, fault: Fault) -> None:
    times = 3 if isinstance(fault, Status) and fault.status == 400 else 1
    bench.hub.on(fault, file="big.bin", route="cdn", times=times)
    assert bench.run("big.bin", "auto") == bench.content("big.bin")


def test_closing_closes_the_engines(bench: Bench) -> None:
    http, hub = FakeEngine("http"), FakeEngine("hub")
    Fakes(bench, "auto", http, hub).downloader.close()
    assert (http.fetched, hub.fetched) == (-1, -1)
    Downloader(bench.config(), http_engine=http).close()  # without ever having needed the other


def test_corrupt_for_ever_is_never_published(bench: Bench) -> None:
    bench.hub.on(Corrupt(at=7), file="big.bin", times=None)
    with pytest.raises(CorruptError):
        bench.run("big.bin", "auto")
    assert not bench.published("big.bin").exists()
    assert bench.partials() == []


def test_the_library_is_imported_only_when_it_is_needed(bench: Bench) -> None:
    spec = bench.spec().model_dump_json()
    script = f"""
import sys
from tests.net.test_downloader import child
child({spec!r}, {str(bench.out)!r}, "small.json", 20, {bench.file("small.json").git_sha1!r})
print("huggingface_hub" in sys.modules or "hf_xet" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"


# -- killed, and met ------------------------------------------------------------------------------


def child(spec: str, out: str, path: str, size: int, digest: str) -> None:
    """Download one file, in a process of its own, and say how far it is."""
    parsed = JobSpec.model_validate_json(spec)
    key = "sha256" if len(digest) == 64 else "git_sha1"
    file = RepoFile.model_validate({"path": path, "size": size, key: digest})
    task = DownloadTask(token=Token(1, 0, 0), spec=parsed, about=Descriptor(file=file))
    settings = HuggingFaceConfig(endpoint=parsed.endpoint)
    config = AppConfig(huggingface=settings, app=AppSection(output_dir=out))
    Downloader(config).run(task, Cancel(), lambda done: print(done, flush=True))


def start(bench: Bench, path: str) -> subprocess.Popen[str]:
    file = bench.file(path)
    values = (bench.spec().model_dump_json(), str(bench.out), path, file.size, file.sha256)
    script = f"from tests.net.test_downloader import child; child(*{values!r})"
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout
    for said in process.stdout:
        if said.strip() == line:
            return
    pytest.fail(f"it ended before it said {line}")


def kill(process: subprocess.Popen[str], how: int = signal.SIGKILL) -> None:
    process.send_signal(how)
    assert process.stdout
    process.stdout.close()
    process.wait(LONG)


def test_after_a_kill_another_process_goes_on(bench: Bench) -> None:
    bench.hub.on(Stall(100_000), file="big.bin")
    killed = start(bench, "big.bin")
    wait_for(killed, "100000")
    kill(killed)
    assert not bench.published("big.bin").exists()
    second = start(bench, "big.bin")
    wait_for(second, "300000")
    assert second.wait(LONG) == 0
    kill(second)
    assert bench.asked("big.bin") == [(200, ""), (206, "bytes=100000-")]
    assert bench.published("big.bin").read_bytes() == bench.content("big.bin")
    assert bench.partials() == []


def test_killed_again_and_again(bench: Bench) -> None:
    for times in range(3):
        bench.hub.on(Stall(90_000), file="big.bin")
        killed = start(bench, "big.bin")
        wait_for(killed, str(90_000 * (times + 1)))
        kill(killed)
    assert bench.run("big.bin") == bench.content("big.bin")
    assert bench.asked("big.bin")[-1] == (206, "bytes=270000-")


def test_what_a_killed_process_left_may_be_bad(bench: Bench) -> None:
    """A power cut leaves holes; the whole is proved, and fetched once more in the same try."""
    with bench.partial(bench.task("big.bin"), b"\0" * 100_000):
        pass
    assert bench.run("big.bin") == bench.content("big.bin")
    assert bench.asked("big.bin") == [(206, "bytes=100000-"), (200, "")]


def test_a_complete_but_bad_leftover(bench: Bench) -> None:
    with bench.partial(bench.task("big.bin"), b"\0" * 300_000):
        pass
    assert bench.run("big.bin") == bench.content("big.bin")
    assert bench.asked("big.bin") == [(200, "")]


@pytest.mark.parametrize("engine", ["http", "hub"])
@pytest.mark.parametrize("left", [100_000, 300_000])
def test_a_bad_leftover_of_a_file_whose_hash_the_listing_hides(bench: Bench, left: int, engine: str) -> None:
    """The headers of the answer name the hash, so even then nothing unproved is published."""
    task = bench.task(bench.file("big.bin", masked=True))
    with bench.partial(task, b"\0" * left):
        pass
    bench.downloader(engine).run(task, Cancel(), lambda _: None)
    assert bench.published("big.bin").read_bytes() == bench.content("big.bin")


@pytest.mark.parametrize("left", [b"\0" * 4, b"\0" * 10])
def test_a_leftover_that_no_hash_can_prove_is_not_gone_on_from(bench: Bench, left: bytes) -> None:
    part = reply(b"456789", "206 Partial Content", Content_Range="bytes 4-9/10")
    says = [Say(part)] if len(left) < 10 else []
    with RawServer(*says, reply(b"0123456789")) as server:
        task = bench.task(RepoFile(path="f.txt", size=10), bench.spec(endpoint=server.url))
        with bench.partial(task, left):
            pass
        bench.downloader().run(task, Cancel(), lambda _: None)
        assert server.header(-1, "Range") == ""
    assert bench.published("f.txt").read_bytes() == b"0123456789"


def test_what_replaces_such_a_leftover_counts_as_progress(bench: Bench) -> None:
    """Else a line that often breaks would start over in each try, and never end."""
    first = Say(reply(b"01", Content_Length="10"), "close")
    parts = [
        Say(reply(str(n).encode(), "206 Partial Content", Content_Range=f"bytes {n}-{n}/10"), "close")
        for n in range(2, 10)
    ]
    broken = [Say(b"", "close")] * 4  # two connections that bring nothing, each asked once more
    with RawServer(first, *(say for part in parts for say in (*broken, part))) as server:
        task = bench.task(RepoFile(path="f.txt", size=10), bench.spec(endpoint=server.url))
        with bench.partial(task, b"\0" * 10):
            pass
        bench.downloader().run(task, Cancel(), lambda _: None)
    assert bench.published("f.txt").read_bytes() == b"0123456789"


def test_two_writers_at_once(bench: Bench) -> None:
    stall = Stall(100_000)
    bench.hub.on(stall, file="big.bin")
    first = in_thread(lambda: bench.run("big.bin"))
    assert stall.reached.wait(LONG)
    assert bench.run("big.bin") == bench.content("big.bin")  # the second does not wait for the first
    stall.release.set()
    assert first.result(LONG) == bench.content("big.bin")
    assert bench.partials() == []


def test_a_stopped_process_that_comes_back_harms_nothing(bench: Bench) -> None:
    bench.hub.on(Stall(100_000), file="big.bin")
    zombie = start(bench, "big.bin")
    wait_for(zombie, "100000")
    zombie.send_signal(signal.SIGSTOP)
    assert bench.run("big.bin") == bench.content("big.bin")
    inode = bench.published("big.bin").stat().st_ino
    zombie.send_signal(signal.SIGCONT)
    bench.hub.heal()
    assert zombie.wait(LONG) == 0
    kill(zombie)
    assert bench.published("big.bin").read_bytes() == bench.content("big.bin")
    assert bench.published("big.bin").stat().st_ino != inode  # it published its own, whole file
    assert bench.partials() == []


def test_a_stop_keeps_what_is_there(bench: Bench) -> None:
    arrived, cancel = threading.Event(), Cancel()
    bench.hub.on(Stall(100_000), file="big.bin")

    def progress(done: int) -> None:
        if done == 100_000:
            arrived.set()

    running = in_thread(lambda: bench.downloader().run(bench.task("big.bin"), cancel, progress))
    assert arrived.wait(LONG)
    cancel.set("shutdown")
    with pytest.raises(StoppedError, match="shutdown"):
        running.result(LONG)
    assert not bench.published("big.bin").exists()
    assert [path.read_bytes() for path in bench.partials()] == [bench.content("big.bin")[:100_000]]


def test_a_stop_before_anything(bench: Bench) -> None:
    cancel = Cancel()
    cancel.set("lost lease")
    with pytest.raises(StoppedError, match="lost lease"):
        bench.run("big.bin", cancel=cancel)
    assert not bench.out.exists()


def test_a_stop_in_the_last_moment_publishes_nothing(bench: Bench) -> None:
    cancel = Cancel()

    def stop_at_the_end(done: int) -> None:
        if done == 300_000:
            cancel.set("lost lease")

    with pytest.raises(StoppedError):
        bench.downloader().run(bench.task("big.bin"), cancel, stop_at_the_end)
    assert not bench.published("big.bin").exists()
    assert bench.run("big.bin") == bench.content("big.bin")
    assert len(bench.asked("big.bin")) == 1  # all bytes were there


@pytest.mark.parametrize("fault", [Truncate(0), Status(500)])
def test_a_failed_try_leaves_no_empty_files(bench: Bench, fault: Fault) -> None:
    bench.hub.on(fault, file="big.bin", route="cdn", times=None)
    with pytest.raises(TransferError):
        bench.run("big.bin")
    assert bench.partials() == []
    assert [path for path in (bench.out / "org").rglob("*") if path.is_file()] == []


def test_a_token_that_is_withheld_is_told(bench: Bench) -> None:
    """The job's endpoint is a mirror that this worker was not told of."""
    bench.hub.on(Status(401), route="resolve", times=None)
    elsewhere = HuggingFaceConfig.model_validate({"endpoint": "https://hub.example", "token": "hf_secret"})
    config = AppConfig(huggingface=elsewhere, app=AppSection(output_dir=str(bench.out)))
    downloader = Downloader(config)
    bench.opened.append(downloader)
    with pytest.raises(AccessError, match=r"token was not sent.*HF_ENDPOINT") as told:
        downloader.run(bench.task("big.bin"), Cancel(), lambda _: None)
    assert "hf_secret" not in str(told.value)
    assert bench.hub.leaks() == []
