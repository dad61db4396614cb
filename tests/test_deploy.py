"""What runs the gateway elsewhere: image, compose, chart, unit and dashboard fit the code they run."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import tomlkit
import yaml
from gateways import behind, running, settings
from test_gateway import get

from tunepoint.serve.settings import ServeSettings

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
LOADED = """
import asyncio, json, sys
from pathlib import Path
from tunepoint.cli import app, serving
from tunepoint.serve import process
from tunepoint.serve.gateway import Gateway
from tunepoint.serve.settings import ServeSettings

async def start():
    gateway = Gateway(lambda: ServeSettings.load(Path("serve.toml")))
    async with gateway.running():
        gateway.writer.redact("call 020 7946 0018")

asyncio.run(start())
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
HEAVY = {"numpy", "scipy", "sklearn", "pandas", "torch", "transformers", "tokenizers", "onnxruntime"}


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert found is not None, requirement
    return found.group().lower().replace("_", "-").replace(".", "-")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Top-level modules of a gateway whose options are all other servers."""
    folder = tmp_path_factory.mktemp("relay")
    content = '[[tasks]]\nname = "t"\n[[tasks.arms]]\nname = "a"\nmodel = "http://127.0.0.1:9/v1#x"\n'
    (folder / "serve.toml").write_text(content)
    words = [sys.executable, "-c", LOADED]
    ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout))


def test_a_gateway_that_only_relays_loads_no_heavy_library(loaded: set[str]) -> None:
    assert not loaded & HEAVY


def test_the_gateway_image_installs_what_a_gateway_loads_and_little_else(loaded: set[str]) -> None:
    lines = (DEPLOY / "gateway-requirements.txt").read_text().splitlines()
    installed = {name_of(line) for line in lines if line and not line.startswith("#")}
    distributions = packages_distributions()
    used = {name_of(dist) for module in loaded for dist in distributions.get(module, ())}
    ours = {name_of(line) for line in requires("tunepoint") or () if "extra ==" not in line}
    assert used & ours <= {*installed, "markupsafe"}  # which Alembic brings along
    # loaded where they are needed: migrations, tables, PostgreSQL, canaries and the dashboard
    commands = {"alembic", "rich", "psycopg", "numpy", "scipy"}
    own = {name_of(line) for line in requires("tunepoint") or ()}
    assert installed - used - commands <= own and installed <= own
    assert not installed & {"scikit-learn", "openai", "jinja2", "rensa", "rapidfuzz"}


def test_the_dockerfile_runs_as_nobody_special_and_stops_gently() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    _, _, *images = text.split("\nFROM ")
    assert len(images) == 2 and all("USER 10001" in image for image in images)
    assert text.count("STOPSIGNAL SIGTERM") == 2 and 'ENTRYPOINT ["tunepoint"]' in text
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed")
    found = subprocess.run([linter, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_compose_starts_two_gateways_that_share_a_database() -> None:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = content["services"]
    gateways = [name for name in services if name.startswith("gateway-")]
    assert len(gateways) == 2
    named = [volume.split(":")[0] for name in gateways for volume in services[name]["volumes"]]
    assert {"spool-1", "spool-2"} <= set(named) <= {"./serve.toml", *content["volumes"]}
    assert all(":" in service["image"] for service in services.values() if "build" not in service)  # pinned
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == [f"{name}:8484" for name in gateways]
    proxy = (DEPLOY / "nginx.conf").read_text()
    assert all(f"server {name}:8484" in proxy for name in gateways)
    assert "non_idempotent" not in proxy  # an answer that may have cost money is not asked for twice
    for file in ("nginx.conf", "prometheus.yml", "grafana/provisioning", "grafana/dashboards"):
        assert (DEPLOY / file).exists() and f"./{file}" in (DEPLOY / "compose.yaml").read_text()
    ServeSettings.load(DEPLOY / "serve.example.toml")


def test_the_dashboard_shows_metrics_that_there_are(tmp_path: Path) -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "tunepoint.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"tunepoint_\w+", target["expr"])
    }
    with behind() as server, running(lambda: settings(tmp_path, server.url)) as gateway:
        text = get(f"{gateway.url}/metrics")[1]
    known = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    known |= {f"{name}_bucket" for name in known}
    assert len(asked) > 8 and asked <= known
    boxes = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(set(boxes)) == len(boxes)


def test_the_unit_gives_a_gateway_time_to_stop_and_a_folder_of_its_own() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "tunepoint.service")
    service = unit["Service"]
    assert int(service["TimeoutStopSec"]) > 30 and service["StateDirectory"] == "tunepoint"
    assert service["ExecReload"].endswith("-HUP $MAINPID") and service["User"] != "root"


# -- the chart ---------------------------------------------------------------------------------------


def rendered(values: dict[str, Any], release: str) -> list[dict[str, Any]]:
    """The chart's objects: by helm where it is installed, else by the few forms that the chart uses."""
    chart = DEPLOY / "helm" / "tunepoint"
    if shutil.which("helm") is not None:
        made = ["helm", "template", release, str(chart), "--values", "-"]
        text = subprocess.run(
            made, input=json.dumps(values), capture_output=True, text=True, check=True
        ).stdout
        return [found for found in yaml.safe_load_all(text) if found]
    text = (chart / "templates" / "gateway.yaml").read_text()
    pieces = re.split(r" *\{\{- range \.Values\.secrets \}\}\n(.*?) *\{\{- end \}\}\n", text, flags=re.DOTALL)
    text = pieces[0] + "".join(_filled(pieces[1], entry) for entry in values["secrets"]) + pieces[2]
    return list(yaml.safe_load_all(_filled(text, {"Values": values, "Release": {"Name": release}})))


def _filled(text: str, context: dict[str, Any]) -> str:
    functions = {
        "quote": lambda value: json.dumps(str(value).lower() if value is True else str(value)),
        "toJson": json.dumps,
        "sha256sum": lambda value: hashlib.sha256(value.encode()).hexdigest(),
    }

    def fill(match: re.Match[str]) -> str:
        path, *pipe = (part.strip() for part in match[1].split("|"))
        value: Any = context
        for key in path.removeprefix(".").split("."):
            value = value[key]
        for function in pipe:
            value = functions[function](value)
        return str(value)

    return re.sub(r"\{\{ (.*?) \}\}", fill, text)


def test_the_chart_makes_valid_objects_that_fit_together() -> None:
    values = yaml.safe_load((DEPLOY / "helm" / "tunepoint" / "values.yaml").read_text())
    objects = {found["kind"]: found for found in rendered(values, "shop")}
    assert set(objects) == {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget"}
    served = tomlkit.parse(objects["ConfigMap"]["data"]["serve.toml"]).unwrap()
    assert ServeSettings.parse(served, where="values.yaml").server.store.startswith("postgresql://")
    pod = objects["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert all("secretKeyRef" in entry["valueFrom"] for entry in container["env"])  # by reference only
    assert "PGPASSWORD" in {entry["name"] for entry in container["env"]}
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 35
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["spec"]["volumes"]}
    validate = pytest.importorskip("kubernetes_validate")
    for found in objects.values():
        validate.validate(found, "1.33", strict=True)
