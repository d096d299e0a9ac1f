"""Where a value came from, and how sources that overlap go together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from distributed_downloader.config.sentinels import is_sentinel_url, parse_sentinel_url
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


def settle_address(given: dict[str, Given]) -> None:
    """Keep one way to name the server, and refuse a stronger part that it contradicts.

    That of the strongest source counts; of equal ones the URL, then the sentinels, then the host.
    """
    ways = [way for way in ("url", "sentinels", "host") if f"redis.{way}" in given]
    if not ways:
        return
    way = min(ways, key=lambda way: given[f"redis.{way}"].rank)
    chosen = given[f"redis.{way}"]
    if way != "url":
        given.pop("redis.url", None)
    if way != "sentinels" and "redis.sentinels" in given:
        del given["redis.sentinels"]
        given.pop("redis.service", None)
    for key in {"url": decided_by(str(chosen.value)), "sentinels": {"port"}, "host": set()}[way]:
        part = given.get(f"redis.{key}")
        if part is not None and part.rank < chosen.rank:
            raise ConfigError(
                f"{part.source}: [redis] {key} is also in the [redis] {way} of {chosen.source}; "
                "change it there, or give the host here as well"
            )


def decided_by(url: str) -> set[str]:
    """Return the keys of [redis] that play no part beside this URL; `username`, `password` and `db` may."""
    with contextlib.suppress(ValueError):  # the model says what is wrong with it
        return _decided_by_sentinels(url) if is_sentinel_url(url) else _decided_by_address(url)
    return set()


def _decided_by_sentinels(url: str) -> set[str]:
    said = parse_sentinel_url(url)
    logins = {"username": said.username, "password": said.password, "db": said.db is not None}
    return {"host", "port", "tls"} | {key for key, there in logins.items() if there}


def _decided_by_address(url: str) -> set[str]:
    parts = split_url(url)
    query = parse_qs(parts.query)
    keys = {"host", "port", "tls"} if url else set()
    keys |= {key for key in ("username", "password") if key in query or getattr(parts, key)}
    in_path = parts.scheme != "unix" and parts.path.strip("/")
    return keys | {"db"} if in_path or "db" in query else keys
