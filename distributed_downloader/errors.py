"""Every error of the product; each library's own errors are translated at its border.

DownloaderError                      exit code 1
+-- UsageError                       exit code 2: the words of a command or a setting are off
|   +-- ConfigError                      names the file, the section and the key
|   +-- UnknownJobError                  no job or repo of that name
|   +-- AmbiguousRepoError               a model and a dataset have that name
|   +-- ConflictError                    refused, so that nothing is mixed or overwritten
|   +-- NoSpaceError                     the job is larger than what is free where it goes
+-- UnreachableError                 exit code 3
|   +-- RedisUnavailableError
|   |   +-- RedisFullError               it answers, and takes nothing new
|   |   +-- RedisCutOffError             a wait for it was cut off; it may answer the next call
|   +-- HubUnavailableError
+-- FilesFailedError                 some files of a job; it names them
+-- TransferError                    what can go wrong with one task; `retry.py` decides what follows
    +-- PermanentError                   another try cannot help
    |   +-- AccessError                      401, or 403 of a gated repo
    |   +-- NotFoundError                    repo, revision or file
    |   +-- RefusedError                     unsafe path, foreign folder: policy
    |   +-- FlawError                        a check found the file missing or wrong
    +-- TransientError                   another try may help
    |   +-- NetworkError                     reset, truncated body, redirects in a circle
    |   |   +-- NoAnswerError                    closed before an answer began
    |   |   |   +-- NoConnectionError                refused, unknown name, certificate, proxy
    |   |   |   +-- MuteError                        connected, and nothing comes: a StalledError as well
    |   +-- HubAwayError                     this machine cannot reach the hub of the job
    |   +-- StalledError                     bytes come too slowly, or not at all
    |   +-- ServerError                      5xx
    |   +-- RateLimitError                   429, with the pause that the server asks for
    +-- EngineError                      another try may help, another engine more so
    |   +-- RangeError                       ranges ignored or answered wrongly
    |   +-- UnfitError                       not a file, or not a setting, for this engine
    |   +-- CorruptError                     size, hash or an error page instead of the file
    +-- LocalError                       this machine's disk: full, read-only, no permission
    |   +-- PlaceError                       the same, but for this one file
    |   |   +-- RoomError                        no room for it
    |   |   +-- MissingError                     somebody has removed it
    |   +-- PlaceUnseenError                 the folder of the job is not the one that others see
    |   +-- SpoolError                       the worker's own spool: full, gone, closed
    |   +-- WaitsForNasError                 full of files that wait for the NAS
    +-- NotAllowedError                  this machine's [security] rules forbid the job
    +-- StoppedError                     the task was taken back: shutdown, cancel, lost lease
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal


def one_line(error: object) -> str:
    """Return what a library says of an error, in one line, without what follows the `?` of an address."""
    return re.sub(r"\?\S*", "", " ".join(str(error).split()))[:300]


class DownloaderError(Exception):
    """Root of the tree; its text says what is wrong, where, and what to do."""

    exit_code = 1


class UsageError(DownloaderError):
    """The words of a command, or a setting, are off."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is wrong; the text names file, section and key."""


class UnknownJobError(UsageError):
    """No job or repo of that name."""


class AmbiguousRepoError(UsageError):
    """More than one repo type has that name."""


class ConflictError(UsageError):
    """Refused, so that nothing is mixed or overwritten."""


class NoSpaceError(UsageError):
    """The job is larger than what is free where it goes; see `--no-space-check`."""


class UnreachableError(DownloaderError):
    """A server that the command needs does not answer."""

    exit_code = 3


class RedisUnavailableError(UnreachableError):
    """Redis does not answer, or refuses us."""


class RedisFullError(RedisUnavailableError):
    """Redis answers, and takes nothing new: its memory is full."""


class RedisCutOffError(RedisUnavailableError):
    """A wait on a connection that stood was cut off; only the next call tells whether Redis is away."""


class HubUnavailableError(UnreachableError):
    """The hub does not answer."""


