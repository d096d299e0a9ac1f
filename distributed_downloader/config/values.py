"""How the values of the settings are written: bytes, switches, folders, addresses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field

from distributed_downloader.models import RepoType

#: What a repo's type looks like in front of its name.
TYPES = tuple(f"{kind.value}s/" for kind in RepoType)
_PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_BYTES = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(?:([kmgt])(i)?)?(b)?", re.IGNORECASE | re.ASCII)
_PER_SECOND = re.compile(r"(?:/s|ps)$", re.IGNORECASE)
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True)
class From:
    """Where else a key can be set, and what it takes."""

    flag: str = ""
    env: str = ""
    allowed: str = "text"
    #: Whether it is an amount of bytes, which people write with a unit.
    is_bytes: bool = False


def parse_bytes(text: str) -> int:
    """Return the bytes in `10MB/s` (10^6), `1.5 MiB` (2^20) or `500k`; raises ValueError otherwise."""
    return _parse(_PER_SECOND.sub("", text.strip()), "10MB/s, 1.5MiB/s or 0")


def parse_size(text: str) -> int:
    """Return the bytes in `128MiB` (2^20), `1.5 GB` (10^9) or `500k`; raises ValueError otherwise."""
    return _parse(text.strip(), "128MiB, 1.5GB or 0")


def _parse(text: str, examples: str) -> int:
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a number of bytes such as {examples}")
    number, prefix, binary, unit = (part or "" for part in match.groups())
    if prefix.isupper() and unit == "b":
        raise ValueError(f"must be in bytes: {prefix}{binary}b would mean bits, write {prefix}{binary}B")
    value = float(number) * (1024 if binary else 1000) ** _PREFIXES[prefix.lower()]
    # Never round a tiny limit down to 0, which means no limit.
    return max(int(value), 1) if value else 0


def write_bytes(count: int) -> str:
    """Return what `parse_bytes` reads as exactly `count`, as short as can be: `128MiB`, `10MB`, `0`."""
    shortest = str(count)
    for prefix, power in _PREFIXES.items():
        for unit, size in ((f"{prefix.upper()}iB", 1024**power), (f"{prefix.upper()}B", 1000**power)):
            if power and count and count % size == 0:
                shortest = min(f"{count // size}{unit}", shortest, key=len)
    return shortest


def _switch(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lower() not in _TRUE | _FALSE:
        raise ValueError("must be true or false (also: yes/no, on/off, 1/0)")
    return value.lower() in _TRUE


def _rate(value: object) -> object:
    return parse_bytes(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def absolute(text: str) -> str:
    """Expand `~` and make the path absolute; raises ValueError for quotes and for `~` without a home."""
    if text[:1] in ("'", '"'):
        raise ValueError("must be written without quotes")
    try:
        return str(Path.cwd() / Path(text).expanduser()) if text else ""
    except RuntimeError:
        raise ValueError("must be an absolute path, for this user has no home folder") from None


def listed(text: str) -> tuple[str, ...]:
    """Return the words of a list that is written with commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def each(text: str, check: Callable[[str], object]) -> str:
    """Return a list whose words all pass; raises ValueError that names the first that does not."""
    for word in listed(text):
        try:
            check(word)
        except ValueError as error:
            shown = redact(word).encode(errors="replace").decode()  # pydantic takes no half of a character
            raise ValueError(f"{shown} {error}") from None
    return text


def repo_glob(glob: str) -> None:
    """Pass what some repo's name may match; raises ValueError for anything else."""
    name = glob.split("/", 1)[1] if glob.startswith(TYPES) else glob
    if not name or name.count("/") > 1 or name.strip("/") != name or re.search(r"[\s:]", name):
        raise ValueError("matches no repo: it must be like org/*, org/name or datasets/org/*")


def redact(text: str) -> str:
    """Hide what may be secret in an address: user, password and query."""
    return re.sub(r"\?.*", "?...", re.sub(r"//.*@", "//...@", text), flags=re.DOTALL)


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL whose port is a number; raises ValueError otherwise."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a bad port shows only when it is read
    except ValueError:
        # The library's own text may quote a password that holds a `/`.
        raise ValueError("must be a URL; percent-encode special characters in its password") from None
    return parts


Switch = Annotated[bool, BeforeValidator(_switch)]
Rate = Annotated[int, BeforeValidator(_rate), Field(ge=0)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]
LogFormat = Annotated[Literal["text", "json"], BeforeValidator(_lower)]
