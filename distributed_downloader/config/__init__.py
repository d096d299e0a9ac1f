"""The settings: which of flag, environment, file and default wins."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from distributed_downloader.config import file as ini
from distributed_downloader.config.doubts import doubts
from distributed_downloader.config.sections import (
    SECTIONS,
    AppConfig,
    AppSection,
    HuggingFaceConfig,
    NASConfig,
    RedisConfig,
)
from distributed_downloader.config.security import SecuritySection
from distributed_downloader.config.sources import (
    ENVIRONMENT,
    FILE,
    FLAG,
    Given,
    decided_by,
    login,
    settle_address,
)
from distributed_downloader.config.values import From, parse_bytes, parse_size, redact, write_bytes
from distributed_downloader.errors import ConfigError

__all__ = [
    "SECTIONS",
    "SETTINGS",
    "AppConfig",
    "AppSection",
    "ConfigManager",
    "HuggingFaceConfig",
    "NASConfig",
    "RedisConfig",
    "SecuritySection",
    "Setting",
    "parse_bytes",
    "parse_size",
    "write",
]


@dataclass(frozen=True)
class Setting:
    """One key, as its model describes it."""

    section: str
    key: str
    default: str
    meaning: str
    source: From
    secret: bool

    @property
    def name(self) -> str:
        """Return `section.key`."""
        return f"{self.section}.{self.key}"


def write(value: object, source: From) -> str:
    """Return a value as a configuration file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return write_bytes(value) if source.is_bytes and isinstance(value, int) else str(value)


def _setting(section: str, key: str, field: FieldInfo) -> Setting:
    secret = isinstance(field.default, SecretStr)
    source = next(entry for entry in field.metadata if isinstance(entry, From))
    default = "" if secret else write(field.default, source)
    return Setting(section, key, default, field.description or "", source, secret)


#: `section.key` -> setting, in the order of the file.
SETTINGS: dict[str, Setting] = {
    f"{section}.{key}": _setting(section, key, field)
    for section, model in SECTIONS.items()
    for key, field in model.model_fields.items()
}


class ConfigManager:
    """Finds the settings: flags win over environment, file and defaults, in that order.

    `flags` maps `section.key` to a value; an empty environment variable counts as not set. `in_code` says
    that they come from a program and not from a command line.
    """

    def __init__(
        self,
        config_file: Path | None = None,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] = os.environ,
        *,
        in_code: bool = False,
    ) -> None:
        self._named = config_file
        self._flags, self._in_code = flags or {}, in_code
        self._environ = environ
        #: The file that was read, if any; known after `load`.
        self.file: Path | None = None
        #: `section.key` -> `flag --redis-host`, `settings` if it is in code, `environment REDIS_HOST`, a
        #: file's name or `default`.
        self.sources: dict[str, str] = {}
        #: What is allowed but unwise, for people to read.
        self.warnings: list[str] = []

    def load(self) -> AppConfig:
        """Read everything; raises ConfigError naming the source, the section and the key."""
        self.warnings = []
        given = self._given()
        settle_address(given)
        if not self._in_code:
            self.warnings += [_exposed_flag(name) for name in self._flags if _is_secret(name, given)]
        self.sources = {name: given[name].source if name in given else "default" for name in SETTINGS}
        raw: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
        for name, entry in given.items():
            section, key = name.split(".")
            raw[section][key] = entry.value
        try:
            config = AppConfig.model_validate(raw)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(given, detail) for detail in error.errors())) from None
        self.warnings += doubts(config)
        return config

    def _given(self) -> dict[str, Given]:
        """Return each setting's winner."""
        layers = (self._from_login(), self._from_file(), self._from_environment(), self._from_flags())
        return {name: given for layer in layers for name, given in layer.items()}

    def _from_flags(self) -> dict[str, Given]:
        unknown = sorted(self._flags.keys() - SETTINGS.keys())
        if unknown:
            raise ConfigError(f"no setting is called {unknown[0]}")
        return {name: Given(value, self._flag(name), FLAG) for name, value in self._flags.items()}

    def _flag(self, name: str) -> str:
        return "settings" if self._in_code else f"flag {SETTINGS[name].source.flag}".strip()

    def _from_environment(self) -> dict[str, Given]:
        found = {}
        for name, setting in SETTINGS.items():
            variable = setting.source.env
            value = self._environ.get(variable, "") if variable else ""
            if value:
                value = str(Path(value, "hub")) if variable == "HF_HOME" else value
                found[name] = Given(value, f"environment {variable}", ENVIRONMENT)
        return found

    def _from_file(self) -> dict[str, Given]:
        self.file = ini.find(self._named)
        if self.file is None:
            return {}
        known = {section: list(model.model_fields) for section, model in SECTIONS.items()}
        values = ini.read(self.file, known)
        # `token =` says no more than its default does, and must not hide the login file.
        said = {name: value for name, value in values.items() if value or SETTINGS[name].default}
        given = {name: Given(value, str(self.file), FILE) for name, value in said.items()}
        if any(_is_secret(name, given) for name in given):
            self.warnings += ini.exposed(self.file)
        return given

    def _from_login(self) -> dict[str, Given]:
        try:
            token = login(self._environ)
        except ConfigError as error:
            self.warnings.append(str(error))
            return {}
        return {"huggingface.token": token} if token else {}


def _is_secret(name: str, given: Mapping[str, Given]) -> bool:
    """Return whether a value that was given is secret; a URL is if a password is in it."""
    if name not in given or not SETTINGS[name].secret or not given[name].value:
        return False
    return name != "redis.url" or "password" in decided_by(str(given[name].value))


def _exposed_flag(name: str) -> str:
    source = SETTINGS[name].source
    return (
        f"{source.flag} shows a password to all users of this machine (`ps`): set {source.env}, or "
        "[redis] password in a configuration file of mode 0600"
    )


def _explain(given: Mapping[str, Given], detail: ErrorDetails) -> str:
    """Say where the bad value is, what it is unless it is secret, and what is allowed."""
    section, key = str(detail["loc"][0]), str(detail["loc"][1])
    setting, entry = SETTINGS[f"{section}.{key}"], given.get(f"{section}.{key}")
    allowed = setting.source.allowed
    why = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else f"must be {allowed}"
    if entry is None:  # then another key asks for it, and its source is the place to look at
        asks = re.search(r"for \[(\w+)\] (\w+)", why)
        cause = given.get(f"{asks[1]}.{asks[2]}") if asks else None
        return f"{cause.source if cause else 'default'}: [{section}] {key}: {why}"
    shown = "" if setting.secret else f" = {redact(str(entry.value))!r}"
    commented = re.search(r"\s[#;]", str(entry.value)) and entry.rank == FILE
    hint = "; a comment needs a line of its own" if commented else ""
    return f"{entry.source}: [{section}] {key}{shown}: {why}{hint}"
