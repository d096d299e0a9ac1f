"""The engine `http`: our own ranged HTTP, which goes on where a broken connection ended."""

from __future__ import annotations

import logging
import random
import time

from distributed_downloader.download.answer import accept, check_commit, described, refuse_page
from distributed_downloader.download.engine import Context
from distributed_downloader.download.watch import Patience, Watch
from distributed_downloader.errors import (
    CorruptError,
    EngineError,
    NetworkError,
    ServerError,
    StalledError,
    TransferError,
)
from distributed_downloader.hub import file_url, problem
from distributed_downloader.ssl_config import HttpClient, Response

log = logging.getLogger(__name__)


class HttpEngine:
    """Gets a file over as many connections, one after the other, as it takes."""

    name = "http"

    def __init__(self, http: HttpClient, patience: Patience | None = None) -> None:
        self._http = http
        self._patience = patience or Patience()

    def fetch(self, context: Context) -> None:
        """See `Engine`."""
        _Transfer(self._http, context, self._patience).run()

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._http.close()


class _ExpiredLinkError(EngineError):
    """A storage host refuses the signed address; the hub may give a new one."""


class _Transfer:
    """One file's transfer, with what is learnt from one connection to the next."""

    def __init__(self, http: HttpClient, context: Context, patience: Patience) -> None:
        self._http, self._context, self._patience = http, context, patience
        self._file, self._partial = context.task.file, context.partial
        spec = context.task.spec
        self._url = file_url(spec.endpoint, spec.repo_type, spec.repo_id, spec.commit, self._file.path)
        self._etag = ""
        self._fruitless = 0
        #: The most bytes that were ever there; a transfer that starts over has to get beyond it.
        self._best = self._partial.size

    def run(self) -> None:
        """Connect until all bytes are there; raises what the last fruitless connection ran into."""
        if self._partial.unproven and self._partial.size == self._file.size:
            self._distrust()  # for an answer tells the hash
        self._context.progress(self._partial.size)
        while self._partial.size < self._file.size:
            self._attempt()

    def _attempt(self) -> None:
        try:
            self._connect()
        except (NetworkError, StalledError, ServerError, _ExpiredLinkError) as error:
            self._pause(error)

    def _pause(self, error: TransferError) -> None:
        """Wait before the next connection, or give up."""
        patience = self._patience
        step = max(1, min(patience.step, self._file.size // 100))
        if isinstance(error, StalledError):
            step = max(step, patience.window_bytes)
        self._fruitless = 0 if self._partial.size - self._best >= step else self._fruitless + 1
        self._best = max(self._best, self._partial.size)
        if self._fruitless >= patience.connections:
            raise error
        log.debug("%s: %s; going on from byte %d", self._file.path, error, self._partial.size)
        self._context.cancel.wait(random.uniform(0.5, 1) * patience.pause * 2**self._fruitless)

    def _connect(self) -> None:
        """Get what one connection brings."""
        offset = self._partial.size
        with self._http.open(
            "GET", self._url, headers=self._range(offset), cancel=self._context.cancel
        ) as response:
            if response.status >= 400:
                self._refused(response, offset)
            self._judge(response)
            body = accept(response, offset, self._file)
            if self._partial.unproven:
                self._distrust()
                if body.start:
                    return  # the next connection asks for the whole file
            elif body.start != offset:
                self._start_over()
            self._copy(response, body.end)
            self._require_end(response)

    def _range(self, offset: int) -> dict[str, str]:
        if not offset:
            return {}
        headers = {"Range": f"bytes={offset}-"}
        # Where a hash proves the whole, the pinned commit is guard enough; an ETag only differs
        # between two storage hosts of the same bytes, and would throw away what we have.
        if self._etag and not self._partial.proves:
            headers["If-Range"] = self._etag
        return headers

    def _refused(self, response: Response, offset: int) -> None:
        """Raise the error for a status of 400 or more."""
        error = problem(response, self._file.path)
        if response.status == 416 and offset:
            self._start_over()
            raise NetworkError(str(error))
        if not response.from_hub and type(error) is EngineError:
            raise _ExpiredLinkError(str(error))
        raise error

    def _judge(self, response: Response) -> None:
        """Raise CorruptError for what is not the file, as far as the headers tell."""
        has_commit = check_commit(response, self._context.task)
        if not self._partial.proves and (file := described(response, self._file)):
            self._partial.expect(file)
        if not self._partial.proves:
            refuse_page(response, self._file, has_commit=has_commit)
        etag = response.headers.get("ETag", "")
        self._etag = "" if etag.startswith("W/") else etag

    def _start_over(self) -> None:
        self._partial.reset()
        self._context.progress(0)

    def _distrust(self) -> None:
        """Start over because of what a dead process left; not even as a mark to get beyond is it good."""
        self._start_over()
        self._best = 0

    def _copy(self, response: Response, end: int) -> None:
        """Write the body up to byte `end` of the file."""
        watch = Watch(self._patience, self._file.path)
        while (left := end - self._partial.size) > 0:
            started = time.monotonic()
            data = response.read1(min(left, self._context.throttle.read_size))
            watch.saw(len(data), time.monotonic() - started)
            if not data:
                raise NetworkError(f"{self._file.path}: the connection ended {left} bytes too early")
            self._context.write(data)

    def _require_end(self, response: Response) -> None:
        """Raise CorruptError if more comes than the file has, where neither hash nor length tells."""
        if self._partial.proves or response.status != 200 or response.headers.get("Content-Length"):
            return
        ended = False
        try:
            ended = not response.read1(1)
        finally:
            if not ended:
                self._start_over()  # a whole file in the partial counts as one that is right
        if not ended:
            raise CorruptError(f"{self._file.path}: more came than the {self._file.size} bytes the hub lists")
