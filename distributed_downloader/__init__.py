"""Any Hugging Face repo, at the sum of all your machines' bandwidth, every byte verified.

    from distributed_downloader import download

    folder = download("org/name", output_dir="/data/hub")

The names below are what a program may rely on (docs/library.md), and so is the tree of `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "Cancel",
    "DownloaderError",
    "FilesFailedError",
    "JobState",
    "JobStatus",
    "download",
    "status",
    "submit",
    "watch",
]

#: Public name -> its module, which is imported when the name is first used: the command line needs none.
_HOMES = {
    "Cancel": "cancel",
    "DownloaderError": "errors",
    "FilesFailedError": "errors",
    "JobState": "models",
    "JobStatus": "models",
    "download": "library",
    "status": "library",
    "submit": "library",
    "watch": "library",
}

if TYPE_CHECKING:
    from distributed_downloader.cancel import Cancel
    from distributed_downloader.errors import DownloaderError, FilesFailedError
    from distributed_downloader.library import download, status, submit, watch
    from distributed_downloader.models import JobState, JobStatus
else:  # or a type checker would believe in any name

    def __getattr__(name: str) -> object:
        """Import a public name (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415

        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """Return the public names with the others, for who looks around."""
        return sorted({*globals(), *__all__})
