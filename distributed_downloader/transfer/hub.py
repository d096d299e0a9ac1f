"""The engine `hub`: huggingface_hub's own hf_hub_download, for what our own HTTP does not manage.

It neither resumes nor checks content, so it works in a private folder and the result is hashed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from distributed_downloader import __version__
from distributed_downloader.budget import Budgets
from distributed_downloader.errors import (
    CorruptError,
    EngineError,
    NetworkError,
    RangeError,
    TransferError,
    one_line,
)
from distributed_downloader.reach import NO_HOSTS, InnerHosts
from distributed_downloader.storage.disk import disk_error
from distributed_downloader.storage.partial import Partial
from distributed_downloader.transfer.answer import with_digest
from distributed_downloader.transfer.engine import Context
from distributed_downloader.transfer.hub_client import HubClient, serving
from distributed_downloader.transfer.hub_library import (
    hf_hub_download,
    httpx,
    set_client_factory,
    try_to_load_from_cache,
)

if TYPE_CHECKING:
    from distributed_downloader.config import HuggingFaceConfig


class HubEngine:
    """Gets a whole file through huggingface_hub; one at a time is the library's global client."""

    name = "hub"

    def __init__(
        self, settings: HuggingFaceConfig, inner: InnerHosts = NO_HOSTS, budgets: Budgets | None = None
    ) -> None:
        self._token = settings.token.get_secret_value()
        self._cache_dir = settings.cache_dir
        self._client = HubClient(settings, inner, budgets)
        set_client_factory(lambda: self._client)

    def fetch(self, context: Context) -> None:
        """See `Engine`."""
        file, partial = context.task.file, context.sink
        if context.is_part or not isinstance(partial, Partial):
            raise RangeError(f"{file.path}: huggingface_hub fetches whole files only, not parts of one")
        if partial.unproven:
            partial.reset()
        if partial.size == file.size or self._cached(context, partial):
            return
        staging = partial.make_staging()
        try:
            with serving(context):
                found = self._download(context, staging)
            partial.adopt(found)
        finally:
            partial.remove_staging()
        # The library names it after the hub's ETag, which is its hash even where the listing hides that.
        if not partial.proves and (known := with_digest(file, found.name)):
            partial.expect(known)
        context.progress(partial.size)

    def close(self) -> None:
        """Close all connections."""
        self._client.shut_down()

    def _download(self, context: Context, staging: Path) -> Path:
        spec, path = context.task.spec, context.task.file.path
        try:
            found = hf_hub_download(
                spec.repo_id,
                path,
                repo_type=spec.repo_type.value,
                revision=spec.commit,
                endpoint=spec.endpoint,
                # As a cache, because in a `local_dir` a name of 255 bytes is too long for its lock file.
                cache_dir=staging,
                token=self._token if self._token and self._client.trusts(spec.endpoint) else False,
                library_name="hf-downloader",
                library_version=__version__,
            )
        except (httpx.HTTPError, OSError, ValueError) as error:
            context.cancel.check()  # then it is we who hung up
            raise _translated(error, path) from error
        return Path(os.path.realpath(found))

    def _cached(self, context: Context, partial: Partial) -> bool:
        """Take the file from huggingface_hub's cache, if one is configured and has it, intact."""
        if not self._cache_dir or not partial.proves:
            return False
        spec, path = context.task.spec, context.task.file.path
        found = try_to_load_from_cache(
            spec.repo_id,
            path,
            cache_dir=self._cache_dir,
            revision=spec.commit,
            repo_type=spec.repo_type.value,
        )
        if not isinstance(found, str):
            return False
        partial.copy(Path(found))
        try:
            partial.check()
        except CorruptError:
            partial.reset()
            return False
        return True


def _translated(error: Exception, path: str) -> TransferError:
    """Return our error for what the library raised.

    Its LocalEntryNotFoundError stands for many things; the cause is what happened.
    """
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        return _translated(error.__cause__, path)
    if isinstance(error, httpx.TransportError):
        return NetworkError(f"{path}: {type(error).__name__} in huggingface_hub: {one_line(error)}")
    if isinstance(error, OSError) and error.errno:
        return disk_error(error, path)
    return EngineError(f"{path}: huggingface_hub does not download it: {one_line(error)}")
