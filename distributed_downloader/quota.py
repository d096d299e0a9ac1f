"""What a hub tells of the requests that it still allows: its `RateLimit` headers (pure functions)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

#: Seconds of the longest window that is believed: no hub may stop us for longer in one go.
LONGEST_WINDOW = 3600
#: Where less than that part of a budget is left, it is worth a word.
_SCARCE = 0.2

_LIMIT = re.compile(r'"([\w-]{1,32})"\s*;\s*r=(\d{1,9})\s*;\s*t=(\d{1,9})\b', re.ASCII)
_POLICY = re.compile(r'"([\w-]{1,32})"\s*;\s*q=(\d{1,9})\s*;\s*w=(\d{1,9})\b', re.ASCII)
#: What the path of a request shows of the bucket that it counts in, the first that is found.
_KINDS = ("/api/resolve-cache/", "/resolve/", "/api/")


class Told(NamedTuple):
    """What an answer tells of its bucket."""

    bucket: str
    #: Requests that are left in this window, and how many a window has.
    left: int
    quota: int
    #: Seconds until the window ends, in which the hub's rounding is contained: it has ended by then.
    seconds: float
    #: Seconds of a whole window.
    window: int


def told(headers: Mapping[str, str]) -> Told | None:
    """Return what an answer tells; None where it has no such headers, or none that make sense."""
    said = headers.get("RateLimit")
    limit = _LIMIT.search(said) if said else None
    if limit is None:
        return None
    policies = _POLICY.findall(headers.get("RateLimit-Policy", ""))
    quota, window = next(((int(q), int(w)) for name, q, w in policies if name == limit[1]), (0, 0))
    left, seconds = int(limit[2]), int(limit[3])
    if not quota or not 0 < window <= LONGEST_WINDOW or seconds > window:
        return None
    return Told(limit[1], min(left, quota), quota, seconds + 1.0, window)


def kind(path: str) -> str:
    """Return what kind of request goes to a path: those of one kind count in one bucket."""
    return next((each for each in _KINDS if each in path), "")


def spare(quota: int) -> int:
    """Return how many of a window's requests are left unused.

    They are for what nobody counts: what is on its way when a window ends, and other programs of the account.
    At least one, but for windows so small that it would be more than a twentieth: a refusal costs less.
    """
    return max(quota // 50, int(quota >= 20))


def account(origin: str, token: str, host: str) -> str:
    """Return the name of whoever a hub counts: the token's user, or without one this machine's address.

    A digest, from which nobody gets the token.
    """
    who = f"token {token}" if token else f"host {host}"
    return hashlib.sha256(f"{origin} {who}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class HubBudget:
    """What is left of a hub's requests, as the fleet knows it."""

    endpoint: str
    bucket: str
    left: int
    quota: int
    #: Until there are `quota` again.
    seconds: float

    @property
    def scarce(self) -> bool:
        """Whether it slows the fleet down, or may do so soon."""
        return self.left < self.quota * _SCARCE
