"""`hf-downloader demo`: see the whole thing work on this machine."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from distributed_downloader.cli.app import App
    from distributed_downloader.demo import Result


@click.command("demo")
@click.option("--workers", type=click.IntRange(2, 8), default=3, show_default=True, help="Machines to play.")
@click.pass_obj
def command(app: App, workers: int) -> None:
    """Show a fleet at work: a private Redis, a small local hub, real workers held to 1 MB/s each.

    Fetches a sample repo once with one worker and once with all of them, compares every byte, and
    tells how much faster the fleet was. Takes less than a minute, needs no network, leaves nothing behind.

    \b
    Examples:
      hf-downloader demo
      hf-downloader demo --workers 6
    """
    import tempfile
    from pathlib import Path

    from distributed_downloader.demo import REPO, Demo, differences
    from distributed_downloader.embedded import EmbeddedRedis
    from distributed_downloader.errors import CorruptError
    from distributed_downloader.local_hub import LocalHub
    from distributed_downloader.local_hub.demo_repo import write_demo_repo
    from distributed_downloader.signals import interrupt_on_terminate

    interrupt_on_terminate()
    console = app.progress_console
    with tempfile.TemporaryDirectory(prefix="hfd-demo-") as name:
        folder = Path(name)
        source = folder / "source"
        write_demo_repo(source)
        with EmbeddedRedis() as url, LocalHub({f"models/{REPO}": source}) as hub:
            results = []
            with closing(Demo(folder, url, hub.endpoint, console)) as demo:
                for count in (1, workers):
                    say(console, count)
                    results.append(demo.run(count, folder / f"by-{count}"))
        for count in (1, workers):
            if wrong := differences(source, folder / f"by-{count}" / REPO):
                raise CorruptError(f"the demo's copy differs in {', '.join(wrong)}; please report this")
    summary(app.console, *results)


def say(console: Console, workers: int) -> None:
    """Announce a run."""
    who = "One worker" if workers == 1 else f"{workers} workers"
    console.print(f"\n[bold]{who}[/bold], held to 1 MB/s{'' if workers == 1 else ' each'}:")


def summary(console: Console, alone: Result, fleet: Result) -> None:
    """Tell what was done and how much faster the fleet was."""
    console.print(
        f"\n[green]Every byte is right:[/green] {fleet.files} files, {fleet.bytes / 1e6:.1f} MB, twice, "
        "each file checked against the hub's hash and compared with the original.\n"
    )
    for result in (alone, fleet):
        who = "1 worker " if result.workers == 1 else f"{result.workers} workers"
        console.print(f"  {who}  {result.seconds:5.1f} s  {result.rate / 1e6:4.1f} MB/s")
    factor = alone.seconds / fleet.seconds
    console.print(f"\n[bold]{fleet.workers} workers were {factor:.1f} times as fast as one.[/bold]")
    console.print("Now for real: hf-downloader download org/name")
