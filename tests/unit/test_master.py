from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import fakeredis
import pytest

from distributed_downloader import master as master_module
from distributed_downloader.config import NASConfig
from distributed_downloader.errors import (
    ConflictError,
    NetworkError,
    NotFoundError,
    RedisUnavailableError,
    UnknownJobError,
    UsageError,
)
from distributed_downloader.feed import Listing
from distributed_downloader.hub import Hub
from distributed_downloader.master import JobRequest, MasterNode, Submitted, prepare
from distributed_downloader.models import (
    Failure,
    JobSpec,
    JobState,
    JobStatus,
    RepoFile,
    RepoType,
    WorkerStatus,
)
from distributed_downloader.outcome import Range
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_parts import RedisParts
from distributed_downloader.redis_view import RedisView
from distributed_downloader.storage.place import make_place, read_place
from tests.queue.base import complete
from tests.unit.fake_http import COMMIT, ENDPOINT, FakeResponse, by_path, hub_over

Pages = Sequence[Sequence[RepoFile]]


class ListedHub:
    """A hub that lists the same pages each time, or breaks off after `breaks_after` of them."""

    endpoint = ENDPOINT

    def __init__(self, pages: Pages, breaks_after: int | None = None) -> None:
        self.listing = [list(page) for page in pages]
        self.breaks_after = breaks_after
        self.before_page: Callable[[int], object] = lambda _: None
        self.asked = 0

    def pages(self, *_: object) -> Generator[list[RepoFile], None, None]:
        for number, page in enumerate(self.listing):
            if number == self.breaks_after:
                raise NetworkError("the hub went away")
            self.before_page(number)
            self.asked += 1
            yield page


def files(*names: str, size: int = 10) -> list[RepoFile]:
    return [RepoFile(path=name, size=size + len(name), git_sha1="a" * 40) for name in names]


PAGES = [files("a", "bb", "ccc"), files("d"), files("e", "ff")]
SPEC = JobSpec(
    repo_type=RepoType.MODEL, repo_id="org/name", revision="main", commit=COMMIT, endpoint=ENDPOINT
)


@pytest.fixture
def redis() -> Iterator[RedisClient]:
    server = fakeredis.FakeRedis(decode_responses=True)
    yield RedisClient.over(server)
    server.close()


@pytest.fixture
def view(redis: RedisClient) -> RedisView:
    return RedisView(redis)


def node(hub: ListedHub, redis: RedisClient) -> MasterNode:
    return MasterNode(cast(Hub, hub), redis)


def submit(redis: RedisClient, pages: Pages = PAGES, spec: JobSpec = SPEC, weight: int = 1) -> Submitted:
    return node(ListedHub(pages), redis).submit(spec, weight)


def interrupt(redis: RedisClient, pages: Pages = PAGES, after: int = 1) -> None:
    """Submit the first pages only, as a master that is killed does."""
    with pytest.raises(NetworkError):
        node(ListedHub(pages, breaks_after=after), redis).submit(SPEC, 1)


class Worker:
    """A worker of a few lines, that takes what is queued."""

    def __init__(self, redis: RedisClient) -> None:
        self.redis = redis
        status = WorkerStatus(id="w", host="h", pid=1, version="0", slots=1, started_at=0)
        redis.register(status)

    def take(self) -> str | None:
        self.redis.tick()
        return self.redis.claim("w", 1) if self.redis.commands.llen(self.redis.key("ready")) else None

    def work(self, fails: Sequence[str] = ()) -> list[str]:
        """Finish all that is queued; return the paths in the order in which they came."""
        done = []
        while token := self.take():
            task = self.redis.begin("w", token)
            assert task is not None
            path = task.file.path
            done += [] if task.about.closing else [path]
            if path in fails:
                failure = Failure(path=path, error="gone", host="h", tries=1, at=0)
                self.redis.fail("w", token, failure, None)
            else:
                complete(self.redis, "w", token, task.file.size, "h")
        return done


def names(redis: RedisClient, job: int) -> list[str]:
    return sorted(file.path for file in RedisView(redis).files(job))


