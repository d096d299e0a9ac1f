"""The local hub says what the real one says."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from distributed_downloader.local_hub import LocalHub
from distributed_downloader.local_hub.repo import FolderSnapshot, LocalRepo
from tests.hub import sample
from tests.hub.client import Answer, ask, bearer, connect, send
from tests.hub.synthetic import SyntheticSnapshot

OWNER, STRANGER = "hf_owner", "hf_stranger"
FILES = sample.model_files()
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repos")
    sample.write_model_repo(folder / "model")
    sample.write_dataset_repo(folder / "dataset")
    sample.write_files(folder / "small", {"a.txt": b"a", "sub/b.txt": b"bb"})
    sample.write_files(folder / "pr", {"a.txt": b"proposed"})
    return folder


@pytest.fixture(scope="module")
def hub(folders: Path) -> Iterator[LocalHub]:
    small = folders / "small"
    repos: dict[str, Path | LocalRepo] = {
        "models/org/name": folders / "model",
        "models/gpt": small,
        "datasets/org/name": folders / "dataset",
        "spaces/org/app": small,
        "models/org/refs": LocalRepo(small, refs={"v1.0": small, "refs/pr/1": folders / "pr"}),
        "models/org/private": LocalRepo(small, readers=[OWNER]),
        "models/org/gated": LocalRepo(folders / "model", readers=[OWNER], gated=True),
        "models/org/million": LocalRepo(SyntheticSnapshot(1_000_000)),
    }
    moved = {"models/old/name": "models/org/name", "datasets/old": "datasets/org/name"}
    with LocalHub(repos, tokens=[STRANGER], moved=moved) as hub:
        yield hub


def resolve(hub: LocalHub, file: str, repo: str = "org/name", rev: str = "main") -> str:
    return f"{hub.endpoint}/{repo}/resolve/{rev}/{urllib.parse.quote(file)}"


def place(hub: LocalHub, file: str, repo: str = "org/name") -> str:
    """Return the URL that the hub redirects to."""
    url = resolve(hub, file, repo)
    return urllib.parse.urljoin(url, ask(url).location)


def refused(answer: Answer) -> tuple[int, str | None]:
    assert answer.headers["X-Error-Message"] == answer.json["error"]
    return answer.status, answer.headers["X-Error-Code"]


# --- who asks


def test_whoami_knows_tokens(hub: LocalHub) -> None:
    url = hub.endpoint + "/api/whoami-v2"
    assert ask(url, bearer(OWNER)).json["type"] == "user"
    assert ask(url).status == 401
    answer = ask(url, bearer("hf_unknown"))
    assert refused(answer) == (401, None)
    assert answer.json["error"] == "Invalid credentials in Authorization header"


def test_an_unknown_repo_is_401_for_the_nameless_and_404_for_the_named(hub: LocalHub) -> None:
    url = hub.endpoint + "/api/models/org/nothing"
    assert refused(ask(url)) == (401, "RepoNotFound")
    assert refused(ask(url, bearer(OWNER))) == (404, "RepoNotFound")


def test_an_unknown_token_is_refused_even_for_public_repos(hub: LocalHub) -> None:
    assert ask(hub.endpoint + "/api/models/org/name", bearer("hf_unknown")).status == 401


@pytest.mark.parametrize("what", ["/api/models/org/private", "/api/models/org/private/tree/main"])
def test_a_private_repo_exists_for_its_readers_only(hub: LocalHub, what: str) -> None:
    assert refused(ask(hub.endpoint + what)) == (401, "RepoNotFound")
    assert refused(ask(hub.endpoint + what, bearer(STRANGER))) == (404, "RepoNotFound")
    assert ask(hub.endpoint + what, bearer(OWNER)).status == 200
    assert ask(resolve(hub, "a.txt", "org/private"), bearer(OWNER)).status == 307


def test_a_gated_repo_shows_its_listing_with_masked_hashes_but_no_content(hub: LocalHub) -> None:
    info, listing = (f"{hub.endpoint}/api/models/org/gated{rest}" for rest in ("", "/tree/main"))
    assert ask(info).json["gated"] == "auto"
    lfs = [line["lfs"]["oid"] for line in ask(listing, bearer(STRANGER)).json if "lfs" in line]
    assert lfs
    assert set(lfs) == {"*" * 64}
    assert "*" not in ask(listing, bearer(OWNER)).body.decode()
    for file in (WEIGHTS, "config.json"):
        url = resolve(hub, file, "org/gated")
        assert refused(ask(url)) == (401, "GatedRepo")
        assert refused(ask(url, bearer(STRANGER), method="GET")) == (403, "GatedRepo")
        assert ask(url, bearer(OWNER), method="HEAD").status in (302, 307)


# --- what there is


def test_info_names_the_commit_and_the_files(hub: LocalHub, folders: Path) -> None:
    info = ask(hub.endpoint + "/api/models/org/name").json
    assert info["sha"] == FolderSnapshot(folders / "model").commit
    assert {line["rfilename"] for line in info["siblings"]} == set(FILES)
    assert not info["private"]
    assert "size" not in info["siblings"][0]


def test_info_with_blobs_has_sizes_and_hashes(hub: LocalHub) -> None:
    info = ask(hub.endpoint + "/api/models/org/name?blobs=true").json
    assert {line["rfilename"]: line["size"] for line in info["siblings"]} == {
        name: len(content) for name, content in FILES.items()
    }
    assert {line["rfilename"] for line in info["siblings"] if "lfs" in line} == {
        WEIGHTS,
        "pytorch_model.bin",
        "vocab/merges.txt",
        "empty.bin",
    }


@pytest.mark.parametrize("name", ["models/gpt", "datasets/org/name", "spaces/org/app"])
def test_all_types_and_names_without_an_owner(hub: LocalHub, name: str) -> None:
    assert ask(f"{hub.endpoint}/api/{name}").json["id"] == name.split("/", 1)[1]
    assert ask(f"{hub.endpoint}/api/{name}/revision/main").status == 200
    assert ask(f"{hub.endpoint}/api/{name}/tree/main").status == 200
    assert ask(f"{hub.endpoint}/{name.removeprefix('models/')}/resolve/main/README").status == 404


def test_info_cuts_the_siblings_of_big_repos(hub: LocalHub) -> None:
    assert len(ask(hub.endpoint + "/api/models/org/million").json["siblings"]) == 10_000


@pytest.mark.parametrize("rev", ["main", "v1.0", "refs%2Fpr%2F1", "refs/pr/1"])
def test_revisions_by_name(hub: LocalHub, folders: Path, rev: str) -> None:
    expected = FolderSnapshot(folders / ("pr" if "pr" in rev else "small")).commit
    assert ask(f"{hub.endpoint}/api/models/org/refs/revision/{rev}").json["sha"] == expected
    assert ask(f"{hub.endpoint}/api/models/org/refs/tree/{rev}").json[0]["path"] == "a.txt"
    assert ask(resolve(hub, "a.txt", "org/refs", rev)).headers["X-Repo-Commit"] == expected


def test_revisions_by_commit(hub: LocalHub, folders: Path) -> None:
    commit = FolderSnapshot(folders / "pr").commit
    for rev in (commit, commit[:7]):
        assert ask(f"{hub.endpoint}/api/models/org/refs/revision/{rev}").json["sha"] == commit


@pytest.mark.parametrize("what", ["revision/v9", "tree/v9", "revision/" + "0" * 40, "tree/abc"])
def test_an_unknown_revision(hub: LocalHub, what: str) -> None:
    assert refused(ask(f"{hub.endpoint}/api/models/org/name/{what}")) == (404, "RevisionNotFound")


def test_old_commits_stay_when_a_branch_moves(tmp_path: Path) -> None:
    sample.write_files(tmp_path, {"old/a.txt": b"old", "new/a.txt": b"new"})
    repo = LocalRepo(tmp_path / "old")
    with LocalHub({"models/r": repo}) as hub:
        old = ask(hub.endpoint + "/api/models/r").json["sha"]
        repo.push("main", tmp_path / "new")
        assert ask(hub.endpoint + "/api/models/r").json["sha"] == FolderSnapshot(tmp_path / "new").commit
        assert ask(place_of(hub, "r", old)).body == b"old"
        assert ask(place_of(hub, "r", "main")).body == b"new"


def place_of(hub: LocalHub, repo: str, rev: str) -> str:
    return urllib.parse.urljoin(hub.endpoint, ask(resolve(hub, "a.txt", repo, rev)).location)


def test_what_is_not_there_is_404(hub: LocalHub) -> None:
    assert ask(hub.endpoint + "/pricing").status == 404
    assert ask(hub.cdn + "/api/whoami-v2", bearer(OWNER)).status == 404
    assert ask(hub.endpoint + "/lfs/models/org/name/" + "0" * 40 + "/x").status == 404


# --- listings


def pages(url: str, headers: dict[str, str] | None = None) -> Iterator[list[dict[str, Any]]]:
    while url:
        answer = ask(url, headers)
        assert answer.status == 200, answer.body
        yield answer.json
        link = answer.headers["Link"] or ""
        assert not link or link.endswith('>; rel="next"')
        url = link.partition(">")[0].removeprefix("<")


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_make_up_the_whole_tree(hub: LocalHub, limit: int) -> None:
    found = list(pages(f"{hub.endpoint}/api/models/org/name/tree/main?recursive=true&limit={limit}"))
    assert all(len(page) == limit for page in found[:-1])
    lines = [line for page in found for line in page]
    assert {line["path"]: line["size"] for line in lines if line["type"] == "file"} == {
        name: len(content) for name, content in FILES.items()
    }
    assert {line["path"] for line in lines if line["type"] == "directory"} >= {"docs", "deep/deep", "日本語"}


def test_a_line_of_the_tree(hub: LocalHub) -> None:
    lines = ask(hub.endpoint + "/api/models/org/name/tree/main").json
    assert next(line for line in lines if line["path"] == "empty.txt") == {
        "type": "file",
        "oid": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        "size": 0,
        "path": "empty.txt",
    }


def test_a_tree_that_is_not_recursive_shows_one_level(hub: LocalHub) -> None:
    url = hub.endpoint + "/api/models/org/name/tree/main"
    assert all("/" not in line["path"] for line in ask(url).json)
    assert [line["path"] for line in ask(url + "/deep/deep?recursive=false").json] == ["deep/deep/deep"]
    assert len(ask(url + "/deep/deep?recursive=True").json) == 11


@pytest.mark.parametrize(("rest", "status"), [("/no/folder", 404), ("?limit=x", 400), ("?cursor=*", 400)])
def test_a_tree_that_makes_no_sense(hub: LocalHub, rest: str, status: int) -> None:
    assert ask(f"{hub.endpoint}/api/models/org/name/tree/main{rest}").status == status


def test_an_expanded_tree_has_commits_and_small_pages(hub: LocalHub) -> None:
    answer = ask(hub.endpoint + "/api/models/org/million/tree/main?recursive=true&expand=true")
    assert len(answer.json) == 50
    assert answer.json[0]["lastCommit"]["id"] == SyntheticSnapshot(1_000_000).commit


def test_a_million_files_are_listed_page_by_page(hub: LocalHub) -> None:
    url = hub.endpoint + "/api/models/org/million/tree/main?recursive=true"
    first = ask(url)
    assert len(first.json) == 1000
    cursor = urllib.parse.parse_qs(first.headers["Link"])["cursor"][0].partition(">")[0]
    assert cursor == "MTAwMA=="
    last = ask(url + "&cursor=OTk5MDAw")
    assert last.json[-1]["path"] == "part-999/file-0999999.txt"
    assert last.headers["Link"] is None


def test_paths_info_takes_forms_and_json_and_drops_what_is_unknown(hub: LocalHub) -> None:
    url = hub.endpoint + "/api/models/org/name/paths-info/main"
    wanted = [WEIGHTS, "docs", "nothing", "日本語/中文 文件.txt"]
    form = urllib.parse.urlencode({"paths": wanted, "expand": "false"}, doseq=True).encode()
    by_form = ask(url, {"Content-Type": "application/x-www-form-urlencoded"}, method="POST", body=form)
    as_json = {"Content-Type": "application/json"}
    by_json = ask(url, as_json, method="POST", body=json.dumps({"paths": wanted}).encode())
    assert [line["path"] for line in by_form.json] == [WEIGHTS, "docs", "日本語/中文 文件.txt"]
    assert by_json.json == by_form.json
    assert by_json.json[0]["lfs"]["size"] == len(FILES[WEIGHTS])
    many = json.dumps({"paths": ["x"] * 1001}).encode()
    assert ask(url, as_json, method="POST", body=many).status == 413


# --- files


def test_a_git_file_is_redirected_within_the_hub(hub: LocalHub, folders: Path) -> None:
    answer = ask(resolve(hub, "config.json"), method="HEAD")
    assert answer.status == 307
    assert answer.location.startswith("/api/resolve-cache/models/org/name/")
    assert answer.headers["X-Repo-Commit"] == FolderSnapshot(folders / "model").commit
    assert answer.headers["X-Linked-Size"] is None
    content = ask(hub.endpoint + answer.location)
    assert content.body == FILES["config.json"]
    assert content.headers["X-Repo-Commit"] == answer.headers["X-Repo-Commit"]


def test_an_lfs_file_is_redirected_to_the_other_origin(hub: LocalHub) -> None:
    answer = ask(resolve(hub, WEIGHTS), method="HEAD")
    assert answer.status == 302
    assert answer.location.startswith(hub.cdn)
    assert answer.headers["X-Linked-Size"] == str(len(FILES[WEIGHTS]))
    assert len(answer.headers["X-Linked-Etag"].strip('"')) == 64
    # The length of the redirect's own text, a trap for those who take it for the file's.
    assert answer.headers["Content-Length"] != answer.headers["X-Linked-Size"]
    content = ask(answer.location)
    assert content.body == FILES[WEIGHTS]
    assert content.headers["ETag"] != answer.headers["X-Linked-Etag"]


@pytest.mark.parametrize("file", sorted(FILES))
def test_every_file_comes_out_as_it_is(hub: LocalHub, file: str) -> None:
    url = place(hub, file)
    assert ask(url).body == FILES[file]
    head = ask(url, method="HEAD")
    assert (head.body, head.headers["Content-Length"]) == (b"", str(len(FILES[file])))


@pytest.mark.parametrize("file", ["nothing", "docs", "../small/a.txt", "/etc/passwd"])
def test_an_unknown_file(hub: LocalHub, file: str) -> None:
    answer = ask(resolve(hub, file))
    assert refused(answer) == (404, "EntryNotFound")
    assert answer.headers["X-Repo-Commit"]


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json"])
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-99", 10, 99),
        ("bytes=1000-", 1000, None),
        ("bytes=-7", -7, None),
        ("bytes=5-999999999", 5, None),
        ("bytes=-999999999", 0, None),
    ],
)
def test_ranges(hub: LocalHub, file: str, asked: str, first: int, last: int | None) -> None:
    size = len(FILES[file])
    first, last = first % size, size - 1 if last is None else last
    answer = ask(place(hub, file), {"Range": asked})
    assert answer.status == 206
    assert answer.body == FILES[file][first : last + 1]
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        (WEIGHTS, "bytes=999999999-"),
        ("empty.txt", "bytes=0-0"),
        ("empty.bin", "bytes=0-"),
        (WEIGHTS, "bytes=-0"),
    ],
)
def test_ranges_that_are_not_there(hub: LocalHub, file: str, asked: str) -> None:
    answer = ask(place(hub, file), {"Range": asked})
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["Content-Range"] == f"bytes */{len(FILES[file])}"


@pytest.mark.parametrize("asked", ["bytes=-", "lines=1-2", "bytes=1-2,5-6", "nonsense"])
def test_ranges_that_mean_nothing_give_the_whole_file(hub: LocalHub, asked: str) -> None:
    answer = ask(place(hub, "config.json"), {"Range": asked})
    assert (answer.status, answer.body) == (200, FILES["config.json"])


def test_if_range_guards_a_range(hub: LocalHub) -> None:
    url = place(hub, WEIGHTS)
    tag = ask(url, method="HEAD").headers["ETag"]
    assert ask(url, {"Range": "bytes=9-", "If-Range": tag}).status == 206
    assert ask(url, {"Range": "bytes=9-", "If-Range": '"other"'}).body == FILES[WEIGHTS]


# --- links of the CDN


def test_a_link_needs_its_signature_and_nothing_else(hub: LocalHub) -> None:
    url = place(hub, WEIGHTS)
    assert ask(url, method="HEAD").status == 200
    for wrong in (url[:-1] + "%C3%A9", url.partition("?")[0], url.replace("Expires=1", "Expires=2")):
        assert ask(wrong).status == 403
    assert ask(url.replace(WEIGHTS, "pytorch_model.bin")).status == 403


def test_links_expire(folders: Path) -> None:
    repos = {"models/org/name": folders / "model"}
    with LocalHub(repos, link_seconds=-1) as hub:
        assert ask(place(hub, WEIGHTS)).status == 403
    with LocalHub(repos) as hub:
        url = place(hub, WEIGHTS)
        assert ask(url, method="HEAD").status == 200
        hub.expire_links()
        answer = ask(url)
        assert answer.status == 403
        assert b"expired" in answer.body
        assert ask(place(hub, WEIGHTS), method="HEAD").status == 200


def test_tokens_at_the_cdn_are_remembered(folders: Path) -> None:
    with LocalHub({"models/org/name": folders / "model"}, tokens=[OWNER]) as hub:
        url = place(hub, WEIGHTS)
        ask(url, method="HEAD")
        ask(hub.endpoint + "/api/models/org/name", bearer(OWNER))
        assert hub.leaks() == []
        ask(url, bearer(OWNER), method="HEAD")
        assert [leak.token for leak in hub.leaks()] == [OWNER]


# --- manners


def test_renamed_repos_are_redirected_with_path_and_query(hub: LocalHub) -> None:
    listing = ask(hub.endpoint + "/api/models/old/name/tree/main?recursive=true")
    assert (listing.status, listing.location) == (307, "/api/models/org/name/tree/main?recursive=true")
    file = ask(hub.endpoint + "/datasets/old/resolve/main/data/test.csv", method="HEAD")
    assert (file.status, file.location) == (307, "/datasets/org/name/resolve/main/data/test.csv")


def test_a_hub_under_a_prefix(folders: Path) -> None:
    with LocalHub({"models/org/name": folders / "model"}, prefix="/mirrors/hf") as hub:
        assert hub.endpoint.endswith("/mirrors/hf")
        base = hub.endpoint.removesuffix("/mirrors/hf")
        assert ask(base + "/api/models/org/name").status == 404
        listing = hub.endpoint + "/api/models/org/name/tree/main?recursive=true&limit=20"
        assert sum(len(page) for page in pages(listing)) > len(FILES)
        assert ask(place(hub, "config.json")).body == FILES["config.json"]
        assert ask(place(hub, WEIGHTS)).body == FILES[WEIGHTS]


def test_quotas_are_told_and_kept(folders: Path) -> None:
    with LocalHub({"models/org/name": folders / "model"}, quotas={"api": 2, "resolvers": 1}) as hub:
        url = hub.endpoint + "/api/models/org/name"
        assert ask(url).headers["RateLimit"].startswith('"api";r=1;t=')
        assert ask(url).headers["RateLimit-Policy"] == '"fixed window";"api";q=2;w=300'
        over = ask(url)
        assert over.status == 429
        assert over.headers["RateLimit"].startswith('"api";r=0;t=')
        redirected = ask(resolve(hub, "config.json"))
        assert redirected.headers["RateLimit"].startswith('"resolvers";r=0;t=')
        assert ask(resolve(hub, "config.json")).status == 429
        content = ask(hub.endpoint + redirected.location)
        assert (content.status, content.headers["RateLimit"]) == (200, None)


def test_one_connection_serves_many_requests(hub: LocalHub) -> None:
    connection = connect(hub.endpoint)
    try:
        for method in ("HEAD", "GET", "GET"):
            assert send(connection, resolve(hub, "config.json"), method=method).status == 307
            assert send(connection, hub.endpoint + "/api/models/org/none").status == 401
            connection.auto_open = 0  # from here on a closed connection would be an error
    finally:
        connection.close()


def test_many_clients_at_once(hub: LocalHub) -> None:
    url = place(hub, WEIGHTS)
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: ask(url, {"Range": "bytes=100-199"}).body, range(200)))
    assert set(answers) == {FILES[WEIGHTS][100:200]}


def test_the_log_has_every_request(folders: Path) -> None:
    with LocalHub({"models/org/name": folders / "model"}) as hub:
        ask(place(hub, WEIGHTS), {"Range": "bytes=5-", "X-Mine": "1"})
        assert hub.log.wait(lambda: all(record.done for record in hub.log.records()))
        redirected, sent = hub.log.records()
        assert (redirected.request.route, redirected.request.origin) == ("resolve", "hub")
        assert (sent.request.route, sent.request.origin, sent.request.file) == ("cdn", "cdn", WEIGHTS)
        assert sent.request.headers["x-mine"] == "1"
        assert (sent.reply.status, sent.reply.sent) == (206, len(FILES[WEIGHTS]) - 5)
        assert hub.log.records("resolve", method="HEAD") == []
        assert not hub.log.wait(lambda: False, timeout=0)


def test_closing_cuts_connections_and_leaves_no_thread(folders: Path) -> None:
    before = set(threading.enumerate())
    with LocalHub({"models/org/name": folders / "model"}) as hub:
        idle = connect(hub.endpoint)
        assert send(idle, hub.endpoint + "/api/models/org/name").status == 200
    assert idle.sock.recv(1) == b""
    idle.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        ask(hub.endpoint + "/api/models/org/name")


def test_a_bug_of_the_hub_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sample.write_files(tmp_path / "r", {"a.bin": b"a"})
    with LocalHub({"models/r": tmp_path / "r"}) as hub:
        url = place(hub, "a.bin", "r")
        (tmp_path / "r" / "a.bin").unlink()
        with pytest.raises(http.client.IncompleteRead):
            ask(url)
    assert "FileNotFoundError" in capfd.readouterr().err
