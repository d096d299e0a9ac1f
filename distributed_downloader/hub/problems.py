"""Turns an answer that is not the wanted one into an error that says what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from distributed_downloader.errors import (
    AccessError,
    EngineError,
    LocalError,
    NotFoundError,
    RangeError,
    RateLimitError,
    ServerError,
    TransferError,
)

if TYPE_CHECKING:
    from distributed_downloader.response import Response

#: Seconds to pause when a server says "too many requests" without saying for how long.
DEFAULT_PAUSE = 10.0
#: Seconds; no server may stop us for longer than that in one go.
LONGEST_PAUSE = 3600.0

LOG_IN = "set HF_TOKEN, or run `hf auth login`"

#: What the hub puts into `X-Error-Code` with a 404, or with a 401 to hide what it has.
_MISSING = {
    "RepoNotFound": "the hub has no such repo, or it is private",
    "RevisionNotFound": "the hub has no such revision; look at the repo's branches and tags",
    "EntryNotFound": "the hub has no such file at this commit",
}


def problem(response: Response, what: str) -> TransferError:
    """Return the error for an answer that cannot be used; `what` names the repo or file asked for.

    Only the answer's status and headers are looked at, never its body.
    """
    status = response.status
    if status == 429 or (status == 503 and "Retry-After" in response.headers):
        pause = asked_pause(response.headers)
        return RateLimitError(f"{what}: {_who(response)} asks for a pause of {pause:.0f} s ({status})", pause)
    if status >= 500 or status in (408, 425):
        return ServerError(f"{what}: {_who(response)} has a problem{_said(response)}; it usually passes")
    if status == 416:
        return RangeError(f"{what}: {_who(response)} has no such range of bytes{_said(response)}")
    if response.from_hub and status in _REFUSALS:
        return _REFUSALS[status](response, what)
    # A storage host behind the hub knows no accounts: its 403 is a signed address that expired.
    return EngineError(f"{what}: {_who(response)} gave an answer that cannot be used{_said(response)}")


def existence(response: Response, what: str) -> bool:
    """Return whether the repo `what` exists, as far as an answer about it tells.

    Raises the `problem` when the answer is about something else, such as a token that is wrong.
    """
    code, hidden = _code(response), response.status == 401 and not response.sent_token
    if response.status == 200 or code == "GatedRepo":
        return True
    if response.status in (404, 410) or code in _MISSING or hidden:
        return False
    raise problem(response, what)


def asked_pause(headers: Mapping[str, str]) -> float:
    """Return for how many seconds a "too many requests" answer wants us to wait.

    The hub's own `RateLimit: "api";r=0;t=55` is exact, so it goes before `Retry-After`.
    """
    limit = re.search(r"\br=0\s*;\s*t=(\d{1,9})\b", headers.get("RateLimit", ""))
    seconds = float(limit[1]) + 1 if limit else _retry_after(headers.get("Retry-After", ""))
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def _retry_after(value: str) -> float:
    """Return seconds for `Retry-After`, which is a number or a date."""
    if re.fullmatch(r"\s*\d{1,9}\s*", value, re.ASCII):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return (date - datetime.now(timezone.utc)).total_seconds()
    except (ValueError, OverflowError, TypeError, IndexError):  # all of these, for what is no date
        return DEFAULT_PAUSE


def _unauthorized(response: Response, what: str) -> TransferError:
    """Return the error for 401, which the hub also uses to hide what is private or missing."""
    code = _code(response)
    if code == "GatedRepo":
        return _gated(response, what)
    if code in _MISSING:
        return _missing(response, what)
    if response.sent_token:
        return AccessError(
            f"{what}: {_who(response)} refuses the token{_said(response)}: it is wrong or expired; {LOG_IN}"
        )
    return AccessError(f"{what}: it does not exist, or needs a token{_said(response)}; {LOG_IN}")


def _forbidden(response: Response, what: str) -> TransferError:
    """Return the error for 403: gated, disabled, a token with too few rights, or a mirror's own rule."""
    if _code(response) == "GatedRepo":
        return _gated(response, what)
    if not response.sent_token:
        return AccessError(f"{what}: {_who(response)} forbids it without a token{_said(response)}; {LOG_IN}")
    return AccessError(
        f"{what}: {_who(response)} forbids it{_said(response)}; "
        "give the token read access to this repo (a mirror may also have rules of its own)"
    )


def _gated(response: Response, what: str) -> TransferError:
    accept = "accept its conditions on its page on the hub"
    if response.sent_token:
        return AccessError(
            f"{what}: the repo is gated, and your account is not on its list: {accept}{_said(response)}"
        )
    return AccessError(f"{what}: the repo is gated: {accept}, then {LOG_IN}{_said(response)}")


def _missing(response: Response, what: str) -> TransferError:
    text = _MISSING.get(_code(response), "the hub does not have it; a mirror may lack what others have")
    hint = "" if response.sent_token else f"; if it is private, {LOG_IN}"
    return NotFoundError(f"{what}: {text} ({_who(response)}, {response.status}){hint}")


def _proxy(response: Response, what: str) -> TransferError:
    return LocalError("this machine's proxy asks for a password; put it into HTTP_PROXY and HTTPS_PROXY")


def _barred(response: Response, what: str) -> TransferError:
    return AccessError(f"{what}: {_who(response)} may not give it out{_said(response)}")


_REFUSALS: dict[int, Callable[[Response, str], TransferError]] = {
    401: _unauthorized,
    403: _forbidden,
    404: _missing,
    407: _proxy,
    410: _missing,
    451: _barred,
}


def _code(response: Response) -> str:
    return response.headers.get("X-Error-Code", "")


def _who(response: Response) -> str:
    """Return the host that answered; never more of the address, for its query may be a signature."""
    host: str | None = urlsplit(response.url).hostname
    return host or "the hub"


def _said(response: Response) -> str:
    """Return ` (status: the server's own words)`, made safe for a terminal and a log."""
    words = "".join(filter(str.isprintable, response.headers.get("X-Error-Message", "")))[:200]
    words = re.sub(r"\bhf_\w{8,}", "hf_***", words)
    return f" ({response.status}: {words})" if words else f" ({response.status})"