def test_a_new_job_has_all_files_and_is_complete(redis: RedisClient) -> None:
    submitted = submit(redis, weight=10)
    assert (submitted.created, submitted.queued) == (True, 6)
    after = submitted.after
    assert (after.total, after.bytes_total, after.listed) == (6, 60 + 10, True)
    assert (after.state, after.weight, after.spec) == (JobState.RUNNING, 10, SPEC)
    assert names(redis, submitted.job) == ["a", "bb", "ccc", "d", "e", "ff"]


def test_the_biggest_file_of_a_page_comes_first_and_pages_in_their_order(redis: RedisClient) -> None:
    submit(redis)
    assert Worker(redis).work() == ["ccc", "bb", "a", "d", "ff", "e"]


def test_progress_begins_with_the_jobs_id_and_counts_pages(redis: RedisClient) -> None:
    seen: list[Listing] = []
    submitted = node(ListedHub(PAGES), redis).submit(SPEC, 1, seen.append)
    job = submitted.job
    assert seen == [Listing(job), Listing(job, 3, 36), Listing(job, 4, 47), Listing(job, 6, 70)]


def test_workers_can_work_before_the_listing_ends(redis: RedisClient, view: RedisView) -> None:
    hub, worker, seen = ListedHub(PAGES), Worker(redis), []

    def work(number: int) -> None:
        if number:
            seen.extend(worker.work())
            assert view.jobs()[0].state is JobState.RUNNING, "a job that is still listed does not end"
            assert not view.jobs()[0].listed

    hub.before_page = work
    node(hub, redis).submit(SPEC, 1)
    assert seen == ["ccc", "bb", "a", "d"]


def test_filters_decide_what_is_queued(redis: RedisClient) -> None:
    spec = SPEC.model_copy(update={"include": ("?",), "exclude": ("d",)})
    assert names(redis, submit(redis, spec=spec).job) == ["a", "e"]


def test_a_page_may_be_longer_than_a_chunk(redis: RedisClient, view: RedisView) -> None:
    many = files(*(f"{number:05}" for number in range(2500)))
    submitted = submit(redis, [many])
    assert (submitted.queued, submitted.after.total) == (2500, 2500)
    # Another hub may cut the same listing into other pages.
    interrupted = RedisClient.over(fakeredis.FakeRedis(decode_responses=True))
    interrupt(interrupted, [many[:700], many[700:]])
    assert submit(interrupted, [many]).queued == 1800
    assert names(interrupted, 1) == names(redis, 1)


@pytest.mark.parametrize("pages", [[], [[]], [[], []]])
def test_without_files_no_job_is_made(redis: RedisClient, view: RedisView, pages: Pages) -> None:
    with pytest.raises(NotFoundError, match="models/org/name at main has no files") as caught:
        submit(redis, pages)
    assert caught.value.exit_code == 1
    assert view.jobs() == []


def test_when_no_file_matches_no_job_is_made(redis: RedisClient, view: RedisView) -> None:
    with pytest.raises(NotFoundError, match="matches --include"):
        submit(redis, spec=SPEC.model_copy(update={"include": ("*.zip",)}))
    assert view.jobs() == []


def test_when_all_files_are_refused_no_job_is_made(redis: RedisClient, view: RedisView) -> None:
    with pytest.raises(NotFoundError, match=r"'\.\./a' is refused"):
        submit(redis, [files("../a", "/b")])
    assert view.jobs() == []


def test_dangerous_files_are_told_and_the_rest_is_queued(redis: RedisClient) -> None:
    submitted = submit(redis, [files("a", "../b"), files("c\\d", "e")])
    assert [skipped.path for skipped in submitted.plan.skipped] == ["../b", "c\\d"]
    assert names(redis, submitted.job) == ["a", "e"]


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_listing_goes_on_behind_what_is_queued(
    redis: RedisClient, view: RedisView, after: int
) -> None:
    interrupt(redis, after=after)
    assert not view.jobs()[0].listed
    submitted = submit(redis)
    assert (submitted.created, submitted.job) == (False, 1)
    assert submitted.queued == sum(map(len, PAGES[after:]))
    assert submitted.after.listed
    assert Worker(redis).work() == ["ccc", "bb", "a", "d", "ff", "e"]
    assert view.job(1).state is JobState.DONE


def test_it_goes_on_although_workers_have_finished_what_was_queued(
    redis: RedisClient, view: RedisView
) -> None:
    interrupt(redis)
    worker = Worker(redis)
    assert worker.work() == ["ccc", "bb", "a"]
    submit(redis)
    assert worker.work() == ["d", "ff", "e"]
    assert view.job(1).state is JobState.DONE


