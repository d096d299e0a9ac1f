"""`hf-downloader redis`: a Redis of its own for a job that has none."""

from __future__ import annotations

import click


@click.command("redis")
@click.argument("folder")
@click.option(
    "--address",
    metavar="HOST",
    default="",
    help="Name or address of this machine to listen on.  [default: the one of its host name]",
)
def command(folder: str, address: str) -> None:
    """Serve the queue from a folder until stopped: for clusters, where there is no long-lived Redis.

    Runs a redis-server with a random password, on a free port of this machine; what is queued stays in
    FOLDER, and the next run goes on with it, on whichever machine. When it answers, the path of FOLDER/url
    is printed: that file holds the address with the password, for you alone. A folder is served by one
    machine at a time.

    \b
    Examples:
      hf-downloader redis /scratch/me/queue &
      REDIS_URL=$(cat /scratch/me/queue/url) hf-downloader status
      hf-downloader redis /scratch/me/queue --address "$(hostname)-ib0"
    """
    import logging
    from pathlib import Path

    from distributed_downloader.redis_server import RedisServer
    from distributed_downloader.signals import interrupt_on_terminate

    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    interrupt_on_terminate()
    try:
        server = RedisServer(Path(folder).expanduser().absolute(), address)
        with server as file:
            click.echo(file)
            server.wait()
    except KeyboardInterrupt:
        return  # which is how it ends in order
