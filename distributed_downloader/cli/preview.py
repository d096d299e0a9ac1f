"""What `master --dry-run` prints, in constant memory: the files as they are listed, then the sums."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import click

from distributed_downloader.display import units
from distributed_downloader.models import JobSpec, RepoFile
from distributed_downloader.plan import biggest_first

Pages = Iterable[list[RepoFile]]


def print_text(spec: JobSpec, pages: Pages, folder: str) -> int:
    """Print one line for each file, and the sums; return how many files there are."""
    count = size = 0
    for page in pages:
        for file in biggest_first(page):
            click.echo(f"{units.size(file.size):>8}  {units.safe(file.path)}")
        count, size = count + len(page), size + sum(file.size for file in page)
    free = free_space(folder)
    room = (
        f"; {units.size(free)} free in {folder}{'' if free >= size else ': TOO LITTLE'}"
        if free is not None
        else ""
    )
    click.echo(
        f"{units.repo(spec)} at {spec.revision} ({spec.commit[:8]}): "
        f"{units.count(count, 'file')}, {units.size(size)}{room}"
    )
    return count


def print_json(spec: JobSpec, pages: Pages, folder: str) -> int:
    """Print one JSON object, with a line for each file; return how many files there are."""
    head = spec.model_dump(mode="json", include={"repo_type", "repo_id", "revision", "commit", "endpoint"})
    click.echo(json.dumps(head)[:-1] + ', "files": [', nl=False)
    count = size = 0
    for page in pages:
        for file in biggest_first(page):
            click.echo(f"{',' if count else ''}\n  {file.model_dump_json(exclude={'clash'})}", nl=False)
            count, size = count + 1, size + file.size
    tail = {"total_files": count, "total_bytes": size, "output_dir": folder, "free_bytes": free_space(folder)}
    click.echo("\n], " + json.dumps(tail)[1:])
    return count


def free_space(folder: str) -> int | None:
    """Return the free bytes where `folder` is or would be made; None if nobody here knows."""
    path = Path(folder).expanduser().absolute()
    for place in (path, path.parent):
        if place.is_dir():
            usage = shutil.disk_usage(place)
            return usage.free if usage.total else None  # some FUSE disks do not know their size
    return None