def test_a_listing_whose_end_redis_lost_is_not_complete(redis: RedisClient) -> None:
    real = redis.seal

    def lose(job: int, files: int, closing: str = "", *, always: bool = False) -> bool:
        redis.commands.hincrby(redis.key(f"job:{job}"), "total", -1)
        return real(job, files, closing, always=always)

    redis.seal = lose  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match=r"lost the end of the listing of job 1, .* run the same"):
        submit(redis)
    assert redis.listed(1)[2] is False


def test_a_master_that_was_killed_just_before_the_end_only_seals(redis: RedisClient) -> None:
    real, redis.seal = redis.seal, _raise(RedisUnavailableError("gone"))  # type: ignore[assignment, method-assign]
    with pytest.raises(RedisUnavailableError):
        submit(redis)
    redis.seal = real  # type: ignore[method-assign]
    submitted = submit(redis)
    assert (submitted.queued, submitted.after.listed, submitted.after.total) == (0, True, 6)


def _raise(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "pages",
    [
        [files("A", "bb", "ccc"), *PAGES[1:]],
        [files("bb", "a", "ccc"), *PAGES[1:]],
        [files("a", "bb", "ccc", size=11), *PAGES[1:]],
        [files("a", "bb")],
        [files("x"), *PAGES],
    ],
)
def test_a_listing_that_has_changed_is_not_mixed_in(
    redis: RedisClient, view: RedisView, pages: Pages
) -> None:
    interrupt(redis)
    with pytest.raises(ConflictError, match="hf-downloader forget 1"):
        submit(redis, pages)
    assert not view.job(1).listed
    assert names(redis, 1) == ["a", "bb", "ccc"]


def test_a_complete_job_is_not_listed_again(redis: RedisClient) -> None:
    submit(redis)
    hub = ListedHub(PAGES)
    submitted = node(hub, redis).submit(SPEC, 1)
    assert (submitted.created, submitted.queued) == (False, 0)
    assert hub.asked == 1, "one page, to know that there is something"


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_a_stopped_job_goes_on(redis: RedisClient, view: RedisView, verb: str) -> None:
    submit(redis)
    redis.control(verb, 1)  # type: ignore[arg-type]
    assert Worker(redis).work() == []
    submitted = submit(redis)
    assert submitted.before.state in (JobState.PAUSED, JobState.CANCELLED)
    assert submitted.after.state is JobState.RUNNING
    assert len(Worker(redis).work()) == 6
    assert view.job(1).state is JobState.DONE


def test_a_stopped_and_interrupted_job_goes_on_with_its_listing(redis: RedisClient, view: RedisView) -> None:
    interrupt(redis)
    redis.control("cancel", 1)
    assert submit(redis).queued == 3
    assert len(Worker(redis).work()) == 6
    assert view.job(1).state is JobState.DONE


def test_failed_files_are_queued_again_and_only_they(redis: RedisClient, view: RedisView) -> None:
    submit(redis)
    worker = Worker(redis)
    worker.work(fails=["bb", "e"])
    assert view.job(1).state is JobState.FAILED
    submitted = submit(redis)
    assert (submitted.before.failed, submitted.after.failed) == (2, 0)
    assert submitted.after.state is JobState.RUNNING
    assert sorted(worker.work()) == ["bb", "e"]
    assert view.job(1).state is JobState.DONE


def test_failed_files_of_a_cancelled_job_too(redis: RedisClient, view: RedisView) -> None:
    submit(redis)
    worker = Worker(redis)
    token = worker.take()
    assert token is not None
    redis.fail("w", token, Failure(path="ccc", error="gone", host="h", tries=1, at=0), None)
    redis.control("cancel", 1)
    submit(redis)
    assert len(worker.work()) == 6
    assert view.job(1).state is JobState.DONE


def test_a_job_that_is_done_stays_done(redis: RedisClient) -> None:
    submit(redis)
    worker = Worker(redis)
    worker.work()
    submitted = submit(redis)
    assert submitted.before.state is submitted.after.state is JobState.DONE
    assert worker.work() == []


