"""Reads what people write for a repo: a name, a name with its type, or an address on the hub."""

from __future__ import annotations

import glob
import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from distributed_downloader.errors import UsageError
from distributed_downloader.models import RepoType

#: The hub's own hosts; their addresses are understood whatever the endpoint is.
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")

_PREFIXES = {f"{kind.value}s": kind for kind in RepoType}
_VIEWS = ("tree", "blob", "resolve", "raw", "commit", "commits")
_HELP = "write org/name, datasets/org/name, spaces/org/name, or the repo's address on the hub"


class RepoName(NamedTuple):
    """What a text says about a repo; None where it says nothing."""

    type: RepoType | None
    id: str
    revision: str | None
    #: Globs for the folder or file that an address points to; empty for the whole repo.
    include: tuple[str, ...] = ()


def parse_repo(text: str, repo_type: RepoType | None, endpoint: str) -> RepoName:
    """Read a repo's name; `repo_type` is what the user said beside it, if anything.

    The words `models/`, `datasets/` and `spaces/` in front always are the type: `models/bert` is the
    model `bert`, not a repo of an organisation called "models" (the hub reserves these words).
    Raises UsageError for anything that cannot be a repo, or that contradicts `repo_type`.
    """
    shown = re.sub(r"//.*@", "//", text.strip()).split("?")[0]  # no password, no query
    address = _address_parts(text.strip(), shown, endpoint)
    parts = address or text.strip().strip("/").split("/")
    # An address tells the type even by silence, a plain name does not.
    said = _PREFIXES.get(parts[0]) or (RepoType.MODEL if address else None)
    if said and repo_type and said is not repo_type:
        raise UsageError(
            f"{shown!r} is a {said.value}, but --repo-type says {repo_type.value}; drop one of them"
        )
    name, view = _split_view(parts[1:] if parts[0] in _PREFIXES else parts)
    _check_id(name, shown)
    revision, include = _read_view(view, shown)
    return RepoName(repo_type or said, name, revision, include)


def _address_parts(text: str, shown: str, endpoint: str) -> list[str] | None:
    """Return the decoded path segments of an address, or None for a plain name."""
    ours = urlsplit(endpoint)
    if "://" not in text:
        host = text.split("/", 1)[0].lower()
        # An endpoint called just "hub" must not turn the repo hub/name into an address.
        if not re.search(r"[.:]", host) or host not in (*HUB_HOSTS, _authority(ours)):
            return None
        text = f"{ours.scheme}://{text}"
    try:
        path = _own_path(urlsplit(text), ours)
    except ValueError as error:
        raise UsageError(f"{shown!r} is not an address ({error}); {_HELP}") from error
    return [unquote(part) for part in path.strip("/").split("/")]


def _own_path(address: SplitResult, ours: SplitResult) -> str:
    """Return the path below the hub's root; UsageError for another host than the hub's."""
    if address.scheme not in ("http", "https"):
        raise UsageError(f"{address.scheme}:// is no address of a hub; {_HELP}")
    if _authority(address) == _authority(ours):
        root = ours.path.rstrip("/")
        return address.path[len(root) :] if address.path.startswith(f"{root}/") else address.path
    if address.hostname in HUB_HOSTS:
        return address.path
    raise UsageError(
        f"{address.hostname} is not the hub that is set up ({ours.hostname}); "
        f"add --endpoint {address.scheme}://{_authority(address)} before the command to use it"
    )


def _authority(address: SplitResult) -> str:
    """Return host and port (unless it is the usual one), without user and password."""
    host, usual = address.hostname or "", {"http": 80, "https": 443}.get(address.scheme)
    return host if address.port in (None, usual) else f"{host}:{address.port}"


def _split_view(parts: list[str]) -> tuple[str, list[str]]:
    """Split `org/name/tree/main/...` into `org/name` and the rest; a name may lack its organisation."""
    for length in (1, 2):
        # Two words are a name, even if the second one is "tree".
        if len(parts) > 2 and parts[length] in _VIEWS:
            return "/".join(parts[:length]), parts[length:]
    return "/".join(parts), []


def _check_id(name: str, text: str) -> None:
    """Check the hub's rules for names; UsageError says which one is broken."""
    if "@" in name:
        raise UsageError(f"{text!r}: give the revision with --revision, not with @")
    if name in _PREFIXES or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII):
        raise UsageError(f"{text!r} names no repo; {_HELP}")
    for part in name.split("/"):
        if len(part) > 96 or not part[0].isalnum() or part[-1] in "-." or "--" in part or ".." in part:
            raise UsageError(
                f"{text!r} cannot be a repo: a name has at most 96 characters, starts with a letter or a "
                "digit, does not end with - or . and has no -- or .. inside"
            )


def _read_view(view: list[str], text: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the revision and the globs of `tree/<revision>/<folder>` and its kin."""
    if not view:
        return None, ()
    kind, *rest = view
    if not rest or not rest[0]:
        raise UsageError(f"{text!r} ends before the revision; {_HELP}")
    # `refs/pr/1` is one revision, though an address may carry its slashes as they are.
    length = 3 if rest[0] == "refs" and len(rest) >= 3 else 1
    revision, path = "/".join(rest[:length]), glob.escape("/".join(rest[length:]).rstrip("/"))
    if not path or kind in ("commit", "commits"):
        return revision, ()
    return revision, (f"{path}/" if kind == "tree" else path,)
