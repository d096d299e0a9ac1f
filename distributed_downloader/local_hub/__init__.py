"""A small hub on this machine that speaks the real one's protocol: for `demo` and for the tests.

Two origins, as in reality: the hub (API, redirects, small files) and a "CDN" on a second port, which serves
LFS files to signed links that expire. Nothing is kept in memory but the listings.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, quote, unquote, urlencode

from distributed_downloader.local_hub.http import (
    WINDOW_SECONDS,
    Origin,
    Reply,
    Request,
    RequestLog,
    Window,
    data_reply,
    json_reply,
    redirect,
)
from distributed_downloader.local_hub.repo import Entry, LocalRepo, Snapshot

PAGE, EXPANDED_PAGE, PATHS, SIBLINGS = 1000, 50, 1000, 10_000
#: Requests per window; large, so that only those who ask for it meet a 429.
QUOTAS = {"api": 1_000_000, "resolvers": 5_000_000}

_KIND = "(?P<kind>models|datasets|spaces)"
_ID = "(?P<id>[^/]+(?:/[^/]+)??)"
_REV = "(?P<rev>refs/[^/]+/[^/]+|[^/]+)"
#: What can be asked, by name.
ROUTES = {
    "whoami": "/api/whoami-v2",
    "cache": f"/api/resolve-cache/{_KIND}/{_ID}/(?P<rev>[0-9a-f]{{40}})/(?P<file>.+)",
    "info": f"/api/{_KIND}/{_ID}(?:/revision/{_REV})?",
    "tree": f"/api/{_KIND}/{_ID}/tree/{_REV}(?:/(?P<file>.*))?",
    "paths": f"/api/{_KIND}/{_ID}/paths-info/{_REV}",
    "resolve": f"/(?:(?P<kind>datasets|spaces)/)?{_ID}/resolve/{_REV}/(?P<file>.+)",
    "cdn": f"/lfs/{_KIND}/{_ID}/(?P<rev>[0-9a-f]{{40}})/(?P<file>.+)",
}


class _RefusalError(Exception):
    """The hub says no."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        errors = {"X-Error-Code": code, "X-Error-Message": message} if code else {"X-Error-Message": message}
        self.reply = json_reply({"error": message}, status, {**errors, **(headers or {})})


