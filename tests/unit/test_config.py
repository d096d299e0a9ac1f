"""Which source wins, and what a bad value is answered with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from distributed_downloader.config import SECTIONS, SETTINGS, AppConfig, ConfigManager, Setting
from distributed_downloader.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and an empty working folder: nothing of this machine shows through."""
    home, folder = tmp_path / "home", tmp_path / "cwd"
    home.mkdir()
    folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(folder)
    return home


def load(
    text: str = "", *, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> tuple[AppConfig, ConfigManager]:
    """Load from a config.ini of this text, these variables and these flags."""
    if text:
        Path("config.ini").write_text(text)
        Path("config.ini").chmod(0o600)
    manager = ConfigManager(None, flags or {}, env or {})
    return manager.load(), manager


def refusal(
    text: str = "", *, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> str:
    """Return the message that these settings are refused with."""
    with pytest.raises(ConfigError) as caught:
        load(text, env=env, flags=flags)
    return str(caught.value)


def without_home(path: Path) -> Path:
    """Do what `Path.expanduser` does for a user without a home folder."""
    if str(path).startswith("~"):
        raise RuntimeError("Could not determine home directory.")
    return path


# -- defaults -------------------------------------------------------------------------------------


def test_without_anything_the_documented_defaults_hold() -> None:
    config, manager = load()
    assert (config.redis.host, config.redis.port, config.redis.db) == ("localhost", 6379, 0)
    assert config.huggingface.endpoint == "https://huggingface.co"
    assert config.huggingface.engine == "auto"
    assert (config.nas.enabled, config.nas.copy_after_download, config.nas.preserve_structure) == (
        False,
        True,
        True,
    )
    assert (config.app.log_level, config.app.concurrency, config.app.max_bandwidth) == ("INFO", 4, 0)
    assert config.app.output_dir == str(Path.cwd() / "downloads")
    assert (config.app.split_threshold, config.app.spool_dir, config.app.disk_reserve) == (2**27, "", 2**30)
    assert (config.nas.copy_threads, config.nas.verify, config.nas.read_back) == (2, "hash", False)
    assert manager.file is None
    assert manager.warnings == []
    assert set(manager.sources.values()) == {"default"}
    assert list(manager.sources) == list(SETTINGS)


def test_models_made_by_hand_hold_the_same_defaults() -> None:
    assert AppConfig() == load()[0]


def test_settings_are_immutable_and_strict() -> None:
    config = AppConfig()
    with pytest.raises(ValidationError):
        config.redis.host = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        AppConfig.model_validate({"redis": {"hosts": "x"}})


def test_every_key_has_a_meaning_and_says_where_else_it_is_set() -> None:
    for setting in SETTINGS.values():
        assert setting.meaning.endswith((".", ":")), setting.name
    assert {model.__name__ for model in SECTIONS.values()} == {
        "RedisConfig",
        "HuggingFaceConfig",
        "NASConfig",
        "AppSection",
        "LimitsSection",
        "SecuritySection",
    }


# -- priority -------------------------------------------------------------------------------------

#: A good value for each key, other than its default.
OTHER = {
    "redis.host": "head",
    "redis.port": "6380",
    "redis.username": "fleet",
    "redis.password": "hunter2",
    "redis.db": "3",
    "redis.url": "redis://elsewhere:1/2",
    "redis.sentinels": "one:26379,two",
    "redis.service": "fleet",
    "redis.sentinel_username": "watcher",
    "redis.sentinel_password": "hunter2",
    "redis.tls": "yes",
    "huggingface.token": "hf_abc",
    "huggingface.cache_dir": "/fast/cache",
    "huggingface.disable_ssl_verify": "on",
    "huggingface.enable_hf_transfer": "1",
    "huggingface.endpoint": "https://mirror.example",
    "huggingface.engine": "xet",
    "nas.enabled": "true",
    "nas.path": "/mnt/nas",
    "nas.copy_after_download": "no",
    "nas.preserve_structure": "off",
    "nas.delete_after_copy": "TRUE",
    "nas.copy_threads": "16",
    "nas.verify": "size",
    "nas.read_back": "yes",
    "app.log_level": "debug",
    "app.log_format": "JSON",
    "app.health_file": "/run/health",
    "app.output_dir": "/data",
    "app.layout": "hf-cache",
    "app.concurrency": "8",
    "app.max_bandwidth": "10MB/s",
    "app.split_threshold": "1GiB",
    "app.spool_dir": "/ssd",
    "app.disk_reserve": "0",
    "limits.fleet_bandwidth": "1GB/s",
    "limits.min_free_disk": "50GiB",
    "limits.max_memory_percent": "80",
    "security.allowed_repos": "org/*, datasets/org2/name",
    "security.allowed_endpoints": "https://huggingface.co, https://mirror.example/hf",
    "security.allowed_output_dirs": "/data, /mnt/nas",
    "security.inner_hosts": "*.storage.example, minio.campus.example",
}
#: Settings that another one must go with.
WITH = {
    "nas.enabled": {"nas.path": "/mnt/nas"},
    "redis.sentinels": {"redis.service": "fleet"},
    "redis.service": {"redis.sentinels": "one"},
}


def value_of(config: AppConfig, name: str) -> object:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def test_the_table_of_other_values_is_complete() -> None:
    assert OTHER.keys() == SETTINGS.keys() - {"redis.ca_certs", "redis.client_cert", "redis.client_key"}


@pytest.mark.parametrize("name", OTHER)
def test_each_key_can_be_set_by_a_flag_and_the_flag_wins(name: str) -> None:
    setting = SETTINGS[name]
    flags = {name: OTHER[name], **WITH.get(name, {})}
    env = {setting.source.env: "" if name == "nas.path" else "nonsense"} if setting.source.env else {}
    config, manager = load(flags=flags, env=env)
    assert value_of(config, name) != value_of(AppConfig(), name)
    assert manager.sources[name] == f"flag {setting.source.flag}".strip()


@pytest.mark.parametrize("name", [name for name in OTHER if SETTINGS[name].source.env])
def test_each_variable_beats_the_file(name: str) -> None:
    section, key = name.split(".")
    extra = "".join(f"{entry.split('.')[1]} = {value}\n" for entry, value in WITH.get(name, {}).items())
    variable = SETTINGS[name].source.env
    config, manager = load(f"[{section}]\n{key} = nonsense\n{extra}", env={variable: OTHER[name]})
    assert value_of(config, name) != value_of(AppConfig(), name)
    assert manager.sources[name] == f"environment {variable}"


@pytest.mark.parametrize("name", OTHER)
def test_each_key_can_be_set_in_the_file(name: str) -> None:
    section, key = name.split(".")
    lines = {name: OTHER[name], **WITH.get(name, {})}
    text = "".join(f"{entry.split('.')[1]} = {value}\n" for entry, value in lines.items())
    config, manager = load(f"[{section}]\n{text}")
    assert value_of(config, name) != value_of(AppConfig(), name), key
    assert manager.sources[name] == "config.ini"
    assert manager.file == Path("config.ini")


def test_the_variables_are_the_documented_ones() -> None:
    assert {setting.source.env for setting in SETTINGS.values()} - {""} == {
        *("REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_URL"),
        *("REDIS_SENTINELS", "REDIS_SERVICE", "REDIS_SENTINEL_USERNAME", "REDIS_SENTINEL_PASSWORD"),
        "FLEET_BANDWIDTH",
        *("HF_TOKEN", "HF_ENDPOINT", "HF_DISABLE_SSL_VERIFY", "HF_HUB_ENABLE_HF_TRANSFER", "HF_HOME"),
        *("NAS_ENABLED", "NAS_PATH", "LOG_LEVEL", "LOG_FORMAT", "OUTPUT_DIR", "HEALTH_FILE"),
    }


def test_an_empty_variable_counts_as_not_set() -> None:
    env = {setting.source.env: "" for setting in SETTINGS.values() if setting.source.env}
    config, manager = load(env=env)
    assert config == AppConfig()
    assert set(manager.sources.values()) == {"default"}


def test_sources_mix() -> None:
    config, manager = load(
        "[redis]\nhost = head\nport = 6380\n[app]\nconcurrency = 2\n",
        env={"REDIS_PORT": "6381"},
        flags={"app.concurrency": 16},
    )
    assert (config.redis.host, config.redis.port, config.app.concurrency) == ("head", 6381, 16)
    assert manager.sources["redis.host"] == "config.ini"
    assert manager.sources["redis.port"] == "environment REDIS_PORT"
    assert manager.sources["app.concurrency"] == "flag --concurrency"
    assert manager.sources["redis.db"] == "default"


def test_a_flag_for_an_unknown_setting_is_refused() -> None:
    assert "redis.hots" in refusal(flags={"redis.hots": "x"})


def test_loading_twice_gives_the_same() -> None:
    config, manager = load("[redis]\npassword = x\n")
    Path("config.ini").chmod(0o644)
    assert manager.load() == config
    assert manager.load() == config
    assert len(manager.warnings) == 1


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "Yes", "on"])
def test_switches_on(text: str) -> None:
    assert load(env={"HF_DISABLE_SSL_VERIFY": text})[0].huggingface.disable_ssl_verify is True


