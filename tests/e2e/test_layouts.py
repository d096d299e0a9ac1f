"""What `--layout` leaves is read by the real libraries, offline, in both majors of huggingface_hub."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from distributed_downloader.local_hub.repo import FolderSnapshot
from tests.e2e.conftest import synced
from tests.e2e.fleet import Fleet, until
from tests.hub import sample
from tests.hub.faulty import FaultyHub
from tests.servers import Server

SCRIPT = Path(__file__).with_name("readers.py")
VOCABULARY = {"[UNK]": 0, "hello": 1, "world": 2}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "Whitespace"},
    "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[UNK]"},
}
MODEL = {
    "config.json": json.dumps({"model_type": "bert", "hidden_size": 48}).encode(),
    "tokenizer.json": json.dumps(TOKENIZER).encode(),
    "tokenizer_config.json": json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    ).encode(),
    "model.safetensors": b"weights" * 700_000,
    "copy.safetensors": b"weights" * 700_000,
    "vocab/a b.txt": b"deep",
    "empty.txt": b"",
}
DATASET = {"README.md": b"# rows\n", "data/train.csv": b"a,b\n1,x\n2,y\n", "data/test.csv": b"a,b\n3,z\n"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    sample.write_files(folder / "model", MODEL)
    sample.write_files(folder / "data", DATASET)
    return folder


@pytest.fixture(scope="module")
def hub(sources: Path) -> Iterator[FaultyHub]:
    with FaultyHub({"models/org/model": sources / "model", "datasets/org/data": sources / "data"}) as hub:
        yield hub


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, hub: FaultyHub, redis_server: Server) -> Iterator[Fleet]:
    """Return a fleet of two workers, one of which splits files."""
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    client.flushall()
    client.close()
    fleet = Fleet(
        tmp_path_factory.mktemp("machine"), redis_server.config.url.get_secret_value(), hub.endpoint
    )
    fleet.worker()
    fleet.worker()
    until(lambda: len(fleet.live()) == 2, "two workers")
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def cache(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache that the fleet has filled, the large files in parts."""
    folder = tmp_path_factory.mktemp("cache")
    words = ("--layout", "hf-cache", "-o", str(folder), "--wait", "--split", "1MiB")
    fleet.run("master", "org/model", *words)
    fleet.run("master", "datasets/org/data", *words)
    return folder


@pytest.fixture(scope="module")
def local(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a local folder that the fleet has filled."""
    folder = tmp_path_factory.mktemp("local")
    fleet.run("master", "org/model", "--layout", "local-dir", "-o", str(folder), "--wait")
    return folder / "org" / "model"


@pytest.fixture(scope="module", params=["1", "2"])
def python(request: pytest.FixtureRequest) -> Path:
    """Return a Python with huggingface_hub 1.x, then 2.x, and the libraries on top of it."""
    return synced(f"readers{request.param}")


def call(*command: str | Path, **environ: str) -> str:
    """Run a program of a library, with nothing of ours in its environment; return what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        command, env=kept | quiet | environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_libraries_read_it_offline(
    python: Path, cache: Path, local: Path, sources: Path, tmp_path: Path
) -> None:
    snapshot = cache / "models--org--model" / "snapshots" / FolderSnapshot(sources / "model").commit
    environ = {"HF_HUB_CACHE": str(cache), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    said = call(python, SCRIPT, "org/model", "org/data", str(local), **environ)
    seen: dict[str, Any] = json.loads(said.splitlines()[-1])
    config = MODEL["config.json"].decode()
    assert seen["version"].startswith(f"{python.parent.parent.name[-1]}.")
    # Only what is ours is unknown to it.
    ours = (f"{cache}/.hf-downloader", f"{cache}/_status.json")
    warnings = [text for text in seen["cache"].pop("warnings") if not text.endswith(ours)]
    assert warnings == []
    assert seen["cache"] == {
        "file": config,
        "file_of_commit": config,
        "deep": "deep",
        "found": str(snapshot / "config.json"),
        "snapshot": str(snapshot),
        "snapshot_of_commit": str(snapshot),
        "snapshot_of_patterns": str(snapshot),
        # Files of one content are one blob.
        "repos": [["org/data", "dataset", len(DATASET)], ["org/model", "model", len(set(MODEL.values()))]],
        "refs": ["main", "main"],
        "hidden_size": 48,
        "tokens": [1, 2],
        "rows": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
    }
    assert seen["local"] == {"folder": str(local), "folder_of_commit": str(local), "file": config}


def test_the_library_verifies_a_cache(cache: Path, hub: FaultyHub, python: Path, tmp_path: Path) -> None:
    environ = {"HF_HUB_CACHE": str(cache), "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint}
    call(python.with_name("hf"), "cache", "verify", "org/model", "--fail-on-extra-files", **environ)


def test_the_library_fetches_nothing_into_a_local_folder(
    local: Path, hub: FaultyHub, python: Path, tmp_path: Path
) -> None:
    before = len(hub.log.records())
    environ = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint}
    call(python.with_name("hf"), "download", "org/model", "--local-dir", str(local), **environ)
    asked = [record.request for record in hub.log.records()[before:]]
    assert asked, "the library did not ask the hub"
    assert not [request for request in asked if request.method == "GET" and "/resolve/" in request.path]


def test_both_layouts_have_every_byte(cache: Path, local: Path) -> None:
    (snapshot,) = (cache / "models--org--model" / "snapshots").iterdir()
    assert sample.tree(snapshot) == sample.tree(local) == MODEL
    links = [path for path in snapshot.rglob("*") if not path.is_dir()]
    assert all(path.is_symlink() and not path.readlink().is_absolute() for path in links)
