"""What is owed to the NAS: which files have to get there from which folder, and which of them did.

As in redis_client.py, every call may be repeated after a lost reply, and raises RedisUnavailableError only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from distributed_downloader.errors import RefusedError
from distributed_downloader.models import Descriptor, Failure, JobSpec, Token
from distributed_downloader.queue_terms import Owed, Redo
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import Answer, translated

log = logging.getLogger(__name__)


class RedisDeliveries:
    """The files that wait for the NAS; any worker that sees their folder may bring them there."""

    def __init__(self, client: RedisClient) -> None:
        self._client, self._scripts = client, client.scripts

    def folders(self) -> dict[str, str]:
        """Return the folders that owe files: id -> path on the machine that said so."""
        with translated(self._client.address):
            found: Answer = self._client.commands.hgetall(self._client.key("folders"))
        return dict(found)

    def take_owed(self, folder: str, limit: int, busy: float, *, ended_only: bool) -> list[Owed]:
        """Take up to `limit` files; nobody else gets them for `busy` seconds.

        With `ended_only`, only those of jobs that have been downloaded as a whole.
        """
        answer = self._scripts.run("owed", folder, limit, round(busy * 1000), int(ended_only))
        rows = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        return [owed for name, line, spec in rows if (owed := _owed(name, line, spec))]

    def keep_owed(self, folder: str, files: Iterable[Token], seconds: float) -> None:
        """Keep files from others for so long: they are being copied, or have to wait."""
        names = [str(token) for token in files]
        if names:
            self._scripts.run("keep", folder, round(seconds * 1000), *names)

    def delivered(self, folder: str, file: Token) -> bool:
        """Count a file that has got to the NAS; False if it was not owed (any more)."""
        return bool(self._scripts.run("deliver", folder, str(file)))

    def redo(self, folder: str, file: Token, found: Failure) -> Redo:
        """Let a file be fetched again that was damaged or removed before it got to the NAS."""
        most = self._client.limits.max_damages
        return Redo(self._scripts.run("redo", folder, str(file), found.model_dump_json(), most))


def _owed(name: str, line: str, spec: str) -> Owed | None:
    try:
        return Owed(Token.parse(name), Descriptor.from_line(line), JobSpec.model_validate_json(spec))
    except (ValueError, RefusedError) as error:
        log.warning("file %s is owed to the NAS and cannot be read in Redis: %s", name, error)
        return None