@pytest.mark.parametrize("text", ["0", "false", "no", "NO", "off"])
def test_switches_off(text: str) -> None:
    assert load(env={"HF_DISABLE_SSL_VERIFY": text})[0].huggingface.disable_ssl_verify is False


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("redis.host", "two words", "a host name"),
        ("redis.host", "redis://head", "a host name"),
        ("redis.host", "'head'", "a host name"),
        ("redis.port", "abc", "1 to 65535"),
        ("redis.port", "0", "1 to 65535"),
        ("redis.port", "65536", "1 to 65535"),
        ("redis.port", "tcp://10.0.0.1:6379", "1 to 65535"),
        ("redis.db", "-1", "0 or more"),
        ("redis.tls", "y", "true or false"),
        ("redis.ca_certs", "/no/such/file.pem", "PEM"),
        ("huggingface.disable_ssl_verify", "2", "true or false"),
        ("huggingface.endpoint", "hf-mirror.example", "https://"),
        ("huggingface.endpoint", "ftp://hf-mirror.example", "https://"),
        ("huggingface.endpoint", "https://", "https://"),
        ("huggingface.endpoint", "https://a b", "https://"),
        ("huggingface.endpoint", "https://host:port", "must be a URL"),
        ("huggingface.endpoint", "https://host/#top", "without"),
        ("huggingface.engine", "wget", "auto, direct, http, hub or xet"),
        ("huggingface.cache_dir", '"/fast"', "without quotes"),
        ("nas.path", "relative/folder", "absolute"),
        ("nas.copy_threads", "0", "1 to 16"),
        ("nas.copy_threads", "17", "1 to 16"),
        ("nas.verify", "crc", "size or hash"),
        ("nas.read_back", "maybe", "true or false"),
        ("app.log_level", "loud", "DEBUG, INFO, WARNING or ERROR"),
        ("app.log_format", "xml", "text or json"),
        ("app.output_dir", '"/data"', "without quotes"),
        ("app.output_dir", "", "a folder"),
        ("app.concurrency", "0", "1 to 256"),
        ("app.concurrency", "257", "1 to 256"),
        ("app.concurrency", "2.5", "1 to 256"),
        ("app.max_bandwidth", "fast", "10MB/s"),
        ("app.max_bandwidth", "-1", "10MB/s"),
        ("app.max_bandwidth", "10Mb/s", "bits"),
        ("app.split_threshold", "big", "a number of bytes such as 128MiB, 1.5GB or 0"),
        ("app.split_threshold", "-1", "a number of bytes such as 128MiB"),
        ("app.split_threshold", "10MB/s", "a number of bytes such as 128MiB"),
        ("app.split_threshold", "1000k", "at least 1MiB, or 0"),
        ("app.spool_dir", '"/ssd"', "without quotes"),
        ("app.disk_reserve", "some", "a number of bytes"),
        ("app.disk_reserve", "1Gb", "bits"),
    ],
)
def test_a_bad_value_names_file_section_key_and_what_is_allowed(name: str, value: str, says: str) -> None:
    section, key = name.split(".")
    message = refusal(f"[{section}]\n{key} = {value}\n")
    assert message.startswith(f"config.ini: [{section}] {key} = {value!r}: must be ")
    assert says in message


