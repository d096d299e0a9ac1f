"""The settings in effect as people may see them: each with its source, and without what is secret."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import SecretStr

from distributed_downloader.config import SETTINGS, AppConfig, write
from distributed_downloader.config.sources import decided_by
from distributed_downloader.config.values import redact

_MASK = "********"


class Row(NamedTuple):
    """One setting as it is shown."""

    name: str
    value: str | int
    source: str

    @property
    def text(self) -> str:
        """Return the value as a configuration file has it."""
        return write(self.value, SETTINGS[self.name].source)


def table(config: AppConfig, sources: dict[str, str]) -> list[Row]:
    """Return a row for each setting, in the order of the file."""
    unused = {f"redis.{key}": "redis.url" for key in decided_by(config.redis.url.get_secret_value())}
    if config.redis.sentinels:
        unused = {"redis.host": "redis.sentinels", "redis.port": "redis.sentinels"}
    rows = []
    for name, source in sources.items():
        section, key = name.split(".")
        value = shown(name, getattr(getattr(config, section), key))
        rows.append(Row(name, value, f"not used: {unused[name]} decides" if name in unused else source))
    return rows


def shown(name: str, value: str | int | SecretStr) -> str | int:
    """Return a value without what is secret in it."""
    if isinstance(value, str | int):
        return value
    secret = value.get_secret_value()
    return redact(secret) if name == "redis.url" else _MASK * bool(secret)
