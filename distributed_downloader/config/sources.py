"""Where a value came from, and how sources that overlap go together."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from distributed_downloader.config.values import split_url
from distributed_downloader.errors import ConfigError

#: Strength of a source, the strongest first.
FLAG, ENVIRONMENT, FILE, LOGIN = range(4)


@dataclass(frozen=True)
class Given:
    """A value as it was found, and where."""

    value: object
    #: As in `ConfigManager.sources`.
    source: str
    #: One of the strengths above.
    rank: int


def login_file(environ: Mapping[str, str]) -> Path:
    """Return where `hf auth login` keeps its token; raises RuntimeError without a home folder."""
    if environ.get("HF_TOKEN_PATH"):
        return Path(environ["HF_TOKEN_PATH"]).expanduser()
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home, "token").expanduser()


def login(environ: Mapping[str, str]) -> Given | None:
    """Return the token that `hf auth login` left, if any; raises ConfigError where it cannot be read."""
    try:
        path = login_file(environ)
        token = path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file of `hf auth login` cannot be read: {error}") from None
    return Given(token, str(path), LOGIN) if token else None


def settle_url(given: dict[str, Given]) -> None:
    """Drop a URL that a stronger host replaces; refuse a stronger part that the URL contradicts."""
    url, host = given.get("redis.url"), given.get("redis.host")
    if url is None:
        return
    if host is not None and host.rank < url.rank:
        del given["redis.url"]
        return
    for key in decided_by(str(url.value)):
        part = given.get(f"redis.{key}")
        if part is not None and part.rank < url.rank:
            raise ConfigError(
                f"{part.source}: [redis] {key} is also in the [redis] url of {url.source}; "
                "change it there, or give the host here as well"
            )


def decided_by(url: str) -> set[str]:
    """Return the keys of [redis] that play no part beside this URL; `username`, `password` and `db` may."""
    with contextlib.suppress(ValueError):  # the model says what is wrong with it
        parts = split_url(url)
        query = parse_qs(parts.query)
        keys = {"host", "port", "tls"} if url else set()
        keys |= {key for key in ("username", "password") if key in query or getattr(parts, key)}
        in_path = parts.scheme != "unix" and parts.path.strip("/")
        return keys | {"db"} if in_path or "db" in query else keys
    return set()


def redact(text: str) -> str:
    """Hide what may be secret in an address: user, password and query."""
    return re.sub(r"\?.*", "?...", re.sub(r"//.*@", "//...@", text), flags=re.DOTALL)
