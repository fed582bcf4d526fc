"""docker-compose.yml: valid, closed to other machines, and of one piece with what it mounts."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import local, worker
from deploy.ray_environment import REPOSITORY
from deploy.resources import Resources
from services.runtime.config import Settings

COMPOSE = REPOSITORY / "docker-compose.yml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (REPOSITORY / ".env.example").read_text().splitlines()
    if "=" in line and not line.startswith("#")
)
SECRETS = {"REDIS_PASSWORD", "GRAFANA_PASSWORD"}


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    tool = Path(sys.executable).with_name("check-jsonschema")
    command = [tool, "--builtin-schema", "vendor.compose-spec", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_validates_against_the_compose_specification() -> None:
    result = validate(COMPOSE)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_mistake_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text().replace("healthcheck:", "healthchecks:"))
    assert validate(broken).returncode != 0


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_service_is_hardened_pinned_and_watched(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["healthcheck"]["test"]
    _, _, tag = service["image"].rpartition(":")
    assert tag not in ("", "latest")


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_no_secret_has_a_value() -> None:
    empty = {name for name, value in EXAMPLE.items() if not value}
    assert empty == SECRETS | {"ORRERY_TRACES_ENDPOINT"}
    text = COMPOSE.read_text()
    for name in SECRETS:
        uses = re.findall(rf"\$\{{{name}(\S?\S?)", text)
        assert uses, name
        assert set(uses) == {":?"}, f"{name}: must be asked for"


def test_api_keys_and_rays_token_are_files_that_no_environment_shows() -> None:
    for name in ("ray-head", "ray-head-gpu", "ray-worker"):
        assert SERVICES[name]["secrets"] == ["api-keys", "ray-token"]
        assert SERVICES[name]["environment"]["ORRERY_API_KEYS_FILE"] == "/run/secrets/api-keys"
        assert SERVICES[name]["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray-token"
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    for variable in ("API_KEYS_FILE", "RAY_TOKEN_FILE"):
        assert EXAMPLE[variable].removeprefix(".") in ignored


def test_the_platform_accepts_its_environment() -> None:
    """With every variable as `.env.example` has it."""
    given = {
        name: re.sub(r"\$\{(\w+)[^}]*\}", lambda found: EXAMPLE[found[1]], value)
        for name, value in SERVICES["ray-head"]["environment"].items()
    }
    settings = Settings.from_env(given)
    assert settings.traces_endpoint is None
    assert settings.log_level == "INFO"


def test_every_variable_is_explained() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text()))
    assert used <= EXAMPLE.keys()
    assert set(EXAMPLE) - used == {"COMPOSE_PROFILES"}


def test_what_is_mounted_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (REPOSITORY / source).exists(), f"{name}: {source}"


@pytest.mark.parametrize("name", ["ray-head", "ray-head-gpu"])
def test_the_launcher_takes_the_heads_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)  # as the image's working directory
    _, _, module, *arguments = SERVICES[name]["command"]
    assert module == "deploy.foreground"
    settings = Settings.from_env({"ORRERY_API_KEYS": "key", "REDIS_URL": "redis://redis:6379"})
    parser = argparse.ArgumentParser()
    local.add_options(parser, settings)
    options = local.options_of(parser.parse_args(arguments), settings)
    assert options.host == "0.0.0.0"
    config = local._load_config(options)
    assert config["http_options"]["host"] == "0.0.0.0"


def test_workers_join_where_the_head_listens() -> None:
    _, _, module, _, head = SERVICES["ray-worker"]["command"]
    assert importlib.util.find_spec(module) is not None
    host, _, port = head.partition(":")
    assert host in SERVICES
    assert SERVICES[host]["command"][-2:] == ["--ray-port", port]
    assert host in SERVICES["ray-head-gpu"]["networks"]["default"]["aliases"]


def test_a_worker_has_time_to_be_drained_and_to_end() -> None:
    grace = SERVICES["ray-worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= worker.DRAIN_S + 20


def test_one_gpu_holds_everything_that_asks_for_a_part() -> None:
    resources = Resources.read(REPOSITORY / "deploy/serve/one-gpu.yaml")
    config = yaml.safe_load((REPOSITORY / "deploy/serve/orrery.yaml").read_text())
    parts = [
        deployment["ray_actor_options"].get("num_gpus", 0)
        for app in resources.applied_to(config)["applications"]
        for deployment in app["deployments"]
    ]
    assert 0.5 < sum(parts) <= 1


def test_prometheus_scrapes_and_grafana_reads_what_there_is() -> None:
    scrape = yaml.safe_load((REPOSITORY / "deploy/prometheus/compose.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert set(job["dns_sd_configs"][0]["names"]) <= SERVICES.keys()
    provisioning = REPOSITORY / "deploy/grafana/provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    dashboards = yaml.safe_load((provisioning / "dashboards/orrery.yaml").read_text())
    folder = dashboards["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in SERVICES["grafana"]["volumes"]
    assert list((REPOSITORY / "deploy/grafana/dashboards").glob("*.json"))
