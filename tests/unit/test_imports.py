"""A library whose import fails is whole when it is imported again."""

from __future__ import annotations

import importlib
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
