"""What contrib/ and docker-compose.yml hold is what their own programs take, and agrees with the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from distributed_downloader.cli import cli
from distributed_downloader.display import metrics
from distributed_downloader.display.speed import Speedometer
from distributed_downloader.redis_metrics import FleetMetrics
from tests.unit import looking_on

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "contrib/systemd"
KUBERNETES = ROOT / "contrib/kubernetes"
#: Those that exist when this is written, from one that is not looked after any more to the newest.
KUBERNETES_VERSIONS = ("1.29", "1.33", "1.37")


def check_words(words: Sequence[str]) -> None:
    """Fail unless a command line is one that this program understands."""
    name, *rest = words
    command = cli.commands.get(name) or cli.get_command(None, name)  # type: ignore[arg-type]
    assert command, name
    options = {option for param in command.params for option in param.opts}
    assert {word for word in rest if word.startswith("-")} <= options


# -- docker-compose.yml ---------------------------------------------------------------------------


def compose_lint(path: Path) -> subprocess.CompletedProcess[str]:
    """Check a file against the schema of the Compose specification, which check-jsonschema carries."""
    program = Path(sys.executable).parent / "check-jsonschema"
    words = [str(program), "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_compose_takes_its_file() -> None:
    done = compose_lint(ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stdout


def test_compose_would_not_take_everything(tmp_path: Path) -> None:
    wrong = (ROOT / "docker-compose.yml").read_text().replace("healthcheck:", "health_check:")
    (tmp_path / "docker-compose.yml").write_text(wrong)
    assert compose_lint(tmp_path / "docker-compose.yml").returncode == 1


def test_compose_runs_commands_that_there_are() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    check_words(services["worker"]["healthcheck"]["test"][2:])
    for name in ("worker", "metrics"):
        check_words(services[name]["command"])
    assert services["metrics"]["profiles"] == ["metrics"]
    assert services["metrics"]["ports"] == ["127.0.0.1:9109:9109"]


# -- systemd --------------------------------------------------------------------------------------

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here; .ci/run installs it"
)


def systemd_lint(folder: Path, **changes: str) -> str:
    """Return what `systemd-analyze verify` says of the units, whose program is put where one is."""
    for unit in SYSTEMD.iterdir():
        text = unit.read_text().replace("/opt/hf-downloader/bin/hf-downloader", "/bin/true")
        for before, after in changes.items():
            text = text.replace(before, after)
        (folder / unit.name).write_text(text)
    words = ["systemd-analyze", "verify", *map(str, sorted(folder.iterdir()))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr + (f"exit {done.returncode}" if done.returncode else "")


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    assert systemd_lint(tmp_path) == ""


@needs_systemd
@pytest.mark.parametrize(
    "change", [{"strict": "strikt"}, {"OnCalendar": "OnCalender"}, {"/bin/true": "/bin/no"}]
)
def test_systemd_would_not_take_everything(tmp_path: Path, change: dict[str, str]) -> None:
    assert systemd_lint(tmp_path, **change) != ""


@needs_systemd
@pytest.mark.parametrize("name", ["worker", "sync"])
def test_the_services_are_confined(name: str) -> None:
    unit = SYSTEMD / f"hf-downloader-{name}.service"
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_units_run_commands_that_there_are() -> None:
    found = [
        line.split("hf-downloader ", 1)[1].split()
        for unit in SYSTEMD.glob("*.service")
        for line in unit.read_text().splitlines()
        if line.startswith("ExecStart=")
    ]
    assert len(found) == 2
    for words in found:
        check_words(words)


# -- Kubernetes -----------------------------------------------------------------------------------


def manifests() -> Iterator[dict[str, Any]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


def pods() -> Iterator[dict[str, Any]]:
    for manifest in manifests():
        if template := manifest["spec"].get("template"):
            yield template["spec"]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_takes_the_manifests(version: str) -> None:
    kinds = []
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)
        kinds.append(manifest["kind"])
    assert sorted(kinds) == [
        *("Deployment", "Deployment", "Job", "PersistentVolumeClaim", "Service", "Service", "StatefulSet")
    ]


def test_kubernetes_would_not_take_everything() -> None:
    for wrong in ("enableServiceLink", "replica"):
        (worker,) = (each for each in manifests() if each["metadata"].get("name") == "hf-worker")
        place = worker["spec"] if wrong == "replica" else worker["spec"]["template"]["spec"]
        place[wrong] = 1
        with pytest.raises(kubernetes_validate.ValidationError, match=wrong):
            kubernetes_validate.validate(worker, KUBERNETES_VERSIONS[0], strict=True)


def test_the_kustomization_names_what_there_is() -> None:
    said = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    there = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert {*said["resources"]} == there - {"kustomization.yaml", "master-job.yaml"}


def test_pods_are_confined_and_run_commands_that_there_are() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["enableServiceLinks"] is False  # else REDIS_PORT=tcp://...
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        if container["image"] == "hf-downloader":
            check_words(container["args"])
        for probe in (value for key, value in container.items() if key.endswith("Probe")):
            words = probe.get("exec", {}).get("command", [""])
            if words[0] == "hf-downloader":
                check_words(words[1:])


def test_a_pod_has_the_time_that_its_end_takes() -> None:
    (pod,) = (each for each in pods() if each["containers"][0]["name"] == "worker")
    (hook,) = re.findall(r"sleep (\d+)", pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2])
    assert int(hook) + 5 < pod["terminationGracePeriodSeconds"]


def test_no_secret_is_in_the_manifests() -> None:
    assert "Secret" not in {manifest["kind"] for manifest in manifests()}


# -- Grafana --------------------------------------------------------------------------------------


def names_served() -> set[str]:
    """Return the names of all metrics, as they are served."""
    job, worker = looking_on.job(), looking_on.worker()
    look = FleetMetrics(
        jobs=[job],
        workers=[worker],
        queue=looking_on.queue(),
        failed_tries={job.id: {"stalled": 1}},
        ages={job.id: 1.0},
        age=1.0,
    )
    families = [metrics.redis_up(True), *metrics.families(look, Speedometer().measure([job], [worker]))]
    return {f"{each.name}_total" if each.type == "counter" else each.name for each in families}


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((ROOT / "contrib/grafana/dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [each["query"]["query"] for each in dashboard["templating"]["list"][1:]]
    used = {name for text in asked for name in re.findall(rf"{metrics.PREFIX}\w+", text)}
    assert len(used) > 10
    assert used <= names_served()


def test_the_documentation_lists_the_metrics() -> None:
    said = (ROOT / "docs/operations.md").read_text()
    listed = set(re.findall(rf"^\| `({metrics.PREFIX}\w+)`", said, re.MULTILINE))
    assert listed == names_served()


def test_panels_lie_side_by_side() -> None:
    dashboard = json.loads((ROOT / "contrib/grafana/dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
