"""`init-config`: write a configuration file in which every key is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed_downloader.config import Setting

_INTRO = """\
# Configuration of hf-downloader. Every key is shown with its default, commented out.
# Flags win over environment variables, and both win over this file.
# Comments need lines of their own; values are taken as they are, without quotes.
"""


@click.command("init-config")
@click.option(
    "--output", "-o", "output", default="config.ini", show_default=True, metavar="FILE", help="File to write."
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def command(output: str, force: bool) -> None:
    """Write a configuration file that explains every key.

    The file can be read by you alone, for it may come to hold a password. `config.ini` in the current
    folder and `~/.config/distributed_downloader/config.ini` are found without --config.

    \b
    Examples:
      hf-downloader init-config
      hf-downloader init-config -o ~/.config/distributed_downloader/config.ini
    """
    from pathlib import Path

    from distributed_downloader.config.file import is_searched

    path = Path(output).expanduser()
    write(path, text(), force=force)
    option = "" if is_searched(path) else f" --config {output}"
    click.echo(f"Wrote {output}; only you can read it.")
    click.echo("Next: set [redis] host for a fleet (one machine needs nothing), then look at the result:")
    click.echo(f"  hf-downloader{option} config")


def text() -> str:
    """Return the file with every key, which also is config.example.ini."""
    from distributed_downloader.config import SECTIONS, SETTINGS

    lines = [_INTRO]
    for section, model in SECTIONS.items():
        lines += [f"\n# {model.__doc__}", f"[{section}]"]
        lines += [line for entry in SETTINGS.values() if entry.section == section for line in _key(entry)]
    return "\n".join(lines) + "\n"


def _key(setting: Setting) -> Iterator[str]:
    import textwrap

    yield ""
    yield from (f"# {line}" for line in textwrap.wrap(setting.meaning, 96, break_on_hyphens=False))
    elsewhere = " or ".join(filter(None, (setting.source.env, setting.source.flag)))
    if elsewhere:
        yield f"# Also: {elsewhere}"
    yield f"#{setting.key} = {setting.default}".rstrip()


def write(path: Path, content: str, *, force: bool) -> None:
    """Create the file with mode 0600; raises UsageError if it is there and `force` is off."""
    from distributed_downloader.errors import UsageError

    if path.exists() and not force:
        raise UsageError(f"{path} is there already; --force replaces it, -o FILE writes another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path, content, force=force)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _create(path: Path, content: str, *, force: bool) -> None:
    """Write beside an old file, so that it is replaced whole or not at all."""
    import os

    target = path.with_name(f"{path.name}.new") if force else path
    if force:
        target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    target.replace(path)
