"""The fleet's bandwidth in Redis: what each worker could use, and what it gets."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping

from distributed_downloader.bandwidth import PULSE, Demand, Share
from distributed_downloader.checks import MOST, number, number_or
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import translated

#: Seconds after which a worker that says nothing more has no share.
SILENT = 5.0
#: Seconds for which shares are kept.
_KEPT = 60


class RedisBandwidth:
    """One worker's place at the board; see `bandwidth.Board`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._name = f"{socket.gethostname()}-{secrets.token_hex(4)}"

    def tell(self, own: Demand) -> tuple[Share | None, Mapping[str, Demand]]:
        """See `bandwidth.Board`."""
        times = (round(PULSE * 900), round(SILENT * 1000))
        share, *rows = self._client.scripts.run("share", self._name, _whole(own.wanted), own.limit, *times)
        found = zip(rows[::3], rows[1::3], rows[2::3], strict=True)
        demands = {
            str(name): Demand(number_or(wanted, 0), limit)
            for name, wanted, text in found
            if (limit := number_or(text, 0))
        }
        return _share(share), demands

    def publish(self, shares: Mapping[str, Share]) -> Share | None:
        """See `bandwidth.Board`."""
        whole = {name: Share(*map(_whole, share)) for name, share in shares.items()}
        key = self._client.key("shares")
        with translated(self._client.address), self._client.commands.pipeline(transaction=True) as pipe:
            pipe.delete(key)  # with the shares of those who have left since somebody worked them out
            pipe.hset(key, mapping={name: f"{share.sure} {share.room}" for name, share in whole.items()})
            pipe.pexpire(key, _KEPT * 1000)
            pipe.execute()
        return whole.get(self._name)

    def leave(self) -> None:
        """See `bandwidth.Board`."""
        with translated(self._client.address), self._client.commands.pipeline(transaction=True) as pipe:
            for key in ("bandwidth", "shares"):
                pipe.hdel(self._client.key(key), self._name)
            pipe.execute()


def _share(text: str) -> Share | None:
    try:
        sure, room = map(number, text.split(" "))
    except ValueError:  # there is none, or litter
        return None
    return Share(sure, room)


def _whole(rate: float) -> int:
    return max(1, int(min(rate, MOST)))
