from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.errors import (
    AccessError,
    EngineError,
    LocalError,
    NotFoundError,
    PermanentError,
    RangeError,
    RateLimitError,
    ServerError,
    TransferError,
    TransientError,
)
from distributed_downloader.hub import problem
from distributed_downloader.hub.problems import DEFAULT_PAUSE, LONGEST_PAUSE, asked_pause, existence
from tests.unit.fake_http import FakeResponse, as_response

CODE, MESSAGE = "X-Error-Code", "X-Error-Message"


def told(status: int, *, sent_token: bool = False, from_hub: bool = True, **headers: str) -> TransferError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = FakeResponse(status, headers=named, sent_token=sent_token, from_hub=from_hub)
    return problem(as_response(response), "models/org/name: a.bin")


@pytest.mark.parametrize(
    ("status", "code", "sent_token", "expected", "words"),
    [
        (401, "RepoNotFound", False, NotFoundError, "no such repo, or it is private.*set HF_TOKEN"),
        (401, "RepoNotFound", True, NotFoundError, "no such repo, or it is private"),
        (404, "RepoNotFound", True, NotFoundError, "no such repo, or it is private"),
        (404, "RevisionNotFound", True, NotFoundError, "no such revision"),
        (404, "EntryNotFound", True, NotFoundError, "no such file at this commit"),
        (404, "", False, NotFoundError, "does not have it; a mirror may lack"),
        (410, "", False, NotFoundError, "does not have it"),
        (401, "GatedRepo", False, AccessError, "gated: accept its conditions.*then set HF_TOKEN"),
        (403, "GatedRepo", True, AccessError, "gated, and your account is not on its list: accept"),
        (401, "", True, AccessError, "refuses the token.*wrong or expired; set HF_TOKEN"),
        (401, "", False, AccessError, "does not exist, or needs a token.*set HF_TOKEN"),
        (403, "", False, AccessError, "without a token"),
        (403, "", True, AccessError, "give the token read access.*mirror"),
        (407, "", False, LocalError, "proxy asks for a password.*HTTP_PROXY"),
        (451, "", False, AccessError, "may not give it out"),
        (416, "", False, RangeError, "no such range"),
        (400, "", False, EngineError, "cannot be used"),
        (302, "", False, EngineError, "cannot be used"),
        (200, "", False, EngineError, "cannot be used"),
        (408, "", False, ServerError, "has a problem"),
        (425, "", False, ServerError, "has a problem"),
        (500, "", False, ServerError, "has a problem"),
        (502, "", False, ServerError, "has a problem"),
        (503, "", False, ServerError, "has a problem"),
        (504, "", False, ServerError, "has a problem"),
        (599, "", False, ServerError, "has a problem"),
    ],
)
def test_statuses(
    status: int, code: str, sent_token: bool, expected: type[TransferError], words: str
) -> None:
    error = told(status, sent_token=sent_token, X_Error_Code=code)
    assert type(error) is expected
    with pytest.raises(expected, match=words):
        raise error
    assert "models/org/name: a.bin" in str(error) or status == 407


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_storage_host_knows_no_accounts(status: int) -> None:
    error = told(status, from_hub=False, X_Error_Code="GatedRepo")
    assert isinstance(error, EngineError)
    assert "token" not in str(error)


@pytest.mark.parametrize("status", [416, 429, 500, 503])
def test_faults_of_a_storage_host_are_those_of_any_server(status: int) -> None:
    assert type(told(status, from_hub=False)) is type(told(status))


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_what_the_hub_refuses_is_not_tried_again(status: int) -> None:
    assert isinstance(told(status), PermanentError)


def test_the_servers_words_are_passed_on() -> None:
    error = told(403, sent_token=True, X_Error_Message="Access to this resource is disabled.")
    assert "(403: Access to this resource is disabled.)" in str(error)


