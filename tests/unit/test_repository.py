"""The frame of the repository: files that must agree with the code, and limits that the code keeps."""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distributed_downloader.cli import app, cli
from distributed_downloader.cli.init_config import text
from distributed_downloader.config import SETTINGS, Setting
from distributed_downloader.config.file import SEARCHED

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "distributed_downloader"

MAX_FILE = 350
MAX_FUNCTION = 60
MAX_MEDIAN = 10

#: Where everything is caught and not raised again, for nobody is above: file -> such handlers.
EDGES = {
    "cli/__init__.py": 1,
    "completions.py": 3,
    "heartbeat.py": 2,
    "nas_aggregator.py": 1,
    "nas_copiers.py": 2,
    "patience.py": 1,
    "sealer.py": 1,
    "storage/lane.py": 1,
    "signals.py": 1,
    "slots.py": 2,
    "standalone.py": 1,
    "verify.py": 1,
}
#: Modules without any I/O over the network.
PURE = (
    "plan.py",
    "verify.py",
    "retry.py",
    "display/picture.py",
    "display/plain.py",
    "display/tables.py",
    "config/__init__.py",
    "config/values.py",
    "models.py",
    "errors.py",
)
NETWORK = {"redis", "requests", "urllib3", "httpx", "socket", "ssl", "http", "huggingface_hub", "aiohttp"}
REDIS = re.compile(r"redis_\w+|scripts|embedded")

Function = ast.FunctionDef | ast.AsyncFunctionDef


# -- files that agree with the code ---------------------------------------------------------------


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_example_is_what_init_config_writes() -> None:
    assert read("config.example.ini") == text()


def row(setting: Setting) -> str:
    """Return a setting's line in the table of docs/configuration.md."""
    cells = [setting.key, setting.source.env, setting.source.flag, setting.default]
    shown = [f"`{cell}`" if cell else "" for cell in cells]
    return f"| {' | '.join([*shown, setting.meaning])} |"


@pytest.mark.parametrize("name", SETTINGS)
def test_the_documentation_has_every_key_with_its_variable_flag_and_default(name: str) -> None:
    setting = SETTINGS[name]
    section = read("docs/configuration.md").split(f"### [{setting.section}]")[1].split("\n### ")[0]
    assert row(setting) in section.splitlines()


def test_the_documentation_has_no_other_keys() -> None:
    documented = re.findall(r"^\| `(\w+)` \|.*\|$", read("docs/configuration.md"), re.MULTILINE)
    assert documented == [setting.key for setting in SETTINGS.values()]


def test_the_documentation_has_the_files_in_their_order() -> None:
    listed = re.findall(r"^\d\. `([^`]+)`", read("docs/configuration.md"), re.MULTILINE)
    assert listed == ["--config FILE", *SEARCHED]


def test_the_global_flags_are_those_of_the_settings() -> None:
    options = {parameter.name: parameter.opts for parameter in cli.params}
    assert options.keys() == {"config_file", "version", *app.FLAGS}
    for name, key in app.FLAGS.items():
        assert SETTINGS[key].source.flag in options[name]


def test_the_documents_refer_to_files_that_exist() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} refers to {target}"


def test_the_layout_in_the_documentation_is_the_layout() -> None:
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", read("docs/architecture.md"), re.MULTILINE))
    top = {"__init__.py", "__main__.py"}
    empty = {"display/__init__.py", "transfer/__init__.py"}
    modules = {name_of(path) for path in FILES if "cli" not in path.parts}
    assert listed == modules - top - empty


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert re.search(r"^## \[Unreleased\]$", read("CHANGELOG.md"), re.MULTILINE)


# -- containers -----------------------------------------------------------------------------------

PASSWORD = "${REDIS_PASSWORD:?set REDIS_PASSWORD in the environment or in .env}"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(read("docker-compose.yml"))
    return loaded


def test_redis_in_compose_is_safe(compose: dict[str, Any]) -> None:
    redis = compose["services"]["redis"]
    command = " ".join(redis["command"])
    assert f"--requirepass {PASSWORD}" in command
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert redis["volumes"] == ["redis:/data"]
    assert "redis" in compose["volumes"]
    assert redis["ports"] == ["${REDIS_BIND:-127.0.0.1}:6379:6379"]
    assert "redis-cli ping" in redis["healthcheck"]["test"][1]
    assert redis["environment"]["REDISCLI_AUTH"] == PASSWORD


