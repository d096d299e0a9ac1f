"""What an error of Redis means and what to do about it, in our words: each thing once, and no internals."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping

import redis

from distributed_downloader.redis_greeting import BrokenOffError

#: What a refusal begins with, and what to do about it.
_ADVICE: Mapping[str, str] = {
    "NOAUTH": "wants a login: set [redis] username and password (REDIS_USERNAME, REDIS_PASSWORD)",
    "WRONGPASS": "refuses the login: check [redis] username and password (REDIS_USERNAME, REDIS_PASSWORD)",
    "NOPASS": "wants no login: leave [redis] password (REDIS_PASSWORD) empty",
    "NOPERM": "forbids this user {forbidden}; docs/operations.md has the ACL rule that is needed",
    "OOM": "is full: raise its maxmemory",
    "READONLY": "is a read-only replica, if only for the moment: {primary}",
    "NOREPLICAS": "takes nothing while it has too few replicas (min-replicas-to-write): start them",
    "MISCONF": "cannot write to its own disk; its log says why",
    "LOADING": "is still loading its data; try again shortly",
    "BUSY": "is busy with somebody's script; try again shortly",
    "NODB": "has no database of that number: check [redis] db",
    "MOVED": "is a cluster, and another node has our keys: set [redis] host to that node ({reason})",
}
# Patterns are compiled, and kept by `re`, when there is an error: most processes never see one.
_CODE = rf"(?:^|-|because of: )({'|'.join(_ADVICE)})\b"
#: The same where redis-py cut the code off, made a class of it, or where Redis says it in other words.
_CODES: Mapping[type[redis.RedisError], str] = {
    redis.AuthenticationError: "WRONGPASS",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.ReadOnlyError: "READONLY",
    redis.BusyLoadingError: "LOADING",
    redis.exceptions.MovedError: "MOVED",
}
_PHRASES: Mapping[str, str] = {
    # NOPERM as Redis 6, and as later ones, say it inside a script.
    "user executing the script can't|ACL failure in script": "NOPERM",
    "Authentication required": "NOAUTH",
    "without any password configured": "NOPASS",
    "DB index is out of range": "NODB",
}
#: What a failed handshake says, and what to do about it.
_TLS_ADVICE: Mapping[str, str] = {
    "CERTIFICATE_VERIFY_FAILED": "has a certificate that we cannot check: "
    "set [redis] ca_certs to its authority ({reason})",
    "WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE": "does not speak TLS: is that its TLS port, "
    "and is [redis] tls or rediss:// meant?",
}
_KIND_ADVICE: Mapping[type[redis.RedisError], str] = {
    BrokenOffError: "ends TLS at once: if it wants a certificate of ours that it trusts, "
    "set [redis] client_cert and client_key",
    redis.InvalidResponse: "does not speak Redis: is something else on that port, or is [redis] tls meant?",
    redis.TimeoutError: "does not answer in time: is it overloaded, a firewall between, or TLS on one side?",
    redis.ConnectionError: "cannot be reached: is it running, and {settings} right? ({reason})",
}
#: What of the advice depends on how Redis is named.
_BY_ADDRESS = {
    "settings": "are [redis] host, port, tls or url",
    "primary": "[redis] host or url must name the primary",
}
_BY_SOCKET = {"settings": "is [redis] url", "primary": "[redis] url must name the primary"}
_BY_SENTINELS = {"settings": "is [redis] tls", "primary": "the sentinels have to choose another one"}

#: What Redis puts around the reason of a script's error.
_AROUND_REASON = (
    r"^(ERR |Error running script \(call to f_\w+\): )|@user_script:\s?\d+:\s*"
    r"|,? script: \w+, on @user_script.*"
)
_IN_LIBRARY = r"^_ssl\.c:\d+: "
_COMMAND = "'([^'\n]{1,40})' command"


class InOurWordsError(redis.ConnectionError):
    """Something is wrong with a connection, and the text says what, and what to do about it."""


def explain(error: redis.RedisError, address: str) -> str:
    """Return what a Redis at this address is or does, and what to do about it: `is full: raise ...`."""
    if isinstance(error, InOurWordsError):
        return str(error)
    code = code_of(error)
    advice = _ADVICE[code] if code else next(_advice(error), "refuses: {reason}")
    named_by = _BY_SENTINELS if " (sentinels " in address else _BY_ADDRESS
    named_by = _BY_SOCKET if address.startswith("/") else named_by
    return advice.format(**named_by, reason=reason(error), forbidden=_forbidden(error))


def code_of(error: redis.RedisError) -> str | None:
    """Return what a refusal begins with, if it is one that we know."""
    phrases = (code for phrase, code in _PHRASES.items() if re.search(phrase, str(error)))
    # A script puts words before it.
    found = re.search(_CODE, str(error))
    return next(phrases, None) or _CODES.get(type(error), found[1] if found else None)


def reason(error: Exception) -> str:
    """Return the reason at the bottom of an error, without addresses and internals."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, OSError) and (cause.strerror or cause.args):
            return re.sub(_IN_LIBRARY, "", str(cause.strerror or cause.args[-1]))
    return re.sub(_AROUND_REASON, "", str(error)).rstrip(".")


def _advice(error: redis.RedisError) -> Iterator[str]:
    yield from (advice for pattern, advice in _TLS_ADVICE.items() if re.search(pattern, str(error)))
    yield from (advice for kind, advice in _KIND_ADVICE.items() if isinstance(error, kind))


def _forbidden(error: redis.RedisError) -> str:
    named = re.search(_COMMAND, str(error))
    return f"the command {named[1]}" if named else "a command or key"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
