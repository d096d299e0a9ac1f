"""`hf-downloader worker`: fetch what the fleet has to fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from distributed_downloader.cli.options import worker_options
from distributed_downloader.imports import quick_imports

if TYPE_CHECKING:
    from distributed_downloader.cli.app import App


@click.command("worker")
@click.option(
    "--worker-id", metavar="ID", help="Name in the fleet; must be unique.  [default: host-pid-random]"
)
@worker_options
@click.option("--fleet-bandwidth", metavar="RATE", help="At most so much, all workers of the fleet together.")
@click.option("--health-file", metavar="FILE", help="Say there that this worker is alive: see worker-health.")
@click.option("--drain-when-empty", is_flag=True, help="End when no running job is left.")
@click.pass_obj
def command(
    app: App,
    *,
    worker_id: str | None,
    concurrency: int | None,
    max_bandwidth: str | None,
    fleet_bandwidth: str | None,
    health_file: str | None,
    drain_when_empty: bool,
) -> None:
    """Fetch files for the fleet, until stopped.

    Waits for Redis and for jobs. Ctrl+C or SIGTERM gives running files back at once (their first
    bytes are kept and used again); SIGUSR1 finishes them first.

    Where files go on this machine, and whether they get to a NAS, is set in its configuration
    (`hf-downloader init-config` writes one) or in OUTPUT_DIR, NAS_ENABLED and NAS_PATH. For instance:

    \b
      [app]
      output_dir = /data/models
      # left free on each disk
      disk_reserve = 20GiB
      # fast local folder, for parts of files in a shared folder that is slow
      spool_dir = /ssd/spool
      [nas]
      enabled = true
      # marked once, with `hf-downloader init-nas`
      path = /mnt/nas/models

    \b
    Examples:
      hf-downloader worker
      hf-downloader worker --concurrency 8 --max-bandwidth 10MB/s
      hf-downloader worker --fleet-bandwidth 100MB/s
      hf-downloader --redis-host head-node worker --drain-when-empty
      hf-downloader worker --health-file /run/hf-downloader/health
      NAS_ENABLED=true NAS_PATH=/mnt/nas/models hf-downloader worker
    """
    with quick_imports():
        from distributed_downloader.assembly import make_worker
        from distributed_downloader.signals import run_until_signal

    app.override(
        app_concurrency=concurrency,
        app_max_bandwidth=max_bandwidth,
        app_health_file=health_file,
        limits_fleet_bandwidth=fleet_bandwidth,
    )
    app.require_worker()
    app.warn_of_idle_settings()
    node = make_worker(app.config, app.redis, worker_id=worker_id, drain_when_empty=drain_when_empty)
    run_until_signal(node)
    app.redis.close()
