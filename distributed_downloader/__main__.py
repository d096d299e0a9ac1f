"""The program's entry: `hf-downloader`, and `python -m distributed_downloader`."""

from __future__ import annotations

import os
import sys

#: What a process that was interrupted exits with.
INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its documented code."""
    try:
        # Here, and not above: Ctrl+C may come while Python still reads files.
        if "worker" in sys.argv[1:]:
            from distributed_downloader.signals import leave_at_once  # noqa: PLC0415

            leave_at_once()
        from distributed_downloader.imports import quick_imports  # noqa: PLC0415

        # Else pydantic looks for code in whatever is installed here, and lets it see our settings.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        with quick_imports():
            from distributed_downloader.cli import run  # noqa: PLC0415

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except MemoryError:
        sys.exit("error: this machine is out of memory: see what else runs here")


if __name__ == "__main__":
    main()
