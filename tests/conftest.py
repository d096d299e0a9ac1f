"""What all tests share: how Python starts, what runs first, and that no log is left to the next test."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest

# Hundreds of tests start the program: compiled once and kept, it is there in a third of the time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Undo what a command that runs in this process does to the log."""
    loggers = [logging.getLogger(), logging.getLogger("distributed_downloader.reports")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


#: They mostly wait, for leases and faults: others have the processor meanwhile, unless these come last.
_FIRST = ("test_slurm.py", "test_chaos.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes long."""
    items.sort(key=lambda item: item.path.name not in _FIRST)
