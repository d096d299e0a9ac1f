"""Which server is the master: sentinels are asked at each connection, and one that was demoted is left."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from distributed_downloader.redis_advice import InOurWordsError, code_of, reason
from distributed_downloader.redis_greeting import greet

#: What redis-py's own methods take and return, of which their signatures say nothing.
Untyped: TypeAlias = Any

#: Seconds that one sentinel gets to be connected to, and to answer; others may have to be asked after it.
_SECONDS = 1.0
#: What a server says that was demoted, also from within a script; redis-py cuts the word off in some cases.
_DEMOTED = re.compile(r"(?:^|-)(?:READONLY|UNBLOCKED|MASTERDOWN)\b")


#: What keeps sentinels from telling, and what to do about it.
_STRANGER = "its sentinels know no such service, check [redis] service"
_LOGIN = "its sentinels want another login, check [redis] sentinel_username and sentinel_password"
_NO_SENTINEL = "{} is no sentinel, check [redis] sentinels"


class MasterUnknownError(InOurWordsError):
    """There is no master that we could talk to."""


class Sentinels:
    """The sentinels of one service; safe for threads."""

    def __init__(
        self, addresses: Sequence[tuple[str, int]], service: str, options: Mapping[str, Any]
    ) -> None:
        """`options` are those of a connection to a sentinel, TLS and login among them."""
        self._addresses, self._service = list(addresses), service
        self._kind = redis.SSLConnection if "ssl_check_hostname" in options else redis.Connection
        self._options = {
            **options,
            "decode_responses": True,
            "protocol": 2,
            "socket_connect_timeout": _SECONDS,
            "socket_timeout": _SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
        self._answered = self._addresses[0]

    def __str__(self) -> str:
        host, port = self._addresses[0]
        more = len(self._addresses) - 1
        return f"sentinels {host}:{port}{f' and {more} more' if more else ''}"

    @property
    def service(self) -> str:
        """The name of what they watch."""
        return self._service

    def master(self) -> tuple[str, int]:
        """Return (host, port) of the server that is the master now; raises MasterUnknownError."""
        problems: dict[str, str] = {}
        for address in sorted(self._addresses, key=lambda address: address != self._answered):
            try:
                found = self._ask(*address)
            except (redis.RedisError, ValueError) as error:  # the latter for a name that no host can have
                problems.setdefault(_problem(error), f"{address[0]}:{address[1]}")
                continue
            if found:
                self._answered = address
                return found
            problems.setdefault(_STRANGER, "")
        raise MasterUnknownError(f"has no master: {_advice(problems)}")

    def _ask(self, host: str, port: int) -> tuple[str, int] | None:
        pool = redis.ConnectionPool(connection_class=self._kind, host=host, port=port, **self._options)
        with redis.Redis(connection_pool=pool) as client:
            try:
                found: Untyped = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            finally:
                pool.disconnect()
        return (str(found[0]), int(found[1])) if found else None


def _problem(error: Exception) -> str:
    code = code_of(error) if isinstance(error, redis.RedisError) else None
    if code in ("NOAUTH", "WRONGPASS", "NOPASS"):
        return _LOGIN
    return _NO_SENTINEL if "unknown command" in str(error) else reason(error)


def _advice(problems: Mapping[str, str]) -> str:
    """Return what to do about problems, each with the first sentinel that has it."""
    if known := next((known for known in (_STRANGER, _LOGIN, _NO_SENTINEL) if known in problems), None):
        return known.format(problems[known])
    several = len(problems) > 1
    said = "; ".join(f"{where}: {why}" if several else why for why, where in problems.items())
    return f"no sentinel answers, check [redis] sentinels and tls ({said})"


class _Demotable:
    """What a connection does when its server says that it is no master any more: it is closed.

    The next command on it connects again, and that asks who is the master now (a sentinel, or a name
    server). Left as it is, it would lead to the old one for ever.
    """

    def read_response(self, *args: Untyped, **options: Untyped) -> Untyped:
        """Return the answer to a command; raises redis.ConnectionError where the server was demoted."""
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except (redis.ResponseError, redis.ConnectionError) as error:
            if not demoted(error):
                raise
            self.disconnect()  # type: ignore[attr-defined]
            raise redis.ConnectionError(f"READONLY {error}") from error


class _ByName(_Demotable, redis.Connection):
    """A connection to the server that its configured name leads to."""


class _ByNameWithTLS(_Demotable, redis.SSLConnection):
    """The same with TLS."""


class _ToMaster(_Demotable, redis.Connection):
    """A connection to whatever the sentinels call the master when it is made."""

    def __init__(self, *, sentinels: Sentinels, **options: Untyped) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._sentinels = sentinels

    def _connect(self) -> Untyped:
        self.host, self.port = self._sentinels.master()
        try:
            return super()._connect()  # type: ignore[no-untyped-call]
        except ssl.SSLError:
            raise
        except OSError as error:
            raise MasterUnknownError(
                f"has lost its master: {self.host}:{self.port} does not answer, and the sentinels have "
                "chosen no other one yet"
            ) from error


class _ToMasterWithTLS(_ToMaster, redis.SSLConnection):
    """The same with TLS."""


def _require_master(connection: redis.Connection) -> None:
    """Greet the server; raises MasterUnknownError for a replica: a sentinel may be behind."""
    greet(connection)
    connection.send_command("INFO", "replication")  # type: ignore[no-untyped-call]
    if "role:master" not in str(connection.read_response()):
        raise MasterUnknownError(
            f"has no master at the moment: {connection.host}:{connection.port} is a replica, and the "
            "sentinels have not noticed yet"
        )


def sentinel_pool(sentinels: Sentinels, options: dict[str, Any]) -> redis.ConnectionPool:
    """Return a pool of connections to the master, whoever that is when each of them is made."""
    return redis.ConnectionPool(
        connection_class=_ToMasterWithTLS if "ssl_check_hostname" in options else _ToMaster,
        sentinels=sentinels,
        redis_connect_func=_require_master,
        **options,
    )


def leave_the_demoted(pool: redis.ConnectionPool) -> None:
    """Let the connections of a pool be closed when their server is demoted."""
    kinds = {redis.Connection: _ByName, redis.SSLConnection: _ByNameWithTLS}
    pool.connection_class = kinds.get(pool.connection_class, pool.connection_class)


def demoted(error: Exception) -> bool:
    """Return whether a server says that it is a replica now, or no complete one."""
    known = (redis.ReadOnlyError, redis.exceptions.MasterDownError)
    return isinstance(error, known) or bool(_DEMOTED.search(str(error)))
