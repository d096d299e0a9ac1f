"""A hub whose faults are scripted, and what downloads from it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from distributed_downloader.local_hub.repo import LocalRepo
from tests.hub.faulty import FaultyHub
from tests.hub.sample import HTML, ODD_NAMES, write_files
from tests.net.kit import Bench

#: What this machine's own network needs must not decide how a test goes.
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")

FILES = {
    "big.bin": random.Random(7).randbytes(300_000),
    "other.bin": random.Random(8).randbytes(5_000),
    "small.json": b'{"hidden_size": 384}',
    "page.html": HTML.encode(),
    "folder/deep/leaf.txt": b"leaf\n",
    "empty.txt": b"",
    **{name: f"content of {name}\n".encode() for name in ODD_NAMES},
}


@pytest.fixture(autouse=True)
def _own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_NETWORK, *(name.lower() for name in _NETWORK), *_CERTIFICATES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_files(folder, FILES)
    return folder


@pytest.fixture(scope="session")
def repo(source: Path) -> LocalRepo:
    return LocalRepo(source)


@pytest.fixture
def bench(source: Path, repo: LocalRepo, tmp_path: Path) -> Iterator[Bench]:
    repos = {"models/org/name": repo, "datasets/org/name": repo, "models/single": repo}
    with FaultyHub(repos, tokens=["hf_secret"]) as hub:
        bench = Bench(hub, source, tmp_path / "out")
        yield bench
        bench.close()