class FilesFailedError(DownloaderError):
    """Some files of a job could not be had; the others are there."""

    def __init__(self, message: str, reasons: Mapping[str, str], count: int) -> None:
        super().__init__(message)
        #: Path in the repo -> why; of many failures the first ones.
        self.reasons = dict(reasons)
        #: How many files there are in all that failed, or are refused for their names.
        self.count = count


class TransferError(DownloaderError):
    """One task went wrong."""


class PermanentError(TransferError):
    """Another try cannot help."""


class AccessError(PermanentError):
    """The hub refuses this token (401), or the repo is gated (403)."""


class NotFoundError(PermanentError):
    """The hub has no such repo, revision or file."""


class RefusedError(PermanentError):
    """Our own policy refuses: an unsafe path, or a folder that belongs to another repo."""


class FlawError(PermanentError):
    """A check found that the file is missing, or not what the hub lists."""

    def __init__(self, message: str, found: Literal["missing", "wrong"]) -> None:
        super().__init__(message)
        self.found = found


class TransientError(TransferError):
    """Another try may help."""


class NetworkError(TransientError):
    """The connection could not be made, or broke."""


class NoAnswerError(NetworkError):
    """The host gave no answer at all, so this says nothing about the file."""


class NoConnectionError(NoAnswerError):
    """No connection to the host could be made: refused, unknown name, certificate, proxy."""

    def __init__(self, message: str, address: str = "", *, passes: bool = True) -> None:
        super().__init__(message)
        #: Scheme, host and port that were asked for.
        self.address = address
        #: Whether it may end by itself, which a certificate that is not accepted does not.
        self.passes = passes


class StalledError(TransientError):
    """Bytes come too slowly, or not at all."""


class MuteError(NoAnswerError, StalledError):
    """The connection stands, but no answer begins."""


class ServerError(TransientError):
    """The server says that it has a problem (5xx)."""


class RateLimitError(TransientError):
    """The server asks us to pause (429, or 503 with Retry-After)."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        #: Seconds that the server asks us to wait.
        self.retry_after = retry_after


class EngineError(TransferError):
    """Another try may help, and another engine more so."""


class RangeError(EngineError):
    """A range was ignored, or answered with another range."""


class UnfitError(EngineError):
    """The engine is not made for this file, or for these settings; the error of another one says more."""


class CorruptError(EngineError):
    """The bytes are not the file: size, hash, or an error page in its place."""


class LocalError(TransferError):
    """The disk of this machine is the problem: full, read-only, no permission."""


class PlaceError(LocalError):
    """No place on this machine for this one file: it is too large, or its folder is closed to us."""


class RoomError(PlaceError):
    """There is no room for this one file; for a smaller one, or later, there may be."""


class MissingError(PlaceError):
    """What was downloaded is not there any more."""


class PlaceUnseenError(LocalError):
    """Not for this machine: it does not see the folder in which others write, or gets no parts of files."""


class SpoolError(LocalError):
    """The worker's own spool refuses: full, gone, closed."""


class WaitsForNasError(LocalError):
    """The disk is full of files that wait for the NAS: it passes when these are delivered."""


class HubAwayError(TransientError):
    """The hub of the job cannot be reached from this machine; others may reach it."""

    def __init__(self, message: str, *, passes: bool = True) -> None:
        super().__init__(message)
        #: Whether it may end by itself.
        self.passes = passes


class NotAllowedError(TransferError):
    """The [security] rules of this machine forbid the job; those of others may allow it."""


class StoppedError(TransferError):
    """The task was taken back while it ran: shutdown, cancel, or a lost lease."""


def kind(error: TransferError) -> str:
    """Return a word for what went wrong, one of `kinds`: the first class of this file, as `no_answer`."""
    return next(_word(each) for each in type(error).__mro__ if each.__module__ == __name__)


def kinds() -> frozenset[str]:
    """Return all words for what may go wrong with a try."""
    found, more = {TransferError}, {TransferError}
    while (
        more := {kin for each in more for kin in each.__subclasses__() if kin.__module__ == __name__} - found
    ):
        found |= more
    return frozenset(map(_word, found))


def _word(error: type[Exception]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error.__name__.removesuffix("Error")).lower()
