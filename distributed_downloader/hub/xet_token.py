"""Gets what hf_xet needs to read a repo's files from their storage: an address, and a token that expires."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, Field, SecretStr, ValidationError

from distributed_downloader.connection import proxy_for
from distributed_downloader.errors import EngineError, NotFoundError, RefusedError, ServerError
from distributed_downloader.hub.problems import problem
from distributed_downloader.reach import (
    Depth,
    InnerHosts,
    has_plain_host,
    refuse_connected,
    refuse_spelled,
    resolved_depth,
)

if TYPE_CHECKING:
    from distributed_downloader.cancel import Cancel
    from distributed_downloader.models import JobSpec
    from distributed_downloader.ssl_config import HttpClient

#: Seconds before its end from which on a token is not used any more.
MARGIN = 60.0
#: Repos whose tokens are kept.
_KEPT = 64
#: Seconds between two looks at the stop signal while another thread asks.
_LOOK = 0.1

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shared(Generic[K, V]):
    """Values that many threads want and one of them gets; the `limit` that were used last are kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[K, V] = OrderedDict()
        self._busy: set[K] = set()
        self._changed = threading.Condition()

    def get(
        self, key: K, make: Callable[[], V], cancel: Cancel, good: Callable[[V], bool] = lambda _: True
    ) -> V:
        """Return the value if there is a good one, else what `make` returns; raises what that raises.

        While one thread makes it, the others wait; raises StoppedError.
        """
        with self._changed:
            while key in self._busy:
                self._changed.wait(_LOOK)
                cancel.check()
            found = self._values.get(key)
            if found is not None and good(found):
                self._values.move_to_end(key)
                return found
            self._busy.add(key)
        try:
            made = make()
            self._keep(key, made)
        finally:
            with self._changed:
                self._busy.discard(key)
                self._changed.notify_all()
        return made

    def forget(self, key: K, value: V) -> None:
        """Drop a value that turned out bad, unless another one is there already."""
        with self._changed:
            if self._values.get(key) is value:
                del self._values[key]

    def _keep(self, key: K, value: V) -> None:
        with self._changed:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._limit:
                self._values.popitem(last=False)


class XetAccess(BaseModel):
    """Where a repo's files are stored, and the right to read them until `expires` (Unix time)."""

    url: str = Field(alias="casUrl")
    token: SecretStr = Field(alias="accessToken", min_length=1)
    expires: float = Field(alias="exp")


class XetTokens:
    """The tokens of one worker; one request to the hub serves all its slots."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._known: Shared[str, XetAccess] = Shared(_KEPT)

    def get(self, spec: JobSpec, cancel: Cancel) -> XetAccess:
        """Return a token that is good for a while.

        Raises what `hub.problem` makes of a refusal, EngineError if the hub has no such thing, and
        what the connection may run into.
        """
        return self._known.get(_url(spec), lambda: self._ask(spec, cancel), cancel, _fresh)

    def forget(self, spec: JobSpec, access: XetAccess) -> None:
        """Ask for another one next time, for the storage refuses this one."""
        self._known.forget(_url(spec), access)

    def _ask(self, spec: JobSpec, cancel: Cancel) -> XetAccess:
        what = f"{spec.repo_type.value}s/{spec.repo_id}"
        with self._http.open("GET", _url(spec), cancel=cancel) as response:
            if response.status != 200:
                error = problem(response, what)
                if isinstance(error, NotFoundError):  # the repo is there, for its files' hashes are
                    raise EngineError(f"{what}: {spec.endpoint} gives no access to its Xet storage")
                raise error
            answer = response.json()
        try:
            access = XetAccess.model_validate(answer)
        except ValidationError:  # not its cause: it shows the token
            raise ServerError(f"{what}: {spec.endpoint} answers with something that is no token") from None
        _check_address(access.url, spec, self._http.inner, response.depth)
        return access


def _url(spec: JobSpec) -> str:
    root = f"{spec.endpoint.rstrip('/')}/api/{spec.repo_type.value}s/{quote(spec.repo_id)}"
    return f"{root}/xet-read-token/{spec.commit}"


def _fresh(access: XetAccess) -> bool:
    return access.expires - time.time() > MARGIN


def _check_address(url: str, spec: JobSpec, inner: InnerHosts, depth: Depth) -> None:
    """Raise RefusedError unless it leads to a server, and over TLS if the hub is asked over TLS.

    Raises NetworkError if its name leads further in than the hub lies: hf_xet would look at no address.
    """
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https"):
        raise RefusedError(f"{spec.endpoint}: its Xet storage has a {scheme}: address; that is not followed")
    if scheme == "http" and urlsplit(spec.endpoint).scheme == "https":
        raise RefusedError(f"{spec.endpoint}: its Xet storage is not on https; that is not followed")
    if not host or not has_plain_host(url):
        raise RefusedError(f"{spec.endpoint}: its Xet storage has no address; that is not followed")
    limit = inner.limit(url, depth)
    refuse_spelled(url, limit)
    if not proxy_for(url):
        refuse_connected(host, resolved_depth(url), limit)
