"""The settings: what they mean, and which of flag, environment, file and default wins.

The models below are the one place where a key, its meaning and its default are written;
`init-config`, `hf-downloader config` and docs/configuration.md are made from them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from distributed_downloader.config import file as ini
from distributed_downloader.config.sources import ENVIRONMENT, FILE, FLAG, Given, login, redact, settle_url
from distributed_downloader.config.values import LogLevel, Rate, Switch, absolute, parse_bytes, split_url
from distributed_downloader.errors import ConfigError
from distributed_downloader.models import Model

__all__ = [
    "SETTINGS",
    "AppConfig",
    "AppSection",
    "ConfigManager",
    "HuggingFaceConfig",
    "NASConfig",
    "RedisConfig",
    "parse_bytes",
]


@dataclass(frozen=True)
class From:
    """Where else a key can be set, and what it takes."""

    flag: str = ""
    env: str = ""
    allowed: str = "text"


class RedisConfig(Model):
    """Where the queue is: the same server for the master and all workers."""

    host: Annotated[str, From("--redis-host", "REDIS_HOST", "a host name or an address")] = Field(
        default="localhost", pattern=r"^[^\s/@'\"]+$", description="Server that holds the queue."
    )
    port: Annotated[int, From("--redis-port", "REDIS_PORT", "a port number, 1 to 65535")] = Field(
        default=6379, ge=1, le=65535, description="Port of the server."
    )
    username: Annotated[str, From("--redis-username", "REDIS_USERNAME")] = Field(
        default="", description="User of the server's access list (ACL); empty for the default user."
    )
    password: Annotated[SecretStr, From("--redis-password", "REDIS_PASSWORD")] = Field(
        default=SecretStr(""), description="Password; the environment is a better place for it."
    )
    db: Annotated[int, From("--redis-db", "REDIS_DB", "a database number, 0 or more")] = Field(
        default=0, ge=0, description="Number of the database."
    )
    url: Annotated[SecretStr, From("--redis-url", "REDIS_URL")] = Field(
        default=SecretStr(""),
        description="Address that replaces host, port and tls: `redis://[user:password@]host:port/db`, "
        "`rediss://` for TLS, `unix:///path?db=0`.",
    )
    tls: Annotated[Switch, From()] = Field(default=False, description="Speak TLS to the server.")
    ca_certs: Annotated[str, From(allowed="a file of PEM certificates")] = Field(
        default="",
        description="Certificates that the server's one is checked against; empty for the system's.",
    )

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: SecretStr) -> SecretStr:
        parts = split_url(url.get_secret_value())
        if url.get_secret_value() and parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must start with redis://, rediss:// or unix://")
        if parts.scheme == "unix" and not parts.path:
            raise ValueError("must name the socket: unix:///path/to/redis.sock")
        return url

    @field_validator("ca_certs")
    @classmethod
    def _is_file(cls, path: str) -> str:
        if path and not Path(absolute(path)).is_file():
            raise ValueError("must be a file of PEM certificates, and there is none")
        return absolute(path)


class HuggingFaceConfig(Model):
    """How the hub is reached."""

    token: Annotated[SecretStr, From(env="HF_TOKEN")] = Field(
        default=SecretStr(""),
        description="Access token for private and gated repos; empty for the one that "
        "`hf auth login` stored.",
    )
    cache_dir: Annotated[str, From(env="HF_HOME")] = Field(
        default="",
        description="Cache of huggingface_hub, in which engine `hub` looks for a file before it downloads "
        "one (HF_HOME stands for its subfolder hub); empty for none.",
    )
    disable_ssl_verify: Annotated[Switch, From("--disable-ssl-verify", "HF_DISABLE_SSL_VERIFY")] = Field(
        default=False, description="Accept any certificate, for networks that inspect TLS."
    )
    enable_hf_transfer: Annotated[Switch, From(env="HF_HUB_ENABLE_HF_TRANSFER")] = Field(
        default=False, description="Allow the engine hf_transfer where it is installed (not used yet)."
    )
    endpoint: Annotated[str, From("--endpoint", "HF_ENDPOINT")] = Field(
        default="https://huggingface.co", description="The hub, or a mirror of it."
    )
    engine: Annotated[Literal["auto", "http", "hub"], From(allowed="auto, http or hub")] = Field(
        default="auto",
        description="What fetches the bytes: http (our own, resumes), hub (huggingface_hub), "
        "or auto (http, then hub where http fails).",
    )

    @field_validator("token")
    @classmethod
    def _one_word(cls, token: SecretStr) -> SecretStr:
        text = token.get_secret_value().strip()
        if not re.fullmatch(r"[!-~]*", text):
            raise ValueError("must be the token alone, without spaces or other characters")
        return SecretStr(text)

    @field_validator("cache_dir")
    @classmethod
    def _expand(cls, path: str) -> str:
        return absolute(path)

    @field_validator("endpoint")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = split_url(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", url):
            raise ValueError("must be a URL that starts with https:// or http://")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("must be a URL without user, password, `?` and `#`")
        return url.rstrip("/")


class NASConfig(Model):
    """A folder that finished files are copied to (read and checked; the copying follows)."""

    enabled: Annotated[Switch, From(env="NAS_ENABLED")] = Field(
        default=False, description="Copy finished files to the NAS."
    )
    path: Annotated[str, From(env="NAS_PATH")] = Field(
        default="", validate_default=True, description="Absolute path of the folder where the NAS is mounted."
    )
    copy_after_download: Annotated[Switch, From()] = Field(
        default=True, description="Copy each file as soon as it is verified."
    )
    preserve_structure: Annotated[Switch, From()] = Field(
        default=True, description="Keep `<org>/<name>/<path>` on the NAS."
    )
    delete_after_copy: Annotated[Switch, From()] = Field(
        default=False, description="Delete the local file once its copy is verified."
    )

    @field_validator("path")
    @classmethod
    def _mounted(cls, path: str, info: ValidationInfo) -> str:
        if info.data.get("enabled") and not path:
            raise ValueError("must be set, for [nas] enabled is on")
        if path and not Path(path).is_absolute():
            raise ValueError("must be an absolute path")
        return path


class AppSection(Model):
    """What one machine does, and where it puts it."""

    log_level: Annotated[LogLevel, From("--log-level", "LOG_LEVEL", "DEBUG, INFO, WARNING or ERROR")] = Field(
        default="INFO", description="How much to log on standard error: DEBUG, INFO, WARNING or ERROR."
    )
    output_dir: Annotated[str, From("--output-dir", "OUTPUT_DIR", "a folder")] = Field(
        default="downloads",
        min_length=1,
        validate_default=True,
        description="Folder for downloads, unless the job names one: `<output_dir>/<org>/<name>/<path>`.",
    )
    concurrency: Annotated[int, From("--concurrency", allowed="a number of slots, 1 to 256")] = Field(
        default=4, ge=1, le=256, description="Files that one worker downloads at the same time."
    )
    max_bandwidth: Annotated[Rate, From("--max-bandwidth", allowed="bytes a second such as 10MB/s")] = Field(
        default=0,
        description="Bytes a second for one worker, such as 10MB/s (10^6) or 10MiB/s (2^20); 0 for no limit.",
    )

    @field_validator("output_dir")
    @classmethod
    def _expand(cls, path: str) -> str:
        return absolute(path)


class AppConfig(Model):
    """All settings."""

    redis: RedisConfig = RedisConfig()
    huggingface: HuggingFaceConfig = HuggingFaceConfig()
    nas: NASConfig = NASConfig()
    app: AppSection = Field(default_factory=AppSection)


SECTIONS: dict[str, type[Model]] = {
    "redis": RedisConfig,
    "huggingface": HuggingFaceConfig,
    "nas": NASConfig,
    "app": AppSection,
}


@dataclass(frozen=True)
class Setting:
    """One key, as the models above describe it."""

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


def _setting(section: str, key: str, field: FieldInfo) -> Setting:
    secret = isinstance(field.default, SecretStr)
    default = "" if secret else str(field.default)
    source = next(entry for entry in field.metadata if isinstance(entry, From))
    default = default.lower() if isinstance(field.default, bool) else default
    return Setting(section, key, default, field.description or "", source, secret)


#: `section.key` -> setting, in the order of the file.
SETTINGS: dict[str, Setting] = {
    f"{section}.{key}": _setting(section, key, field)
    for section, model in SECTIONS.items()
    for key, field in model.model_fields.items()
}


class ConfigManager:
    """Finds the settings: flags win over environment, file and defaults, in that order.

    `flags` maps `section.key` to a value; an empty environment variable counts as not set.
    """

    def __init__(
        self,
        config_file: Path | None = None,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._named = config_file
        self._flags = flags or {}
        self._environ = environ
        #: The file that was read, if any; known after `load`.
        self.file: Path | None = None
        #: `section.key` -> `flag --redis-host`, `environment REDIS_HOST`, a file's name or `default`.
        self.sources: dict[str, str] = {}
        #: What is allowed but unwise, for people to read.
        self.warnings: list[str] = []

    def load(self) -> AppConfig:
        """Read everything; raises ConfigError naming the source, the section and the key."""
        self.warnings = []
        given = self._given()
        settle_url(given)
        self.sources = {name: given[name].source if name in given else "default" for name in SETTINGS}
        raw: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
        for name, entry in given.items():
            section, key = name.split(".")
            raw[section][key] = entry.value
        try:
            return AppConfig.model_validate(raw)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(given, detail) for detail in error.errors())) from None

    def _given(self) -> dict[str, Given]:
        """Return each setting's winner."""
        layers = (self._from_login(), self._from_file(), self._from_environment(), self._from_flags())
        return {name: given for layer in layers for name, given in layer.items()}

    def _from_flags(self) -> dict[str, Given]:
        unknown = sorted(self._flags.keys() - SETTINGS.keys())
        if unknown:
            raise ConfigError(f"no setting is called {unknown[0]}")
        flags = {name: f"flag {SETTINGS[name].source.flag}".strip() for name in self._flags}
        return {name: Given(value, flags[name], FLAG) for name, value in self._flags.items()}

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
        if any(SETTINGS[name].secret and value for name, value in values.items()):
            self.warnings += ini.exposed(self.file)
        # `token =` says no more than its default does, and must not hide the login file.
        said = {name: value for name, value in values.items() if value or SETTINGS[name].default}
        return {name: Given(value, str(self.file), FILE) for name, value in said.items()}

    def _from_login(self) -> dict[str, Given]:
        try:
            token = login(self._environ)
        except ConfigError as error:
            self.warnings.append(str(error))
            return {}
        return {"huggingface.token": token} if token else {}


def _explain(given: Mapping[str, Given], detail: ErrorDetails) -> str:
    """Say where the bad value is, what it is unless it is secret, and what is allowed."""
    section, key = str(detail["loc"][0]), str(detail["loc"][1])
    setting, entry = SETTINGS[f"{section}.{key}"], given.get(f"{section}.{key}")
    allowed = setting.source.allowed
    why = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else f"must be {allowed}"
    if entry is None:  # then another key of the section asks for it
        cause = next((other.source for name, other in given.items() if name.startswith(f"{section}.")), "")
        return f"{cause}: [{section}] {key}: {why}"
    shown = "" if setting.secret else f" = {redact(str(entry.value))!r}"
    commented = re.search(r"\s[#;]", str(entry.value)) and entry.rank == FILE
    hint = "; a comment needs a line of its own" if commented else ""
    return f"{entry.source}: [{section}] {key}{shown}: {why}{hint}"
