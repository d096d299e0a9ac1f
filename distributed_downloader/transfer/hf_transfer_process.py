"""The process that runs hf_transfer for one file, seen from the worker: what it is told, and how it gets on.

It does what our own client would: the same certificates, the same proxy. It gets no token; and without a
proxy no host but the one it is given, and those below its name, which the library does not tell apart.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, cast
from urllib.parse import urlsplit

from distributed_downloader import __version__
from distributed_downloader.connection import proxy_for
from distributed_downloader.errors import EngineError, one_line
from distributed_downloader.transfer.rust_threads import rust_threads

#: Connections at once; each holds its piece in memory until that is complete.
CONNECTIONS = 8
#: Bytes of memory for the process beside its pieces; more is an answer without an end.
MEMORY = 1 << 30
#: How often a piece may fail before the library gives up; all of them may at the same time.
_RETRIES = 5
#: Where nobody listens: a redirect to a foreign host ends here, for we have not judged it.
_NOWHERE = "http://127.0.0.1:0"
_CHILD = "distributed_downloader.transfer.hf_transfer_child"
_HEADERS = {"User-Agent": f"hf-downloader/{__version__}", "Accept-Encoding": "identity"}
#: What of the environment the process is born with.
_NEEDED = ("LD_LIBRARY_PATH",)


class Wanted(NamedTuple):
    """What the process is to fetch: `size` bytes from `url`, in pieces, into a file called `name`."""

    url: str
    name: str
    size: int
    piece: int

    def order(self) -> dict[str, object]:
        """Return it as hf_transfer_child.py wants it."""
        limits = {
            "RLIMIT_FSIZE": self.size,  # more would only fill the disk
            "RLIMIT_DATA": MEMORY + 4 * CONNECTIONS * self.piece,
            "RLIMIT_CORE": 0,  # which would hold the signed address
        }
        download = {
            "url": self.url,
            "filename": self.name,
            "max_files": CONNECTIONS,
            "chunk_size": self.piece,
            "parallel_failures": CONNECTIONS,
            "max_retries": _RETRIES,
            "headers": _HEADERS,
        }
        environ = {**_certificates(), **_proxies(self.url)}
        return {"parent": os.getpid(), "limits": limits, "environ": environ, "download": download}


class Process:
    """The process; it ends with the block, and nothing writes any more then."""

    def __init__(self, wanted: Wanted, folder: Path) -> None:
        """Start it in `folder`, which is nobody else's: modules are looked for there as well.

        Raises EngineError.
        """
        self._order = json.dumps(wanted.order()).encode()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _CHILD],
                cwd=folder,
                env=_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl+C is for us
            )
        except OSError as error:
            raise EngineError(f"hf_transfer: no process can be started: {error.strerror}") from error
        self._poll = select.poll()
        self._poll.register(_pipe(self._process.stdout))

    def __enter__(self) -> Process:
        with suppress(BrokenPipeError), _pipe(self._process.stdin) as stdin:  # why() tells
            stdin.write(self._order)
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # which closes its pipes and waits for it
            self.end()

    def end(self) -> None:
        """End it at once; may be called from any thread, and again."""
        self._process.kill()

    def pieces(self, seconds: float) -> int | None:
        """Return how many pieces have come within so many seconds, None if it has ended."""
        if not self._poll.poll(seconds * 1000):
            return 0
        return len(os.read(_pipe(self._process.stdout).fileno(), 1 << 16)) or None

    def why(self) -> str:
        """Return why it has ended without the file, "" if it has it; without what may be a signature."""
        said = _pipe(self._process.stderr).read().decode("utf-8", "replace").splitlines()
        code = self._process.wait()
        if code < 0:
            return f"its process was ended by signal {-code}"
        return one_line(said[-1] if said else f"its process ended with code {code}") if code else ""


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    return cast("IO[bytes]", pipe)


def _environment() -> Mapping[str, str]:
    """Return what the process is born with; others may read that, so it holds no secret."""
    kept = {name: value for name in _NEEDED if (value := os.environ.get(name))}
    return {**rust_threads(CONNECTIONS), **kept, "PYTHONPATH": os.pathsep.join(map(_absolute, sys.path))}


def _proxies(url: str) -> dict[str, str]:
    """Return the variables for what we would do with a URL: by its proxy, or straight to its host.

    The library takes NO_PROXY for a host and all below it, on any port: there is no exact spelling.
    """
    proxy = proxy_for(url)
    straight = "" if proxy else urlsplit(url).hostname or ""
    return {"HTTP_PROXY": proxy or _NOWHERE, "HTTPS_PROXY": proxy or _NOWHERE, "NO_PROXY": straight}


def _certificates() -> dict[str, str]:
    """Return the variables for the certificates that `tls_context` trusts; {} for the system's."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    named = {name: _absolute(path) for name in names if (path := os.environ.get(name))}
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if bundle and not named:
        named = {names[Path(bundle).is_dir()]: _absolute(bundle)}
    # What is not named would be the system's: an empty file and an empty folder stand for none.
    return {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": ".", **named} if named else {}


def _absolute(path: str) -> str:
    return str(Path.cwd() / path)
