"""What is mounted where: on which kind of file system a folder lies, and whether it is another machine's."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

#: Kinds of file systems that are on another machine.
NETWORK = (
    *("9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "kafs", "lustre"),
    *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs", "wekafs"),
)


def is_elsewhere(root: Path) -> bool:
    """Return whether a folder is likely to be a mount that is there: one of the network, or right at it."""
    kind = file_system(root)
    remote = kind in NETWORK or kind.startswith("fuse.")
    return is_mount_point(root) or (remote and not is_on_root(root))


def file_system(root: Path) -> str:
    """Return the kind of the file system that a folder is on, "" where nobody tells."""
    number = mount_number(root)
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            # Number, parent, device, root, mount point, options, any others, then behind a dash the kind.
            left, _, right = line.partition(" - ")
            if number and left.split(" ", 1)[0] == number:
                return right.split(" ", 1)[0]
    return ""


def is_mount_point(root: Path) -> bool:
    """Return whether something is mounted at the folder itself; never so for `/`."""
    number = mount_number(root)
    if number:  # knows mounts of the same disk too
        return number != mount_number(root / "..")
    return root.is_mount() and not root.samefile("/")


def is_on_root(root: Path) -> bool:
    """Return whether a folder is on the mount of `/`, which is a machine's own wherever that lies."""
    return mount_number(root) == mount_number("/")


def mount_number(folder: Path | str) -> str:
    """Return the number of the mount that a folder is on, "" where nobody tells."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    except OSError:
        return ""
    finally:
        os.close(fd)
    return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")
