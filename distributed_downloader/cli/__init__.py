"""The command line: one file per command, each imported only when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from distributed_downloader import __version__
from distributed_downloader.__main__ import INTERRUPTED
from distributed_downloader.cli.options import global_options
from distributed_downloader.errors import DownloaderError
from distributed_downloader.imports import quick_imports

#: In the order of `--help`: from the first thing a newcomer needs to the last.
COMMANDS = (
    "demo",
    "download",
    "init-config",
    "config",
    "doctor",
    "init-nas",
    "master",
    "batch-master",
    "worker",
    "worker-health",
    "status",
    "repos",
    "queue",
    "workers",
    "files",
    "metrics",
    "pause",
    "resume",
    "cancel",
    "retry",
    "verify",
    "cleanup",
    "forget",
    "slurm",
    "redis",
)


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `cli/<name>.py` and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        with quick_imports():
            module = importlib.import_module(f"{__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="hf-downloader")
@global_options
@click.pass_context
def cli(ctx: click.Context, /, config_file: str | None, **flags: object) -> None:
    """Any Hugging Face repo, on all your machines at once, every byte verified.

    \b
    One machine:   hf-downloader download org/name
    A fleet:       hf-downloader master org/name      on one machine
                   hf-downloader worker               on each machine
                   hf-downloader status --watch       anywhere

    \b
    Exit codes: 0 done, 1 the job or some files failed, 2 usage or configuration,
    3 Redis or the hub cannot be reached, 130 interrupted.
    """
    from distributed_downloader.cli.app import App

    ctx.obj = App(config_file, flags)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors become one line on standard error."""
    try:
        code = cli.main(arguments, prog_name="hf-downloader", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except DownloaderError as error:
        complain(str(error))
        return error.exit_code
    except SystemExit:
        # click's answer to a reader that went away (`| head`): it has seen enough.
        return 0
    except Exception as error:  # noqa: BLE001 - the edge of the program
        _complain_of_unexpected(error)
        return 1
    return code if isinstance(code, int) else 0


def _complain_of_unexpected(error: Exception) -> None:
    """Print one line about an error that is none of ours: the product's own I/O has its own."""
    from distributed_downloader.unexpected import as_transfer_error, dry

    if not isinstance(error, OSError) or dry(error):
        complain(str(as_transfer_error(error)))
        return
    unwritten = error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF)
    where = "standard output" if unwritten else error.filename or "this machine"
    complain(f"{where}: {(error.strerror or str(error)).lower()}")
    if unwritten:
        # So that nothing is flushed there at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    """Print one line about the current error; its trace is for log level DEBUG only."""
    import logging

    from distributed_downloader.cli.logs import safe_lines

    click.echo(f"{click.style('error:', fg='red', bold=True)} {safe_lines(text)}", err=True)
    logging.getLogger(__name__).debug("the trace of this error:", exc_info=True)
