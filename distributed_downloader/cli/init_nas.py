"""`init-nas`: mark a folder as the NAS, so that a missing mount is never taken for it."""

from __future__ import annotations

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
    before = read_place(root)
    if not before and not force:
        refuse_own_disk(root)
    place = make_place(root, create_root=False)
    click.echo(f"{root} is {'already ' if before else ''}marked as the NAS; its id is {place}.")
    click.echo(room(root))
    if not app.config.nas.enabled:
        click.echo("Next: set [nas] enabled = true, or NAS_ENABLED=1, for the master and all workers.")


def refuse_own_disk(root: Path) -> None:
    """Raise UsageError where the mount is likely to be missing: the folder is on the disk of `/`."""
    from pathlib import Path

    from distributed_downloader.errors import UsageError

    try:
        device = root.stat().st_dev
    except OSError as error:
        raise UsageError(f"{root}: {(error.strerror or str(error)).lower()}; is the NAS mounted?") from None
    if device == Path("/").stat().st_dev:
        raise UsageError(
            f"{root} lies on this machine's own disk: mount the NAS there first, or use --force if that "
            "folder itself is meant"
        )


def room(root: Path) -> str:
    """Say how much space there is, as far as the NAS tells."""
    import shutil

    from distributed_downloader.display.units import size
    from distributed_downloader.storage.copying import at_nas

    with at_nas(root):
        disk = shutil.disk_usage(root)
    return f"{size(disk.free)} of {size(disk.total)} are free."
