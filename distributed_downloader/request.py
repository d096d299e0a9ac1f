"""What a user asks for, completed by what the settings say."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from distributed_downloader.errors import UsageError
from distributed_downloader.master import JobRequest
from distributed_downloader.models import Layout, RepoType

if TYPE_CHECKING:
    from distributed_downloader.config import AppConfig

K = TypeVar("K", bound=Enum)


def job_request(
    config: AppConfig,
    repo: str,
    *,
    repo_type: str | None = None,
    split: int | None = None,
    layout: str | None = None,
    **options: Any,  # noqa: ANN401 passed on
) -> JobRequest:
    """Return what these options and settings ask for; `options` are those of JobRequest.

    `split` is the bytes of a part, 0 for no parts, None for what the settings say. Raises UsageError.
    """
    return JobRequest(
        repo,
        _one_of(RepoType, repo_type) if repo_type else None,
        split_over=config.app.split_threshold if split is None else split,
        part_size=split or 0,
        layout=_one_of(Layout, layout or config.app.layout),
        flat=config.nas.enabled and not config.nas.preserve_structure,
        **options,
    )


def _one_of(kinds: type[K], name: str) -> K:
    try:
        return kinds(name)
    except ValueError:
        raise UsageError(f"{name!r} is none of {', '.join(kind.value for kind in kinds)}") from None