class LocalHub:
    """The hub; a context manager that serves `repos`, e.g. {"models/org/name": folder}, until it is left.

    `tokens` are those that exist (the readers of private repos always do), any other gets a 401. `moved` maps
    old repo names to new ones, `prefix` puts the hub under a path, a CDN link works for `link_seconds`.
    `quotas` are the requests in `window_seconds`, by bucket. The CDN has a host name of its own, for
    huggingface_hub 1.x takes another port for the same origin.
    """

    def __init__(
        self,
        repos: Mapping[str, Path | LocalRepo],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        cdn_host: str = "localhost",
        tokens: Iterable[str] = (),
        moved: Mapping[str, str] | None = None,
        prefix: str = "",
        tls: ssl.SSLContext | None = None,
        link_seconds: float = 3600,
        quotas: Mapping[str, int] | None = None,
        window_seconds: int = WINDOW_SECONDS,
    ) -> None:
        self.repos = {
            name: LocalRepo(repo) if isinstance(repo, Path) else repo for name, repo in repos.items()
        }
        self.log = RequestLog()
        self.prefix = prefix
        self.link_seconds = link_seconds
        self._moved = dict(moved or {})
        self._tokens = {*tokens, *(token for repo in self.repos.values() for token in repo.readers or ())}
        allowed = {**QUOTAS, **(quotas or {})}
        self._windows = {name: Window(name, quota, window_seconds) for name, quota in allowed.items()}
        self._secret = secrets.token_bytes(16)
        self._origins = [
            Origin("hub", self._receive, self.log, address=(host, port), host=host, prefix=prefix, tls=tls),
            Origin("cdn", self._receive, self.log, address=(host, 0), host=cdn_host, tls=tls),
        ]
        self.endpoint, self.cdn = (origin.url for origin in self._origins)

    def __enter__(self) -> LocalHub:
        for origin in self._origins:
            origin.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; connections that are still open are cut."""
        for origin in self._origins:
            origin.stop()

    def expire_links(self) -> None:
        """Make every CDN link that was given out so far answer 403, as if its time were over."""
        self._secret = secrets.token_bytes(16)

    def leaks(self) -> list[Request]:
        """Return the requests that carried a token to the CDN, where none belongs."""
        requests = (record.request for record in self.log.records())
        return [request for request in requests if request.origin == "cdn" and request.token]

    def _receive(self, request: Request) -> Reply:
        for route, pattern in ROUTES.items():
            found = re.fullmatch(pattern, request.path)
            if found and (route == "cdn") == (request.origin == "cdn"):
                parts = {key: unquote(value or "") for key, value in found.groupdict().items()}
                request.route, request.repo = route, f"{parts.get('kind') or 'models'}/{parts.get('id')}"
                request.rev, request.file = parts.get("rev", ""), parts.get("file", "")
                break
        return self.answer(request)

    def answer(self, request: Request) -> Reply:
        """Return the answer to a request."""
        limited, headers = self._spend(request)
        try:
            reply = limited or self._moved_on(request) or self._handlers()[request.route](request)
        except _RefusalError as refusal:
            reply = refusal.reply
        return replace(reply, headers={**reply.headers, **headers})

    def _handlers(self) -> Mapping[str, Callable[[Request], Reply]]:
        return {
            "": self._nothing,
            "whoami": self._whoami,
            "info": self._info,
            "tree": self._tree,
            "paths": self._paths,
            "resolve": self._resolve,
            "cache": self.content,
            "cdn": self._download,
        }

    def _spend(self, request: Request) -> tuple[Reply | None, dict[str, str]]:
        if request.route in ("", "cdn", "cache"):
            return None, {}
        allowed, headers = self._windows["resolvers" if request.route == "resolve" else "api"].spend()
        error = "We had to rate limit you. Use a token, or wait."
        return None if allowed else json_reply({"error": error}, 429), headers

    def _moved_on(self, request: Request) -> Reply | None:
        new = self._moved.get(request.repo)
        if not new:
            return None
        old_id, new_id = request.repo.split("/", 1)[1], new.split("/", 1)[1]
        return redirect(307, self.prefix + request.uri.replace(f"/{old_id}", f"/{new_id}", 1))

    def _nothing(self, request: Request) -> Reply:
        raise _RefusalError(404, "", f"Sorry, we can't find {request.path}")

    def _user(self, request: Request) -> str:
        if request.token and request.token not in self._tokens:
            raise _RefusalError(401, "", "Invalid credentials in Authorization header")
        return request.token

    def _whoami(self, request: Request) -> Reply:
        if not self._user(request):
            raise _RefusalError(401, "", "Invalid username or password.")
        access = {"type": "access_token", "accessToken": {"displayName": "local", "role": "read"}}
        return json_reply({"type": "user", "id": "0", "name": "local", "orgs": [], "auth": access})

    def repo(self, request: Request) -> LocalRepo:
        """Return the repo that is meant, if the token may see it."""
        token = self._user(request)
        repo = self.repos.get(request.repo)
        if repo is None or not repo.lists_for(token):
            raise _RefusalError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repo

    def snapshot(self, request: Request) -> Snapshot:
        """Return the commit that is meant."""
        snapshot = self.repo(request).at(request.rev or "main")
        if snapshot is None:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {request.rev}")
        return snapshot

    def file(self, request: Request) -> tuple[Snapshot, Entry]:
        """Return the file that is meant, if the token may download it."""
        if not self.repo(request).serves(request.token):
            name = request.repo.removeprefix("models/")
            text = f"Access to {name} is restricted. You must have access to it and be authenticated."
            raise _RefusalError(403 if request.token else 401, "GatedRepo", text)
        snapshot = self.snapshot(request)
        entry = snapshot.find(request.file)
        if entry is None or entry.folder:
            raise _RefusalError(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": snapshot.commit})
        return snapshot, entry

    def _info(self, request: Request) -> Reply:
        repo, snapshot = self.repo(request), self.snapshot(request)
        blobs = request.query.get("blobs", "").lower() == "true"
        files = [entry for entry in snapshot.entries[:SIBLINGS] if not entry.folder]
        name = request.repo.split("/", 1)[1]
        return json_reply(
            {
                "_id": "0",
                "id": name,
                "modelId": name,
                "author": name.split("/")[0],
                "sha": snapshot.commit,
                "private": not repo.lists_for(""),
                "gated": "auto" if repo.gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [entry.to_sibling(blobs=blobs) for entry in files],
            }
        )

    def _tree(self, request: Request) -> Reply:
        snapshot, query = self.snapshot(request), request.query
        expand, recursive = (query.get(key, "").lower() == "true" for key in ("expand", "recursive"))
        try:
            size = min(int(query.get("limit", PAGE)), EXPANDED_PAGE if expand else PAGE)
            start = int(base64.urlsafe_b64decode(query.get("cursor", "MA==")))
        except ValueError:
            raise _RefusalError(400, "", "Invalid cursor or limit") from None
        entries = _below(snapshot, request.file, recursive=recursive)
        link = {}
        if start + size < len(entries):
            cursor = base64.urlsafe_b64encode(str(start + size).encode()).decode()
            following = urlencode({**query, "limit": size, "cursor": cursor})
            link["Link"] = f'<{self.endpoint}{request.path}?{following}>; rel="next"'
        page = self._lines(request, snapshot, entries[start : start + size], expand=expand)
        return json_reply(page, headers=link)

    def _lines(
        self, request: Request, snapshot: Snapshot, entries: Iterable[Entry], *, expand: bool
    ) -> list[dict[str, object]]:
        masked = not self.repo(request).serves(request.token)
        commit = snapshot.commit if expand else ""
        return [entry.to_json(commit=commit, masked=masked) for entry in entries]

    def _paths(self, request: Request) -> Reply:
        snapshot = self.snapshot(request)
        is_json = request.headers.get("Content-Type", "").startswith("application/json")
        form = json.loads(request.body) if is_json else parse_qs(request.body.decode())
        paths = form.get("paths", [])
        if len(paths) > PATHS:
            raise _RefusalError(413, "", f"At most {PATHS} paths")
        found = [entry for path in paths if (entry := snapshot.find(path))]
        return json_reply(self._lines(request, snapshot, found, expand=False))

    def _resolve(self, request: Request) -> Reply:
        snapshot, entry = self.file(request)
        kept = {"X-Repo-Commit": snapshot.commit, "Accept-Ranges": "bytes"}
        where = f"{request.repo}/{snapshot.commit}/{quote(entry.path)}"
        if entry.sha256 is None:
            query = urlencode({request.path: "", "etag": f'"{entry.oid}"'})
            return redirect(307, f"{self.prefix}/api/resolve-cache/{where}?{query}", kept)
        linked = {"X-Linked-Size": str(entry.size), "X-Linked-Etag": f'"{entry.sha256}"'}
        expires = str(int((time.time() + self.link_seconds) * 1000))
        query = urlencode({"Expires": expires, "Signature": self._sign(f"/lfs/{where}", expires)})
        return redirect(302, f"{self.cdn}/lfs/{where}?{query}", {**kept, **linked})

    def _sign(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path} {expires}".encode(), hashlib.sha256).hexdigest()

    def _download(self, request: Request) -> Reply:
        expires, signature = request.query.get("Expires", "0"), request.query.get("Signature", "")
        valid = hmac.compare_digest(self._sign(request.path, expires).encode(), signature.encode())
        if not valid or int(expires) < time.time() * 1000:
            text = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            return data_reply(text, "application/xml", 403)
        snapshot = cast(Snapshot, self.repos[request.repo].at(request.rev))
        entry = cast(Entry, snapshot.find(request.file))
        # The CDN's own tag: it is not the sha256 that the hub tells, and it is what If-Range must repeat.
        return _slice(request, snapshot, entry, {"ETag": f'"{entry.oid}-1"'})

    def content(self, request: Request) -> Reply:
        """Answer with a file's bytes, or the range of them that was asked for."""
        snapshot, entry = self.file(request)
        tag = f'"{entry.sha256 or entry.oid}"'
        return _slice(request, snapshot, entry, {"ETag": tag, "X-Repo-Commit": snapshot.commit})


