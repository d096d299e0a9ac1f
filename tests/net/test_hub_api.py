"""The master's side of the hub over real sockets: pages, pins, faults, and where the token goes."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from distributed_downloader.config import HuggingFaceConfig
from distributed_downloader.errors import (
    AccessError,
    AmbiguousRepoError,
    EngineError,
    HubUnavailableError,
    NotFoundError,
    RefusedError,
    ServerError,
)
from distributed_downloader.hub import Hub, Patience, file_url
from distributed_downloader.local_hub.http import Record
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.master import JobRequest, prepare
from distributed_downloader.models import RepoFile, RepoType
from distributed_downloader.plan import Plan
from distributed_downloader.ssl_config import READ_TIMEOUT, HttpClient
from tests.hub import sample
from tests.hub.faults import (
    CursorLoop,
    Drop,
    DropCursor,
    Edit,
    EndlessListing,
    ErrorPage,
    Fault,
    ForeignLink,
    Hang,
    Header,
    RateLimited,
    Redirect,
    Reset,
    SmallPages,
    Status,
    Truncate,
    also_listed,
    duplicated,
    masked,
)
from tests.hub.faulty import FaultyHub
from tests.hub.synthetic import SyntheticSnapshot

MODEL, DATASET, SPACE = RepoType.MODEL, RepoType.DATASET, RepoType.SPACE
TOKEN = "hf_" + "t" * 34
#: Faults pass fast, and end soon.
HASTY = Patience(faults=0.004, asked=60, first=0.001, longest=0.001)
PATIENT = Patience(faults=60, asked=60, first=0.001, longest=0.001)
MANY = 2500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample.write_model_repo(tmp_path_factory.mktemp("model"))


@pytest.fixture
def hub(folder: Path, tmp_path: Path) -> Iterator[FaultyHub]:
    other = tmp_path / "other"
    sample.write_files(other, {"a.txt": b"a"})
    repos: dict[str, Path | LocalRepo] = {
        "models/org/name": LocalRepo(folder, refs={"v1": other, "refs/pr/1": other, "feature/x": other}),
        "models/org/many": LocalRepo(SyntheticSnapshot(MANY)),
        "models/org/both": other,
        "datasets/org/both": other,
        "datasets/org/data": other,
        "spaces/org/demo": other,
        "spaces/org/name": other,
        "models/org/gated": LocalRepo(folder, readers=[TOKEN], gated=True),
        "models/org/private": LocalRepo(other, readers=[TOKEN]),
    }
    moved = {"models/old/name": "models/org/name"}
    with FaultyHub(repos, moved=moved) as hub:
        yield hub


def client(
    hub: FaultyHub, token: str = "", patience: Patience = HASTY, read_timeout: float = READ_TIMEOUT
) -> Hub:
    settings = HuggingFaceConfig(endpoint=hub.endpoint, token=SecretStr(token))
    return Hub(HttpClient(settings, read_timeout=read_timeout), hub.endpoint, patience)


def listed(hub: Hub, repo: str = "org/name", kind: RepoType = MODEL) -> list[RepoFile]:
    repo_id, commit = hub.pin(kind, repo, "main")
    return [file for page in hub.pages(kind, repo_id, commit) for file in page]


def expected(count: int = MANY) -> list[str]:
    return [entry.path for entry in SyntheticSnapshot(count)]


def paths(files: list[RepoFile]) -> list[str]:
    return [file.path for file in files]


# -- listing ------------------------------------------------------------------------------------------


def test_a_listing_is_what_lies_in_the_repo(hub: FaultyHub) -> None:
    files = {file.path: file for file in listed(client(hub))}
    assert {path: file.size for path, file in files.items()} == {
        path: len(content) for path, content in sample.model_files().items()
    }
    assert files["model.safetensors"].sha256
    assert files["config.json"].git_sha1
    assert files["empty.txt"].git_sha1 == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_every_listed_file_is_found_at_its_address(hub: FaultyHub) -> None:
    api = client(hub)
    _, commit = api.pin(MODEL, "org/name", "main")
    http = HttpClient(HuggingFaceConfig(endpoint=hub.endpoint))
    for file in listed(api):
        with http.open("GET", file_url(api.endpoint, MODEL, "org/name", commit, file.path)) as response:
            assert response.status == 200, file.path
            assert sum(len(data) for data in iter(lambda: response.read1(1 << 16), b"")) == file.size


def test_pages_of_a_thousand(hub: FaultyHub) -> None:
    api = client(hub)
    _, commit = api.pin(MODEL, "org/many", "main")
    assert [len(page) for page in api.pages(MODEL, "org/many", commit)] == [1000, 1000, 500]
    assert paths(listed(api, "org/many")) == expected()


def test_small_pages(hub: FaultyHub) -> None:
    hub.on(SmallPages(7), times=None)
    assert paths(listed(client(hub), "org/many")) == expected()


def test_the_address_of_a_page_has_the_commit_not_the_branch(hub: FaultyHub) -> None:
    listed(client(hub), "org/many")
    pages = hub.log.records("tree")
    assert len(pages) == 3
    assert {record.request.rev for record in pages} == {SyntheticSnapshot(MANY).commit}


@pytest.mark.parametrize("fault", [CursorLoop(), EndlessListing(), DropCursor()])
def test_a_hub_that_turns_in_circles_is_left_and_everything_is_listed_once(
    hub: FaultyHub, fault: Fault
) -> None:
    hub.on(fault, times=None)
    found = paths(listed(client(hub), "org/many"))
    assert sorted(found) == expected()
    assert len(hub.log.records("tree")) <= 4
    assert [len(record.request.body) > 0 for record in hub.log.records("paths")] == [True, True]


def test_a_mirror(hub: FaultyHub) -> None:
    hub.be_a_mirror()
    assert sorted(paths(listed(client(hub), "org/many"))) == expected()
    names = set(sample.model_files())
    assert set(paths(listed(client(hub)))) == names, "one page is enough for a small repo"


def test_a_hub_that_answers_otherwise_each_time_is_not_believed(hub: FaultyHub) -> None:
    # The second page links to itself, and so does the first one when it is asked for again.
    hub.on(CursorLoop(), skip=1, times=None)
    with pytest.raises(ServerError, match="use another --endpoint"):
        listed(client(hub), "org/many")


def test_links_to_another_host_are_followed_at_home(hub: FaultyHub) -> None:
    with FaultyHub({}) as foreign:
        hub.on(ForeignLink(foreign.endpoint), times=None)
        assert paths(listed(client(hub, TOKEN), "org/many")) == expected()
        assert foreign.log.records() == []
    assert all(record.request.token == TOKEN for record in hub.log.records("tree"))


def test_a_link_with_another_path_is_followed_at_home(hub: FaultyHub) -> None:
    hub.on(ForeignLink("https://upstream.invalid/some/where"), times=None)
    assert paths(listed(client(hub), "org/many")) == expected()


def test_a_redirect_to_another_host_does_not_take_the_token_along(hub: FaultyHub) -> None:
    with FaultyHub({"models/org/many": LocalRepo(SyntheticSnapshot(MANY))}) as foreign:
        hub.on(Redirect(foreign.endpoint), route="tree", times=None)
        assert paths(listed(client(hub, TOKEN), "org/many")) == expected()
        assert foreign.log.records("tree")
        assert [record for record in foreign.log.records() if record.request.token] == []


def test_an_endpoint_with_a_path(folder: Path) -> None:
    repos = {"models/org/many": LocalRepo(SyntheticSnapshot(MANY)), "models/org/name": LocalRepo(folder)}
    with FaultyHub(repos, prefix="/hub/mirror", moved={"models/old/name": "models/org/name"}) as hub:
        assert hub.endpoint.endswith("/hub/mirror")
        api = client(hub)
        assert paths(listed(api, "org/many")) == expected()
        assert api.pin(MODEL, "old/name", "main")[0] == "org/name"
        # Whether the upstream's link has our prefix or not is all the same.
        hub.on(ForeignLink(hub.endpoint.removesuffix("/hub/mirror")), times=None)
        assert paths(listed(api, "org/many")) == expected()
        spec = prepare(api, JobRequest(f"{hub.endpoint}/org/name/tree/main/docs"))
        assert (spec.repo_id, spec.include) == ("org/name", ("docs/",))


def test_masked_hashes_are_no_hashes(hub: FaultyHub) -> None:
    hub.on(masked(), times=None)
    files = {file.path: file for file in listed(client(hub))}
    assert (files["model.safetensors"].sha256, files["model.safetensors"].git_sha1) == (None, None)
    assert files["config.json"].git_sha1


def test_a_gated_repo_is_listed_and_its_hashes_are_told_to_readers_only(hub: FaultyHub) -> None:
    def hashes(api: Hub) -> set[bool]:
        return {file.sha256 is not None for file in listed(api, "org/gated") if file.path.endswith(".bin")}

    assert client(hub).find_type("org/gated") is MODEL
    assert hashes(client(hub)) == {False}
    assert hashes(client(hub, TOKEN)) == {True, False} - {False} or hashes(client(hub, TOKEN)) == {
        True,
        False,
    }


def test_duplicates_are_queued_once(hub: FaultyHub) -> None:
    hub.on(duplicated(), times=None)
    api = client(hub)
    _, commit = api.pin(MODEL, "org/many", "main")
    found = [file.path for page in Plan().pages(api.pages(MODEL, "org/many", commit)) for file in page]
    assert found == expected()


def test_dangerous_paths_are_refused_and_the_rest_is_listed(hub: FaultyHub) -> None:
    evil = ["../../evil", "/etc/passwd", "a\\b", "C:x", ".hf-downloader/partial/x", "a//b", "x\ny", "e" * 256]
    hub.on(also_listed(evil), times=None)
    api, plan = client(hub), Plan()
    _, commit = api.pin(MODEL, "org/name", "main")
    found = {file.path for page in plan.pages(api.pages(MODEL, "org/name", commit)) for file in page}
    assert found == set(sample.model_files())
    assert [skipped.path for skipped in plan.skipped] == evil


def change(**new: object) -> Edit:
    """Change every line of a page."""
    return Edit(lambda page: [{**line, **new} for line in page])


@pytest.mark.parametrize("size", [-1, True, "7", 10**18])
def test_absurd_sizes_are_refused(hub: FaultyHub, size: object) -> None:
    hub.on(change(size=size, lfs=None), times=None)
    with pytest.raises(ServerError, match=r"listing of models/org/name cannot be read: 0\.size"):
        listed(client(hub))


def test_sizes_that_lack_are_asked_for(hub: FaultyHub) -> None:
    hub.on(change(size=None, lfs=None), route="tree", times=None)
    assert {file.path: file.size for file in listed(client(hub))} == {
        path: len(content) for path, content in sample.model_files().items()
    }


@pytest.mark.parametrize(
    "edit",
    [
        lambda _: {"error": "no"},
        lambda _: None,
        lambda page: [page],
        lambda page: [{**line, "path": 7} for line in page],
        lambda page: [{"path": line["path"]} for line in page],
    ],
)
def test_a_page_of_another_shape_is_named(
    hub: FaultyHub, edit: Callable[[list[dict[str, Any]]], object]
) -> None:
    hub.on(Edit(edit), times=None)
    with pytest.raises(ServerError, match="the listing of models/org/name cannot be read"):
        listed(client(hub))


# -- faults on the way --------------------------------------------------------------------------------

PASSING: list[Fault] = [
    Status(500),
    Status(502),
    Status(503),
    Status(504),
    Status(408),
    RateLimited(retry_after="0"),
    Status(503, headers=(("Retry-After", "0"),)),
    Drop(),
    Truncate(after=10),
    Reset(after=10),
    ErrorPage(),
]


@pytest.mark.parametrize("fault", PASSING, ids=repr)
@pytest.mark.parametrize("route", ["info", "tree"])
def test_what_passes_is_waited_for(hub: FaultyHub, route: str, fault: Fault) -> None:
    rule = hub.on(fault, route=route, times=2)
    assert paths(listed(client(hub, patience=PATIENT), "org/many")) == expected()
    assert rule.struck == 2


@pytest.mark.parametrize("fault", PASSING, ids=repr)
def test_in_the_middle_of_a_listing_too(hub: FaultyHub, fault: Fault) -> None:
    hub.on(fault, route="tree", skip=1, times=2)
    assert paths(listed(client(hub, patience=PATIENT), "org/many")) == expected()


@pytest.mark.parametrize("fault", [Status(500), Drop(), Truncate(after=10), ErrorPage()], ids=repr)
def test_what_does_not_pass_ends_as_unavailable(hub: FaultyHub, fault: Fault) -> None:
    hub.on(fault, route="info", method="GET", times=None)
    with pytest.raises(HubUnavailableError, match="gave up after 5 tries") as caught:
        client(hub).pin(MODEL, "org/name", "main")
    assert caught.value.exit_code == 3


def test_a_hub_that_stays_silent_is_unavailable(hub: FaultyHub) -> None:
    hub.on(Hang(), route="info", times=None)
    with pytest.raises(HubUnavailableError):
        client(hub, read_timeout=0.05).pin(MODEL, "org/name", "main")


def test_a_hub_that_is_not_there_is_unavailable(hub: FaultyHub) -> None:
    api = client(hub)
    hub.close()
    with pytest.raises(HubUnavailableError):
        api.find_type("org/name")


def test_a_pause_beyond_patience_is_not_begun(hub: FaultyHub) -> None:
    hub.on(RateLimited(window=300), times=None)
    with pytest.raises(HubUnavailableError, match="pause of 301 s"):
        client(hub).find_type("org/name")


def test_leaving_a_listing_breaks_off_a_request_that_hangs(hub: FaultyHub) -> None:
    hang = Hang()
    hub.on(hang, route="tree", skip=1)
    api = client(hub)
    _, commit = api.pin(MODEL, "org/many", "main")
    before = threading.active_count()
    with closing(api.pages(MODEL, "org/many", commit)) as pages:
        assert len(next(pages)) == 1000
        assert hang.reached.wait(60)
    assert threading.active_count() <= before + 1, "the lister has ended; the local hub still hangs"
    hang.release.set()


@pytest.mark.parametrize(
    ("status", "error"), [(400, EngineError), (403, AccessError), (404, NotFoundError), (410, NotFoundError)]
)
def test_a_refusal_in_the_middle_of_a_listing_is_no_end_of_it(
    hub: FaultyHub, status: int, error: type[Exception]
) -> None:
    hub.on(Status(status), route="tree", skip=1)
    with pytest.raises(error):
        listed(client(hub), "org/many")


def test_redirects_in_a_circle(hub: FaultyHub) -> None:
    hub.on(Redirect(), route="info", times=None)
    with pytest.raises(HubUnavailableError, match="circle"):
        client(hub).pin(MODEL, "org/name", "main")


def test_redirects_to_what_is_no_hub(hub: FaultyHub) -> None:
    hub.on(Redirect("file:///etc/passwd"), route="info", times=None)
    with pytest.raises(RefusedError):
        client(hub).pin(MODEL, "org/name", "main")


# -- types, revisions, access -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repo", "kind"), [("org/name", MODEL), ("org/data", DATASET), ("org/demo", SPACE), ("old/name", MODEL)]
)
def test_the_type_is_found(hub: FaultyHub, repo: str, kind: RepoType) -> None:
    assert client(hub).find_type(repo) is kind


def test_a_name_with_two_types(hub: FaultyHub) -> None:
    with pytest.raises(AmbiguousRepoError, match="--repo-type model or --repo-type dataset"):
        client(hub).find_type("org/both")


@pytest.mark.parametrize("token", ["", TOKEN])
def test_a_name_with_no_type(hub: FaultyHub, token: str) -> None:
    with pytest.raises(NotFoundError, match=r"check the spelling.*HF_TOKEN"):
        client(hub, token).find_type("org/none")


def test_a_private_repo_is_there_for_its_readers_only(hub: FaultyHub) -> None:
    assert client(hub, TOKEN).find_type("org/private") is MODEL
    with pytest.raises(NotFoundError, match="private"):
        client(hub).find_type("org/private")
    with pytest.raises(NotFoundError, match=r"is private.*set HF_TOKEN"):
        client(hub).pin(MODEL, "org/private", "main")
    assert paths(listed(client(hub, TOKEN), "org/private")) == ["a.txt"]


def test_a_wrong_token_is_told_and_not_shown(hub: FaultyHub) -> None:
    wrong = "hf_" + "w" * 34
    api = client(hub, wrong)
    with pytest.raises(AccessError, match="refuses the token") as caught:
        api.find_type("org/name")
    assert wrong not in str(caught.value)
    with pytest.raises(AccessError, match="refuses the token") as caught:
        api.pin(MODEL, "org/name", "main")
    assert wrong not in str(caught.value)


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", "feature/x"])
def test_revisions_are_pinned(hub: FaultyHub, revision: str) -> None:
    api = client(hub)
    repo_id, commit = api.pin(MODEL, "org/name", revision)
    assert (repo_id, len(commit)) == ("org/name", 40)
    assert [file.path for page in api.pages(MODEL, repo_id, commit) for file in page] == ["a.txt"]
    assert api.pin(MODEL, "org/name", commit) == (repo_id, commit)
    assert api.pin(MODEL, "org/name", commit[:10]) == (repo_id, commit)


def test_a_branch_that_moves_does_not_change_a_pin(hub: FaultyHub, tmp_path: Path) -> None:
    api = client(hub)
    _, commit = api.pin(DATASET, "org/data", "main")
    sample.write_files(tmp_path / "new", {"b.txt": b"b"})
    hub.repos["datasets/org/data"].push("main", tmp_path / "new")
    assert [file.path for page in api.pages(DATASET, "org/data", commit) for file in page] == ["a.txt"]
    assert api.pin(DATASET, "org/data", "main")[1] != commit


@pytest.mark.parametrize("revision", ["v2", "refs/pr/9", "0" * 40])
def test_a_revision_that_is_not_there(hub: FaultyHub, revision: str) -> None:
    with pytest.raises(NotFoundError, match="no such revision"):
        client(hub).pin(MODEL, "org/name", revision)


def test_a_renamed_repo_is_followed_to_its_name(hub: FaultyHub) -> None:
    api = client(hub)
    assert api.pin(MODEL, "old/name", "main") == api.pin(MODEL, "org/name", "main")
    spec = prepare(api, JobRequest("old/name", revision="refs/pr/1"))
    assert (spec.repo_id, spec.revision, spec.repo_type) == ("org/name", "refs/pr/1", MODEL)


def test_an_answer_that_is_no_hubs(hub: FaultyHub) -> None:
    hub.on(Edit(lambda _: {"hello": "world"}), route="info", times=None)
    with pytest.raises(ServerError, match="is it a hub"):
        client(hub).pin(MODEL, "org/name", "main")


def test_a_lost_error_code_is_no_harm(hub: FaultyHub) -> None:
    hub.on(Header("X-Error-Code"), route="info", times=None)
    assert client(hub).find_type("org/data") is DATASET


def test_no_token_goes_anywhere_but_to_the_hub(hub: FaultyHub) -> None:
    listed(client(hub, TOKEN), "org/many")
    assert hub.leaks() == []


# -- memory -------------------------------------------------------------------------------------------


def peak_of(count: int) -> int:
    """Return the most memory that our side takes for a listing of so many files, in bytes."""
    with FaultyHub({"models/org/many": LocalRepo(SyntheticSnapshot(count))}) as hub:
        api = client(hub)
        _, commit = api.pin(MODEL, "org/many", "main")
        hub.log.add = Record  # type: ignore[method-assign]  # the log keeps all pages otherwise
        tracemalloc.start()
        total = sum(map(len, Plan().pages(api.pages(MODEL, "org/many", commit))))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert total == count
    return peak


def test_memory_does_not_grow_with_the_length_of_a_listing() -> None:
    peak_of(3000)  # imports and caches
    assert peak_of(20_000) < 2 * peak_of(5_000)
