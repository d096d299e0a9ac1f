"""`init-nas`: mark a folder as the NAS, so that a missing mount is never taken for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from distributed_downloader.cli.app import App


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
    from distributed_downloader.storage.mounts import file_system, is_elsewhere

    if is_elsewhere(root):
        return
    kind = file_system(root)
    raise UsageError(
        f"{root} lies on this machine's own disk{f' ({kind})' if kind else ''}, and nothing is mounted right "
        "there: mount the NAS first, or use --force if that folder itself is meant"
    )


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