def test_every_value_that_can_be_wrong_says_what_is_allowed() -> None:
    for name, setting in SETTINGS.items():
        message = refusal(flags={name: object()})
        assert f"[{setting.section}] {setting.key}" in message
        assert not message.endswith("must be "), message


def test_a_bad_variable_is_named() -> None:
    assert refusal(env={"REDIS_PORT": "tcp://10.0.0.1:6379"}).startswith(
        "environment REDIS_PORT: [redis] port = 'tcp://10.0.0.1:6379': must be a port number"
    )


def test_a_bad_flag_is_named() -> None:
    assert refusal(flags={"redis.port": 70000}).startswith("flag --redis-port: [redis] port = '70000': must")


def test_all_bad_values_are_told_at_once() -> None:
    message = refusal(env={"REDIS_PORT": "x", "LOG_LEVEL": "y", "NAS_ENABLED": "z"})
    assert [line.split(":")[0] for line in message.splitlines()] == [
        "environment REDIS_PORT",
        "environment NAS_ENABLED",
        "environment LOG_LEVEL",
    ]


def test_a_comment_behind_a_value_is_explained() -> None:
    assert "a comment needs a line of its own" in refusal("[redis]\nport = 6379  # the usual\n")
    assert "a comment needs" not in refusal(env={"REDIS_PORT": "6379 # the usual"})


