"""The claim: waits in Redis for a token, on a connection of its own that another thread can wake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from distributed_downloader.redis_connection import CutOffError, Scripts, connect_to_block
from distributed_downloader.redis_sentinel import demoted

if TYPE_CHECKING:
    from distributed_downloader.config import RedisConfig

#: Seconds; Redis before 7.0.8 takes a timeout below a millisecond for "for ever".
_LEAST_BLOCK = 0.25
#: Seconds that Redis may be late with the end of a block before the connection counts as broken.
_BLOCK_MARGIN = 10


class BlockingClaim:
    """One waiting claim at a time; without `config` it waits on the connection for everything else.

    All methods raise redis.RedisError.
    """

    def __init__(self, config: RedisConfig | None, commands: redis.Redis, scripts: Scripts) -> None:
        self._config, self._commands, self._scripts = config, commands, scripts
        self._client: redis.Redis | None = None
        self._seconds = 0.0
        self._id: int | None = None

    def wait(self, ready: str, mine: str, timeout: float) -> str | None:
        """BRPOPLPUSH ready mine, for so many seconds; safe to call again after an error."""
        try:
            token: Any = self._connected(timeout).brpoplpush(ready, mine, max(_LEAST_BLOCK, timeout))
        except BaseException as error:
            cut_off = self._id is not None and _is_cut(error)
            self._id = None  # the next connection has another
            if cut_off:
                raise CutOffError(str(error)) from error
            raise
        return None if token is None else str(token)

    def wake(self) -> None:
        """End a `wait` in another thread; harmless if none does."""
        if (claimer := self._id) is not None:
            self._commands.client_unblock(claimer)

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self, timeout: float) -> redis.Redis:
        if self._config is None:
            return self._commands
        if self._client is None or timeout > self._seconds:
            self.close()
            self._client = connect_to_block(self._config, timeout + _BLOCK_MARGIN)
            self._scripts.mend(self._client)
            self._seconds, self._id = timeout, None
        if self._id is None:
            self._id = int(self._client.client_id())
        return self._client


def _is_cut(error: BaseException) -> bool:
    """Return whether a connection broke: no kind of error that says more, nor a replica that answers."""
    return type(error) is redis.ConnectionError and not demoted(error)
