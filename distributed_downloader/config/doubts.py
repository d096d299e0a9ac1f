"""What is allowed in the settings but hardly meant: warnings for people (pure functions)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from distributed_downloader.config.sections import AppConfig, RedisConfig
from distributed_downloader.config.values import TYPES, listed

_NOT_VERIFIED = (
    "[huggingface] disable_ssl_verify is on: whoever sits between this machine and the hub can read the "
    "token and change what is listed; naming your network's certificate in SSL_CERT_FILE is safer"
)


def doubts(config: AppConfig) -> list[str]:
    """Return what to say of settings, in the order of the file."""
    not_verified = [_NOT_VERIFIED] if config.huggingface.disable_ssl_verify else []
    return [*_idle_certificates(config.redis), *not_verified, *_short_globs(config.security.allowed_repos)]


def _idle_certificates(redis: RedisConfig) -> Iterator[str]:
    url = redis.url.get_secret_value()
    if url.startswith(("rediss", "unix:")) or (redis.tls and not url):
        return
    for key in ("ca_certs", "client_cert"):
        if getattr(redis, key):
            how = "[redis] url begins with redis" if url else "[redis] tls is off"
            yield f"[redis] {key} plays no part, for {how}: what is said to Redis is not encrypted"
            return


def _short_globs(allowed: str) -> Iterator[str]:
    for glob in listed(allowed):
        name = glob.split("/", 1)[1] if glob.startswith(TYPES) else glob
        if not re.search(r"[/*?\[]", name):
            yield (
                f"[security] allowed_repos: {glob} allows only a repo of just that name, and none of that "
                f"organisation; for these write {glob}/*"
            )