def test_a_nas_that_is_on_needs_its_folder() -> None:
    assert (
        refusal("[nas]\nenabled = true\n") == "config.ini: [nas] path: must be set, for [nas] enabled is on"
    )
    assert "absolute" in refusal(env={"NAS_ENABLED": "1", "NAS_PATH": "nas"})
    assert load(env={"NAS_ENABLED": "1", "NAS_PATH": "/nas"})[0].nas.path == "/nas"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://huggingface.co/", "https://huggingface.co"),
        ("http://mirror:8080/hf//", "http://mirror:8080/hf"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_the_endpoint_is_normalised(given: str, kept: str) -> None:
    assert load(env={"HF_ENDPOINT": given})[0].huggingface.endpoint == kept


def test_output_dir_is_absolute_and_knows_home(home: Path) -> None:
    assert load(env={"OUTPUT_DIR": "models"})[0].app.output_dir == str(Path.cwd() / "models")
    assert load(env={"OUTPUT_DIR": "~/models"})[0].app.output_dir == str(home / "models")


def test_a_spool_is_absolute_and_may_be_none(home: Path) -> None:
    assert load(flags={"app.spool_dir": "~/ssd"})[0].app.spool_dir == str(home / "ssd")
    assert load(flags={"app.spool_dir": ""})[0].app.spool_dir == ""


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1MiB", 2**20), ("64MB", 64_000_000)])
def test_files_are_split_from_a_size_that_is_worth_it_or_never(text: str, size: int) -> None:
    assert load(f"[app]\nsplit_threshold = {text}\n")[0].app.split_threshold == size


def test_home_that_is_unknown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "expanduser", without_home)
    assert "no home folder" in refusal(env={"OUTPUT_DIR": "~/models"})
    assert load()[0] == AppConfig()


def test_the_setting_that_asks_for_another_one_says_where_it_is() -> None:
    message = refusal("[redis]\nport = 1\n", env={"REDIS_SENTINELS": "one"})
    assert message.startswith("environment REDIS_SENTINELS: [redis] service: must be set, for")


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("client_cert = ca.pem", "[redis] client_cert plays no part, for [redis] tls is off"),
        (
            "ca_certs = ca.pem\nurl = redis://one",
            "[redis] ca_certs plays no part, for [redis] url begins with",
        ),
        ("ca_certs = ca.pem\ntls = on", ""),
        ("ca_certs = ca.pem\nurl = rediss://one", ""),
        ("ca_certs = ca.pem\nurl = unix:///one", ""),
        ("tls = off", ""),
    ],
)
def test_certificates_that_play_no_part_are_a_warning(text: str, warned: str) -> None:
    Path("ca.pem").touch()
    _, manager = load(f"[redis]\n{text}\n")
    assert [warning[: len(warned)] for warning in manager.warnings] == [warned] * bool(warned)


def test_certificates_are_files() -> None:
    Path("ca.pem").write_text("")
    config = load("[redis]\nca_certs = ca.pem\nclient_cert = ca.pem\nclient_key = ca.pem\n")[0].redis
    assert {config.ca_certs, config.client_cert, config.client_key} == {str(Path.cwd() / "ca.pem")}
    for key, what in (("ca_certs", "PEM certificates"), ("client_cert", "PEM"), ("client_key", "a PEM key")):
        assert f"[redis] {key} = 'none.pem': must be a file of {what}" in refusal(
            f"[redis]\n{key} = none.pem\n"
        )
    assert "is for [redis] client_cert, which must be set as well" in refusal(
        "[redis]\nclient_key = ca.pem\n"
    )


