"""`init-nas`: mark a folder as the NAS, so that a missing mount is never taken for it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from distributed_downloader.cli.app import App

#: Kinds of file systems that are on another machine.
NETWORK = (
    *("9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "kafs", "lustre"),
    *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs", "wekafs"),
)


@click.command("init-nas")
@click.option("--force", is_flag=True, help="Mark the folder even if it lies on this machine's own disk.")
@click.pass_obj
def command(app: App, force: bool) -> None:
    """Mark the folder of [nas] path as the NAS; needed once, on any machine that has it mounted.

    The mark is a random id in the folder `.hf-downloader` there. Workers copy to the NAS only while they
    see it: so a mount that is missing never fills the local disk. Run again, it shows what is there.

    A folder is taken for the NAS if it is on a network file system, or something is mounted right there.

    \b
    Examples:
      hf-downloader init-nas
      NAS_PATH=/mnt/nas/models hf-downloader init-nas
    """
    from pathlib import Path

    from distributed_downloader.errors import UsageError
    from distributed_downloader.storage.place import make_place, read_place

    if not app.config.nas.path:
        raise UsageError("[nas] path is not set: write it into the configuration file, or set NAS_PATH")
    root = Path(app.config.nas.path)
    require_folder(root)
    before = read_place(root)
    if not before and not force:
        refuse_own_disk(root)
    if before:
        refuse_copied_id(root, Path(app.config.app.output_dir).expanduser().absolute())
    place = make_place(root, create_root=False)
    click.echo(f"{root} is {'already ' if before else ''}marked as the NAS; its id is {place}.")
    click.echo(room(root))
    if not app.config.nas.enabled:
        click.echo("Next: set [nas] enabled = true, or NAS_ENABLED=1, for the master and all workers.")


def require_folder(root: Path) -> None:
    """Raise UsageError unless there is a folder that we may look into."""
    from distributed_downloader.errors import UsageError

    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"{root} is not there; is the NAS mounted?") from None
    except NotADirectoryError:
        raise UsageError(f"{root} is no folder; [nas] path is where the NAS is mounted") from None
    except OSError as error:
        raise UsageError(f"{root}: {(error.strerror or str(error)).lower()}; see to the mount") from None
    os.close(fd)


def refuse_own_disk(root: Path) -> None:
    """Raise UsageError where the mount is likely to be missing, for the folder is one of a local disk."""
    from distributed_downloader.errors import UsageError

    kind = file_system(root)
    remote = kind in NETWORK or kind.startswith("fuse.")
    if is_mount_point(root) or (remote and not is_on_root(root)):
        return
    raise UsageError(
        f"{root} lies on this machine's own disk{f' ({kind})' if kind else ''}, and nothing is mounted right "
        "there: mount the NAS first, or use --force if that folder itself is meant"
    )


def file_system(root: Path) -> str:
    """Return the kind of the file system that a folder is on, "" where nobody tells."""
    from pathlib import Path

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
    from pathlib import Path

    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    except OSError:
        return ""
    finally:
        os.close(fd)
    return next((line.split()[1] for line in lines if line.startswith("mnt_id:")), "")


def refuse_copied_id(root: Path, output: Path) -> None:
    """Raise UsageError if the NAS and the output folder have one id, and are not one folder."""
    from distributed_downloader.errors import UsageError
    from distributed_downloader.storage.place import STATE, read_place

    if read_place(root) == read_place(output) and not is_one(root / STATE, output / STATE):
        raise UsageError(
            f"{root} and the output folder {output} have one id and are two folders: one is a copy of the "
            f"other, with its {STATE}. Remove {STATE}/place in the copy; if that is the NAS, run this again"
        )


def is_one(folder: Path, other: Path) -> bool:
    """Return whether a file that is made in one folder is seen in the other: they may be two mounts."""
    import tempfile
    from pathlib import Path

    from distributed_downloader.storage.copying import at_nas

    with at_nas(folder), tempfile.NamedTemporaryFile(dir=folder, prefix="~") as probe:
        return (other / Path(probe.name).name).exists()


def room(root: Path) -> str:
    """Say how much space there is, as far as the NAS tells."""
    import shutil

    from distributed_downloader.display.units import size
    from distributed_downloader.storage.copying import at_nas

    with at_nas(root):
        disk = shutil.disk_usage(root)
    return f"{size(disk.free)} of {size(disk.total)} are free."
