"""How we speak to a Redis: connections, and the Lua scripts."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import hiredis
import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import HiredisRespSerializer
from redis.retry import Retry

from distributed_downloader.config.sentinels import (
    SentinelUrl,
    is_sentinel_url,
    parse_sentinel_url,
    sentinel_addresses,
)
from distributed_downloader.errors import ConfigError, RedisCutOffError, RedisFullError, RedisUnavailableError
from distributed_downloader.redis_advice import code_of, explain
from distributed_downloader.redis_greeting import greet
from distributed_downloader.redis_lua import lua_sources
from distributed_downloader.redis_mend import MendingRedis
from distributed_downloader.redis_sentinel import (
    Sentinels,
    leave_the_demoted,
    sentinel_pool,
)

if TYPE_CHECKING:
    from distributed_downloader.config import RedisConfig

#: Seconds until a connection attempt, and a call other than `claim`, is given up.
_CONNECT_SECONDS = 3.0
_CALL_SECONDS = 3.0
_CALL_RETRIES = 1
#: Seconds of silence after which the kernel asks whether the other side still lives, and how often.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

#: What a script or command answers: Redis has types, redis-py's signatures have none to rely on.
Answer: TypeAlias = Any


def connect(config: RedisConfig) -> redis.Redis:
    """Return a client for short calls: retried, given up within seconds, safe for threads."""
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.1), _CALL_RETRIES)
    options = {
        "socket_timeout": _CALL_SECONDS,
        "retry": retry,
        "retry_on_error": [redis.ConnectionError, redis.TimeoutError],  # the default only since redis-py 6
    }
    return _closing(MendingRedis(connection_pool=_pool(config, options)))


def connect_to_block(config: RedisConfig, seconds: float) -> redis.Redis:
    """Return a client of one connection for a command that blocks; never sends anything twice."""
    pool = _pool(config, {"socket_timeout": seconds, "retry": Retry(NoBackoff(), 0)})
    return _closing(MendingRedis(connection_pool=pool, single_connection_client=True))


class _Packer(HiredisRespSerializer):
    """Writes commands as hiredis does, which takes no bytes that are no text: those it gets as bytes."""

    def pack(self, *args: Any) -> Any:  # noqa: ANN401 as the library has it
        """Return a command as it goes over the line."""
        pack: Any = _packed if args[0] == "EVALSHA" else super().pack
        try:
            return pack(*args)
        except UnicodeEncodeError:
            return pack(*map(_as_bytes, args))


def _packed(*args: Any) -> list[bytes]:  # noqa: ANN401 as the library has it
    """Pack a call of a script: it may have hundreds of words, and redis-py would look at each of them."""
    words: Any = args
    return [hiredis.pack_command(words)]


def _as_bytes(word: object) -> object:
    return word.encode("utf-8", "surrogateescape") if isinstance(word, str) else word


def _closing(client: redis.Redis) -> redis.Redis:
    """Let a client close its connections when it is closed, and not when they are forgotten."""
    client.auto_close_connection_pool = True
    return client


def _pool(config: RedisConfig, options: dict[str, Any]) -> redis.ConnectionPool:
    url = config.url.get_secret_value()
    said = parse_sentinel_url(url) if is_sentinel_url(url) else None
    options |= {
        "decode_responses": True,
        "encoding_errors": "surrogateescape",  # bytes that are no text come back as they were
        "command_packer": _Packer(),
        "protocol": 2,
        "socket_connect_timeout": _CONNECT_SECONDS,
        "username": config.username or None,
        "password": config.password.get_secret_value() or None,
        "db": config.db,
    }
    if said or config.sentinels:
        return _pool_of_sentinels(config, said, options)
    return _pool_of_address(config, url or _url(config), options)


def _pool_of_address(config: RedisConfig, url: str, options: dict[str, Any]) -> redis.ConnectionPool:
    if not url.startswith("unix:"):
        options |= _keepalive()
    if url.startswith("rediss:"):
        options |= _tls(config) | {"redis_connect_func": greet}
    try:
        pool = redis.ConnectionPool.from_url(url, **options)
    except ValueError:
        # The text of that error may repeat the URL, and the URL may hold a password.
        raise ConfigError("[redis] url: must be like redis://host:6379/0 or unix:///path?db=0") from None
    leave_the_demoted(pool)
    return pool


def _pool_of_sentinels(
    config: RedisConfig, said: SentinelUrl | None, options: dict[str, Any]
) -> redis.ConnectionPool:
    addresses = sentinel_addresses(said.sentinels if said else config.sentinels)
    tls = _tls(config) if (said.tls if said else config.tls) else {}
    login = {
        "username": config.sentinel_username or None,
        "password": config.sentinel_password.get_secret_value() or None,
    }
    sentinels = Sentinels(addresses, said.service if said else config.service, tls | login)
    if said:
        told = {"username": said.username, "password": said.password, "db": said.db}
        options |= {key: value for key, value in told.items() if value not in ("", None)}
    return sentinel_pool(sentinels, options | tls | _keepalive())


def _tls(config: RedisConfig) -> dict[str, Any]:
    """Return the options of TLS; raises ConfigError for files that will not do."""
    cert, key = config.client_cert, config.client_key or None
    _require_certificates("ca_certs", config.ca_certs)
    _require_certificates("client_cert", cert)
    try:
        if cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_cert_chain(cert, key, password="")  # or a key with a password would ask for it
    except OSError:
        raise ConfigError(
            f"[redis] client_key: {key or cert} does not hold {cert}'s key in PEM form, without a password"
        ) from None
    return {
        "ssl_ca_certs": config.ca_certs or None,
        "ssl_check_hostname": True,
        "ssl_certfile": cert or None,
        "ssl_keyfile": key,
    }


def _require_certificates(key: str, path: str) -> None:
    if not path:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(f"[redis] {key}: {path} holds no PEM certificate") from None
    except OSError as error:
        raise ConfigError(f"[redis] {key}: {path} cannot be read ({error.strerror})") from None


def _url(config: RedisConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{'rediss' if config.tls else 'redis'}://{host}:{config.port}/{config.db}"


def _keepalive() -> dict[str, Any]:
    options = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def address_of(client: redis.Redis) -> str:
    """Return `host:port/db`, `path/db` or `service/db (sentinels ...)`, for messages: no secrets."""
    about = client.connection_pool.connection_kwargs
    if sentinels := about.get("sentinels"):
        return f"{sentinels.service}/{about.get('db') or 0} ({sentinels})"
    where = about.get("path") or f"{about.get('host', 'localhost')}:{about.get('port', 6379)}"
    return f"{where}/{about.get('db') or 0}"


class CutOffError(redis.ConnectionError):
    """A wait on a connection that stood was cut off."""


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Raise RedisUnavailableError, or what it is in particular, for what goes wrong between us and Redis."""
    try:
        yield
    except redis.RedisError as error:
        kind = RedisFullError if code_of(error) == "OOM" else RedisUnavailableError
        kind = RedisCutOffError if isinstance(error, CutOffError) else kind
        raise kind(f"Redis at {address} {explain(error, address)}") from error


class Scripts:
    """The transitions of the queue, run by name; loaded again by themselves when Redis lost them."""

    def __init__(
        self, client: redis.Redis, namespace: str, address: str, sources: Mapping[str, str] | None = None
    ) -> None:
        sources = lua_sources() if sources is None else sources
        self._scripts = {name: client.register_script(text) for name, text in sources.items()}
        self._namespace, self._address = namespace, address
        self.mend(client)
        #: Milliseconds that replace the server's clock; for tests, "" otherwise.
        self.now: int | str = ""

    def mend(self, client: redis.Redis) -> None:
        """Let a client put keys of a wrong type aside."""
        if isinstance(client, MendingRedis):
            client.namespace, client.put_aside = self._namespace, partial(self.run, "aside")

    def run(self, name: str, *args: str | float) -> Answer:
        """Run one transition; raises RedisUnavailableError."""
        with translated(self._address):
            return self._scripts[name](keys=[self._namespace], args=[self.now, *args])
