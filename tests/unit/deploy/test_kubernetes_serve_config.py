"""The Serve configuration of the clusters: what `make up` runs, and accepted by Ray."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes import OVERLAYS, SERVE_CONFIG, manifests
from deploy.resources import ARGS, DEPLOYMENT_KEYS, SINGLE_REPLICA, Resources, ResourcesError
from tests.unit.deploy.manifests import Manifest, render


@pytest.fixture(scope="module", params=OVERLAYS)
def ray_service(request: pytest.FixtureRequest) -> Manifest:
    (found,) = (one for one in render(request.param) if one["kind"] == "RayService")
    return found


@pytest.fixture(scope="module")
def served(ray_service: Manifest) -> dict[str, Any]:
    return yaml.safe_load(ray_service["spec"]["serveConfigV2"])


@pytest.fixture
def local() -> dict[str, Any]:
    return yaml.safe_load(SERVE_CONFIG.read_text())


def test_generated_files_are_fresh() -> None:
    """`python -m deploy.kubernetes` would change nothing."""
    for path, text in manifests().items():
        assert path.read_text() == text, f"{path.name}: run python -m deploy.kubernetes"


def test_a_cluster_runs_what_one_machine_runs(
    served: dict[str, Any], local: dict[str, Any]
) -> None:
    assert without_resources(served) == without_resources(local)


def test_a_cluster_listens_beyond_its_pods(served: dict[str, Any]) -> None:
    assert served["http_options"] == {"host": "0.0.0.0", "port": 8000}
    assert served["grpc_options"]["port"] == 9000


def test_ray_accepts_the_configuration(served: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own modules warn when they are first imported
        schema = importlib.import_module("ray.serve.schema").ServeDeploySchema
    schema.model_validate(served)


def test_every_service_accepts_its_settings(served: dict[str, Any]) -> None:
    for app in served["applications"]:
        module, function = app["import_path"].split(":")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build = getattr(importlib.import_module(module), function)
        build(app["args"])


def test_what_can_be_one_only_is_one(served: dict[str, Any]) -> None:
    for app in served["applications"]:
        if app["import_path"].split(":")[0] in SINGLE_REPLICA:
            (deployment,) = app["deployments"]
            assert deployment["num_replicas"] == 1
            assert "autoscaling_config" not in deployment


def test_new_replicas_start_before_the_old_ones_go_but_of_what_can_be_one_only(
    served: dict[str, Any],
) -> None:
    for app in served["applications"]:
        single = app["import_path"].split(":")[0] in SINGLE_REPLICA
        for deployment in app["deployments"]:
            assert deployment.get("max_surge_percent") == (None if single else 100), app["name"]


def test_the_fewest_replicas_fit_on_the_fewest_workers(
    ray_service: Manifest, served: dict[str, Any]
) -> None:
    nodes = workers(ray_service)
    for replica in replicas(served):
        place(replica, nodes)


def test_one_change_finds_room_beside_what_runs(
    ray_service: Manifest, served: dict[str, Any]
) -> None:
    """New replicas of any one application start before its old ones go."""
    for app in served["applications"]:
        nodes = workers(ray_service)
        for replica in replicas(served):
            place(replica, nodes)
        if app["deployments"][0].get("max_surge_percent"):
            place(next(replicas({"applications": [app]})), nodes)


def test_the_others_hold_the_replicas_of_a_worker_that_is_drained(
    ray_service: Manifest, served: dict[str, Any]
) -> None:
    """But for a GPU's: a second one is not there at rest."""
    _, *nodes = workers(ray_service)
    for replica in replicas(served):
        place(replica, nodes)


def test_a_gpu_holds_the_new_replicas_of_all_beside_the_old(
    ray_service: Manifest, served: dict[str, Any]
) -> None:
    """A second GPU would be minutes away."""
    nodes = [node for node in workers(ray_service) if node.gpus]
    computed = [replica for replica in replicas(served) if replica.gpus]
    for replica in computed + [replica for replica in computed if replica.surges]:
        place(replica, nodes)


def test_gpu_workers_are_left_to_what_computes_on_them(ray_service: Manifest) -> None:
    """For Serve spreads replicas over all nodes that have what they ask for."""
    assert all(node.cpus == 0 for node in workers(ray_service) if node.gpus)


@dataclass(eq=False)
class Node:
    """A worker's pod as Ray sees it: what of it is free, and what it holds."""

    cpus: Fraction
    gpus: Fraction
    holds: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Replica:
    application: str
    cpus: Fraction
    gpus: Fraction
    most_per_node: int | None
    surges: bool


def workers(ray_service: Manifest) -> list[Node]:
    """The fewest of each group."""
    nodes = []
    for group in ray_service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        requests = container["resources"]["requests"]
        cpus = Fraction(group["rayStartParams"].get("num-cpus", requests["cpu"]))
        gpus = Fraction(requests.get("nvidia.com/gpu", 0))
        nodes += [Node(cpus, gpus) for _ in range(group["minReplicas"])]
    return nodes


