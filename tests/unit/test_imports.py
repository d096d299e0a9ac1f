"""A library whose import fails is whole when it is imported again; what a start does not need comes later."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import distributed_downloader
from distributed_downloader.imports import quick_imports, whole_imports

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
    assert not found & {"concurrent.futures", "json", "logging", "pydantic", "redis", "requests", "rich"}
    assert "urllib3" not in found


def test_the_package_imports_nothing_until_a_name_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import distributed_downloader as package; assert {*package.__all__} <= {*dir(package)}"
    found = imported(code, monkeypatch)
    assert [name for name in found if name.startswith("distributed_downloader.")] == []
    assert not found & {"logging", "pydantic", "redis"}


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(hasattr(distributed_downloader, name) for name in distributed_downloader.__all__)
    assert not hasattr(distributed_downloader, "upload")


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
    assert not found & {"hf_xet", "httpx", "huggingface_hub", "requests", "rich.console", "difflib"}
    ours = {"hub.lister", "nas_aggregator", "redis_deliveries", "redis_files", "redis_view"}
    assert not found & {f"distributed_downloader.{name}" for name in ours}


@pytest.mark.parametrize("error", [None, ImportError])
def test_garbage_is_collected_again_after_imports(error: type[Exception] | None) -> None:
    assert gc.isenabled()
    with suppress(ImportError), quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            pass
        assert not gc.isenabled()
        if error:
            raise error
    assert gc.isenabled()


def test_a_worker_collects_its_garbage_while_it_runs() -> None:
    code = (
        "import gc, sys\n"
        "from distributed_downloader import __main__, assembly\n"
        "def made(*args, **options): raise SystemExit(10 + gc.isenabled())\n"
        "assembly.make_worker = made\n"
        "sys.argv[1:] = ['worker']\n"
        "try: __main__.main()\n"
        "finally: print(gc.isenabled(), gc.get_freeze_count() > 10000)"
    )
    words = [sys.executable, "-c", code]
    assert subprocess.run(words, capture_output=True, text=True, check=False).stdout == "True True\n"


def test_no_foreign_code_reads_our_settings(tmp_path: Path) -> None:
    """Pydantic loads what installed packages call its plugins, which see all that it validates."""
    about = tmp_path / "nosy-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nosy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[pydantic]\nnosy = nosy:plugin\n")
    (tmp_path / "nosy.py").write_text("raise SystemExit('here I am')\n")
    words = [sys.executable, "-m", "distributed_downloader", "config"]
    environ = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**environ, "PYTHONPATH": str(tmp_path)}
    )
    assert (done.returncode, done.stderr) == (0, "")
