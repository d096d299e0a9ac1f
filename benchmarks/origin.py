"""`python -m benchmarks.origin`: one half of the local hub, so that hub and CDN are on machines of their own.

Standard input is a line of JSON with the fields of `Origin`; it serves until standard input ends, which
happens when its parent goes, however it goes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TypedDict

from distributed_downloader.local_hub import LocalHub


class Origin(TypedDict):
    """What to serve."""

    #: Folders by repo, such as `models/org/name`.
    repos: dict[str, str]
    #: Where to listen, and its name in URLs.
    address: str
    host: str
    #: The CDN's URL for the hub; "" for the CDN itself.
    cdn: str
    #: Hex; what the hub signs its links with, and the CDN checks them with.
    secret: str


class _Half(LocalHub):
    """A hub whose LFS files are another process' business, or the CDN of such a one."""

    def __init__(self, about: Origin) -> None:
        repos = {name: Path(folder) for name, folder in about["repos"].items()}
        super().__init__(repos, host=about["address"], cdn_host=about["host"])
        self._secret = bytes.fromhex(about["secret"])
        if about["cdn"]:
            self.cdn = about["cdn"]
        for repo in self.repos.values():
            repo.at("main").commit  # type: ignore[union-attr] # noqa: B018 - hash all files before the first request


def main() -> None:
    """Serve."""
    about: Origin = json.loads(sys.stdin.readline())
    with _Half(about) as hub:
        print(hub.endpoint if about["cdn"] else hub.cdn, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