def _below(snapshot: Snapshot, folder: str, *, recursive: bool) -> Sequence[Entry]:
    if not folder and recursive:
        return snapshot.entries
    start = f"{folder}/" if folder else ""
    if folder and snapshot.find(folder) is None:
        raise _RefusalError(404, "EntryNotFound", f"{folder} does not exist")
    below = [entry for entry in snapshot.entries if entry.path.startswith(start)]
    return below if recursive else [entry for entry in below if "/" not in entry.path[len(start) :]]


def _slice(request: Request, snapshot: Snapshot, entry: Entry, headers: Mapping[str, str]) -> Reply:
    """Answer 200, 206 or 416, as `Range` and `If-Range` ask for."""
    name = quote(entry.path.rsplit("/", 1)[-1])
    headers = {**headers, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{name}"
    asked = request.headers.get("Range", "")
    current = request.headers.get("If-Range", headers["ETag"]) == headers["ETag"]
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked) if current else None
    if not found or not any(found.groups()):
        return Reply(200, headers, lambda: snapshot.open(entry), 0, entry.size)
    first, last = _bounds(found[1], found[2], entry.size)
    if first > last:
        return Reply(416, {**headers, "Content-Range": f"bytes */{entry.size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{entry.size}"
    return Reply(206, headers, lambda: snapshot.open(entry), first, last - first + 1)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(size - int(last), 0), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
