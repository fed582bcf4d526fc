"""Writes what the manifests in `k8s/` take from elsewhere, so that everything has one source.

    python -m deploy.kubernetes

    k8s/overlays/NAME/serve-config.yaml    deploy/serve/orrery.yaml, with the replicas and
                                           resources of k8s/overlays/NAME/resources.yaml
    k8s/base/environment.env               deploy/ray_environment.py
    k8s/components/monitoring/rules.yaml   deploy/prometheus/rules/*.yml

The files are committed; a test holds them to their sources. Knows nothing of a running cluster.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml
from rich.console import Console

from deploy.ports import ALL_INTERFACES, FIRST_REPLICA_PORT, REPLICA_PORTS
from deploy.ray_environment import REPOSITORY, serve_settings
from deploy.resources import SINGLE_REPLICA, Resources, service_of

__all__ = ["main", "manifests", "serve_config"]

SERVE_CONFIG = REPOSITORY / "deploy/serve/orrery.yaml"
RULES = REPOSITORY / "deploy/prometheus/rules"
K8S = REPOSITORY / "k8s"
OVERLAYS = ("cpu", "gpu")

_HEADER = (
    "# Written by `python -m deploy.kubernetes` from {source}: change that, and run it again.\n"
)


def manifests() -> dict[Path, str]:
    """The content of each file that this module writes."""
    files = {K8S / "base/environment.env": _environment(), **dict(_monitoring())}
    for overlay in OVERLAYS:
        folder = K8S / "overlays" / overlay
        config = serve_config(Resources.read(folder / "resources.yaml"))
        files[folder / "serve-config.yaml"] = _serve_config_patch(config)
    return files


def serve_config(resources: Resources) -> dict[str, Any]:
    """What `make up` runs, with other replicas and resources, listening beyond the pod, and changed
    in place without downtime where there may be two of a service for a while.

    Raises `ResourcesError`.
    """
    config = yaml.safe_load(SERVE_CONFIG.read_text())
    config["http_options"]["host"] = ALL_INTERFACES  # a pod; a network policy stands before it
    config = resources.applied_to(config)
    for app in config["applications"]:
        if service_of(app) not in SINGLE_REPLICA:
            for deployment in app["deployments"]:
                # A change starts all new replicas before the old ones go; Serve's default is 0.
                deployment["max_surge_percent"] = 100
    return config


def _serve_config_patch(config: dict[str, Any]) -> str:
    text = yaml.dump(config, Dumper=_NoAliases, sort_keys=False, width=100)
    return (
        _HEADER.format(source="deploy/serve/orrery.yaml and resources.yaml")
        + "apiVersion: ray.io/v1\n"
        + "kind: RayService\n"
        + "metadata:\n  name: orrery\n"
        + "spec:\n  serveConfigV2: |\n"
        + indent(text, "    ")
    )


def _environment() -> str:
    settings = {
        **serve_settings(),
        "ORRERY_API_KEYS_FILE": "/etc/orrery/api-keys",
        "HF_HUB_OFFLINE": "1",
        # Logs are the pod's: services' lines of JSON, of Ray what is worth a warning.
        "RAY_LOG_TO_STDERR": "1",
        "RAY_SERVE_LOG_TO_STDERR": "1",
        "RAY_BACKEND_LOG_LEVEL": "warning",
        # Ports below those that the system gives to connections.
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(FIRST_REPLICA_PORT),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(FIRST_REPLICA_PORT + REPLICA_PORTS),
        "RAY_SERVE_HAPROXY_BINARY_PATH": "/app/deploy/haproxy_loopback.sh",
    }
    lines = [f"{name}={value}\n" for name, value in sorted(settings.items())]
    return _HEADER.format(source="deploy/ray_environment.py") + "".join(lines)


def _monitoring() -> Iterator[tuple[Path, str]]:
    """The rules for the Prometheus operator: all groups of all files, as they are."""
    groups = [
        group
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "orrery"},
        "spec": {"groups": groups},
    }
    text = yaml.dump(rule, Dumper=_NoAliases, sort_keys=False, width=100)
    yield K8S / "components/monitoring/rules.yaml", _HEADER.format(source=f"{_name(RULES)}/") + text


class _NoAliases(yaml.SafeDumper):
    """Writes what occurs twice twice: a reader need not look for it elsewhere."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - as PyYAML calls it
        return True


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def main() -> int:
    console = Console()
    for path, text in manifests().items():
        path.write_text(text)
        console.print(f"  {_name(path)}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
