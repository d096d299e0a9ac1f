"""Asks the hub's API for JSON, patiently: retries, back-off, and pauses that the hub asks for."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from distributed_downloader.cancel import Cancel
from distributed_downloader.errors import HubUnavailableError, RateLimitError, TransientError
from distributed_downloader.hub.problems import existence, problem

if TYPE_CHECKING:
    from distributed_downloader.response import Response
    from distributed_downloader.ssl_config import HttpClient

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long to wait for a hub that does not answer; all in seconds."""

    #: Pauses after faults, in all, before giving up on a hub that has answered before.
    faults: float = 120.0
    #: The same for a hub that never has: its address, or the way to it, may be wrong.
    unproven: float = 15.0
    #: Pauses that the hub asked for, in all: three of its five-minute windows.
    asked: float = 900.0
    #: The first pause after a fault is up to that long, each next up to twice as long as the one before.
    first: float = 1.0
    #: The longest single pause after a fault.
    longest: float = 20.0


class Answer(NamedTuple):
    """What the API said: its JSON, and the headers around it."""

    data: Any
    headers: Mapping[str, str]


class HubApi:
    """The API of one hub; may be used by several threads."""

    def __init__(self, http: HttpClient, endpoint: str, patience: Patience | None = None) -> None:
        self._http = http
        self._root = f"{endpoint.rstrip('/')}/api/"
        self._patience = patience or Patience()
        self._answered = False
        #: Ends all calls that go on, and all later ones, when it is set.
        self.cancel = Cancel()

    def call(
        self, path: str, what: str, *, form: bytes | None = None, cancel: Cancel | None = None
    ) -> Answer:
        """Return the JSON at `path` below `/api/`, POSTing `form` if there is one.

        Raises HubUnavailableError when patience runs out, StoppedError when `cancel` is set, and what
        `hub_problem.problem` makes of a refusal.
        """

        def read(response: Response) -> Answer:
            if response.status != 200:
                raise problem(response, what)
            return Answer(response.json(), response.headers)

        return self._patiently(path, form, cancel or self.cancel, read)

    def exists(self, path: str, what: str) -> bool:
        """Return whether the repo at `path` below `/api/` exists; raises as `call` does."""
        return self._patiently(path, None, self.cancel, lambda response: existence(response, what))

    def _patiently(self, path: str, form: bytes | None, cancel: Cancel, read: Callable[[Response], T]) -> T:
        spent, told = _Spent(self._patience), ""
        while True:
            cancel.check()
            try:
                return self._once(path, form, cancel, read)
            except TransientError as error:
                pause = spent.next_pause(error, self._limit())
                if str(error) == told:
                    log.info("no change; trying again in %.1f s", pause)
                else:
                    log.warning("%s; trying again in %.1f s", error, pause)
                told = str(error)
                cancel.wait(pause)

    def _limit(self) -> float:
        patience = self._patience
        return patience.faults if self._answered else min(patience.unproven, patience.faults)

    def _once(self, path: str, form: bytes | None, cancel: Cancel, read: Callable[[Response], T]) -> T:
        method, headers = ("GET", {}) if form is None else ("POST", _FORM)
        with self._http.open(
            method, self._root + path, headers=headers, body=form, cancel=cancel
        ) as response:
            self._answered = True
            return read(response)


_ADVICE_WHEN_LIMITED = "With a token (HF_TOKEN) the hub allows more; else try again later."
_ADVICE = "Is the endpoint right (--endpoint, HF_ENDPOINT), and does this machine need a proxy (HTTPS_PROXY)?"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class _Spent:
    """The patience already used on one call."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._tries = 0
        self._faults = self._asked = 0.0

    def next_pause(self, error: TransientError, limit: float) -> float:
        """Return the seconds to wait before the next try; HubUnavailableError when it was enough."""
        self._tries += 1
        pause = self._pause(error)
        if self._faults > limit or self._asked > self._patience.asked:
            limited = isinstance(error, RateLimitError)
            advice = _ADVICE_WHEN_LIMITED if limited else _ADVICE
            raise HubUnavailableError(f"{error}; gave up after {self._tries} tries. {advice}") from error
        return pause

    def _pause(self, error: TransientError) -> float:
        if isinstance(error, RateLimitError):
            # A second is added, so that a server that says 0 for ever does not keep us for ever.
            pause = error.retry_after + random.uniform(0, 1)
            self._asked += error.retry_after + 1
            return pause
        ceiling = min(self._patience.longest, self._patience.first * 2.0 ** min(self._tries - 1, 30))
        self._faults += ceiling
        return random.uniform(0, ceiling)