@pytest.mark.parametrize(
    "change",
    [
        {"commit": "1" * 40},
        {"include": ("a",)},
        {"exclude": ("a",)},
        {"output_dir": "/out"},
        {"repo_id": "org/other"},
    ],
)
def test_another_commit_filter_or_output_is_another_job(
    redis: RedisClient, change: dict[str, object], tmp_path: Path
) -> None:
    assert submit(redis).job == 1
    if "output_dir" in change:
        change = {"output_dir": f"{tmp_path}{change['output_dir']}"}
    assert submit(redis, spec=SPEC.model_copy(update=change)).job == 2


def test_revision_endpoint_and_weight_do_not_make_another_job(redis: RedisClient) -> None:
    submit(redis)
    spec = SPEC.model_copy(update={"revision": "v1", "endpoint": "https://mirror.test"})
    submitted = submit(redis, spec=spec, weight=100)
    assert submitted.job == 1
    assert (submitted.after.weight, submitted.after.spec.endpoint) == (100, "https://mirror.test")


def test_a_model_and_a_dataset_of_one_name_never_share_a_folder(redis: RedisClient) -> None:
    submit(redis)
    with pytest.raises(ConflictError, match="--output-dir"):
        submit(redis, spec=SPEC.model_copy(update={"repo_type": RepoType.DATASET}))


def test_two_masters_at_once_queue_nothing_twice(redis: RedisClient, view: RedisView) -> None:
    pages = [files(*(f"{page:02}/{number:03}" for number in range(50))) for page in range(20)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: submit(redis, pages), range(4)))
    assert sum(result.queued for result in results) == 1000
    assert [result.job for result in results] == [1] * 4
    assert len(names(redis, 1)) == len(set(names(redis, 1))) == view.job(1).total == 1000


def test_a_master_that_is_overtaken_goes_on_behind_the_other(redis: RedisClient) -> None:
    hub = ListedHub(PAGES)
    hub.before_page = lambda number: submit(redis) if number == 1 else None
    submitted = node(hub, redis).submit(SPEC, 1)
    assert (submitted.queued, submitted.after.total) == (3, 6)
    assert names(redis, 1) == ["a", "bb", "ccc", "d", "e", "ff"]


def test_a_page_whose_reply_was_lost_is_not_queued_again(redis: RedisClient, view: RedisView) -> None:
    real = redis.submit

    def lose_reply(*args: object) -> bool:
        real(*args)  # type: ignore[arg-type]
        return real(*args)  # type: ignore[arg-type]

    redis.submit = lose_reply  # type: ignore[method-assign, assignment]
    submit(redis)
    assert names(redis, 1) == ["a", "bb", "ccc", "d", "e", "ff"]
    assert view.job(1).listed


def test_a_job_that_is_forgotten_while_it_is_listed_is_told(redis: RedisClient) -> None:
    hub = ListedHub(PAGES)
    hub.before_page = lambda number: redis.forget(1) if number == 2 else None
    with pytest.raises(UnknownJobError, match="gone"):
        node(hub, redis).submit(SPEC, 1)


def test_the_digest_is_that_of_the_listing_not_of_its_pages(redis: RedisClient) -> None:
    interrupt(redis, after=2)
    total, digest, complete = redis.listed(1)
    lines = "".join(f"{file.to_line()}\n" for page in PAGES[:2] for file in page)
    assert (total, digest, complete) == (4, hashlib.sha256(lines.encode()).hexdigest(), False)


# -- folders ----------------------------------------------------------------------------------------------


def test_a_folder_for_all_is_marked_and_the_job_has_its_id(redis: RedisClient, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"output_dir": str(tmp_path / "new"), "split_over": 1, "place": "0"})
    after = submit(redis, spec=spec).after
    assert after.spec.place == read_place(tmp_path / "new") != ""
    assert after.unsplit == ""


def test_the_workers_own_folders_are_not_the_masters_to_mark(redis: RedisClient) -> None:
    after = submit(redis, spec=SPEC.model_copy(update={"split_over": 1})).after
    assert (after.spec.place, after.spec.nas, after.unsplit) == ("", "", "")