def test_the_servers_words_cannot_steer_a_terminal_nor_flood_it() -> None:
    text = str(told(500, X_Error_Message="\x1b[2J\r\nboom" + "!" * 5000))
    assert text.isprintable()
    assert "boom" in text
    assert len(text) < 400


def test_no_message_has_a_token_or_a_signature() -> None:
    for status in range(300, 600):
        for from_hub in (True, False):
            error = told(status, from_hub=from_hub, X_Error_Message="bad token hf_abcdefghijKLMN0123 here")
            assert "signature" not in str(error)
            assert "hf_abc" not in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, DEFAULT_PAUSE),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 7 "}, 7),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "999999999"}, LONGEST_PAUSE),
        ({"Retry-After": "9" * 400}, DEFAULT_PAUSE),
        ({"Retry-After": "-5"}, DEFAULT_PAUSE),
        ({"Retry-After": "1.5"}, DEFAULT_PAUSE),
        ({"Retry-After": "soon"}, DEFAULT_PAUSE),
        ({"Retry-After": "nan"}, DEFAULT_PAUSE),
        ({"Retry-After": "٣"}, DEFAULT_PAUSE),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 -0000"}, 0),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, LONGEST_PAUSE),
        ({"RateLimit": '"api";r=0;t=55'}, 56),
        ({"RateLimit": '"api"; r=0; t=55'}, 56),
        ({"RateLimit": '"api";r=0;t=55', "Retry-After": "3"}, 56),
        # The limit has room: the pause is for another reason.
        ({"RateLimit": '"api";r=12;t=55', "Retry-After": "3"}, 3),
        ({"RateLimit": '"api";r=10;t=55'}, DEFAULT_PAUSE),
        ({"RateLimit": "nonsense"}, DEFAULT_PAUSE),
    ],
)
def test_pauses(headers: dict[str, str], seconds: float) -> None:
    assert asked_pause(FakeResponse(headers=headers).headers) == seconds


def test_a_date_is_a_pause_until_then() -> None:
    date = datetime.now(timezone.utc) + timedelta(seconds=500)
    assert 0 < asked_pause({"Retry-After": format_datetime(date, usegmt=True)}) <= 500


@given(st.text(), st.text())
def test_no_header_breaks_the_pause(limit: str, after: str) -> None:
    assert 0 <= asked_pause({"RateLimit": limit, "Retry-After": after}) <= LONGEST_PAUSE


@pytest.mark.parametrize("from_hub", [True, False])
def test_too_many_requests(from_hub: bool) -> None:
    error = told(429, from_hub=from_hub, Retry_After="42")
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 42
    assert "pause of 42 s" in str(error)
    assert isinstance(error, TransientError)


def test_503_with_a_pause_is_no_fault() -> None:
    error = told(503, Retry_After="4")
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 4


@pytest.mark.parametrize(
    ("status", "code", "sent_token", "exists"),
    [
        (200, "", False, True),
        (401, "GatedRepo", False, True),
        (403, "GatedRepo", True, True),
        (404, "RepoNotFound", True, False),
        (404, "", False, False),
        (410, "", False, False),
        (401, "RepoNotFound", False, False),
        (401, "RepoNotFound", True, False),
        # The hub answers so for what is not there, and a mirror may lose the code.
        (401, "", False, False),
    ],
)
def test_existence(status: int, code: str, sent_token: bool, exists: bool) -> None:
    response = FakeResponse(status, headers={CODE: code}, sent_token=sent_token)
    assert existence(as_response(response), "models/org/name") is exists


@pytest.mark.parametrize(
    ("status", "sent_token", "expected"),
    [
        (401, True, AccessError),
        (403, True, AccessError),
        (429, False, RateLimitError),
        (500, False, ServerError),
    ],
)
def test_an_answer_about_something_else_tells_nothing_of_existence(
    status: int, sent_token: bool, expected: type[TransferError]
) -> None:
    response = FakeResponse(status, headers={MESSAGE: "Invalid credentials"}, sent_token=sent_token)
    with pytest.raises(expected):
        existence(as_response(response), "models/org/name")
