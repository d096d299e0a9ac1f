"""An HttpClient that answers from a script, for what is not about sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from urllib3 import HTTPHeaderDict

from distributed_downloader.cancel import Cancel
from distributed_downloader.hub import Hub, Patience
from distributed_downloader.hub.api import HubApi
from distributed_downloader.reach import InnerHosts
from distributed_downloader.response import Response
from distributed_downloader.ssl_config import HttpClient

ENDPOINT = "https://hub.test"
COMMIT = "c0ffee" + "0" * 34
#: Gives up soon, and hardly ever waits.
HASTY = Patience(faults=0.004, asked=100, first=0.001, longest=0.001)


@dataclass
class FakeResponse:
    """What a server says; used in place of `response.Response`."""

    status: int = 200
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    url: str = f"{ENDPOINT}/api/models/org/name?secret=signature"
    from_hub: bool = True
    sent_token: bool = False

    def __post_init__(self) -> None:
        self.headers = HTTPHeaderDict(dict(self.headers))

    def __enter__(self) -> FakeResponse:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def json(self) -> Any:  # noqa: ANN401 as the real one
        return self.data


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    url: str
    body: bytes | None = None


Script = Callable[[Sent], FakeResponse | Exception]


class FakeHttp:
    """Answers every request by calling `script`, and keeps what was sent."""

    inner = InnerHosts()

    def __init__(self, script: Script) -> None:
        self._script = script
        self.sent: list[Sent] = []

    @property
    def paths(self) -> list[str]:
        """What was asked for, without the endpoint."""
        return [sent.url.removeprefix(ENDPOINT) for sent in self.sent]

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cancel: Cancel | None = None,
    ) -> FakeResponse:
        assert cancel is not None, "every request can be ended"
        assert (body is not None) == bool(headers), "a form has its type, a question has none"
        self.sent.append(Sent(method, url, body))
        answer = self._script(self.sent[-1])
        if isinstance(answer, Exception):
            raise answer
        return answer


def in_turn(*answers: FakeResponse | Exception) -> FakeHttp:
    """Return a client that gives these answers, one after the other."""
    left = list(answers)
    return FakeHttp(lambda _: left.pop(0))


def by_path(answers: Mapping[str, FakeResponse | Exception]) -> FakeHttp:
    """Return a client that answers by what is asked for; anything else is not there."""

    def script(sent: Sent) -> FakeResponse | Exception:
        path = sent.url.removeprefix(f"{ENDPOINT}/api/").split("?")[0]
        return answers.get(path, FakeResponse(404, headers={"X-Error-Code": "RepoNotFound"}))

    return FakeHttp(script)


def hub_over(http: FakeHttp, patience: Patience = HASTY) -> Hub:
    return Hub(cast(HttpClient, http), ENDPOINT, patience)


def api_over(http: FakeHttp, patience: Patience = HASTY) -> HubApi:
    return HubApi(cast(HttpClient, http), ENDPOINT, patience)


def as_response(response: FakeResponse) -> Response:
    return cast(Response, response)


def file_entry(path: str, size: int = 3, **more: object) -> dict[str, object]:
    """Return a git file as a `tree` page has it."""
    return {"type": "file", "path": path, "size": size, "oid": "a" * 40, **more}


def lfs_entry(path: str, size: int = 3, oid: str = "b" * 64) -> dict[str, object]:
    """Return an LFS file as a `tree` page has it."""
    return {**file_entry(path, size), "lfs": {"oid": oid, "size": size, "pointerSize": 130}}


def tree_page(entries: Sequence[dict[str, object]], following: str = "") -> FakeResponse:
    """Return a page; `following` is the query of the next one, on a host that is not ours."""
    link = f'<https://upstream.test/api/x?{following}>; rel="next"'
    return FakeResponse(data=list(entries), headers={"Link": link} if following else {})