def test_a_folder_that_cannot_be_marked_is_told_and_the_job_goes_on(
    redis: RedisClient, view: RedisView, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "file"
    folder.write_text("")
    spec = SPEC.model_copy(update={"output_dir": str(folder), "split_over": 1})
    submitted = submit(redis, spec=spec)
    assert submitted.after.spec.place == ""
    assert re.match(
        rf"the master on \S+ could not mark {folder} \(.+\): nobody knows", submitted.after.unsplit
    )
    advice = "; if they cannot write there either, choose another --output-dir"
    assert caplog.messages == [f"{submitted.after.unsplit}{advice}"]
    assert len(names(redis, submitted.job)) == 6
    folder.unlink()
    submit(redis, spec=spec)
    assert view.job(submitted.job).unsplit == ""
    assert view.job(submitted.job).spec.place == read_place(folder)


def test_where_nothing_is_to_be_split_nobody_asks_why_it_is_not(redis: RedisClient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spec = SPEC.model_copy(update={"output_dir": str(tmp_path / "file")})
    assert submit(redis, spec=spec).after.unsplit == ""


def to_nas(redis: RedisClient, folder: Path, spec: JobSpec = SPEC) -> JobSpec:
    """Return what a job becomes whose files get to the NAS at `folder`."""
    nas = NASConfig(enabled=True, path=str(folder))
    return MasterNode(cast(Hub, ListedHub(PAGES)), redis, nas).submit(spec, 1).after.spec


def test_the_job_has_the_id_of_the_nas(redis: RedisClient, tmp_path: Path) -> None:
    marked = make_place(tmp_path, create_root=False)
    assert to_nas(redis, tmp_path).nas == marked


@pytest.mark.parametrize("there", [True, False])
def test_a_nas_that_is_not_mounted_is_told_and_never_marked(
    redis: RedisClient, tmp_path: Path, caplog: pytest.LogCaptureFixture, there: bool
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "mnt"
    if there:
        folder.mkdir()
    assert to_nas(redis, folder).nas == ""
    assert "init-nas" in caplog.text
    assert read_place(folder) == ""
    assert folder.exists() is there


def test_files_of_one_name_are_told_apart_where_the_nas_is_flat(redis: RedisClient) -> None:
    spec, pages = SPEC.model_copy(update={"flat": True}), [files("a/x", "b/x", "y")]
    submit(redis, pages)
    submitted = submit(redis, pages, spec)
    assert submitted.job == 2, "another layout is another job"
    lines = redis.commands.hvals(redis.key("job:2:tasks"))
    found = sorted(str(line).split("\t")[2:] for line in lines if "closing" not in str(line))
    assert found == [["a/x"], ["b/x", "clash"], ["y"]]
    assert submit(redis, pages, spec).queued == 0


def test_a_listing_goes_on_although_workers_have_split_what_was_queued(redis: RedisClient) -> None:
    interrupt(redis)
    worker = Worker(redis)
    token = worker.take()
    assert token is not None
    assert redis.begin("w", token)
    assert RedisParts(redis).split("w", token, "f" * 32, [Range(0, 6), Range(6, 7)])
    submitted = submit(redis)
    assert submitted.queued == 3
    assert (submitted.after.files, submitted.after.total) == (6, 8)
    assert names(redis, 1) == ["a", "bb", "ccc", "d", "e", "ff"]


# -- prepare ------------------------------------------------------------------------------------------


def hub_with(*, renamed: str = "org/name") -> Hub:
    answer = FakeResponse(data={"id": renamed, "sha": COMMIT})
    revisions = [f"models/org/name/revision/{revision}" for revision in ("main", "v1", "refs%2Fpr%2F3")]
    return hub_over(by_path(dict.fromkeys(["models/org/name", *revisions], answer)))


def test_prepare_finds_type_and_commit(redis: RedisClient) -> None:
    assert MasterNode(hub_with(), redis).prepare(JobRequest("org/name")) == SPEC


def test_prepare_takes_what_it_is_told() -> None:
    request = JobRequest(
        "org/name", RepoType.MODEL, "v1", include=["*.json", "b/"], exclude=("x",), output_dir="/nas/x/"
    )
    assert prepare(hub_with(), request) == SPEC.model_copy(
        update={"revision": "v1", "include": ("*.json", "b/"), "exclude": ("x",), "output_dir": "/nas/x"}
    )


def test_prepare_passes_on_how_to_split_and_to_lay_out() -> None:
    how = {"split_over": 1 << 27, "part_size": 1 << 24, "flat": True}
    spec = prepare(hub_with(), JobRequest("org/name", **how))  # type: ignore[arg-type]
    assert spec == SPEC.model_copy(update=how)
    assert spec.identity() == SPEC.model_copy(update={"flat": True}).identity()


def test_an_address_tells_revision_and_folder() -> None:
    spec = prepare(hub_with(), JobRequest(f"{ENDPOINT}/org/name/tree/refs%2Fpr%2F3/sub"))
    assert (spec.revision, spec.include) == ("refs/pr/3", ("sub/",))


def test_an_address_and_a_flag_that_agree() -> None:
    assert prepare(hub_with(), JobRequest(f"{ENDPOINT}/org/name/tree/v1", revision="v1")).revision == "v1"


def test_an_address_and_a_flag_that_contradict() -> None:
    with pytest.raises(UsageError, match="the address says revision v1, --revision says main"):
        prepare(hub_with(), JobRequest(f"{ENDPOINT}/org/name/tree/v1", revision="main"))
    with pytest.raises(UsageError, match="with --include"):
        prepare(hub_with(), JobRequest(f"{ENDPOINT}/org/name/tree/v1/sub", include=["*.json"]))


def test_a_repo_that_was_renamed_gets_its_new_name(caplog: pytest.LogCaptureFixture) -> None:
    assert prepare(hub_with(renamed="new/name"), JobRequest("org/name")).repo_id == "new/name"
    assert "org/name is called new/name now" in caplog.text


def test_the_output_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for given, expected in {
        "out": f"{tmp_path}/out",
        "~/out": "/home/me/out",
        "/a//b/": "/a/b",
        "": "",
    }.items():
        assert prepare(hub_with(), JobRequest("org/name", output_dir=given)).output_dir == expected


# -- wait ---------------------------------------------------------------------------------------------


class ScriptedView:
    """Shows one look after the other."""

    def __init__(self, looks: Sequence[JobState | Exception], status: JobStatus) -> None:
        self.looks = list(looks)
        self.status = status

    def job(self, _: int) -> JobStatus:
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return self.status.model_copy(update={"state": look})


def waiter(redis: RedisClient, *looks: JobState | Exception) -> tuple[MasterNode, ScriptedView]:
    view = ScriptedView(looks, submit(redis).after)
    master = node(ListedHub(PAGES), redis)
    master._view = cast(RedisView, view)
    return master, view


@pytest.mark.parametrize("end", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
def test_wait_tells_how_the_job_ends(redis: RedisClient, end: JobState) -> None:
    master, view = waiter(redis, JobState.RUNNING, JobState.PAUSED, JobState.RUNNING, end)
    seen: list[JobState] = []
    assert master.wait(1, lambda status: seen.append(status.state), interval=0) is end
    assert seen == [JobState.RUNNING, JobState.PAUSED, JobState.RUNNING, end]
    assert view.looks == []


def test_wait_waits_for_redis_and_says_so_once(redis: RedisClient, caplog: pytest.LogCaptureFixture) -> None:
    away = RedisUnavailableError("Redis at x does not answer")
    master, _ = waiter(redis, JobState.RUNNING, away, away, away, JobState.RUNNING, away, JobState.DONE)
    assert master.wait(1, interval=0) is JobState.DONE
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "Redis at x does not answer; waiting for it to come back"
    ] * 2


def test_wait_survives_a_redis_that_goes_away_under_the_onlooker(redis: RedisClient) -> None:
    master, _ = waiter(redis, JobState.RUNNING, JobState.DONE)
    trouble = [RedisUnavailableError("away")]

    def look(_: JobStatus) -> None:
        if trouble:
            raise trouble.pop()

    assert master.wait(1, look, interval=0) is JobState.DONE


def test_wait_ends_when_the_job_is_forgotten(redis: RedisClient) -> None:
    master, _ = waiter(redis, JobState.RUNNING, UnknownJobError("there is no job 1"))
    with pytest.raises(UnknownJobError):
        master.wait(1, interval=0)


def test_wait_sleeps_between_two_looks(redis: RedisClient, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(master_module, "sleep", slept.append)
    master, _ = waiter(redis, JobState.RUNNING, RedisUnavailableError("away"), JobState.DONE)
    master.wait(1, interval=2.5)
    assert slept == [2.5, 2.5]
