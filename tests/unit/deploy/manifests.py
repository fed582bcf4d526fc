"""Rendering the overlays of `k8s/`, and validating what comes out without a cluster."""

from __future__ import annotations

import json
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

from deploy.kubernetes import K8S
from tests.tools import tool

__all__ = ["Manifest", "check", "pod_specs", "render"]

Manifest = dict[str, Any]

_KUBERNETES = "1.37"
_CUSTOM = {"RayService", "PodMonitor", "PrometheusRule"}


def render(overlay: str | Path) -> list[Manifest]:
    """The documents that `kubectl apply -k` would send: of an overlay's name, or a folder."""
    command = [tool("kubectl"), "kustomize", str(K8S / "overlays" / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def check(document: Manifest) -> None:
    """Raises `jsonschema.ValidationError` for an unknown field, a wrong type, a missing one."""
    if document["kind"] in _CUSTOM:
        _custom_validator(document["kind"]).validate(document)
    else:
        kubernetes_validate.validate(document, _KUBERNETES, strict=True)


def pod_specs(documents: list[Manifest]) -> dict[str, Manifest]:
    """The pods' specs by the name of what makes them."""
    pods = {}
    for document in documents:
        if document["kind"] == "StatefulSet":
            pods[document["metadata"]["name"]] = document["spec"]["template"]["spec"]
        if document["kind"] == "RayService":
            cluster = document["spec"]["rayClusterConfig"]
            pods["head"] = cluster["headGroupSpec"]["template"]["spec"]
            for group in cluster["workerGroupSpecs"]:
                pods[f"worker {group['groupName']}"] = group["template"]["spec"]
    return pods


def _custom_validator(kind: str) -> jsonschema.Draft202012Validator:
    """Over our schema of a custom resource and Kubernetes' own strict definitions."""
    schema = yaml.safe_load((K8S / "schemas" / f"{kind.lower()}-v1.yaml").read_text())
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema"
    path = folder / f"v{_KUBERNETES}.0-local-strict" / "_definitions.json"
    definitions: Resource[Any] = Resource.from_contents(json.loads(path.read_text()))
    return jsonschema.Draft202012Validator(schema, registry=definitions @ Registry())
