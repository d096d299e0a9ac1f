"""The budgets of hubs in Redis: what the workers of a fleet may still ask, and what `status` says of it."""

from __future__ import annotations

import secrets
import socket

from distributed_downloader.bucket import Grant
from distributed_downloader.checks import number_or
from distributed_downloader.quota import HubBudget, Told, spare
from distributed_downloader.redis_client import RedisClient
from distributed_downloader.redis_connection import Answer, translated


class RedisBudgets:
    """What hubs allow to the accounts of a fleet; every call raises RedisUnavailableError only."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._name = f"{socket.gethostname()}-{secrets.token_hex(4)}"

    def spend(self, account: str, endpoint: str, heard: Told, out: int, wanted: int) -> Grant:
        """See `budget.Ledger`."""
        kept = spare(heard.quota)
        answer = self._client.scripts.run(
            "spend",
            account,
            heard.bucket,
            endpoint,
            max(0, heard.left - kept),
            round(heard.seconds * 1000),
            heard.quota - kept,
            heard.quota,
            heard.window * 1000,
            self._name,
            out,
            wanted,
        )
        return Grant(int(answer[0]), int(answer[1]) / 1000, int(answer[2]) / 1000)

    def all(self) -> list[HubBudget]:
        """Return what is known of the windows that are not over."""
        key, commands = self._client.key, self._client.commands
        with translated(self._client.address):
            now: Answer = commands.time()
            names: Answer = commands.zrange(key("budgets"), 0, -1)
            with commands.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hmget(key(f"budget:{name}"), ["endpoint", "left", "quota", "ends"])
                rows = pipe.execute() if names else []
        ms = now[0] * 1000 + now[1] // 1000
        found = (_budget(name, row, ms) for name, row in zip(names, rows, strict=True))
        return [budget for budget in found if budget]


def _budget(name: str, row: list[str | None], now: int) -> HubBudget | None:
    endpoint, (left, quota, ends) = row[0], (number_or(text, 0) for text in row[1:])
    if not endpoint or not quota or ends <= now:
        return None
    return HubBudget(endpoint, name.partition(":")[2], left, quota, (ends - now) / 1000)
