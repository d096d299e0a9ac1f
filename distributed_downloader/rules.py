"""The rules of [security]: which repos, hubs and folders this machine takes part in, whatever a job says."""

from __future__ import annotations

from fnmatch import fnmatchcase
from os.path import normpath
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from distributed_downloader.checks import origin
from distributed_downloader.config import AppConfig
from distributed_downloader.config.values import TYPES, listed
from distributed_downloader.layout import folder_of
from distributed_downloader.models import JobSpec

#: Where nobody wants downloads; whoever writes there may own the machine.
_SYSTEM = (
    *(
        "/bin",
        "/boot",
        "/etc",
        "/lib",
        "/lib32",
        "/lib64",
        "/libexec",
        "/proc",
        "/run/systemd",
        "/sbin",
        "/sys",
    ),
    *("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/sbin"),
    *("/usr/local/bin", "/usr/local/lib", "/usr/local/sbin", "/var/spool/cron"),
    *("/private/etc", "/System", "/Library"),
)


class Rules:
    """The rules of one machine; its master keeps them before anything is queued, its workers each time."""

    def __init__(self, config: AppConfig) -> None:
        security = config.security
        self._repos = listed(security.allowed_repos)
        self._endpoints = tuple(map(_same, listed(security.allowed_endpoints)))
        self._folders = tuple(map(PurePosixPath, listed(security.allowed_output_dirs)))
        self._own = PurePosixPath(normpath(config.app.output_dir))
        #: The job that was asked about last, and what was found.
        self._judged: tuple[JobSpec | None, str] = (None, "")

    def objection(self, spec: JobSpec) -> str:
        """Return why a job is not for this machine, or "" if it is."""
        judged, objection = self._judged
        if judged is not spec:  # a job's tasks come one after the other, and share it
            objection = self._objection(spec)
            self._judged = spec, objection
        return objection

    def _objection(self, spec: JobSpec) -> str:
        if not self._has_repo(spec):
            return f"[security] allowed_repos has no {spec.repo_type.value}s/{spec.repo_id}"
        if self._endpoints and _same(spec.endpoint) not in self._endpoints:
            return f"[security] allowed_endpoints has no {spec.endpoint}"
        if spec.output_dir and not self._has_folder(PurePosixPath(spec.output_dir), folder_of(spec)):
            return self._about_folder(spec.output_dir)
        return ""

    def _has_repo(self, spec: JobSpec) -> bool:
        """Match globs: with a type in front they mean that type, else any."""
        name = f"{spec.repo_type.value}s/{spec.repo_id}"
        return not self._repos or any(
            fnmatchcase(name if glob.startswith(TYPES) else spec.repo_id, glob) for glob in self._repos
        )

    def _has_folder(self, folder: PurePosixPath, repo: str) -> bool:
        if folder.is_relative_to(self._own):
            return True
        if self._folders:
            return any(folder.is_relative_to(allowed) for allowed in self._folders)
        # Its repo's name counts, too: /usr and the repo bin/x are /usr/bin/x.
        inner = folder / repo
        return folder != PurePosixPath("/") and not any(inner.is_relative_to(each) for each in _SYSTEM)

    def _about_folder(self, folder: str) -> str:
        if self._folders:
            return f"[security] allowed_output_dirs has no {folder}"
        return f"{folder} is the system's own folder, and [security] allowed_output_dirs does not allow it"


def _same(endpoint: str) -> str:
    """Return an address as it is compared: the usual port, a last slash, the host's case mean nothing."""
    return origin(endpoint) + urlsplit(endpoint).path.rstrip("/")
