"""Imports that may fail and be tried again: a library that is there by half would stay broken for ever."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def whole_imports() -> Iterator[None]:
    """Let a package whose import fails be imported anew the next time, with all that is in it.

    Python forgets a package that fails, but not the modules in it that were loaded by then; loaded once more,
    the package lacks the names that loading these would have given it.
    """
    before = set(sys.modules)
    try:
        yield
    except Exception:
        for name in sorted(sys.modules.keys() - before):  # a package comes before what is in it
            package = name.rpartition(".")[0]
            if package and package not in sys.modules:
                del sys.modules[name]
        raise
