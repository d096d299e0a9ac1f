"""`hf-downloader metrics`: the fleet's figures for Prometheus."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import click

from distributed_downloader.imports import quick_imports

if TYPE_CHECKING:
    from types import FrameType

    from distributed_downloader.cli.app import App


@click.command("metrics")
@click.option(
    "--listen",
    default="127.0.0.1:9109",
    show_default=True,
    metavar="[HOST]:PORT",
    help="Where to serve; :9109 is all interfaces.",
)
@click.pass_obj
def command(app: App, *, listen: str) -> None:
    """Serve the figures of the fleet for Prometheus, until stopped.

    Redis is read when somebody asks for /metrics; without Redis, the answer says so: hf_downloader_redis_up
    is 0. One for each fleet is enough. Whoever reaches the port can read the names of repos, but no secrets.

    \b
    Examples:
      hf-downloader metrics
      hf-downloader metrics --listen :9109
      hf-downloader --redis-host head-node metrics --listen [::1]:9109
    """
    import signal

    with quick_imports():
        from distributed_downloader.metrics_server import FleetCollector, parse_address, serving
        from distributed_downloader.outage import Outage
        from distributed_downloader.redis_metrics import RedisMetrics
        from distributed_downloader.signals import handling
    try:
        address = parse_address(listen)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--listen") from error
    collector = FleetCollector(RedisMetrics(app.redis), Outage(app.redis.address))
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.set()

    with handling({signal.SIGINT: stop, signal.SIGTERM: stop}), serving(address, collector) as url:
        click.echo(f"metrics of {app.redis.address}: {url}", err=True)
        asked.wait()
