"""The Lua of each transition, with those of the shared functions that it needs, and no others.

Redis makes every function of a script anew each time that it runs, which takes longer than what most do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

_LUA = Path(__file__).parent / "lua"
_WORD = re.compile(r"[A-Za-z_]\w*")


class _Shared(NamedTuple):
    """A function or a constant that scripts share."""

    text: str
    #: What it defines, and all words in it.
    names: frozenset[str]
    words: frozenset[str]


@cache
def lua_sources() -> Mapping[str, str]:
    """Return the script of each transition by its name, ready to be loaded."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(_LUA.glob("*.lua"))}
    shared = [each for name, text in texts.items() if name.startswith("_") for each in _parts(text)]
    return {name: _needed(shared, text) + text for name, text in texts.items() if not name.startswith("_")}


def _parts(text: str) -> Iterator[_Shared]:
    """Split a shared file where definitions begin: `local` at the beginning of a line."""
    for part in re.split(r"^(?=local )", text, flags=re.MULTILINE)[1:]:
        head = part.partition("=")[0].partition("(")[0].partition("\n")[0]
        yield _Shared(part, frozenset(_WORD.findall(head)) - {"local", "function"}, _words(part))


def _needed(shared: list[_Shared], text: str) -> str:
    """Return what a script needs of the shared parts, in their order: they only need what stands before."""
    wanted, chosen = set(_words(text)), list[str]()
    for each in reversed(shared):
        if each.names & wanted:
            wanted |= each.words
            chosen.append(each.text)
    return "".join(reversed(chosen))


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(re.sub("--.*", "", text)))