def test_log_level_in_any_case() -> None:
    assert load(env={"LOG_LEVEL": "wArNiNg"})[0].app.log_level == "WARNING"


# -- redis url ------------------------------------------------------------------------------------

URL = "redis://fleet:pw@head:6380/3"


def url_of(config: AppConfig) -> str:
    return config.redis.url.get_secret_value()


def test_a_url_wins_over_a_host_of_the_same_source() -> None:
    assert url_of(load(env={"REDIS_URL": URL, "REDIS_HOST": "other"})[0]) == URL
    assert url_of(load(f"[redis]\nurl = {URL}\nhost = other\nport = 1\n")[0]) == URL


def test_a_url_wins_over_a_host_of_a_weaker_source() -> None:
    config, _ = load("[redis]\nhost = other\ndb = 7\npassword = x\n", env={"REDIS_URL": URL})
    assert url_of(config) == URL


def test_a_host_of_a_stronger_source_replaces_the_url() -> None:
    config, manager = load(env={"REDIS_URL": URL}, flags={"redis.host": "other"})
    assert (url_of(config), config.redis.host, config.redis.port) == ("", "other", 6379)
    assert manager.sources["redis.url"] == "default"
    config, _ = load(f"[redis]\nurl = {URL}\n", env={"REDIS_HOST": "other"})
    assert (url_of(config), config.redis.host) == ("", "other")


@pytest.mark.parametrize("key", ["port", "username", "password", "db"])
def test_a_stronger_part_that_the_url_holds_is_refused(key: str) -> None:
    message = refusal(env={"REDIS_URL": URL}, flags={f"redis.{key}": "1"})
    assert message.startswith(f"flag --redis-{key}: [redis] {key} is also in the [redis] url of environment")
    assert "pw" not in message


def test_a_part_that_the_url_lacks_is_added() -> None:
    config, _ = load("[redis]\nurl = redis://head\n", env={"REDIS_PASSWORD": "pw", "REDIS_DB": "2"})
    assert (url_of(config), config.redis.password.get_secret_value(), config.redis.db) == (
        "redis://head",
        "pw",
        2,
    )


def test_a_part_in_the_query_counts_as_well() -> None:
    url = "unix:///run/redis.sock?db=2&password=pw"
    assert url_of(load(env={"REDIS_URL": url, "REDIS_DB": "1"})[0]) == url
    assert "[redis] db" in refusal(env={"REDIS_URL": url}, flags={"redis.db": 1})
    assert "[redis] password" in refusal(env={"REDIS_URL": url}, flags={"redis.password": "x"})


def test_a_slash_at_the_end_is_no_database() -> None:
    assert load(env={"REDIS_URL": "redis://head/"}, flags={"redis.db": 4})[0].redis.db == 4


# -- sentinels ------------------------------------------------------------------------------------

WATCHED = "[redis]\nsentinels = one,two:1\nservice = fleet\n"
SENTINEL_URL = "redis+sentinel://me:pw@one,two:1/fleet/3"


def test_of_one_source_a_url_wins_over_sentinels_and_those_win_over_a_host() -> None:
    config, _ = load(f"{WATCHED}host = other\nport = 1\n")
    assert (config.redis.sentinels, config.redis.service, url_of(config)) == ("one,two:1", "fleet", "")
    config, manager = load(f"{WATCHED}url = {URL}\n")
    assert (config.redis.sentinels, config.redis.service, url_of(config)) == ("", "", URL)
    assert manager.sources["redis.sentinels"] == manager.sources["redis.service"] == "default"


def test_the_strongest_source_says_where_redis_is() -> None:
    assert load(WATCHED, flags={"redis.host": "other"})[0].redis.sentinels == ""
    assert load(WATCHED, env={"REDIS_URL": SENTINEL_URL})[0].redis.sentinels == ""
    stronger = {"REDIS_SENTINELS": "three", "REDIS_SERVICE": "other"}
    config, _ = load(f"[redis]\nurl = {URL}\n", env=stronger)
    assert (config.redis.sentinels, config.redis.service, url_of(config)) == ("three", "other", "")


def test_a_port_from_a_stronger_source_than_the_sentinels_is_refused() -> None:
    message = refusal(WATCHED, flags={"redis.port": 1})
    assert message.startswith(
        "flag --redis-port: [redis] port is also in the [redis] sentinels of config.ini"
    )


