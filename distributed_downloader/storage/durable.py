"""Makes the names of published files safe from a power cut: each folder once for all that got names there."""

from __future__ import annotations

from distributed_downloader.outcome import Published
from distributed_downloader.storage.disk import disk, sync_folder
from distributed_downloader.storage.root import Root


def make_durable(where: Published) -> None:
    """Bring the names in a folder to disk; one that somebody has removed since has none to lose.

    Raises LocalError if the disk fails, PlaceUnseenError if the output folder is another one by now.
    """
    with disk(where), Root(where.root, where.place) as root:
        try:
            folder = root.enter(where.parents, create=False)
        except FileNotFoundError:
            return
        sync_folder(folder)
