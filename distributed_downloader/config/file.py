"""The configuration file: where it is looked for, and what it says."""

from __future__ import annotations

import configparser
import contextlib
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from distributed_downloader.errors import ConfigError

#: Where a file is looked for, the first one found wins.
SEARCHED = (
    "config.ini",
    "distributed_downloader.ini",
    "~/.config/distributed_downloader/config.ini",
    "~/.distributed_downloader.ini",
    "/etc/distributed_downloader/config.ini",
)


def find(named: Path | None) -> Path | None:
    """Return the file to read: the named one, which must exist, or the first of `SEARCHED`."""
    if named is None:
        return next((path for path in _searched() if _exists(path)), None)
    if not _exists(named):
        raise ConfigError(
            f"{named}: there is no such file; `hf-downloader init-config -o {named}` writes one"
        )
    return named


def is_searched(path: Path) -> bool:
    """Return whether the path is found without `--config`, unless another one comes first."""
    return path.absolute() in {searched.absolute() for searched in _searched()}


def _searched() -> Iterable[Path]:
    for text in SEARCHED:
        with contextlib.suppress(RuntimeError):  # this user has no home folder
            yield Path(text).expanduser()


def _exists(path: Path) -> bool:
    try:
        return bool(path.stat())
    except OSError:
        return False


def read(path: Path, known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return `section.key` -> text for a file of the `known` keys; raises ConfigError.

    Comments stand on lines of their own, and nothing is interpolated: a password may hold `#`, `;` and `%`.
    """
    parser = configparser.RawConfigParser(default_section="", empty_lines_in_values=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except configparser.Error as error:
        raise ConfigError(f"{path}: {_syntax(error)}") from None
    _check_names(path, parser, known)
    return {
        f"{section}.{key}": value for section in parser.sections() for key, value in parser.items(section)
    }


def _syntax(error: configparser.Error) -> str:
    """Name the line, but never quote it: it may hold a secret."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: a [section] must come first"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: [{error.section}] {error.option} is given twice"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: [{error.section}] is given twice"
    lines = ", ".join(str(line) for line, _ in getattr(error, "errors", ()))
    return f"line {lines or '?'}: neither `key = value` nor [section] nor a # comment"


def _check_names(
    path: Path, parser: configparser.RawConfigParser, known: Mapping[str, Sequence[str]]
) -> None:
    for section in parser.sections():
        if section not in known:
            raise ConfigError(f"{path}: there is no section [{section}]; {_nearest(section, list(known))}")
        for key, value in parser.items(section):
            if key not in known[section]:
                raise ConfigError(f"{path}: [{section}] has no key {key!r}; {_nearest(key, known[section])}")
            if "\n" in value:
                raise ConfigError(
                    f"{path}: [{section}] {key}: the line after it is indented, which would make it "
                    "part of the value; remove the spaces in front"
                )


def _nearest(word: str, words: Sequence[str]) -> str:
    import difflib  # noqa: PLC0415 - only for a typing error

    near = difflib.get_close_matches(word.lower(), words, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(words)}"


def exposed(path: Path) -> list[str]:
    """Return a warning if others on this machine can read the secrets in the file."""
    if stat.S_IMODE(path.stat().st_mode) & 0o077 == 0:
        return []
    return [f"{path} holds a secret and others can read it; `chmod 600 {path}` changes that"]