def replicas(served: dict[str, Any]) -> Iterator[Replica]:
    """The fewest of each application."""
    for app in served["applications"]:
        (deployment,) = app["deployments"]
        scaling = deployment.get("autoscaling_config")
        actor = deployment["ray_actor_options"]
        replica = Replica(
            app["name"],
            Fraction(str(actor["num_cpus"])),
            Fraction(str(actor.get("num_gpus", 0))),
            deployment.get("max_replicas_per_node"),
            bool(deployment.get("max_surge_percent")),
        )
        for _ in range(scaling["min_replicas"] if scaling else deployment["num_replicas"]):
            yield replica


def place(replica: Replica, nodes: list[Node]) -> None:
    """On the emptiest of the nodes that have all it asks for, as Ray does: never on two."""
    fitting = [
        node
        for node in nodes
        if node.cpus >= replica.cpus
        and node.gpus >= replica.gpus
        and (
            replica.most_per_node is None
            or node.holds.count(replica.application) < replica.most_per_node
        )
    ]
    assert fitting, f"{replica.application} finds no worker: {nodes}"
    node = max(fitting, key=lambda node: (node.cpus, node.gpus))
    node.cpus -= replica.cpus
    node.gpus -= replica.gpus
    node.holds.append(replica.application)


def without_resources(config: dict[str, Any]) -> dict[str, Any]:
    """What is left when everything is taken away that a cluster has of its own."""
    config = copy.deepcopy(config)
    del config["http_options"]["host"]
    for app in config["applications"]:
        for path in ARGS:
            *within, key = path.split(".")
            settings = app.get("args") or {}
            for name in within:
                settings = settings.get(name) or {}
            settings.pop(key, None)
        own = {*DEPLOYMENT_KEYS, "max_surge_percent"}
        app["deployments"] = [
            {key: value for key, value in deployment.items() if key not in own}
            for deployment in app["deployments"]
        ]
    return config


CONFIG = {
    "applications": [
        {
            "name": "llama",
            "import_path": "services.generation.app:build",
            "args": {"model_name": "m", "engine": {"num_threads": 1, "dtype": "auto"}},
            "deployments": [{"name": "Generation", "num_replicas": 1}],
        },
        {
            "name": "shard",
            "import_path": "services.moe.shard.app:build",
            "args": {"model_name": "m"},
            "deployments": [{"name": "ExpertShard", "num_replicas": 1}],
        },
    ]
}


def read(tmp_path: Path, text: str) -> Resources:
    path = tmp_path / "resources.yaml"
    path.write_text(text)
    return Resources.read(path)


def test_an_applications_share_goes_over_its_services(tmp_path: Path) -> None:
    resources = read(
        tmp_path,
        """
services:
  services.generation.app:
    args: {engine: {device: cuda, num_threads: 4}}
    deployment: {num_replicas: 2}
applications:
  llama: {args: {engine: {num_threads: 8}}, deployment: {autoscaling_config: {max_replicas: 3}}}
""",
    )
    before = copy.deepcopy(CONFIG)
    llama, shard = resources.applied_to(CONFIG)["applications"]
    assert before == CONFIG
    assert llama["args"]["engine"] == {"device": "cuda", "num_threads": 8, "dtype": "auto"}
    assert llama["deployments"] == [
        {"name": "Generation", "autoscaling_config": {"max_replicas": 3}}
    ]
    assert shard == CONFIG["applications"][1]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("services: {services.generation.app: {args: {engine: {dtype: x}}}}", "engine.dtype"),
        ("services: {services.generation.app: {args: {model_name: x}}}", "args.model_name"),
        ("applications: {llama: {deployment: {name: x}}}", "deployment.name"),
        ("applications: {llama: {replicas: 2}}", "applications.llama.replicas"),
        ("applications: {llama: 2}", "applications.llama"),
        ("service: {}", "service"),
        ("[]", "resources.yaml"),
        ("a: [", "resources.yaml"),
        (
            "applications: {llama: {deployment: {num_replicas: 2, autoscaling_config: {}}}}",
            "num_replicas or autoscaling_config",
        ),
    ],
)
def test_resources_that_are_wrong_are_refused_by_name(
    tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(ResourcesError, match=named):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("services: {services.nobody.app: {}}", "services.nobody.app"),
        ("applications: {nobody: {}}", "applications.nobody"),
        ("applications: {shard: {deployment: {num_replicas: 2}}}", "shard: expected one replica"),
        (
            "applications: {shard: {deployment: {autoscaling_config: {max_replicas: 2}}}}",
            "shard: expected one replica",
        ),
    ],
)
def test_resources_that_do_not_fit_the_configuration_are_refused(
    tmp_path: Path, text: str, named: str
) -> None:
    with pytest.raises(ResourcesError, match=named):
        read(tmp_path, text).applied_to(CONFIG)


def test_resources_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourcesError, match=r"missing\.yaml"):
        Resources.read(tmp_path / "missing.yaml")
