"""Replicas and resources of a Serve configuration: what differs from one place to another.

`deploy/serve/orrery.yaml` says what runs; a file of resources says how much of it, on what:

    services:                       # by the module that builds the application
      services.generation.app:
        args: {engine: {device: cuda}}
        deployment: {num_replicas: 2, ray_actor_options: {num_gpus: 1}}
    applications:                   # by name; goes over what its service gets
      llama:
        deployment: {num_replicas: 4}

Nothing else of a configuration can be changed in this way: an unknown key is refused by its name.
Knows nothing of Kubernetes, and nothing of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["ARGS", "DEPLOYMENT_KEYS", "SINGLE_REPLICA", "Resources", "ResourcesError", "service_of"]

# Of the settings of a service: where it computes, and with how much.
ARGS = frozenset(
    {
        "device",
        "num_threads",
        "engine.device",
        "engine.num_threads",
        "engine.kv_cache_bytes",
        "engine.max_num_seqs",
        "engine.max_num_batched_tokens",
        "engine.max_num_waiting",
        "pictures.num_threads",
    }
)
DEPLOYMENT_KEYS = frozenset(
    {"num_replicas", "autoscaling_config", "max_replicas_per_node", "ray_actor_options"}
)
# What a shard holds is its own, and the router counts on it; more shards are more applications.
SINGLE_REPLICA = frozenset({"services.moe.router.app", "services.moe.shard.app"})


class ResourcesError(Exception):
    """A file of resources is wrong; the message names the key and what was expected."""


class Share(BaseModel):
    """What one service or application gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    args: dict[str, Any] = {}
    deployment: dict[str, Any] = {}


class Resources(BaseModel):
    """Shares by service and by application."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    services: dict[str, Share] = {}
    applications: dict[str, Share] = {}

    @classmethod
    def read(cls, path: Path) -> Resources:
        """From a YAML file. Raises `ResourcesError`."""
        try:
            resources = cls.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise ResourcesError(f"cannot read {path}: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ResourcesError(f"{path}: {key}: {first['msg']}") from error
        for name, share in [*resources.services.items(), *resources.applications.items()]:
            _check(f"{path}: {name}", share)
        return resources

    def applied_to(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of a Serve configuration with these replicas and resources.

        Raises `ResourcesError` for a service or an application that the configuration has not, and
        for more replicas than a service can have.
        """
        result: dict[str, Any] = deepcopy(dict(config))
        applications = result["applications"]
        _check_known("services", self.services, {service_of(app) for app in applications})
        _check_known("applications", self.applications, {app["name"] for app in applications})
        for app in applications:
            for share in self._shares_of(app):
                _apply(share, app)
        return result

    def _shares_of(self, app: Mapping[str, Any]) -> Iterator[Share]:
        if service_of(app) in self.services:
            yield self.services[service_of(app)]
        if app["name"] in self.applications:
            yield self.applications[app["name"]]


def service_of(app: Mapping[str, Any]) -> str:
    """The module that builds an application of a Serve configuration."""
    return str(app["import_path"]).partition(":")[0]


def _apply(share: Share, app: dict[str, Any]) -> None:
    app["args"] = _merged(app.get("args") or {}, share.args)
    # Two applications may share a list by YAML's own means.
    app["deployments"] = [dict(deployment) for deployment in app["deployments"]]
    for deployment in app["deployments"]:
        if "autoscaling_config" in share.deployment:
            deployment.pop("num_replicas", None)
        if "num_replicas" in share.deployment:
            deployment.pop("autoscaling_config", None)
        deployment.update(deepcopy(share.deployment))
        if service_of(app) in SINGLE_REPLICA and _most_replicas(deployment) != 1:
            raise ResourcesError(f"{app['name']}: expected one replica: what it holds is its own")


def _most_replicas(deployment: Mapping[str, Any]) -> object:
    if "autoscaling_config" in deployment:
        return deployment["autoscaling_config"].get("max_replicas")
    return deployment.get("num_replicas", 1)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` over them, key by key, also within each other."""
    result = dict(values)
    for key, change in changes.items():
        within = result.get(key)
        if isinstance(change, dict) and isinstance(within, dict):
            result[key] = _merged(within, change)
        else:
            result[key] = deepcopy(change)
    return result


def _check(where: str, share: Share) -> None:
    for key in _paths(share.args):
        if key not in ARGS:
            raise ResourcesError(f"{where}: args.{key}: expected one of {', '.join(sorted(ARGS))}")
    for key in share.deployment:
        if key not in DEPLOYMENT_KEYS:
            expected = ", ".join(sorted(DEPLOYMENT_KEYS))
            raise ResourcesError(f"{where}: deployment.{key}: expected one of {expected}")
    if {"num_replicas", "autoscaling_config"} <= share.deployment.keys():
        raise ResourcesError(f"{where}: deployment: expected num_replicas or autoscaling_config")


def _paths(values: Mapping[str, Any]) -> Iterator[str]:
    """`engine.device` for `{engine: {device: ...}}`."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from (f"{key}.{rest}" for rest in _paths(value))
        else:
            yield key


def _check_known(kind: str, given: Mapping[str, object], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise ResourcesError(f"{kind}.{name}: expected one of {', '.join(sorted(known))}")
