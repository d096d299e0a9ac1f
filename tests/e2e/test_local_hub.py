"""The real client library, in both its majors, takes the local hub for the real one."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distributed_downloader.local_hub import LocalHub
from distributed_downloader.local_hub.demo_repo import write_demo_repo
from distributed_downloader.local_hub.repo import FolderSnapshot, LocalRepo
from tests.hub import sample

OWNER, STRANGER = "hf_owner", "hf_stranger"
SCRIPT = Path(__file__).with_name("hub_client.py")
FILES = sample.model_files()
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repos")
    sample.write_model_repo(folder / "model")
    sample.write_dataset_repo(folder / "dataset")
    write_demo_repo(folder / "demo")
    sample.write_files(folder / "small", {"a.txt": b"a", "b.bin": b"bb"})
    sample.write_files(folder / "pr", {"a.txt": b"proposed"})
    return folder


@pytest.fixture(scope="module")
def hub(folders: Path) -> Iterator[LocalHub]:
    repos: dict[str, Path | LocalRepo] = {
        "models/org/name": LocalRepo(
            folders / "model", refs={"v1.0": folders / "small", "refs/pr/1": folders / "pr"}
        ),
        "models/demo/model": folders / "demo",
        "datasets/org/name": folders / "dataset",
        "spaces/org/app": folders / "small",
        "models/org/private": LocalRepo(folders / "small", readers=[OWNER]),
        "models/org/gated": LocalRepo(folders / "small", readers=[OWNER], gated=True),
    }
    with LocalHub(repos, tokens=[STRANGER], moved={"models/old/name": "models/org/name"}) as hub:
        yield hub


@pytest.fixture(scope="module")
def ask(hub: LocalHub, hub_python: Path, hub_environment: dict[str, str]) -> Iterator[Ask]:
    """Give a function that asks the library in a process of its own."""
    with subprocess.Popen(
        [hub_python, SCRIPT, hub.endpoint],
        env=hub_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline().startswith("1." if "readers1" in str(hub_python) else "2.")

        def ask(question: str, **arguments: object) -> dict[str, Any]:
            assert process.stdin
            assert process.stdout
            print(json.dumps({"ask": question, **arguments}, default=str), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer, "the client has died; its last words are above"
            return dict(json.loads(answer))

        yield ask
        process.stdin.close()
        assert process.wait() == 0


def test_info(ask: Ask, folders: Path) -> None:
    answer = ask("info", repo_id="org/name")
    assert answer["id"] == "org/name"
    assert answer["sha"] == FolderSnapshot(folders / "model").commit
    assert answer["sizes"] == {name: len(content) for name, content in FILES.items()}
    assert answer["sha256"]["model.safetensors"] == hashlib.sha256(FILES["model.safetensors"]).hexdigest()


def test_tree(ask: Ask) -> None:
    answer = ask("tree", repo_id="org/name")
    assert answer["sizes"] == {name: len(content) for name, content in FILES.items()}
    assert answer["oids"]["empty.txt"] == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert set(answer["sha256"]) == {
        "model.safetensors",
        "pytorch_model.bin",
        "vocab/merges.txt",
        "empty.bin",
    }


def test_paths_info(ask: Ask) -> None:
    answer = ask("paths", repo_id="org/name", names=["config.json", "nothing", "docs"])
    assert answer["paths"] == ["config.json", "docs"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "empty.txt", "hash#tag.txt"])
def test_one_file(ask: Ask, tmp_path: Path, name: str) -> None:
    answer = ask("file", repo_id="org/name", filename=name, local_dir=tmp_path)
    assert Path(answer["path"]).read_bytes() == FILES[name]


@pytest.mark.parametrize(
    ("kind", "repo", "source"),
    [("model", "org/name", "model"), ("dataset", "org/name", "dataset"), ("space", "org/app", "small")],
)
def test_a_snapshot_in_a_folder(
    ask: Ask, folders: Path, tmp_path: Path, *, kind: str, repo: str, source: str
) -> None:
    # The library can't write the longest name into a folder: its lock file's name would be longer still.
    longest = [sample.LONGEST_NAME]
    ask("snapshot", repo_id=repo, repo_type=kind, local_dir=tmp_path, ignore_patterns=longest)
    expected = sample.tree(folders / source)
    assert sample.tree(tmp_path) == {name: expected[name] for name in expected if name not in longest}


def test_a_snapshot_in_the_cache(ask: Ask, folders: Path, tmp_path: Path) -> None:
    answer = ask("snapshot", repo_id="org/name", cache_dir=tmp_path)
    assert Path(answer["path"]).name == FolderSnapshot(folders / "model").commit
    assert sample.tree(Path(answer["path"])) == FILES


def test_the_demo_repo(ask: Ask, tmp_path: Path, folders: Path) -> None:
    ask("snapshot", repo_id="demo/model", local_dir=tmp_path)
    assert sample.tree(tmp_path) == sample.tree(folders / "demo")


@pytest.mark.parametrize(("revision", "source"), [("v1.0", "small"), ("refs/pr/1", "pr"), ("commit", "pr")])
def test_revisions(ask: Ask, folders: Path, tmp_path: Path, revision: str, source: str) -> None:
    commit = FolderSnapshot(folders / source).commit
    revision = commit if revision == "commit" else revision
    assert ask("info", repo_id="org/name", revision=revision)["sha"] == commit
    ask("snapshot", repo_id="org/name", revision=revision, local_dir=tmp_path)
    assert sample.tree(tmp_path) == sample.tree(folders / source)


def test_a_renamed_repo(ask: Ask, folders: Path, tmp_path: Path) -> None:
    assert ask("info", repo_id="old/name")["id"] == "org/name"
    ask("snapshot", repo_id="old/name", revision="v1.0", local_dir=tmp_path)
    assert sample.tree(tmp_path) == sample.tree(folders / "small")


def test_private_and_gated_repos_with_a_token(ask: Ask, hub: LocalHub, folders: Path, tmp_path: Path) -> None:
    assert ask("whoami", token=OWNER)["name"] == "local"
    assert ask("info", repo_id="org/private", token=OWNER)["private"]
    for repo in ("org/private", "org/gated"):
        ask("snapshot", repo_id=repo, token=OWNER, local_dir=tmp_path / repo)
        assert sample.tree(tmp_path / repo) == sample.tree(folders / "small")
    assert hub.leaks() == []


@pytest.mark.parametrize(("token", "status"), [(False, 401), (STRANGER, 404)])
def test_a_private_repo_is_not_found(ask: Ask, token: str | bool, status: int) -> None:
    answer = ask("info", repo_id="org/private", token=token)
    assert answer == {"error": "RepositoryNotFoundError", "status": status}


@pytest.mark.parametrize(("token", "status"), [(False, 401), (STRANGER, 403)])
def test_a_gated_repo_is_known_as_such(ask: Ask, tmp_path: Path, token: str | bool, status: int) -> None:
    answer = ask("file", repo_id="org/gated", token=token, filename="a.txt", local_dir=tmp_path)
    assert answer == {"error": "GatedRepoError", "status": status}


def test_what_is_not_there_has_the_errors_that_the_library_knows(ask: Ask, tmp_path: Path) -> None:
    assert ask("info", repo_id="org/none")["error"] == "RepositoryNotFoundError"
    assert ask("info", repo_id="org/name", revision="v9")["error"] == "RevisionNotFoundError"
    missing = ask("file", repo_id="org/name", filename="none.txt", local_dir=tmp_path)
    assert missing == {"error": "RemoteEntryNotFoundError", "status": 404}
