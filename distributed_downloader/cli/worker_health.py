"""`hf-downloader worker-health`: whether the worker of this machine is alive, for probes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from distributed_downloader.cli.options import json_option

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App
    from distributed_downloader.health import Health


@click.command("worker-health")
@click.argument("file", required=False, envvar="HEALTH_FILE")
@click.option(
    "--ready", is_flag=True, help="Ask whether it can fetch, too: it is in the fleet, and not at rest."
)
@json_option
@click.pass_obj
def command(app: App, file: str | None, *, ready: bool, as_json: bool) -> int:
    """Tell whether the worker of this machine goes on, by the FILE that it writes.

    FILE is what the worker has as --health-file; without it, [app] health_file or HEALTH_FILE. Exit code 0
    if the worker is alive, 1 if it is not. One that waits for Redis is alive, but not ready.

    \b
    Examples:
      hf-downloader worker-health /run/hf-downloader/health
      hf-downloader worker-health /run/hf-downloader/health --ready
      HEALTH_FILE=/tmp/health hf-downloader worker-health --json
    """
    import json
    from pathlib import Path

    from distributed_downloader.health import read

    path = file or app.config.app.health_file
    if not path:
        raise click.UsageError("Name the FILE that the worker has as --health-file, or set HEALTH_FILE.")
    health = read(Path(path))
    why = health.ailment(time.monotonic()) if health else f"no worker writes {path}"
    found = document(health, why)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(_words(health, why), err=bool(why))
    return int(not found["ready" if ready else "alive"])


def _words(health: Health | None, why: str) -> str:
    """Return it for people, with all that could steer a terminal spelled out."""
    if health is None or why:
        text = f"not alive: worker {health.worker}: {why}" if health else f"not alive: {why}"
    else:
        trouble = f": {health.trouble}" if health.trouble else ""
        seconds = max(0.0, time.time() - health.since)
        text = f"alive: worker {health.worker}, {health.state.value} for {seconds:.0f} s{trouble}"
    # As display.units would, but a probe is to be quick.
    return text.encode("unicode_escape").decode()


def document(health: Health | None, why: str) -> dict[str, object]:
    """Return the `health` object of docs/json.md; `why` it is not alive, or ""."""
    silent = health.silent(time.monotonic()) if health else {}
    return {
        "alive": not why,
        "ready": bool(health and health.is_ready and not why),
        "why": why,
        "worker": health.worker if health else None,
        "pid": health.pid if health else None,
        "state": health.state.value if health else None,
        "since": health.since if health else None,
        "trouble": health.trouble if health else None,
        "fetcher_silent_seconds": silent.get("fetcher"),
        "heartbeat_silent_seconds": silent.get("heartbeat"),
    }
