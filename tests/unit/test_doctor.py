"""The doctor as a whole: bounded looks, verdicts, what it prints, and its exit codes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from rich.text import Text

from distributed_downloader import cli
from distributed_downloader.config import AppConfig, ConfigManager
from distributed_downloader.display import findings as display
from distributed_downloader.display.canvas import Canvas
from distributed_downloader.doctor import configuration, look, machine
from distributed_downloader.embedded import EmbeddedRedis
from distributed_downloader.errors import RedisUnavailableError
from distributed_downloader.findings import Finding, Subject, Verdict, exit_code
from distributed_downloader.local_hub import LocalHub
from distributed_downloader.memory import Memory, MemoryGauge
from distributed_downloader.storage.place import make_place
from tests.hub.sample import write_files
from tests.mounts import mounted, needs_mount
from tests.unit.test_config_commands import empty, run  # noqa: F401 a fixture

ONE, OTHER = Subject("one"), Subject("other")
GB = 10**9


# -- looks ----------------------------------------------------------------------------------------


def test_all_looks_are_done_in_order_whatever_happens_to_one() -> None:
    def fails() -> Iterator[Finding]:
        yield ONE.good("first", "1")
        raise RedisUnavailableError("Redis is away: start it")

    found = look({ONE: fails, OTHER: lambda: [OTHER.good("second", "2")]})
    assert [(each.subject, each.name, each.verdict.value) for each in found] == [
        ("one", "first", "good"),
        ("one", "answer", "broken"),
        ("other", "second", "good"),
    ]
    assert found[1].advice == "Redis is away: start it"


def test_what_hangs_says_so_behind_what_it_has_found() -> None:
    release = threading.Event()

    def hangs() -> Iterator[Finding]:
        yield ONE.good("first", "1")
        release.wait(60)

    try:
        found = look({ONE: hangs, OTHER: lambda: [OTHER.good("second", "2")]}, 0.2)
    finally:
        release.set()
    assert [each.name for each in found] == ["first", "answer", "second"]
    assert found[1].advice.startswith("one has not answered for 0 s")


def test_what_nobody_expected_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fails() -> Iterator[Finding]:
        yield ONE.good("first", "1")
        raise ZeroDivisionError

    found = look({ONE: fails})
    assert [each.verdict for each in found] == [Verdict.GOOD, Verdict.BROKEN]
    assert "internal error" in found[1].advice
    assert len(told) == 1


def test_exit_codes() -> None:
    good, unknown = ONE.good("a", ""), ONE.unknown("b", "")
    warning, broken = ONE.warning("c", "", "x"), ONE.broken("d", "", "y")
    assert exit_code([]) == exit_code([good, unknown]) == 0
    assert exit_code([good, warning, unknown]) == 1
    assert exit_code([broken, warning]) == 2


# -- settings and the machine ---------------------------------------------------------------------


def test_settings_are_shown_with_their_sources_and_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "fleet.ini"
    file.write_text("[redis]\npassword = s3cret\n[huggingface]\ndisable_ssl_verify = yes\n")
    file.chmod(0o600)
    manager = ConfigManager(file, {"app.concurrency": 8}, {"HF_TOKEN": "hf_secret"})
    found = list(configuration.findings(manager, manager.load()))
    values = {each.name: each.value for each in found if each.verdict is Verdict.GOOD}
    assert values["file"] == str(file)
    assert values["app.concurrency"] == "8  (flag --concurrency)"
    assert values["huggingface.token"] == "********  (environment HF_TOKEN)"
    assert values.keys() >= {"redis.password", "huggingface.disable_ssl_verify"}
    assert "app.log_level" not in values
    (doubt,) = [each for each in found if each.verdict is Verdict.WARNING]
    assert "disable_ssl_verify is on" in doubt.advice


def test_a_machine_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory("control group", 9 * GB, 10 * GB)
    monkeypatch.setattr(MemoryGauge, "tightest", lambda _: memory)
    config = AppConfig.model_validate({"app": {"concurrency": 8}})
    assert machine.memory(config).value == "1.0 of 10.0 GB free (control group)"
    assert machine.memory(config).verdict is Verdict.GOOD
    memory = Memory("control group", 9_900_000_000, 10 * GB)
    assert "a worker with 8 slots may need 268 MB" in machine.memory(config).advice
    config = AppConfig.model_validate({"limits": {"max_memory_percent": 90}})
    assert "until then a worker claims nothing" in machine.memory(config).advice


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {each.name: each for each in machine.findings(AppConfig())}
    assert f"redis {metadata.version('redis')}, " in found["libraries"].value
    assert Verdict.BROKEN not in {each.verdict for each in found.values()}

    def gone(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", gone)
    found = {each.name: each for each in machine.findings(AppConfig())}
    assert found["redis"].verdict is Verdict.BROKEN
    assert "hf-transfer" not in found


# -- what is shown --------------------------------------------------------------------------------

FOUND = [
    ONE.good("a", "fine"),
    ONE.warning("long name", "so \x1b[31mso", "do this, and that"),
    OTHER.unknown("b", "who knows"),
    OTHER.broken("c", "", "mend it"),
]


def test_the_lines() -> None:
    assert [line.plain for line in display.lines(FOUND, Canvas())] == [
        "One",
        "  ok       a          fine",
        "  warning  long name  so \\x1b[31mso",
        "    do this, and that",
        "Other",
        "  ?        b  who knows",
        "  BROKEN   c",
        "    mend it",
        "1 broken, 1 warning",
    ]
    assert [line.plain for line in display.lines(FOUND[:1], Canvas())][-1] == "all is well"


def test_on_a_narrow_screen_advice_is_wrapped_and_nothing_is_lost() -> None:
    lines: list[Text] = list(display.lines(FOUND, Canvas(width=20)))
    assert max(line.cell_len for line in lines) <= 20
    assert "do this, and" in {line.plain.strip() for line in lines}


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub, a Redis and an output folder, as the settings say."""
    write_files(tmp_path / "repo", {"config.json": b"{}", "big.bin": bytes(10_000)})
    with (
        LocalHub({"models/org/name": tmp_path / "repo"}, tokens=["hf_secret"]) as hub,
        EmbeddedRedis() as url,
    ):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("REDIS_URL", url)
        monkeypatch.setenv("OUTPUT_DIR", str(tmp_path / "out"))
        yield hub


