"""Whether the hub can be reached, as whom, how much it still allows, and whether it gives us a repo."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distributed_downloader.connection import proxy_for
from distributed_downloader.display import units
from distributed_downloader.doctor.certificate import presented
from distributed_downloader.findings import Finding, Subject
from distributed_downloader.hub import Hub, Patience, file_url, problem
from distributed_downloader.master import nothing_matches, plan_of, prepare
from distributed_downloader.quota import HubBudget, told
from distributed_downloader.response import Response, redacted
from distributed_downloader.rules import Rules
from distributed_downloader.ssl_config import HttpClient

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig, ConfigManager
    from distributed_downloader.master import JobRequest
    from distributed_downloader.models import JobSpec, RepoFile

HUB = Subject("hub")
#: One try, no pauses: what is wrong now is what a doctor is asked for.
_AT_ONCE = Patience(faults=0, unproven=0, asked=0)
#: What a hub answers to who we are: known, not known or refused, or that it keeps no accounts.
_ANSWERS = (200, 401, 404)
#: Seconds for which a hub may be silent: short of the doctor's own, so that it is said which host is.
_SILENCE = 10.0
#: Seconds from which on an answer is slow, and for which a listing is followed.
_SLOW, _LISTING = 3.0, 10.0
#: Seconds before its end from which on a certificate is worth a word: two weeks.
_ENDS_SOON = 14 * 86400


class Need(NamedTuple):
    """What a job needs, as far as its listing was read."""

    spec: JobSpec
    files: int
    size: int
    whole: bool


class _AccessToken(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: str = ""


class _Auth(BaseModel):
    model_config = ConfigDict(extra="ignore")
    access_token: _AccessToken = Field(default=_AccessToken(), alias="accessToken")


class _Account(BaseModel):
    """What we use of `/api/whoami-v2`."""

    model_config = ConfigDict(extra="ignore")
    name: str
    auth: _Auth = _Auth()


class HubHealth:
    """Examines the hub of the settings, and a repo of it if one is asked for."""

    def __init__(self, manager: ConfigManager, config: AppConfig, request: JobRequest | None) -> None:
        self._config, self._request = config, request
        self._endpoint = config.huggingface.endpoint
        self._token_from = manager.sources.get("huggingface.token", "")
        #: What the repo needs; None as long as nobody knows.
        self.need: Need | None = None

    def findings(self) -> Iterator[Finding]:
        """Yield what is found; raises TransferError and the like for what stands in the way."""
        proxy = proxy_for(self._endpoint)
        yield HUB.good("proxy", redacted(proxy).rstrip("/") if proxy else "none, directly")
        if urlsplit(self._endpoint).scheme == "https":
            yield self._certificate(proxy)
        http = HttpClient.of(self._config, read_timeout=_SILENCE)
        try:
            yield from self._account(http)
            if self._request:
                yield from HUB.attempt("access", self._repo(http, self._request))
        finally:
            http.close()

    def _certificate(self, proxy: str) -> Finding:
        shown = presented(self._endpoint, proxy)
        if shown is None:
            return HUB.unknown("certificate", "was not shown")
        left = shown.until - time.time()
        ends = f"{units.duration(left)} left" if left > 0 else "it is over"
        value = f"issued by {units.safe(shown.issuer)}, {ends}"
        if left > _ENDS_SOON:
            return HUB.good("certificate", value)
        return HUB.warning("certificate", value, f"the certificate of {self._host} has to be renewed")

    @property
    def _host(self) -> str:
        return urlsplit(self._endpoint).netloc.rpartition("@")[2]

    def _account(self, http: HttpClient) -> Iterator[Finding]:
        """Yield how the hub answers the question who we are."""
        started = time.monotonic()
        with http.open("GET", f"{self._endpoint}/api/whoami-v2") as response:
            took = time.monotonic() - started
            yield self._answer(response, took)
            yield self._token(response)
            yield self._budget(response.headers)

    def _answer(self, response: Response, took: float) -> Finding:
        value = f"{redacted(self._endpoint)} answers in {1000 * took:.0f} ms"
        if response.status == 407:
            return HUB.broken("endpoint", value, str(problem(response, "the hub")))
        if response.status not in _ANSWERS:
            return HUB.warning("endpoint", value, str(problem(response, "the hub")))
        if took > _SLOW:
            advice = f"{self._host} takes long to answer: look at the line, the proxy and the name server"
            return HUB.warning("endpoint", value, advice)
        return HUB.good("endpoint", value)

    def _token(self, response: Response) -> Finding:
        if not response.sent_token:
            return HUB.good("token", "none: public repos only, and fewer requests")
        if response.status == 401:
            return HUB.broken("token", f"from {self._token_from}", str(problem(response, "the token")))
        if response.status != 200:
            return HUB.unknown("token", f"from {self._token_from}; the hub does not say whose")
        try:
            account = _Account.model_validate(response.json())
        except ValidationError:
            return HUB.unknown("token", f"from {self._token_from}; the hub does not say whose")
        role = f", {units.safe(account.auth.access_token.role)}" if account.auth.access_token.role else ""
        return HUB.good("token", f"of {units.safe(account.name)}{role}, from {self._token_from}")

    def _budget(self, headers: Mapping[str, str]) -> Finding:
        heard = told(headers)
        if heard is None:
            return HUB.unknown("requests", "the hub does not say how many it allows")
        resets = f"new ones in {units.duration(heard.seconds)}"
        value = f"{heard.left:,} of {heard.quota:,} left ({heard.bucket}), {resets}"
        if HubBudget(self._endpoint, heard.bucket, heard.left, heard.quota, heard.seconds).scarce:
            advice = f"the account has few requests left at {self._host}: the fleet waits for the next window"
            return HUB.warning("requests", value, advice)
        return HUB.good("requests", value)

    # -- a repo -----------------------------------------------------------------------------------

    def _repo(self, http: HttpClient, request: JobRequest) -> Iterator[Finding]:
        hub = Hub(http, self._endpoint, _AT_ONCE)
        spec = prepare(hub, request, Rules(self._config))
        largest = self._list(hub, spec)
        yield _read(http, spec, largest)
        need = self.need
        if need:
            more = "" if need.whole else " or more: the listing takes long"
            size = f"{units.count(need.files, 'file')}, {units.size(need.size)}{more}"
            yield HUB.good("size", f"{units.repo(spec)} at {spec.revision} ({spec.commit[:8]}): {size}")

    def _list(self, hub: Hub, spec: JobSpec) -> RepoFile:
        """Follow the listing for a while, and return the largest file of it."""
        plan, deadline = plan_of(spec), time.monotonic() + _LISTING
        listing = hub.pages(spec.repo_type, spec.repo_id, spec.commit)
        files = size = 0
        largest: RepoFile | None = None
        whole = True
        for page in plan.pages(listing):
            files, size = files + len(page), size + sum(file.size for file in page)
            top = max(page, key=lambda file: file.size)
            largest = top if largest is None or top.size > largest.size else largest
            whole = time.monotonic() < deadline
            if not whole:
                break
        listing.close()
        if largest is None:
            raise nothing_matches(spec, plan)
        self.need = Need(spec, files, size, whole)
        return largest


def _read(http: HttpClient, spec: JobSpec, file: RepoFile) -> Finding:
    """Ask for the first byte of a file, which shows what the listing does not: whether we may have it."""
    url = file_url(spec.endpoint, spec.repo_type, spec.repo_id, spec.commit, file.path)
    first = {"Range": "bytes=0-0"} if file.size else {}
    started = time.monotonic()
    with http.open("GET", url, headers=first) as response:
        took = time.monotonic() - started
        name, host = units.safe(file.path), urlsplit(response.url).hostname
        if response.status in (200, 206):
            begins = f"begins in {1000 * took:.0f} ms"
            return HUB.good("access", f"{units.repo(spec)}: {name} from {host} {begins}")
        return HUB.broken("access", units.repo(spec), str(problem(response, name)))
