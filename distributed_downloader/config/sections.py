"""The keys of the settings: what each means, what it may be, and where else it can be set.

These models are the one place where a key, its meaning and its default are written;
`init-config`, `hf-downloader config` and docs/configuration.md are made from them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from distributed_downloader.checks import hub_address
from distributed_downloader.config.limits import LimitsSection
from distributed_downloader.config.security import SecuritySection
from distributed_downloader.config.sentinels import (
    SERVICE,
    is_sentinel_url,
    parse_sentinel_url,
    sentinel_addresses,
)
from distributed_downloader.config.values import (
    From,
    LogFormat,
    LogLevel,
    Rate,
    Size,
    Switch,
    absolute,
    split_url,
)
from distributed_downloader.models import Model

MIB = 1 << 20
Engine = Literal["auto", "direct", "http", "hub", "xet"]


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
        "`rediss://` for TLS, `unix:///path?db=0`, "
        "`redis+sentinel://[user:password@]host:port[,host:port...]/service[/db]`.",
    )
    sentinels: Annotated[str, From(env="REDIS_SENTINELS", allowed="host:port,host:port,...")] = Field(
        default="",
        description="Sentinels that know which server is the master, in place of host and port: "
        "`host:port,host:port,...`.",
    )
    service: Annotated[str, From(env="REDIS_SERVICE", allowed="a name as Sentinel knows it")] = Field(
        default="",
        pattern=SERVICE,
        validate_default=True,
        description="Name of the service that the sentinels watch.",
    )
    sentinel_username: Annotated[str, From(env="REDIS_SENTINEL_USERNAME")] = Field(
        default="", description="User of the sentinels' own access list, if they have one."
    )
    sentinel_password: Annotated[SecretStr, From(env="REDIS_SENTINEL_PASSWORD")] = Field(
        default=SecretStr(""), description="Password of the sentinels themselves, if they want one."
    )
    tls: Annotated[Switch, From()] = Field(default=False, description="Speak TLS to the server.")
    ca_certs: Annotated[str, From(allowed="a file of PEM certificates")] = Field(
        default="",
        description="Certificates that the server's one is checked against; empty for the system's.",
    )
    client_cert: Annotated[str, From(allowed="a file with a PEM certificate")] = Field(
        default="", description="Our own certificate, for a server that asks for one."
    )
    client_key: Annotated[str, From(allowed="a file with a PEM key")] = Field(
        default="",
        description="Its key, without a password; empty if it is in the certificate's file.",
    )

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: SecretStr) -> SecretStr:
        if is_sentinel_url(url.get_secret_value()):
            parse_sentinel_url(url.get_secret_value())
            return url
        parts = split_url(url.get_secret_value())
        if url.get_secret_value() and parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must start with redis://, rediss://, unix:// or redis+sentinel://")
        if parts.scheme == "unix" and not parts.path:
            raise ValueError("must name the socket: unix:///path/to/redis.sock")
        if not parse_qs(parts.query, keep_blank_values=True).keys() <= {"db", "username", "password"}:
            raise ValueError("may hold db, username and password behind its `?`, and nothing else")
        return url

    @field_validator("sentinels")
    @classmethod
    def _addresses(cls, sentinels: str) -> str:
        if sentinels:
            sentinel_addresses(sentinels)
        return sentinels

    @field_validator("service")
    @classmethod
    def _belongs_to_sentinels(cls, service: str, info: ValidationInfo) -> str:
        if info.data.get("sentinels") and not service:
            raise ValueError("must be set, for [redis] sentinels is")
        if service and info.data.get("sentinels") == "":
            raise ValueError("is for [redis] sentinels, which must be set as well")
        return service

    @field_validator("ca_certs", "client_cert", "client_key")
    @classmethod
    def _is_file(cls, path: str, info: ValidationInfo) -> str:
        what = "a PEM key" if info.field_name == "client_key" else "PEM certificates"
        if path and not os.path.isfile(absolute(path)):  # noqa: PTH113 - Path's raises for odd names
            raise ValueError(f"must be a file of {what}, and there is none")
        if path and info.field_name == "client_key" and info.data.get("client_cert") == "":
            raise ValueError("is for [redis] client_cert, which must be set as well")
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
        default=False,
        description="Fetch whole files of 64 MiB and more through the library hf_transfer, where it is "
        "installed and `engine` is not hub or xet; not for parts of files, nor under a limit of bandwidth.",
    )
    endpoint: Annotated[str, From("--endpoint", "HF_ENDPOINT")] = Field(
        default="https://huggingface.co", description="The hub, or a mirror of it."
    )
    engine: Annotated[Engine, From(allowed="auto, direct, http, hub or xet")] = Field(
        default="auto",
        description="What fetches the bytes: http (our own, resumes), hub (huggingface_hub), xet (hf_xet for "
        "files that are on Xet; small ones lie in git and come over http), auto (http, then another where "
        "http fails), or direct (the same without hub).",
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
        return hub_address(url).rstrip("/")


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
    log_format: Annotated[LogFormat, From("--log-format", "LOG_FORMAT", "text or json")] = Field(
        default="text", description="Standard error as text for people, or as one JSON object per line."
    )
    health_file: Annotated[str, From("--health-file", "HEALTH_FILE", "a file")] = Field(
        default="",
        description="File in which a worker says that it is alive, for `worker-health`; empty for none.",
    )
    output_dir: Annotated[str, From("--output-dir", "OUTPUT_DIR", "a folder")] = Field(
        default="downloads",
        min_length=1,
        validate_default=True,
        description="Folder for downloads, unless the job names one: `<output_dir>/<org>/<name>/<path>`.",
    )
    layout: Annotated[
        Literal["tree", "local-dir", "hf-cache"], From(allowed="tree, local-dir or hf-cache")
    ] = Field(
        default="tree",
        description="How files lie in an output folder: tree (`<org>/<name>/<path>`), local-dir (the same, "
        "as `hf download --local-dir` leaves it), or hf-cache (as a cache of huggingface_hub). The master's "
        "setting decides for all.",
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

    @field_validator("output_dir", "spool_dir", "health_file")
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
    limits: LimitsSection = LimitsSection()
    security: SecuritySection = SecuritySection()


SECTIONS: dict[str, type[Model]] = {
    "redis": RedisConfig,
    "huggingface": HuggingFaceConfig,
    "nas": NASConfig,
    "app": AppSection,
    "limits": LimitsSection,
    "security": SecuritySection,
}
