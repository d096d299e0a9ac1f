"""A hub whose large files are on Xet, with the storage server (CAS) that hf_xet asks for them.

`XetStore` is the storage: hf_xet's own `local://` kind, filled by hf_xet. `XetHub` shows it over HTTP, as a
third origin beside hub and CDN: routes "token" (the hub's `xet-read-token`), "plan" (what a range is made
of) and "xorb" (the bytes), for all of which faults can be set as in `faulty`.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distributed_downloader.local_hub.http import Origin, Reply, Request, data_reply, json_reply
from distributed_downloader.local_hub.repo import LocalRepo
from distributed_downloader.transfer.xet import _library
from tests.hub.faulty import FaultyHub

#: What must be seen nowhere but in requests to the storage.
CAS_TOKEN, SIGNATURE = "cas-secret", "signed-secret"


@dataclass(frozen=True)
class Chunk:
    """A piece of a file as its xorb holds it: packed bytes `at`..`end` there."""

    at: int
    end: int
    unpacked: int


class XetStore:
    """Files in a folder that hf_xet can also use directly, as `url`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.url = f"local://{folder}"
        #: Xet hash of a file -> its xorb, which holds nothing else.
        self.xorbs: dict[str, Path] = {}

    def upload(self, path: Path) -> str:
        """Store a file of less than 64 MB that has nothing in common with others; return its Xet hash."""
        before = set(self._found())
        with _library().XetSession().new_upload_commit(endpoint=self.url) as commit:
            upload = commit.start_upload_file(str(path))
        xet_hash = str(upload.result().xet_info.hash)
        (self.xorbs[xet_hash],) = set(self._found()) - before
        return xet_hash

    def _found(self) -> Iterator[Path]:
        return self.folder.glob("xet/xorbs/xorbs/default.*[0-9a-f]")


def chunks(xorb: Path) -> list[Chunk]:
    """Return what a xorb holds: each chunk has a head of 8 bytes with its packed and unpacked length."""
    data, at, found = xorb.read_bytes(), 0, list[Chunk]()
    while data[at] == 0:
        end = at + 8 + int.from_bytes(data[at + 1 : at + 4], "little")
        found.append(Chunk(at, end, int.from_bytes(data[at + 5 : at + 8], "little")))
        at = end
    return found


class XetHub(FaultyHub):
    """A faulty hub for repos whose LFS files in `xet` (path -> Xet hash) are in `store`, too."""

    def __init__(
        self,
        repos: Mapping[str, LocalRepo],
        *,
        store: XetStore,
        xet: Mapping[str, str],
        tokens: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        cas_tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(repos, tokens=tokens, tls=tls)
        self.store, self.xet = store, xet
        #: Seconds until a storage token expires.
        self.token_seconds = 3600.0
        cas = Origin("cas", self._receive, self.log, address=("127.0.0.1", 0), host="127.0.0.1", tls=cas_tls)
        self._origins.append(cas)
        #: Address of the storage server, as the hub gives it out.
        self.cas = cas.url

    def __enter__(self) -> XetHub:
        super().__enter__()
        return self

    def answer(self, request: Request) -> Reply:
        """Return the answer to a request, after finding out whether it is one for Xet."""
        for origin, route, pattern in _ROUTES:
            if request.origin == origin and (found := re.fullmatch(pattern, request.path)):
                request.route, request.file = route, found["file"]
        return super().answer(request)

    def _handlers(self) -> Mapping[str, Callable[[Request], Reply]]:
        ours = {"token": self._token, "plan": self._plan, "xorb": self._xorb, "telemetry": self._telemetry}
        return {**super()._handlers(), "resolve": self._resolve_xet, **ours}

    def _resolve_xet(self, request: Request) -> Reply:
        reply = self._resolve(request)
        if xet_hash := self.xet.get(request.file):
            reply = replace(reply, headers={**reply.headers, "X-Xet-Hash": xet_hash})
        return reply

    def _token(self, request: Request) -> Reply:
        self._user(request)
        expires = int(time.time() + self.token_seconds)
        return json_reply({"casUrl": self.cas, "accessToken": CAS_TOKEN, "exp": expires})

    def _plan(self, request: Request) -> Reply:
        """Answer which chunks of which xorb a range of a file is made of."""
        if request.token != CAS_TOKEN:
            return json_reply({"error": "no access"}, 401)
        if request.file not in self.store.xorbs:
            return json_reply({"error": "no such file"}, 404)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1) if asked else (0, 1 << 62)
        xorb = self.store.xorbs[request.file]
        position, first, wanted, offset = 0, 0, list[Chunk](), 0
        for index, chunk in enumerate(chunks(xorb)):
            if position < end and position + chunk.unpacked > start:
                if not wanted:
                    first, offset = index, max(0, start - position)
                wanted.append(chunk)
            position += chunk.unpacked
        if not wanted:
            return json_reply({"error": "no such range"}, 416)
        name, span = xorb.name.removeprefix("default."), {"start": first, "end": first + len(wanted)}
        packed = {"start": wanted[0].at, "end": wanted[-1].end - 1}
        term = {"hash": name, "unpacked_length": sum(chunk.unpacked for chunk in wanted), "range": span}
        fetch = {
            "url": f"{self.cas}/xorb/{name}?Signature={SIGNATURE}",
            "ranges": [{"chunks": span, "bytes": packed}],
        }
        return json_reply({"offset_into_first_range": offset, "terms": [term], "xorbs": {name: [fetch]}})

    def _xorb(self, request: Request) -> Reply:
        xorb = self.store.folder / "xet/xorbs/xorbs" / f"default.{request.file}"
        first, last = (int(end) for end in request.headers["Range"].removeprefix("bytes=").split("-"))
        said = {"Content-Range": f"bytes {first}-{last}/{xorb.stat().st_size}"}
        return Reply(206, said, lambda: xorb.open("rb"), first, last - first + 1)

    def _telemetry(self, _request: Request) -> Reply:
        return data_reply(b"", "text/plain")


_ROUTES = (
    ("hub", "token", r"/api/models/org/name/xet-read-token/(?P<file>[0-9a-f]{40})"),
    ("cas", "plan", r"/v2/reconstructions/(?P<file>[0-9a-f]{64})"),
    ("cas", "xorb", r"/xorb/(?P<file>[0-9a-f]{64})"),
    ("cas", "telemetry", r"/v1/telemetry(?P<file>.*)"),
)
