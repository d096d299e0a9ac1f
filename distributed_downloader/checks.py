"""What numbers, addresses, folders and names may be, wherever they come from; the base of all models."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

#: The largest number that Lua, JSON and a file's size agree on; as bytes it is 9 PB.
MOST = 1 << 53
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]")
#: What a person wrote once is short; an address of more characters is somebody's trick.
_LONGEST = 4096
#: What the origin of most addresses is spelled like.
_PLAIN_ORIGIN = re.compile(r"https?://[\w.-]+(?::\d+)?(?=/)", re.ASCII)


class Model(BaseModel):
    """Base of all models: immutable, and strict about unknown fields and numbers that are none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def number(text: str) -> int:
    """Return a whole number that is written in plain digits; raises ValueError for anything else."""
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > MOST:
        raise ValueError(f"{text[:40]!a} is not a number from 0 to 2^53")
    return int(text)


def number_or(text: str | None, default: int) -> int:
    """Return the number, or `default` where there is none that makes sense."""
    try:
        return number(text or "")
    except ValueError:
        return default


def hub_address(url: str) -> str:
    """Return the address of a hub as it is; raises ValueError for anything else."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote a password
        usable = False
    if not usable or len(url) > _LONGEST or re.search(r"\s", url) or _CONTROL.search(url):
        raise ValueError("must be a URL that starts with https:// or http://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL without user, password, `?` and `#`")
    return url


def host_glob(glob: str) -> str:
    """Return a glob of host names as it is; raises ValueError for anything else."""
    if not re.fullmatch(r"[\w.*?-]{1,253}", glob, re.ASCII):
        raise ValueError("must be host names without scheme, port and path, such as *.storage.example")
    if re.search(r"[*?]", glob.rstrip(".").rpartition(".")[2]):
        raise ValueError("must end in a whole name, or strangers could give theirs to one: *.storage.example")
    return glob


def origin(url: str) -> str:
    """Return `scheme://host:port` of a URL, with the port always there."""
    plain = _PLAIN_ORIGIN.match(url)
    return _origin(plain[0] if plain else url)


@lru_cache(256)
def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def folder(path: str) -> str:
    """Return a folder's absolute path, or "" for none; raises ValueError for anything else."""
    rooted = path.startswith("/") and not path.startswith("//")
    if path and (not rooted or ".." in PurePosixPath(path).parts or len(path) > _LONGEST):
        raise ValueError("must be an absolute path without `..`")
    return plain(path)


def plain(text: str) -> str:
    """Return text that has no control characters, nor halves of surrogate pairs; raises ValueError."""
    if _CONTROL.search(text):
        raise ValueError("must not hold control characters")
    return text


Count = Annotated[int, Field(ge=0, le=MOST)]
Endpoint = Annotated[str, AfterValidator(hub_address)]
Folder = Annotated[str, AfterValidator(folder)]
#: Id of a folder; see storage/place.py.
PlaceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{0,64}$")]