def test_workers_in_compose_can_be_scaled(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert worker["command"] == ["worker"]
    assert worker["restart"] == "unless-stopped"
    # Either of these would forbid a second one.
    assert "container_name" not in worker
    assert "ports" not in worker


@pytest.mark.parametrize("name", ["worker", "master", "status", "metrics"])
def test_nodes_in_compose_wait_for_redis_and_share_a_folder(compose: dict[str, Any], name: str) -> None:
    node = compose["services"][name]
    assert node["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert node["environment"]["REDIS_HOST"] == "redis"
    assert node["environment"]["REDIS_PASSWORD"] == PASSWORD
    assert node["volumes"] == ["${DOWNLOADS:-downloads}:/downloads"]
    assert node["environment"]["OUTPUT_DIR"] == "/downloads"
    assert "downloads" in compose["volumes"]


@pytest.mark.parametrize("name", ["master", "status"])
def test_commands_in_compose_run_only_when_asked(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["profiles"] == ["commands"]
    assert service["entrypoint"] == ["hf-downloader", name]


def test_variables_in_compose_are_variables_of_ours(compose: dict[str, Any]) -> None:
    variables = {setting.source.env for setting in SETTINGS.values()}
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    assert set(compose["services"]["worker"]["environment"]) <= variables | proxies


def test_the_image_gets_what_it_copies() -> None:
    """The list of what is kept out ends in what the Dockerfile asks for."""
    copied = re.findall(r"^COPY (.+) \S+$", read("Dockerfile"), re.MULTILINE)
    kept = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert {name for line in copied for name in line.split()} == kept
    assert all((ROOT / name).exists() for name in kept)


# -- CI -------------------------------------------------------------------------------------------


def stub(folder: Path, name: str, body: str = "") -> None:
    """Put a command on the way that notes how it was called."""
    path = folder / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> "{folder}/calls"\n{body}\n')
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with stubs of everything that .ci/run may call, for an ordinary user."""
    for name in ("bash", "dirname", "chmod", "cp", "mktemp", "rm"):
        found = next(Path(folder, name) for folder in ("/usr/bin", "/bin") if Path(folder, name).exists())
        (tmp_path / name).symlink_to(found)
    stub(tmp_path, "id", "echo 1000")
    return tmp_path


def ci(commands: Path) -> tuple[int, list[str]]:
    """Run .ci/run with the stubs only; return its exit code and the calls."""
    environment = {"PATH": str(commands), "CI": "true", "TMPDIR": str(commands), "HOME": str(commands)}
    done = subprocess.run(
        [ROOT / ".ci/run"], stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False
    )
    calls = (commands / "calls").read_text().splitlines()
    return done.returncode, [call for call in calls if not call.startswith("id ")]


CHECKS = ["uv run pytest", "uv run ruff check", "uv run ruff format --check", "uv run mypy"]


def test_ci_runs_the_tests_and_the_linters(commands: Path) -> None:
    stub(commands, "uv")
    stub(commands, "redis-server")
    assert ci(commands) == (0, CHECKS)


@pytest.mark.parametrize("failing", range(len(CHECKS)))
def test_ci_fails_with_its_first_failing_command(commands: Path, failing: int) -> None:
    stub(commands, "uv", f'[ "uv $*" != "{CHECKS[failing]}" ] || exit 7')
    stub(commands, "redis-server")
    assert ci(commands) == (7, CHECKS[: failing + 1])


def test_ci_installs_uv_with_pip(commands: Path) -> None:
    scripts = commands / "scripts"
    scripts.mkdir()
    (commands / "ready").write_text(f'#!/bin/bash\necho "uv $*" >> "{commands}/calls"\n')
    install = f'cp "{commands}/ready" "{scripts}/uv"; chmod +x "{scripts}/uv"'
    stub(commands, "python3", f'case "$*" in *"pip install"*) {install};; *) echo "{scripts}";; esac')
    stub(commands, "redis-server")
    code, calls = ci(commands)
    assert code == 0
    assert calls[0].startswith("python3 -m pip install")
    assert calls[-4:] == CHECKS


def test_ci_makes_a_venv_where_pip_is_kept_out(commands: Path) -> None:
    (commands / "ready").write_text(f'#!/bin/bash\necho "uv $*" >> "{commands}/calls"\n')
    make = (
        'bin="$3/bin"; /bin/mkdir -p "$bin"; '
        f'echo "#!/bin/bash" > "$bin/python"; echo "cp {commands}/ready $bin/uv" >> "$bin/python"; '
        f'echo "chmod +x $bin/uv" >> "$bin/python"; chmod +x "$bin/python"'
    )
    stub(commands, "python3", f'case "$*" in *"pip install"*) exit 1;; "-m venv"*) {make};; esac')
    stub(commands, "redis-server")
    code, calls = ci(commands)
    assert code == 0
    assert calls[-4:] == CHECKS
    assert not list(commands.glob("tmp.*"))


@pytest.mark.parametrize("broken", [False, True])
def test_ci_installs_a_redis_where_it_may_and_goes_on_without(commands: Path, broken: bool) -> None:
    stub(commands, "uv")
    stub(commands, "id", "echo 0")
    stub(commands, "timeout", 'shift; exec "$@"')
    stub(commands, "apt-get", f"exit {100 * broken}")
    code, calls = ci(commands)
    assert code == 0
    assert any(call.startswith("apt-get update") for call in calls)
    assert any("redis-server" in call for call in calls) is not broken
    assert calls[-4:] == CHECKS


def test_ci_leaves_the_system_alone_unless_it_is_root(commands: Path) -> None:
    stub(commands, "uv")
    stub(commands, "apt-get")
    assert ci(commands) == (0, CHECKS)


def test_ci_needs_no_more_than_is_in_the_repository() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert "set -euo pipefail" in read(".ci/run")


def test_the_justfile_has_its_recipes() -> None:
    recipes = re.findall(r"^(\w+)[^:\n]*:$", read("justfile"), re.MULTILINE)
    assert recipes == ["default", "setup", "fmt", "lint", "type", "test", "ci", "audit", "demo"]


# -- limits of the code ---------------------------------------------------------------------------

FILES = sorted(PACKAGE.rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, Function))


def length(function: Function) -> int:
    """Return the lines of a function without its decorators."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_files_are_short() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > MAX_FILE} == {}


def test_functions_are_short() -> None:
    long = {
        f"{name_of(path)}: {function.name}": length(function)
        for path in FILES
        for function in functions(path)
        if length(function) > MAX_FUNCTION
    }
    assert long == {}
    assert statistics.median(length(f) for path in FILES for f in functions(path)) <= MAX_MEDIAN


def untyped(function: Function) -> bool:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    all_of_them = [*named, *filter(None, (arguments.vararg, arguments.kwarg))]
    bare = [a for a in all_of_them if a.annotation is None and a.arg not in ("self", "cls")]
    return bool(bare) or function.returns is None


def test_functions_are_typed() -> None:
    assert [f"{name_of(path)}: {f.name}" for path in FILES for f in functions(path) if untyped(f)] == []


def test_modules_say_their_role() -> None:
    assert [name_of(path) for path in FILES if not ast.get_docstring(parse(path))] == []


def swallows_all(node: ast.AST) -> bool:
    """Return whether a handler catches everything and does not end in a bare `raise`."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    broad = node.type is None or {"Exception", "BaseException"} & {ast.unparse(c) for c in caught if c}
    last = node.body[-1]
    return bool(broad) and not (isinstance(last, ast.Raise) and last.exc is None)


def test_everything_is_caught_only_at_the_edges() -> None:
    counts = {name_of(path): sum(map(swallows_all, ast.walk(parse(path)))) for path in FILES}
    assert {name: count for name, count in counts.items() if count} == EDGES


@pytest.mark.parametrize(
    ("code", "swallowed"),
    [
        ("except: pass", True),
        ("except Exception as e: print(e)", True),
        ("except (OSError, BaseException): pass", True),
        ("except Exception as e: raise Other from e", True),
        ("except BaseException: clean(); raise", False),
        ("except OSError: pass", False),
    ],
)
def test_the_search_for_such_handlers_bites(code: str, swallowed: bool) -> None:
    tree = ast.parse(f"try: f()\n{code}")
    assert any(map(swallows_all, ast.walk(tree))) is swallowed


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_nothing_below_knows_the_command_line() -> None:
    allowed = {path for path in FILES if "cli" in path.relative_to(PACKAGE).parts} | {PACKAGE / "__main__.py"}
    prefix = "distributed_downloader.cli."
    users = {
        name_of(p) for p in FILES if p not in allowed and any(f"{m}.".startswith(prefix) for m in imports(p))
    }
    assert users == set()


def test_redis_is_known_in_few_places() -> None:
    users = [path.stem for path in FILES if "redis" in {module.split(".")[0] for module in imports(path)}]
    assert [name for name in users if not REDIS.fullmatch(name)] == []


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_network(name: str) -> None:
    assert {module.split(".")[0] for module in imports(PACKAGE / name)} & NETWORK == set()
