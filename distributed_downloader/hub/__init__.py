"""The door to the hub: which repo is meant, what it is pinned to, its files, and where they lie."""

from __future__ import annotations

import re
from collections.abc import Generator
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from distributed_downloader.errors import AmbiguousRepoError, NotFoundError, ServerError
from distributed_downloader.hub.api import HubApi, Patience
from distributed_downloader.hub.problems import LOG_IN, problem
from distributed_downloader.hub.repo_name import RepoName, parse_repo
from distributed_downloader.imports import whole_imports
from distributed_downloader.models import Commit, RepoFile, RepoId, RepoType

if TYPE_CHECKING:
    from distributed_downloader.ssl_config import HttpClient

__all__ = ["Hub", "Patience", "RepoName", "file_url", "parse_repo", "problem"]

#: What most paths are spelled like, in which nothing is to be quoted.
_PLAIN = re.compile(r"[\w.~/-]*", re.ASCII)


def file_url(endpoint: str, repo_type: RepoType, repo_id: str, commit: str, path: str) -> str:
    """Return the address of a file's content; the hub usually answers it with a redirect."""
    quoted = path if _PLAIN.fullmatch(path) else quote(path)
    return _files_url(endpoint, repo_type, repo_id, commit) + quoted


@lru_cache(32)
def _files_url(endpoint: str, repo_type: RepoType, repo_id: str, commit: str) -> str:
    kind = "" if repo_type is RepoType.MODEL else f"{repo_type.value}s/"
    return f"{endpoint.rstrip('/')}/{kind}{quote(repo_id)}/resolve/{quote(commit, safe='')}/"


class _Info(BaseModel):
    """What we need of a repo's summary."""

    id: RepoId
    sha: Commit


class Hub:
    """One hub, or a mirror of it; may be used by several threads."""

    def __init__(self, http: HttpClient, endpoint: str, patience: Patience | None = None) -> None:
        #: The hub's address, without a slash at its end.
        self.endpoint = endpoint.rstrip("/")
        self._api = HubApi(http, endpoint, patience)

    def find_type(self, repo_id: str) -> RepoType:
        """Return the type of the repo of that name; a gated repo counts as existing.

        A space counts only when neither a model nor a dataset has the name, for it then is their demo.
        Raises AmbiguousRepoError when a model and a dataset have it, NotFoundError when nothing has.
        """
        model, dataset = self._exists(RepoType.MODEL, repo_id), self._exists(RepoType.DATASET, repo_id)
        if model and dataset:
            raise AmbiguousRepoError(
                f"{repo_id} is a model and a dataset: add --repo-type model or --repo-type dataset "
                f"(or write models/{repo_id} or datasets/{repo_id})"
            )
        if model or dataset:
            return RepoType.MODEL if model else RepoType.DATASET
        if self._exists(RepoType.SPACE, repo_id):
            return RepoType.SPACE
        raise NotFoundError(
            f"{self.endpoint} has no model, dataset or space {repo_id}, or hides it: check the spelling; "
            f"if it is private, {LOG_IN} with an account that may read it"
        )

    def pin(self, repo_type: RepoType, repo_id: str, revision: str) -> tuple[str, str]:
        """Return the repo's present name (it may have been renamed) and the commit of a revision.

        `revision` is a branch, a tag, a commit or a PR ref such as `refs/pr/1`. Raises NotFoundError,
        AccessError, and HubUnavailableError after some minutes of trying.
        """
        what = f"{repo_type.value}s/{repo_id} at {revision}"
        path = f"{repo_type.value}s/{quote(repo_id)}/revision/{quote(revision, safe='')}?expand=sha"
        try:
            info = _Info.model_validate(self._api.call(path, what).data)
        except ValidationError as error:
            raise ServerError(f"{what}: {self.endpoint} does not tell the commit; is it a hub?") from error
        if re.fullmatch("[0-9a-f]{40}", revision) and info.sha != revision:
            raise ServerError(f"{what}: {self.endpoint} answers with another commit, {info.sha}")
        return info.id, info.sha

    def pages(self, repo_type: RepoType, repo_id: str, commit: str) -> Generator[list[RepoFile], None, None]:
        """Yield a repo's files page by page, in constant memory; see `lister`."""
        with whole_imports():  # only now: a worker lists nothing
            from distributed_downloader.hub.lister import Lister  # noqa: PLC0415

        return Lister(self._api, repo_type, repo_id, commit).pages()

    def stop(self, reason: str) -> None:
        """End what any thread is asking at the moment, with StoppedError; for the way out."""
        self._api.cancel.set(reason)

    def _exists(self, repo_type: RepoType, repo_id: str) -> bool:
        # `expand=sha` keeps the answer small: without it, the summary lists every file.
        name = f"{repo_type.value}s/{repo_id}"
        return self._api.exists(f"{repo_type.value}s/{quote(repo_id)}?expand=sha", name)
