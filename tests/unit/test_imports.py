"""A library whose import fails is whole when it is imported again; what a start does not need comes later."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_downloader.imports import whole_imports

NAME = "half_there"
FILES = {
    "__init__.py": "from .first import *\nfrom .second import *\nVALUE = first.VALUE + second.VALUE\n",
    "first.py": "VALUE = 1\n",
    "second.py": "import os\nos.close(os.open(SWITCH, os.O_RDONLY))\nVALUE = 2\n",
}


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a library that can be imported only if a file is there; returns that file."""
    folder, switch = tmp_path / NAME, tmp_path / "switch"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text.replace("SWITCH", repr(str(switch))))
    monkeypatch.syspath_prepend(tmp_path)
    return switch


def test_what_failed_once_is_imported_whole_the_next_time(switch: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_imports():
        importlib.import_module(NAME)
    assert not [name for name in sys.modules if name.startswith(NAME)]
    switch.touch()
    with whole_imports():
        assert importlib.import_module(NAME).VALUE == 3


def imported(code: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the modules that a new process has when it has run some code, where no proxy is set."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    words = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules, sep='\\n', file=sys.stderr)"]
    return set(subprocess.run(words, capture_output=True, text=True, check=True).stderr.split())


def test_help_imports_no_libraries_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = imported("from distributed_downloader.cli import run; run(['--help'])", monkeypatch)
    assert {"click", "distributed_downloader.cli.worker", "distributed_downloader.cli.forget"} <= found
    assert not found & {"concurrent.futures", "logging", "pydantic", "redis", "requests", "rich", "urllib3"}


def test_a_worker_begins_without_what_it_may_never_need(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from distributed_downloader.assembly import make_worker\n"
        "from distributed_downloader.config import AppConfig\n"
        "from distributed_downloader.redis_client import RedisClient\n"
        "config = AppConfig.model_validate({})\n"
        "make_worker(config, RedisClient(config.redis))"
    )
    found = imported(code, monkeypatch)
    assert {"redis", "urllib3"} <= found
    assert not found & {"hf_xet", "httpx", "huggingface_hub", "requests", "rich.console"}
