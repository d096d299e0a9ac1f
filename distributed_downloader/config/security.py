"""The keys of [security]: what this machine takes part in, whatever a job says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from distributed_downloader.checks import folder, host_glob, hub_address
from distributed_downloader.config.values import From, each, repo_glob
from distributed_downloader.models import Model


class SecuritySection(Model):
    """What this machine takes part in, whatever a job in Redis says; see SECURITY.md."""

    allowed_repos: Annotated[str, From(allowed="globs such as org/*, datasets/org/name")] = Field(
        default="",
        description="Repos that may be fetched, such as `org/*, datasets/org2/name`; a type in front makes a "
        "glob count for that type only; empty for all.",
    )
    allowed_endpoints: Annotated[str, From(allowed="addresses of hubs")] = Field(
        default="", description="Hubs that may be asked, such as `https://huggingface.co`; empty for all."
    )
    allowed_output_dirs: Annotated[str, From(allowed="absolute folders")] = Field(
        default="",
        description="Folders in which, or below which, jobs may put files, beside this machine's own "
        "`[app] output_dir`; empty for all but the system's own folders.",
    )

    inner_hosts: Annotated[str, From(allowed="globs of host names such as *.storage.example")] = Field(
        default="",
        description="Hosts to which a hub may lead though they lie in a private network and it does not, "
        "such as `*.storage.example`; empty for none.",
    )

    @field_validator("allowed_repos")
    @classmethod
    def _globs(cls, text: str) -> str:
        return each(text, repo_glob)

    @field_validator("allowed_endpoints")
    @classmethod
    def _hubs(cls, text: str) -> str:
        return each(text, hub_address)

    @field_validator("inner_hosts")
    @classmethod
    def _hosts(cls, text: str) -> str:
        return each(text, host_glob)

    @field_validator("allowed_output_dirs")
    @classmethod
    def _folders(cls, text: str) -> str:
        return each(text, folder)
