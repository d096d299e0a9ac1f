from __future__ import annotations

import logging
import threading

import pytest

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import (
    AccessError,
    AmbiguousRepoError,
    DownloaderError,
    EngineError,
    HubUnavailableError,
    NetworkError,
    NotFoundError,
    RefusedError,
    ServerError,
    StalledError,
    StoppedError,
)
from distributed_downloader.hub import Hub, Patience, file_url
from distributed_downloader.models import RepoType
from tests.unit.fake_http import (
    COMMIT,
    ENDPOINT,
    HASTY,
    FakeHttp,
    FakeResponse,
    api_over,
    by_path,
    hub_over,
    in_turn,
    tree_page,
)

MODEL, DATASET, SPACE = RepoType.MODEL, RepoType.DATASET, RepoType.SPACE
THERE = FakeResponse(data={"id": "org/name", "sha": COMMIT})
GATED = FakeResponse(403, headers={"X-Error-Code": "GatedRepo"}, sent_token=True)
HIDDEN = FakeResponse(401, headers={"X-Error-Code": "RepoNotFound"})


@pytest.mark.parametrize(
    ("endpoint", "repo_type", "commit", "path", "url"),
    [
        (ENDPOINT, MODEL, COMMIT, "a.bin", f"/org/name/resolve/{COMMIT}/a.bin"),
        (f"{ENDPOINT}/", DATASET, COMMIT, "a.bin", f"/datasets/org/name/resolve/{COMMIT}/a.bin"),
        (ENDPOINT, SPACE, "refs/pr/1", "a.bin", "/spaces/org/name/resolve/refs%2Fpr%2F1/a.bin"),
        (ENDPOINT, MODEL, "main", "d/a b#c%d?e.bin", "/org/name/resolve/main/d/a%20b%23c%25d%3Fe.bin"),
        (ENDPOINT, MODEL, "main", "é", "/org/name/resolve/main/%C3%A9"),
    ],
)
def test_file_url(endpoint: str, repo_type: RepoType, commit: str, path: str, url: str) -> None:
    assert file_url(endpoint, repo_type, "org/name", commit, path) == ENDPOINT + url


def test_file_url_keeps_the_path_of_an_endpoint() -> None:
    assert file_url("http://lan:1/hf/", MODEL, "gpt2", "main", "x") == "http://lan:1/hf/gpt2/resolve/main/x"


def test_file_url_is_what_huggingface_hub_makes_of_it() -> None:
    from huggingface_hub import hf_hub_url

    for kind in RepoType:
        for path in ("a.bin", "d/ü #%?&+.bin"):
            theirs = hf_hub_url(
                "org/name", path, repo_type=kind.value, revision="refs/pr/1", endpoint=ENDPOINT
            )
            assert file_url(ENDPOINT, kind, "org/name", "refs/pr/1", path) == theirs


@pytest.mark.parametrize("there", [THERE, GATED])
@pytest.mark.parametrize("missing", [HIDDEN, FakeResponse(404), FakeResponse(401)])
@pytest.mark.parametrize("kind", list(RepoType))
def test_the_one_type_that_exists_is_found(
    kind: RepoType, there: FakeResponse, missing: FakeResponse
) -> None:
    answers = {f"{each.value}s/org/name": missing for each in RepoType}
    assert hub_over(by_path({**answers, f"{kind.value}s/org/name": there})).find_type("org/name") is kind


def test_the_question_is_cheap() -> None:
    http = by_path({"models/org/name": THERE})
    hub_over(http).find_type("org/name")
    assert http.paths == ["/api/models/org/name?expand=sha", "/api/datasets/org/name?expand=sha"]


def test_a_model_and_a_dataset_of_one_name_are_told_apart_by_flags_that_are_named() -> None:
    http = by_path({"models/org/name": THERE, "datasets/org/name": GATED})
    with pytest.raises(AmbiguousRepoError) as caught:
        hub_over(http).find_type("org/name")
    assert "--repo-type model or --repo-type dataset" in str(caught.value)
    assert "models/org/name or datasets/org/name" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_space_is_only_the_demo_of_a_model_with_its_name() -> None:
    http = by_path({"models/org/name": THERE, "spaces/org/name": THERE})
    assert hub_over(http).find_type("org/name") is MODEL


def test_nothing_of_that_name() -> None:
    with pytest.raises(NotFoundError, match=r"no model, dataset or space org/name.*private.*HF_TOKEN"):
        hub_over(by_path({})).find_type("org/name")


def test_a_token_that_is_refused_is_told_and_not_taken_for_absence() -> None:
    with pytest.raises(AccessError, match="refuses the token"):
        hub_over(FakeHttp(lambda _: FakeResponse(401, sent_token=True))).find_type("org/name")


def test_pin_tells_the_commit_and_the_present_name() -> None:
    http = in_turn(FakeResponse(data={"id": "new/name", "sha": COMMIT, "siblings": [], "gated": "auto"}))
    assert hub_over(http).pin(DATASET, "old/name", "refs/pr/1") == ("new/name", COMMIT)
    assert http.paths == ["/api/datasets/old/name/revision/refs%2Fpr%2F1?expand=sha"]


def test_pin_takes_a_commit_for_what_it_is() -> None:
    assert hub_over(in_turn(THERE)).pin(MODEL, "org/name", COMMIT) == ("org/name", COMMIT)
    assert hub_over(in_turn(THERE)).pin(MODEL, "org/name", COMMIT[:7])[1] == COMMIT


