"""The keys of the settings: what each means, what it may be, and where else it can be set.

These models are the one place where a key, its meaning and its default are written;
`init-config`, `hf-downloader config` and docs/configuration.md are made from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from distributed_downloader.config.values import LogLevel, Rate, Size, Switch, absolute, split_url
from distributed_downloader.models import Model

MIB = 1 << 20


@dataclass(frozen=True)
class From:
    """Where else a key can be set, and what it takes."""

    flag: str = ""
    env: str = ""
    allowed: str = "text"
    #: Whether it is an amount of bytes, which people write with a unit.
    is_bytes: bool = False


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
    engine: Annotated[Literal["auto", "http", "hub", "xet"], From(allowed="auto, http, hub or xet")] = Field(
        default="auto",
        description="What fetches the bytes: http (our own, resumes), hub (huggingface_hub), xet (hf_xet for "
        "files that are on Xet; small ones lie in git and come over http), or auto (http, then another where "
        "http fails).",
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
    """A folder that finished files are copied to; `hf-downloader init-nas` marks it once."""

    enabled: Annotated[Switch, From(env="NAS_ENABLED")] = Field(
        default=False, description="Copy finished files to the NAS."
    )
    path: Annotated[str, From(env="NAS_PATH")] = Field(
        default="", validate_default=True, description="Absolute path of the folder where the NAS is mounted."
    )
    copy_after_download: Annotated[Switch, From()] = Field(
        default=True,
        description="Copy each file as soon as it is verified; off: when all files of its job are.",
    )
    preserve_structure: Annotated[Switch, From()] = Field(
        default=True,
        description="Keep `<org>/<name>/<path>` on the NAS; off: `<org>/<name>_<basename>`. "
        "The master's setting decides for all.",
    )
    delete_after_copy: Annotated[Switch, From()] = Field(
        default=False, description="Delete the local file once its copy is verified."
    )
    copy_threads: Annotated[int, From(allowed="a number of threads, 1 to 16")] = Field(
        default=2, ge=1, le=16, description="Files that one worker copies at the same time."
    )
    verify: Annotated[Literal["size", "hash"], From(allowed="size or hash")] = Field(
        default="hash",
        description=(
            "How a copy is proved: hash (the very bytes that are copied), or size (the kernel copies; the "
            "source is hashed, the copy's size checked)."
        ),
    )
    read_back: Annotated[Switch, From()] = Field(
        default=False, description="Read each copy back from the NAS and check it."
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
    split_threshold: Annotated[Size, From(allowed="bytes such as 128MiB", is_bytes=True)] = Field(
        default=128 * MIB,
        description="Larger files are fetched in parts by all workers that share a folder; 0 for never. "
        "The master's setting decides for all.",
    )
    spool_dir: Annotated[str, From(allowed="a folder")] = Field(
        default="",
        description="Fast local folder in which parts of large files are fetched, to be copied from there to "
        "the shared one; empty for none.",
    )
    disk_reserve: Annotated[Size, From(allowed="bytes such as 1GiB", is_bytes=True)] = Field(
        default=1024 * MIB,
        description="Bytes that downloads leave free on each disk; of a small disk at most 5 percent.",
    )

    @field_validator("output_dir", "spool_dir")
    @classmethod
    def _expand(cls, path: str) -> str:
        return absolute(path)

    @field_validator("split_threshold")
    @classmethod
    def _worth_splitting(cls, size: int) -> int:
        if 0 < size < MIB:
            raise ValueError("must be at least 1MiB, or 0 for never")
        return size


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
