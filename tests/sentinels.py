"""A Redis with Sentinel, for tests and measurements: a master, a replica and three sentinels, all real.

```
with Sentinels(binary) as sentinels:
    client = RedisClient(sentinels.config)
    dead = sentinels.kill_master()      # SIGKILL
    sentinels.until_promoted(dead)      # the other one is the master now, and all sentinels say so
    sentinels.restart(dead)             # comes back, and follows the new master
    sentinels.fail_over()               # asks for a change without a death, and waits for it
```
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import redis

from distributed_downloader.config import RedisConfig
from tests.e2e.fleet import until
from tests.servers import Binary, Server, free_port

SERVICE = "fleet"
_SENTINELS, _QUORUM = 3, 2
#: Milliseconds of silence after which a sentinel takes the master for dead (it asks once a second: less
#: than that, and healthy ones are deposed), and that a failover may take.
_DOWN_AFTER, _FAILOVER_TIMEOUT = 1500, 6000
#: What talking to a server that is on its way down, up or elsewhere may raise.
_AWAY = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)


def _listening(port: int, tls: Mapping[str, str]) -> dict[str, str]:
    """Return the directives of a server that speaks TLS at `port`, to clients and to its kind; else none."""
    return {**tls, "port": "0", "tls-port": str(port), "tls-replication": "yes"} if tls else {}


class _Sentinel(Server):
    """One sentinel, which watches the master at `master_port`."""

    arguments = ("--sentinel",)

    def __init__(
        self, binary: Binary, master_port: int, password: str, own_password: str, tls: Mapping[str, str]
    ) -> None:
        port = free_port()
        super().__init__(binary, port=port, settings=_listening(port, tls))
        logins = {f"sentinel auth-pass {SERVICE}": password} if password else {}
        if own_password:
            logins |= {"requirepass": own_password, "sentinel sentinel-pass": own_password}
        self.settings = {
            **{key: self.settings[key] for key in ("port", "bind", "unixsocket", "dir", "logfile")},
            **_listening(port, tls),
            f"sentinel monitor {SERVICE}": f"127.0.0.1 {master_port} {_QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE}": str(_DOWN_AFTER),
            f"sentinel failover-timeout {SERVICE}": str(_FAILOVER_TIMEOUT),
            **logins,
        }


class Sentinels:
    """The whole set-up; a context manager, ready when it is entered.

    `password` is that of master and replica, `sentinel_password` that of the sentinels; `settings` are
    further redis.conf directives of master and replica; `tls` the directives `tls-...` of all five, which
    speak nothing else then.
    """

    def __init__(
        self,
        binary: Binary,
        *,
        password: str = "",
        sentinel_password: str = "",
        settings: Mapping[str, str] | None = None,
        tls: Mapping[str, str] | None = None,
    ) -> None:
        self._password, self._sentinel_password = password, sentinel_password
        logins = {"requirepass": password, "masterauth": password} if password else {}
        first, second = free_port(), free_port()
        common = {"repl-diskless-sync-delay": "0", **logins, **(settings or {})}
        tls, follows = tls or {}, {"replicaof": f"127.0.0.1 {first}"}
        self._servers = [
            Server(binary, port=first, settings=common | _listening(first, tls)),
            Server(binary, port=second, settings=common | follows | _listening(second, tls)),
        ]
        #: The sentinels' own processes, to be stopped and started like any `Server`.
        self.sentinels = [
            _Sentinel(binary, first, password, sentinel_password, tls) for _ in range(_SENTINELS)
        ]
        self._stack = ExitStack()

    @property
    def addresses(self) -> str:
        """`host:port,...` of the sentinels, as `[redis] sentinels` takes it."""
        return ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)

    @property
    def url(self) -> str:
        """What `[redis] url` takes; the sentinels' own password is no part of it."""
        login = f":{self._password}@" if self._password else ""
        return f"redis+sentinel://{login}{self.addresses}/{SERVICE}/0"

    @property
    def config(self) -> RedisConfig:
        """What the product needs to connect."""
        return RedisConfig.model_validate(
            {
                "sentinels": self.addresses,
                "service": SERVICE,
                "password": self._password,
                "sentinel_password": self._sentinel_password,
            }
        )

    # -- who is what ------------------------------------------------------------------------------

    @property
    def master_port(self) -> int:
        """The port of the master, as the sentinels that run say; they may be behind for a while."""
        said = [port for port in map(self._master_port, self.sentinels) if port]
        assert said, "no sentinel answers"
        return max(said, key=said.count)

    @property
    def master(self) -> Server:
        """The master, as the sentinels say."""
        return self._server(self.master_port)

    @property
    def replica(self) -> Server:
        """The one that is not the master."""
        return self.other(self.master)

    def other(self, server: Server) -> Server:
        """The other one of the two."""
        return next(each for each in self._servers if each is not server)

    @contextmanager
    def talk(self, server: Server) -> Iterator[Any]:
        """A plain client of one of the servers or sentinels."""
        own = self._sentinel_password if isinstance(server, _Sentinel) else self._password
        client = redis.Redis(
            unix_socket_path=str(server.socket), password=own or None, decode_responses=True, protocol=2
        )
        try:
            yield client
        finally:
            client.close()

    def until_replicated(self) -> None:
        """Wait until the replica has all that the master had when this was called."""
        wanted = self._replication(self.master).get("master_repl_offset", 0)
        until(lambda: self._replication(self.replica).get("slave_repl_offset", -1) >= wanted, "the replica")

    # -- what happens to it -----------------------------------------------------------------------

    def kill_master(self) -> Server:
        """SIGKILL the master, and return it; nobody is told."""
        master = self.master
        master.stop()
        return master

    def until_promoted(self, dead: Server) -> Server:
        """Wait until the other one is the master and every sentinel that runs says so; returns it."""
        new = self.other(dead)
        until(lambda: self._promoted(new), "the failover")
        return new

    def restart(self, dead: Server) -> None:
        """Start a server that was killed, and wait until it follows the master.

        It comes up as the master that it was (the sentinels need a while to tell it otherwise).
        """
        dead.start()
        until(lambda: self._follows(dead), "the old master's following the new one")

    def fail_over(self) -> Server:
        """Let the sentinels make the replica the master, both alive; returns the new one.

        Until the old one follows, some seconds after its promotion, the new one's data wins: what clients
        still write to the old one meanwhile is lost.
        """
        old = self.master
        until(lambda: self._promoted(self.other(old)) or self._ask_for_failover(old), "the failover")
        until(lambda: self._follows(old), "the old master's following the new one")
        return self.other(old)

    def __enter__(self) -> Sentinels:
        with ExitStack() as started:
            for server in (*self._servers, *self.sentinels):
                started.callback(server.remove)
                server.start()
            until(lambda: all(map(self._knows_all, self.sentinels)), "the sentinels' finding each other")
            self._stack = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- what they say ----------------------------------------------------------------------------

    def _server(self, port: int) -> Server:
        return next(each for each in self._servers if each.port == port)

    def _about(self, sentinel: Server) -> dict[str, Any]:
        """What a sentinel says of the master; nothing if it does not run."""
        try:
            with self.talk(sentinel) as client:
                return dict(client.sentinel_master(SERVICE))
        except _AWAY:
            return {}

    def _master_port(self, sentinel: Server) -> int:
        return int(self._about(sentinel).get("port", 0))

    def _knows_all(self, sentinel: Server) -> bool:
        about = self._about(sentinel)
        return (
            about.get("num-other-sentinels") == len(self.sentinels) - 1
            and about.get("num-slaves") == 1
            and self._follows(self.replica)
        )

    def _replication(self, server: Server) -> dict[str, Any]:
        try:
            with self.talk(server) as client:
                return dict(client.info("replication"))
        except _AWAY:
            return {}

    def _promoted(self, new: Server) -> bool:
        said = {port for port in map(self._master_port, self.sentinels) if port}
        return said == {new.port} and self._replication(new).get("role") == "master"

    def _follows(self, server: Server) -> bool:
        about = self._replication(server)
        return about.get("role") == "slave" and about.get("master_link_status") == "up"

    def _ask_for_failover(self, old: Server) -> bool:
        """Ask one sentinel, as long as it takes the old master for the master; False: it takes time."""
        if self._master_port(self.sentinels[0]) == old.port:
            # NOGOODSLAVE: what it knows is a little old; INPROG: it is at it.
            with suppress(*_AWAY), self.talk(self.sentinels[0]) as client:
                client.execute_command("SENTINEL", "FAILOVER", SERVICE)
        return False