def test_sentinels_and_service_go_together() -> None:
    assert "config.ini: [redis] service: must be set, for [redis] sentinels is" in refusal(
        "[redis]\nsentinels = one\n"
    )
    assert "[redis] service = 'x': is for [redis] sentinels, which must be set as well" in refusal(
        "[redis]\nservice = x\n"
    )


@pytest.mark.parametrize(
    "text", ["one:0", "one:99999", "one two", "one,", "redis://one", "::1", "a@b", "'one'"]
)
def test_bad_sentinels_are_refused(text: str) -> None:
    assert "must be host:port of each sentinel" in refusal(f"[redis]\nservice = x\nsentinels = {text}\n")


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://",
        "redis+sentinel://one",
        "redis+sentinel://one/",
        "redis+sentinel://one:x/fleet",
        "redis+sentinel://one/fleet/x",
        "redis+sentinel://one/fl%2Feet",
        "redis+sentinel://one/fleet?db=1",
        "redis+sentinel://:s3/cret@one/fleet",
        "redis+sentinel://:s3@cret@one/fleet",
    ],
)
def test_bad_urls_of_sentinels_are_refused_without_showing_them(url: str) -> None:
    message = refusal(env={"REDIS_URL": url})
    assert message.startswith("environment REDIS_URL: [redis] url: must be ")
    assert "s3" not in message
    assert "cret" not in message


@pytest.mark.parametrize(
    "url", [URL, "rediss://head", "unix:///run/redis.sock?db=1", "redis://[::1]:6379/0", SENTINEL_URL]
)
def test_good_urls(url: str) -> None:
    assert url_of(load(env={"REDIS_URL": url})[0]) == url


@pytest.mark.parametrize(
    "url", ["head:6379", "http://head", "unix://", "redis://:s3/cret@head", "redis://[::1"]
)
def test_bad_urls_are_refused_without_showing_them(url: str) -> None:
    message = refusal(env={"REDIS_URL": url}, flags={"app.concurrency": 2})
    assert message.startswith("environment REDIS_URL: [redis] url: must ")
    assert "s3" not in message
    assert "cret" not in message


# -- secrets --------------------------------------------------------------------------------------


def test_secrets_never_show() -> None:
    config, manager = load(
        "[redis]\npassword = hunter2\nurl = redis://:hunter2@head\n[huggingface]\ntoken = hunter2\n"
    )
    assert config.redis.password.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{config!r} {config} {config.model_dump_json()} {manager.sources}"


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        ({"redis.password": "hunter2"}, "--redis-password"),
        ({"redis.url": "redis://:hunter2@head"}, "--redis-url"),
        ({"redis.url": "unix:///s?password=hunter2"}, "--redis-url"),
        ({"redis.url": "redis+sentinel://me:hunter2@one/fleet"}, "--redis-url"),
        ({"redis.url": "redis://me@head"}, ""),
        ({"redis.url": "redis://head", "redis.username": "me", "redis.host": "head"}, ""),
        ({"redis.password": ""}, ""),
    ],
)
def test_a_password_on_the_command_line_is_a_warning(flags: dict[str, object], flag: str) -> None:
    config, manager = load(flags=flags)
    assert config.redis
    assert len(manager.warnings) == bool(flag)
    if flag:
        assert manager.warnings[0].startswith(
            f"{flag} shows a password to all users of this machine (`ps`): set "
        )
        assert "hunter2" not in manager.warnings[0]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("[redis]\npassword = x\n", True),
        ("[redis]\nurl = redis://:x@head\n", True),
        ("[redis]\nsentinels = one\nservice = x\nsentinel_password = x\n", True),
        ("[huggingface]\ntoken = x\n", True),
        ("[redis]\nurl = redis://head\n", False),
        ("[redis]\npassword =\n", False),
    ],
)
def test_a_file_with_secrets_that_others_can_read_is_a_warning(text: str, warned: bool) -> None:
    Path("config.ini").write_text(text)
    Path("config.ini").chmod(0o644)
    manager = ConfigManager(environ={})
    manager.load()
    assert len(manager.warnings) == warned
    Path("config.ini").chmod(0o600)
    manager.load()
    assert manager.warnings == []


