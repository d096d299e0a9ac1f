"""Disks that can be filled and taken away; they are root's to mount."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def mount(folder: Path, *options: str) -> None:
    """Mount something at a folder."""
    subprocess.run([_tool("mount"), *options, str(folder)], check=True, capture_output=True)


def unmount(folder: Path) -> None:
    """Take away what is mounted at a folder, even if somebody uses it; nothing if nothing is."""
    subprocess.run([_tool("umount"), "-l", str(folder)], check=False, capture_output=True)


def unmount_all(folder: Path) -> None:
    """Take away everything that is mounted at a folder."""
    while os.path.ismount(folder):
        unmount(folder)


def may_mount() -> bool:
    """Return whether this user may mount a disk."""
    if sys.platform != "linux" or os.geteuid():
        return False
    with tempfile.TemporaryDirectory() as name:
        try:
            mount(Path(name), "-t", "tmpfs", "chaos")
        except (OSError, subprocess.CalledProcessError):
            return False
        unmount(Path(name))
        return True


def _tool(name: str) -> str:
    return shutil.which(name) or name
