"""`init-config` and `config`, as a user calls them."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest

from distributed_downloader import cli
from distributed_downloader.cli.init_config import text
from distributed_downloader.config import SETTINGS, AppConfig, ConfigManager


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing set, nothing found: an empty home, folder and environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in [setting.source.env for setting in SETTINGS.values() if setting.source.env]:
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_TOKEN_PATH", "XDG_CACHE_HOME", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of a command line."""
    code = cli.run(list(arguments))
    output = capsys.readouterr()
    return code, output.out, output.err


# -- the file -------------------------------------------------------------------------------------


def uncommented() -> str:
    return re.sub(r"^#(\w+ =)", r"\1", text(), flags=re.MULTILINE)


def test_every_key_is_there_once_with_its_default() -> None:
    parser = configparser.RawConfigParser()
    parser.read_string(uncommented())
    found = {
        f"{section}.{key}": value for section in parser.sections() for key, value in parser.items(section)
    }
    assert found == {name: setting.default for name, setting in SETTINGS.items()}


def test_nothing_is_set_until_a_comment_sign_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text(text())
    manager = ConfigManager(path, {}, {})
    assert manager.load() == AppConfig()
    assert set(manager.sources.values()) == {"default"}


def test_with_every_comment_sign_removed_it_still_says_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text(uncommented())
    assert ConfigManager(path, {}, {}).load() == AppConfig()


def test_every_key_has_its_meaning_above_it() -> None:
    flowing = text().replace("\n# ", " ")
    for setting in SETTINGS.values():
        assert f"{setting.meaning} " in f"{flowing} ".replace("\n", " "), setting.name
        for elsewhere in filter(None, (setting.source.env, setting.source.flag)):
            assert elsewhere in text()


def test_lines_are_short_and_without_blanks_at_the_end() -> None:
    for line in text().splitlines():
        assert len(line) <= 100
        assert line == line.rstrip()


# -- init-config ----------------------------------------------------------------------------------


def test_init_config_writes_a_file_for_its_owner_only(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "init-config")
    assert (code, err) == (0, "")
    assert Path("config.ini").read_text() == text()
    assert Path("config.ini").stat().st_mode & 0o777 == 0o600
    assert "Wrote config.ini" in out
    assert "Next: " in out
    assert "  hf-downloader config\n" in out


def test_init_config_never_overwrites(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.ini").write_text("mine")
    code, out, err = run(capsys, "init-config")
    assert (code, out) == (2, "")
    assert err.startswith("error: config.ini is there already; --force replaces it")
    assert Path("config.ini").read_text() == "mine"


def test_force_replaces_the_file_and_its_mode(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.ini").write_text("mine")
    Path("config.ini").chmod(0o644)
    Path("config.ini.new").write_text("left behind by a crash")
    assert run(capsys, "init-config", "--force")[0] == 0
    assert Path("config.ini").read_text() == text()
    assert Path("config.ini").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in Path().iterdir()] == ["config.ini"]


def test_force_needs_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "init-config", "--force")[0] == 0
    assert Path("config.ini").read_text() == text()


def test_a_file_elsewhere_is_named_in_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "init-config", "-o", "sub/fleet.ini")
    assert code == 0
    assert Path("sub/fleet.ini").is_file()
    assert "hf-downloader --config sub/fleet.ini config" in out


def test_a_file_in_home_is_found_without_being_named(capsys: pytest.CaptureFixture[str]) -> None:
    place = "~/.config/distributed_downloader/config.ini"
    code, out, _ = run(capsys, "init-config", "-o", place)
    assert code == 0
    assert "--config" not in out
    assert f"File: {Path(place).expanduser()}" in run(capsys, "config")[1]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_place_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str], force: list[str]) -> None:
    Path("plain").write_text("")
    code, _, err = run(capsys, "init-config", "-o", "plain/config.ini", *force)
    assert code == 2
    assert "plain/config.ini cannot be written: " in err


def test_force_does_not_replace_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder/inside").mkdir(parents=True)
    code, _, err = run(capsys, "init-config", "-o", "folder", "--force")
    assert code == 2
    assert "folder cannot be written: " in err
    assert Path("folder/inside").is_dir()


# -- config ---------------------------------------------------------------------------------------


def test_config_shows_values_and_sources(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("config.ini").write_text("[redis]\nhost = head\n[nas]\npreserve_structure = off\n")
    monkeypatch.setenv("REDIS_PORT", "6380")
    code, out, err = run(capsys, "--redis-db", "3", "config")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "redis.host = head  (config.ini)"
    assert lines[1] == "redis.port = 6380  (environment REDIS_PORT)"
    assert "redis.username =  (default)" in lines
    assert "redis.db = 3  (flag --redis-db)" in lines
    assert "nas.preserve_structure = false  (config.ini)" in lines
    assert lines[-1] == "File: config.ini"
    assert len(lines) == len(SETTINGS) + 2
    assert "\x1b" not in out


def test_config_without_a_file_says_how_to_get_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "File: none found; `hf-downloader init-config` writes one" in run(capsys, "config")[1]


def test_config_masks_secrets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.ini").write_text("[redis]\nurl = rediss://me:hunter2@head:6379/1\npassword = hunter2\n")
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    _, out, err = run(capsys, "config")
    _, as_json, _ = run(capsys, "config", "--json")
    assert "hunter2" not in out + err + as_json
    assert "redis.url = rediss://...@head:6379/1  (config.ini)" in out
    assert "huggingface.token = ********  (environment HF_TOKEN)" in out


def test_config_says_what_a_url_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "--redis-url", "redis://head/3", "config")[1]
    for name in ("host = localhost", "port = 6379", "tls = false", "db = 0"):
        assert f"redis.{name}  (not used: redis.url decides)" in out
    assert "redis.password =  (default)" in out


def test_config_warns_of_a_file_that_others_can_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.ini").write_text("[redis]\npassword = hunter2\n")
    Path("config.ini").chmod(0o644)
    code, out, err = run(capsys, "config")
    assert code == 0
    assert "warning: config.ini holds a secret and others can read it" in err
    assert "warning" not in out
    assert json.loads(run(capsys, "config", "--json")[1])["warnings"]


def test_config_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--log-level", "debug", "config", "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["file"] is None
    assert shown["warnings"] == []
    assert list(shown["settings"]) == list(SETTINGS)
    assert shown["settings"]["redis.port"] == {"value": 6379, "source": "default"}
    assert shown["settings"]["nas.enabled"] == {"value": False, "source": "default"}
    assert shown["settings"]["app.log_level"] == {"value": "DEBUG", "source": "flag --log-level"}


def test_config_on_a_terminal_is_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    out = run(capsys, "--redis-host", "[head]", "config")[1]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert re.search(r"setting +value +from", plain)
    assert re.search(r"redis\.host +\[head\] +flag --redis-host", plain)


def test_config_refuses_a_bad_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_PORT", "abc")
    code, out, err = run(capsys, "config")
    assert (code, out) == (2, "")
    assert err.startswith("error: environment REDIS_PORT: [redis] port = 'abc': must be a port number")


def test_config_needs_the_file_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "-c", "missing.ini", "config")
    assert code == 2
    assert "missing.ini: there is no such file" in err