def test_a_bad_token_is_not_quoted() -> None:
    message = refusal(env={"HF_TOKEN": "hf_hunter2 oops"})
    assert message.startswith("environment HF_TOKEN: [huggingface] token: must be the token alone")
    assert "hunter2" not in message


def test_a_password_in_the_endpoint_is_refused_and_not_quoted() -> None:
    message = refusal(env={"HF_ENDPOINT": "https://me:hunter2@mirror/x?sig=hunter2"})
    assert "[huggingface] endpoint = 'https://...@mirror/x?...'" in message
    assert "hunter2" not in message


def test_a_token_is_freed_of_blanks_around_it() -> None:
    assert load(env={"HF_TOKEN": " hf_abc\n"})[0].huggingface.token.get_secret_value() == "hf_abc"


# -- token and HF_HOME ----------------------------------------------------------------------------


def login(path: Path, token: str = "hf_login") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token + "\n")


def token_of(env: Mapping[str, str] | None = None) -> tuple[str, str]:
    config, manager = load(env=env)
    return config.huggingface.token.get_secret_value(), manager.sources["huggingface.token"]


def test_the_login_file_is_the_last_resort(home: Path) -> None:
    path = home / ".cache/huggingface/token"
    login(path)
    assert token_of() == ("hf_login", str(path))
    Path("config.ini").write_text("[huggingface]\ntoken =\n")
    assert token_of() == ("hf_login", str(path))
    Path("config.ini").write_text("[huggingface]\ntoken = hf_file\n")
    assert token_of() == ("hf_file", "config.ini")
    assert token_of(env={"HF_TOKEN": "hf_env"}) == ("hf_env", "environment HF_TOKEN")


def test_the_login_file_moves_with_the_hubs_own_variables(home: Path) -> None:
    login(home / "xdg/huggingface/token", "hf_xdg")
    login(home / "hf/token", "hf_home")
    login(home / "secret", "hf_path")
    env = {"XDG_CACHE_HOME": str(home / "xdg")}
    assert token_of(env=env)[0] == "hf_xdg"
    env["HF_HOME"] = "~/hf"
    assert token_of(env=env)[0] == "hf_home"
    env["HF_TOKEN_PATH"] = str(home / "secret")
    assert token_of(env=env)[0] == "hf_path"


def test_an_empty_login_file_is_no_token(home: Path) -> None:
    login(home / ".cache/huggingface/token", "")
    assert token_of() == ("", "default")


@pytest.mark.parametrize("spoil", ["folder", "bytes"])
def test_a_login_file_that_cannot_be_read_is_a_warning(home: Path, spoil: str) -> None:
    path = home / ".cache/huggingface/token"
    path.parent.mkdir(parents=True)
    if spoil == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"\xff\xfe")
    config, manager = load(env={"HF_TOKEN": "hf_env"})
    assert config.huggingface.token.get_secret_value() == "hf_env"
    assert len(manager.warnings) == 1
    assert "hf auth login" in manager.warnings[0]


def test_hf_home_holds_the_cache() -> None:
    config, manager = load("[huggingface]\ncache_dir = /other\n", env={"HF_HOME": "/fast/hf"})
    assert config.huggingface.cache_dir == "/fast/hf/hub"
    assert manager.sources["huggingface.cache_dir"] == "environment HF_HOME"


def test_settings_know_their_names() -> None:
    assert all(isinstance(setting, Setting) and setting.name == name for name, setting in SETTINGS.items())
    assert {name for name, setting in SETTINGS.items() if setting.secret} == {
        "redis.password",
        "redis.url",
        "redis.sentinel_password",
        "huggingface.token",
    }


def test_settings_in_code_win_and_say_where_they_come_from() -> None:
    settings = {"redis.password": "hunter2", "app.concurrency": 8, "app.max_bandwidth": 1_000_000}
    manager = ConfigManager(None, settings, {"REDIS_PASSWORD": "other"}, in_code=True)
    config = manager.load()
    assert config.redis.password.get_secret_value() == "hunter2"
    assert (config.app.concurrency, config.app.max_bandwidth) == (8, 1_000_000)
    assert manager.sources["app.concurrency"] == "settings"
    assert manager.warnings == []  # nobody else sees them, as they would a command line


def test_a_bad_setting_in_code_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^settings: \[app\] concurrency = 'many'"):
        ConfigManager(None, {"app.concurrency": "many"}, {}, in_code=True).load()