def test_another_commit_than_the_one_asked_for_is_no_answer() -> None:
    with pytest.raises(ServerError, match="another commit"):
        hub_over(in_turn(THERE)).pin(MODEL, "org/name", "1" * 40)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {"id": "org/name"},
        {"id": "org/name", "sha": None},
        {"id": "org/name", "sha": "main"},
        {"id": "org/name", "sha": COMMIT.upper()},
        {"id": "org/name", "sha": f"{COMMIT}\n"},
        {"id": "../../etc", "sha": COMMIT},
        {"sha": COMMIT},
    ],
)
def test_a_summary_of_another_shape_is_the_servers_fault(data: object) -> None:
    http = FakeHttp(lambda _: FakeResponse(data=data))
    with pytest.raises(ServerError, match=f"models/org/name at main: {ENDPOINT} does not tell"):
        hub_over(http).pin(MODEL, "org/name", "main")
    assert len(http.sent) == 1, "asking again gives the same"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (FakeResponse(404, headers={"X-Error-Code": "RevisionNotFound"}), NotFoundError),
        (HIDDEN, NotFoundError),
        (GATED, AccessError),
        (FakeResponse(400), EngineError),
        (RefusedError("a redirect to nowhere"), RefusedError),
    ],
)
def test_what_cannot_help_is_not_tried_again(
    answer: FakeResponse | Exception, expected: type[DownloaderError]
) -> None:
    http = FakeHttp(lambda _: answer)
    with pytest.raises(expected):
        hub_over(http).pin(MODEL, "org/name", "main")
    assert len(http.sent) == 1


@pytest.mark.parametrize(
    "fault",
    [
        NetworkError("reset"),
        StalledError("silent"),
        ServerError("not JSON"),
        FakeResponse(500),
        FakeResponse(503),
        FakeResponse(429, headers={"Retry-After": "0"}),
        FakeResponse(503, headers={"Retry-After": "0"}),
    ],
)
def test_what_passes_is_waited_for(fault: FakeResponse | Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    patience = Patience(faults=60, asked=900, first=0.001)
    http = in_turn(fault, fault, THERE)
    assert hub_over(http, patience).pin(MODEL, "org/name", "main") == ("org/name", COMMIT)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    first, second = (message.partition("; trying again in ")[0] for message in caplog.messages)
    assert first != second == "no change", "the reason is told once"


@pytest.mark.parametrize("fault", [NetworkError("no route"), FakeResponse(502)])
def test_patience_ends(fault: FakeResponse | Exception) -> None:
    http = FakeHttp(lambda _: fault)
    with pytest.raises(HubUnavailableError, match="gave up after 5 tries") as caught:
        hub_over(http).pin(MODEL, "org/name", "main")
    assert len(http.sent) == 5
    assert caught.value.exit_code == 3


def test_patience_with_pauses_that_are_asked_for_is_counted_apart() -> None:
    pauses = [FakeResponse(429, headers={"Retry-After": "0"})] * 4
    patience = Patience(faults=0, asked=2.5, first=0)
    http = in_turn(*pauses)
    with pytest.raises(HubUnavailableError, match=r"asks for a pause of 0 s \(429\); gave up after 3 tries"):
        hub_over(http, patience).find_type("org/name")


def test_a_pause_longer_than_our_patience_is_not_begun() -> None:
    with pytest.raises(HubUnavailableError, match="3600 s"):
        hub_over(in_turn(FakeResponse(429, headers={"Retry-After": "99999"}))).pin(MODEL, "org/name", "main")


def test_the_default_patience_outlasts_a_window_of_the_hub_and_two_minutes_of_faults() -> None:
    assert Patience().faults == 120
    assert Patience().asked >= 2 * 301


def test_stop_ends_a_pause() -> None:
    asleep = threading.Event()

    def script(_: object) -> FakeResponse:
        asleep.set()
        return FakeResponse(429, headers={"Retry-After": "500"})

    hub, caught = hub_over(FakeHttp(script), Patience()), []

    def ask(hub: Hub) -> None:
        try:
            hub.pin(MODEL, "org/name", "main")
        except StoppedError as error:
            caught.append(str(error))

    thread = threading.Thread(target=ask, args=[hub])
    thread.start()
    asleep.wait()
    hub.stop("enough")
    thread.join()
    assert caught == ["enough"]
    with pytest.raises(StoppedError):
        hub.find_type("org/name")


def test_a_call_can_be_cancelled_alone() -> None:
    cancel, http = Cancel(), in_turn(THERE)
    cancel.set("not needed")
    api = api_over(http)
    with pytest.raises(StoppedError, match="not needed"):
        api.call("models/x", "x", cancel=cancel)
    assert api.call("models/x", "x").data == THERE.data


def test_a_form_is_posted() -> None:
    http = in_turn(FakeResponse(data=[]))
    api_over(http).call("models/x/paths-info/main", "x", form=b"paths=a")
    assert [(sent.method, sent.body) for sent in http.sent] == [("POST", b"paths=a")]


def test_the_hub_knows_its_address_without_a_slash() -> None:
    http = in_turn(tree_page([]))
    hub = Hub(hub_over(http)._api._http, f"{ENDPOINT}/", HASTY)
    assert hub.endpoint == ENDPOINT
    assert list(hub.pages(SPACE, "org/name", COMMIT)) == [[]]
    assert http.paths == [f"/api/spaces/org/name/tree/{COMMIT}?recursive=true&expand=false"]
