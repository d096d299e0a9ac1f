"""Where the configuration file is looked for, and what is wrong in it."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_downloader.config import file as config_file
from distributed_downloader.config.file import SEARCHED, exposed, find, is_searched, read
from distributed_downloader.errors import ConfigError

KNOWN = {"redis": ["host", "port", "password"], "app": ["log_level"]}


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The searched places, moved below a temporary folder."""
    home, folder = tmp_path / "home", tmp_path / "cwd"
    (home / ".config/distributed_downloader").mkdir(parents=True)
    folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(folder)
    system = tmp_path / "etc/distributed_downloader/config.ini"
    system.parent.mkdir(parents=True)
    monkeypatch.setattr(config_file, "SEARCHED", (*SEARCHED[:-1], str(system)))
    return [Path(text).expanduser() for text in config_file.SEARCHED]


def refusal(text: str | bytes) -> str:
    """Return what a file of this content is refused with."""
    path = Path("config.ini")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read(path, KNOWN)
    return str(caught.value)


def without_home(path: Path) -> Path:
    """Do what `Path.expanduser` does for a user without a home folder."""
    if str(path).startswith("~"):
        raise RuntimeError("Could not determine home directory.")
    return path


# -- search ---------------------------------------------------------------------------------------


def test_the_order_is_the_documented_one() -> None:
    assert SEARCHED == (
        "config.ini",
        "distributed_downloader.ini",
        "~/.config/distributed_downloader/config.ini",
        "~/.distributed_downloader.ini",
        "/etc/distributed_downloader/config.ini",
    )


def test_the_first_file_found_wins(places: list[Path]) -> None:
    assert find(None) is None
    for path in reversed(places):
        path.write_text("")
        assert find(None) == path


def test_a_named_file_is_the_only_one(places: list[Path]) -> None:
    places[0].write_text("")
    Path("fleet.ini").write_text("")
    assert find(Path("fleet.ini")) == Path("fleet.ini")


def test_a_named_file_must_exist(places: list[Path]) -> None:
    places[0].write_text("")
    with pytest.raises(ConfigError, match=re.escape("missing.ini: there is no such file")):
        find(Path("missing.ini"))


def test_a_user_without_home_has_fewer_places(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    places[-1].write_text("")
    monkeypatch.setattr(Path, "expanduser", without_home)
    assert find(None) == places[-1]


def test_a_home_that_is_no_folder_is_passed_over(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("plain").write_text("")
    monkeypatch.setenv("HOME", str(Path("plain").absolute()))
    places[-1].write_text("")
    assert find(None) == places[-1]


def test_is_searched(places: list[Path]) -> None:
    assert all(is_searched(path) for path in places)
    assert is_searched(Path.cwd() / "config.ini")
    assert not is_searched(Path("fleet.ini"))


# -- content --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# only a comment\n; and another\n", {}),
        ("[redis]\n", {}),
        ("[redis]\nhost = head\n\n# a comment\n\nport=1\n", {"redis.host": "head", "redis.port": "1"}),
        ("[redis]\nHOST: head\n", {"redis.host": "head"}),
        ("\ufeff[redis]\r\nhost = head\r\n", {"redis.host": "head"}),
        ("[redis]\npassword =\n", {"redis.password": ""}),
        ("[redis]\npassword = a#b ;c %d %(x)s =e:f\n", {"redis.password": "a#b ;c %d %(x)s =e:f"}),
        ("[redis]\npassword = #x\n", {"redis.password": "#x"}),
        ("[redis]\nhost = h\n[app]\nlog_level = INFO\n", {"redis.host": "h", "app.log_level": "INFO"}),
        ("[redis]\npassword = pässwörd\n", {"redis.password": "pässwörd"}),
    ],
)
def test_good_files(text: str, values: dict[str, str]) -> None:
    Path("config.ini").write_bytes(text.encode())
    assert read(Path("config.ini"), KNOWN) == values


#: Printable, without line ends; blanks around a value are cut off, as everywhere in this format.
PASSWORDS = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).map(str.strip)


@given(PASSWORDS)
def test_any_password_of_one_line_is_read_as_it_is(password: str) -> None:
    Path("config.ini").write_text(f"[redis]\npassword = {password}\n", encoding="utf-8")
    assert read(Path("config.ini"), KNOWN) == {"redis.password": password}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[redi]\n", "there is no section [redi]; did you mean 'redis'?"),
        ("[Redis]\n", "there is no section [Redis]; did you mean 'redis'?"),
        ("[DEFAULT]\nhost = x\n", "there is no section [DEFAULT]; there are: redis, app"),
        ("[redis]\nhots = x\n", "[redis] has no key 'hots'; did you mean 'host'?"),
        ("[redis]\nqqq = x\n", "[redis] has no key 'qqq'; there are: host, port, password"),
        ("[app]\nhost = x\n", "[app] has no key 'host'; there are: log_level"),
        ("host = x\n", "line 1: a [section] must come first"),
        ("# c\n\nhost = x\n", "line 3: a [section] must come first"),
        ("[redis]\nhost = a\nhost = b\n", "line 3: [redis] host is given twice"),
        ("[redis]\n[app]\n[redis]\n", "line 3: [redis] is given twice"),
        ("[redis]\nhost\n", "line 2: neither `key = value` nor [section] nor a # comment"),
        ("[redis]\nhost = a\n  port = 1\n", "[redis] host: the line after it is indented"),
        (b"[redis]\nhost = \xff\n", "is not UTF-8 text (byte 15)"),
    ],
)
def test_bad_files_name_the_place(text: str | bytes, message: str) -> None:
    assert refusal(text).startswith(f"config.ini: {message}")


@pytest.mark.parametrize(
    "text",
    [
        "hunter2\n",
        "[redis]\nhunter2\n",
        "[redis]\npassword = a\npassword = hunter2\n",
        "[redis]\npassword\n hunter2",
    ],
)
def test_a_line_that_is_not_understood_is_not_quoted(text: str) -> None:
    assert "hunter2" not in refusal(text)


def test_a_folder_is_no_file() -> None:
    Path("config.ini").mkdir()
    with pytest.raises(ConfigError, match=r"config\.ini: cannot be read: Is a directory"):
        read(Path("config.ini"), KNOWN)


def test_a_file_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root reads everything, so the refusal is made by hand."""

    def refuse(*_args: object, **_kwargs: object) -> str:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError, match=r"config\.ini: cannot be read: Permission denied"):
        read(Path("config.ini"), KNOWN)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    path = Path("config.ini")
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(ConfigError):
        values = read(path, KNOWN)
        assert values.keys() <= {f"{section}.{key}" for section, keys in KNOWN.items() for key in keys}


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_secret_that_others_can_read_is_a_warning(mode: int, warned: bool) -> None:
    path = Path("config.ini")
    path.write_text("")
    path.chmod(mode)
    assert exposed(path) == (
        ["config.ini holds a secret and others can read it; `chmod 600 config.ini` changes that"]
        if warned
        else []
    )
