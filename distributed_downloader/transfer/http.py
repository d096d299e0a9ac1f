"""The engine `http`: our own ranged HTTP, which goes on where a broken connection ended."""

from __future__ import annotations

import logging
import random
import time

from distributed_downloader.errors import (
    CorruptError,
    EngineError,
    NetworkError,
    ServerError,
    StalledError,
    TransferError,
)
from distributed_downloader.hub import file_url, problem
from distributed_downloader.response import Response
from distributed_downloader.ssl_config import HttpClient
from distributed_downloader.transfer.answer import accept, check_commit, described, refuse_page
from distributed_downloader.transfer.buffers import Buffers
from distributed_downloader.transfer.engine import Context
from distributed_downloader.transfer.watch import Patience, Watch

log = logging.getLogger(__name__)

#: Bytes of the largest file that is asked for as a whole; the hub refuses that for much larger ones
#: (400), and huggingface_hub draws the line here.
MAX_WHOLE = 50 * 10**9
#: Bytes to ask for at once of a larger one.
WINDOW = 16 << 30


class HttpEngine:
    """Gets a file, or a part of one, over as many connections, one after the other, as it takes."""

    name = "http"

    def __init__(self, http: HttpClient, patience: Patience | None = None, *, window: int = WINDOW) -> None:
        self._http = http
        self._patience = patience or Patience()
        self._window = window
        #: Those of all transfers, which share the memory.
        self._buffers: set[Buffers] = set()

    def fetch(self, context: Context) -> None:
        """See `Engine`."""
        with Buffers(self._buffers) as buffers:
            _Transfer(self._http, context, self._patience, self._window, buffers).run()

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._http.close()


class _ExpiredLinkError(EngineError):
    """A storage host refuses the signed address; the hub may give a new one."""


class _Transfer:
    """One file's or part's transfer, with what is learnt from one connection to the next."""

    def __init__(
        self, http: HttpClient, context: Context, patience: Patience, window: int, buffers: Buffers
    ) -> None:
        self._http, self._context, self._patience, self._window = http, context, patience, window
        self._file, self._sink = context.task.file, context.sink
        spec = context.task.spec
        self._url = file_url(spec.endpoint, spec.repo_type, spec.repo_id, spec.commit, self._file.path)
        self._etag = ""
        self._buffers = buffers
        #: Whether the hub may tell a hash that nobody here knows.
        self._hidden = not (self._file.sha256 or self._file.git_sha1)
        self._fruitless = 0
        #: The most bytes that were ever there; a transfer that starts over has to get beyond it.
        self._best = self._sink.size

    def run(self) -> None:
        """Connect until all bytes are there; raises what the last fruitless connection ran into."""
        if self._sink.unproven and not self._context.left:
            self._distrust()  # for an answer tells the hash
        self._context.progress(self._sink.size)
        while self._context.left:
            self._attempt()

    def _attempt(self) -> None:
        try:
            self._connect()
        except (NetworkError, StalledError, ServerError, _ExpiredLinkError) as error:
            if self._context.left:  # else somebody took over what was missing
                self._pause(error)

    def _pause(self, error: TransferError) -> None:
        """Wait before the next connection, or give up."""
        patience = self._patience
        step = max(1, min(patience.step, (self._sink.end - self._sink.start) // 100))
        if isinstance(error, StalledError):
            step = max(step, patience.window_bytes)
        self._fruitless = 0 if self._sink.size - self._best >= step else self._fruitless + 1
        self._best = max(self._best, self._sink.size)
        if self._fruitless >= patience.connections:
            raise error
        log.debug("%s: %s; going on from byte %d", self._file.path, error, self._context.position)
        self._context.cancel.wait(random.uniform(0.5, 1) * patience.pause * 2**self._fruitless)

    def _connect(self) -> None:
        """Get what one connection brings."""
        offset, end = self._context.position, self._wanted_end()
        if end is not None and end <= offset:
            return  # it came nearer just now
        with self._http.open(
            "GET", self._url, headers=self._range(offset, end), cancel=self._context.cancel
        ) as response:
            if response.status >= 400:
                self._refused(response, offset)
            self._judge(response)
            body = accept(response, offset, self._file, is_part=self._context.is_part)
            if self._sink.unproven:
                self._distrust()
                if body.start:
                    return  # the next connection asks for the whole file
            elif body.start != offset:
                self._start_over()
            self._copy(response, body.end)
            self._require_end(response)

    def _wanted_end(self) -> int | None:
        """Return the byte before which the next answer is to end, None for all that there is."""
        if self._context.is_part:
            return self._sink.end
        if self._file.size > MAX_WHOLE:
            return min(self._file.size, self._context.position + self._window)
        return None

    def _range(self, offset: int, end: int | None) -> dict[str, str]:
        if not offset and end is None:
            return {}
        headers = {"Range": f"bytes={offset}-{'' if end is None else end - 1}"}
        # Where a hash proves the whole, the pinned commit is guard enough; an ETag only differs
        # between two storage hosts of the same bytes, and would throw away what we have.
        if self._etag and offset and not self._sink.proves:
            headers["If-Range"] = self._etag
        return headers

    def _refused(self, response: Response, offset: int) -> None:
        """Raise the error for a status of 400 or more."""
        error = problem(response, self._file.path)
        if response.status == 416 and offset and not self._context.is_part:
            self._start_over()
            raise NetworkError(str(error))
        if not response.from_hub and type(error) is EngineError:
            raise _ExpiredLinkError(str(error))
        raise error

    def _judge(self, response: Response) -> None:
        """Raise CorruptError for what is not the file, as far as the headers tell."""
        has_commit = check_commit(response, self._context.task)
        unknown = self._hidden if self._context.is_part else not self._sink.proves
        if unknown and (file := described(response, self._file)):
            self._sink.expect(file)
            self._hidden = unknown = False
        if unknown:
            refuse_page(response, self._file, has_commit=has_commit)
        etag = response.headers.get("ETag", "")
        self._etag = "" if etag.startswith("W/") else etag

    def _start_over(self) -> None:
        self._sink.reset()
        self._context.progress(0)

    def _distrust(self) -> None:
        """Start over because of what a dead process left; not even as a mark to get beyond is it good."""
        self._start_over()
        self._best = 0

    def _copy(self, response: Response, end: int) -> None:
        """Write the body up to byte `end` of the file, or to the sink's end if that is nearer."""
        context, sink, watch = self._context, self._sink, Watch(self._patience, self._file.path)
        while (left := min(end, sink.end) - sink.start - sink.size) > 0:
            started = time.monotonic()
            view = self._buffers.get(context.throttle.read_size, left)
            count = response.readinto(view)
            watch.saw(count, time.monotonic() - started)
            if not count:
                raise NetworkError(f"{self._file.path}: the connection ended {left} bytes too early")
            if count := min(count, context.left):  # the end may have come nearer while we waited for them
                self._buffers.turn()
                context.write(view[:count])

    def _require_end(self, response: Response) -> None:
        """Raise CorruptError if more comes than the file has, where neither hash nor length tells."""
        if self._sink.proves or response.status != 200 or response.headers.get("Content-Length"):
            return
        ended = False
        try:
            ended = not response.read1(1)
        finally:
            if not ended:
                self._start_over()  # a whole file in the partial counts as one that is right
        if not ended:
            raise CorruptError(f"{self._file.path}: more came than the {self._file.size} bytes the hub lists")