@pytest.mark.usefixtures("site")
def test_what_is_sound_but_for_one_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    code, out, _ = run(capsys, "doctor", "org/name")
    assert out.splitlines()[-1] == "1 warning"
    assert "forgets the last minutes" in out  # the private server keeps nothing
    assert code == 1
    assert "org/name at main" in out
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("site")
def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NAS_ENABLED", "1")
    monkeypatch.setenv("NAS_PATH", str(tmp_path / "nas"))
    code, out, _ = run(capsys, "doctor", "--json")
    document = json.loads(out)
    assert (code, document["verdict"]) == (2, "broken")
    broken = [each for each in document["findings"] if each["verdict"] == "broken"]
    assert [(each["subject"], each["name"]) for each in broken] == [("nas", "answer")]
    assert "init-nas" in broken[0]["advice"]
    assert "hf_secret" not in out
    (tmp_path / "nas").mkdir()
    make_place(tmp_path / "nas", create_root=False)
    assert run(capsys, "doctor", "--json")[0] == 1


def test_settings_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_PORT", "many")
    code, out, err = run(capsys, "doctor")
    assert (code, err) == (2, "")
    assert "environment REDIS_PORT: [redis] port = 'many': must be a port number" in out


def test_a_worker_refuses_with_the_words_of_the_doctor(
    site: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    (tmp_path / "out").touch()
    found = run(capsys, "doctor")[1]
    words = f"{tmp_path}/out: not a directory; a file is where a folder should be"
    assert words in found
    code, _, err = run(capsys, "worker")
    assert (code, err) == (2, f"error: environment OUTPUT_DIR: [app] output_dir: {words}\n")


@needs_mount
@pytest.mark.usefixtures("site")
def test_a_job_that_cannot_fit_is_refused_with_the_words_of_the_doctor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with mounted(small, "-t", "tmpfs", "-o", "size=8k", "tmpfs"):
        code, out, _ = run(capsys, "doctor", "org/name", "-o", str(small))
        assert code == 2
        words = next(line.strip() for line in out.splitlines() if "org/name needs" in line)
        code, out, err = run(capsys, "master", "org/name", "-o", str(small))
        assert (code, out) == (2, "")
        assert f"error: {words}; --no-space-check queues it all the same" in err
        code, out, _ = run(capsys, "batch-master", "org/name", "-o", str(small))
        assert (code, words in out) == (1, True)
        assert list(small.iterdir()) == []
        code, _, err = run(capsys, "download", "org/name", "-o", str(small))
        assert (code, "org/name needs 10.0 kB, and " in err) == (2, True)
        assert run(capsys, "master", "org/name", "-o", str(small), "--no-space-check")[0] == 0


def test_help_imports_nothing_heavy_and_says_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--help"]) == 0
    assert "0 all is well, 1 there are warnings, 2 something is broken" in capsys.readouterr().out
