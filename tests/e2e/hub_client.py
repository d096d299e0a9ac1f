"""Run under the Python of any huggingface_hub: answers questions, JSON lines in and out.

    python hub_client.py ENDPOINT

A question is {"ask": "snapshot", "repo_id": ..., ...}: a name in `QUESTIONS` and its arguments.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

Answer = dict[str, Any]


def info(api: HfApi, **repo: Any) -> Answer:  # noqa: ANN401
    """Look at a repo."""
    found: Any = api.repo_info(**repo, files_metadata=True)
    sizes = {sibling.rfilename: sibling.size for sibling in found.siblings}
    hashes = {sibling.rfilename: sibling.lfs.sha256 for sibling in found.siblings if sibling.lfs}
    return {"id": found.id, "sha": found.sha, "private": found.private, "sizes": sizes, "sha256": hashes}


def tree(api: HfApi, **repo: Any) -> Answer:  # noqa: ANN401
    """List a repo."""
    lines = api.list_repo_tree(**repo, recursive=True)
    files = [line for line in lines if isinstance(line, RepoFile)]
    return {
        "sizes": {file.path: file.size for file in files},
        "oids": {file.path: file.blob_id for file in files},
        "sha256": {file.path: file.lfs.sha256 for file in files if file.lfs},
    }


def paths(api: HfApi, repo_id: str, names: Sequence[str]) -> Answer:
    """Ask about some paths."""
    return {"paths": [entry.path for entry in api.get_paths_info(repo_id, list(names))]}


def file(api: HfApi, **what: Any) -> Answer:  # noqa: ANN401
    """Download one file."""
    return {"path": api.hf_hub_download(**what)}


def snapshot(api: HfApi, **what: Any) -> Answer:  # noqa: ANN401
    """Download a repo."""
    return {"path": api.snapshot_download(**what)}


def whoami(api: HfApi, token: str) -> Answer:
    """Ask whose token it is."""
    return {"name": api.whoami(token=token)["name"]}


QUESTIONS: dict[str, Callable[..., Answer]] = {
    each.__name__: each for each in (info, tree, paths, file, snapshot, whoami)
}


def main() -> None:
    """Answer until there are no more questions; the hub's refusals are answers too."""
    api = HfApi(endpoint=sys.argv[1], token=False)
    print(huggingface_hub.__version__, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = QUESTIONS[question.pop("ask")](api, **question)
        except HfHubHTTPError as error:
            answer = {"error": type(error).__name__, "status": error.response.status_code}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
