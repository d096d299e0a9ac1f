"""Imports that may fail and be tried again, and those of a start, which have to be quick."""

from __future__ import annotations

import gc
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


@contextmanager
def quick_imports() -> Iterator[None]:
    """Keep the garbage collector from looking again and again at what is imported: none of it is garbage.

    Nor does it look at that later, or when the process ends.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
