"""What would be applied to a cluster: valid, and no more open than it says."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from deploy.kubernetes import K8S, OVERLAYS
from deploy.ray_environment import REPOSITORY
from deploy.redis_server import RedisFolder, Supervisor
from services.runtime.config import Settings
from tests.unit.deploy.manifests import Manifest, check, pod_specs, render


@pytest.fixture(scope="module", params=OVERLAYS)
def documents(request: pytest.FixtureRequest) -> list[Manifest]:
    return render(request.param)


def only(documents: list[Manifest], kind: str) -> Manifest:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def containers(documents: list[Manifest]) -> list[Manifest]:
    return [one for pod in pod_specs(documents).values() for one in pod["containers"]]


def test_every_document_validates_strictly(documents: list[Manifest]) -> None:
    for document in documents:
        check(document)
    kinds = {document["kind"] for document in documents}
    assert kinds >= {
        "ConfigMap",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "PodMonitor",
        "PrometheusRule",
        "RayService",
        "Service",
        "StatefulSet",
    }


def test_the_pod_that_models_are_copied_through_validates(documents: list[Manifest]) -> None:
    pod = yaml.safe_load((K8S / "copy-models.yaml").read_text())
    check(pod)
    claim = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim in {
        document["metadata"]["name"]
        for document in documents
        if document["kind"] == "PersistentVolumeClaim"
    }


def misspell_a_pods_field(document: Manifest) -> None:
    pod = document["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    pod["containers"][0]["redinessProbe"] = {}


def misspell_a_field_of_the_cluster(document: Manifest) -> None:
    document["spec"]["rayClusterConfig"]["enableAutoscaling"] = True


def make_a_number_of_a_start_parameter(document: Manifest) -> None:
    document["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def forget_the_limit_of_a_group(document: Manifest) -> None:
    del document["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"]


@pytest.mark.parametrize(
    "mistake",
    [
        misspell_a_pods_field,
        misspell_a_field_of_the_cluster,
        make_a_number_of_a_start_parameter,
        forget_the_limit_of_a_group,
    ],
)
def test_a_mistake_in_the_ray_service_is_found(
    documents: list[Manifest], mistake: Callable[[Manifest], None]
) -> None:
    broken = copy.deepcopy(only(documents, "RayService"))
    mistake(broken)
    with pytest.raises(jsonschema.ValidationError):
        check(broken)


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule", "StatefulSet", "NetworkPolicy"])
def test_an_unknown_field_is_found(documents: list[Manifest], kind: str) -> None:
    document = next(one for one in documents if one["kind"] == kind)
    with pytest.raises(jsonschema.ValidationError):
        check({**document, "spec": {**document["spec"], "unknown": 1}})


def test_everything_lies_in_one_namespace_that_lets_nobody_be_root(
    documents: list[Manifest],
) -> None:
    namespace = only(documents, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for document in documents:
        if document is not namespace:
            assert document["metadata"]["namespace"] == namespace["metadata"]["name"]


def test_no_container_is_root_or_writes_to_its_image(documents: list[Manifest]) -> None:
    for name, pod in pod_specs(documents).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
    autoscaler = only(documents, "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]
    for container in [*containers(documents), autoscaler]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_ray_may_write_where_it_does(documents: list[Manifest]) -> None:
    for name, pod in pod_specs(documents).items():
        if name.endswith("redis"):
            continue
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
        assert "emptyDir" in volumes[mounts["/tmp"]], name
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory", name
        assert set(mounts.values()) == set(volumes), name


def test_service_variables_are_off_or_the_platform_would_refuse_them(
    documents: list[Manifest],
) -> None:
    """A Service named orrery gives each pod ORRERY_PORT and others, which are no settings."""
    assert all(pod["enableServiceLinks"] is False for pod in pod_specs(documents).values())


def test_every_container_has_bounds_and_probes(documents: list[Manifest]) -> None:
    for container in containers(documents):
        assert container["resources"]["limits"]["memory"], container["name"]
        assert container["resources"]["requests"]["cpu"], container["name"]
        assert container["livenessProbe"], container["name"]
        assert container["readinessProbe"], container["name"]


def test_images_are_pinned(documents: list[Manifest]) -> None:
    for container in containers(documents):
        _, _, tag = container["image"].rpartition(":")
        assert tag not in ("", "latest"), container["image"]
        assert "/" in container["image"] or container["name"] == "redis"


def test_secrets_are_named_and_none_is_here(documents: list[Manifest]) -> None:
    assert all(document["kind"] != "Secret" for document in documents)
    for container in containers(documents):
        for variable in container.get("env", []):
            if "PASSWORD" in variable["name"] or "AUTH" in variable["name"]:
                assert "secretKeyRef" in variable["valueFrom"]


def test_the_store_password_has_a_name_that_ray_leaves_alone(documents: list[Manifest]) -> None:
    """KubeRay sets REDIS_PASSWORD itself, for the control store, and refuses pods that have one."""
    names = {one["name"] for each in containers(documents) for one in each.get("env", [])}
    assert not names & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"}


def test_from_everywhere_only_http_and_grpc_are_reached(documents: list[Manifest]) -> None:
    policies = [one for one in documents if one["kind"] == "NetworkPolicy"]
    (closed,) = (one for one in policies if one["spec"]["podSelector"] == {})
    assert set(closed["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in closed["spec"]
    assert "egress" not in closed["spec"]
    open_ports = [
        port["port"]
        for policy in policies
        for rule in policy["spec"].get("ingress", [])
        if "from" not in rule
        for port in rule["ports"]
    ]
    assert sorted(open_ports) == [8000, 9000]


def test_traces_go_where_the_component_says_and_may(tmp_path: Path) -> None:
    """In an overlay of one's own over one of these."""
    below = {name: os.path.relpath(K8S / name, tmp_path) for name in ("overlays", "components")}
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{below['overlays']}/cpu]\ncomponents: [{below['components']}/tracing]\n"
        "namespace: orrery\n"
    )
    documents = render(tmp_path)
    for document in documents:
        check(document)
    (worker,) = pod_specs(documents)["worker cpu"]["containers"]
    source = worker["envFrom"][0]["configMapRef"]["name"]
    (environment,) = (one for one in documents if one["metadata"]["name"] == source)
    settings = Settings.from_env({**environment["data"], "ORRERY_API_KEYS_FILE": ""})
    (policy,) = (one for one in documents if one["metadata"]["name"] == "traces")
    ((port,),) = (rule["ports"] for rule in policy["spec"]["egress"])
    ((place,),) = (rule["to"] for rule in policy["spec"]["egress"])
    namespace = place["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    endpoint = urlsplit(settings.traces_endpoint or "")
    assert endpoint.port == port["port"]
    assert (endpoint.hostname or "").endswith(f".{namespace}.svc")


def test_nobody_is_let_in_by_a_label_alone(documents: list[Manifest]) -> None:
    """Which any pod of any namespace can wear."""
    for policy in documents:
        if policy["kind"] == "NetworkPolicy":
            for rule in policy["spec"].get("ingress", []):
                for peer in rule.get("from", []):
                    assert peer.get("namespaceSelector") != {}


def test_policies_and_monitor_select_the_pods_that_there_are(documents: list[Manifest]) -> None:
    cluster = only(documents, "RayService")["spec"]["rayClusterConfig"]
    templates = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    labels = {"app.kubernetes.io/component": "ray"}
    for group in templates:
        assert labels.items() <= group["template"]["metadata"]["labels"].items()
        ports = {port["name"] for port in group["template"]["spec"]["containers"][0]["ports"]}
        assert {"serve", "serve-grpc", "metrics"} <= ports
    monitor = only(documents, "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"] == labels
    assert monitor["podMetricsEndpoints"][0]["port"] == "metrics"


def test_claims_and_config_maps_exist_that_pods_name(documents: list[Manifest]) -> None:
    names = {(one["kind"], one["metadata"]["name"]) for one in documents}
    for pod in pod_specs(documents).values():
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in names
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in names


def test_one_worker_is_drained_at_a_time_and_the_only_gpu_by_nobody(
    documents: list[Manifest],
) -> None:
    cluster = only(documents, "RayService")["spec"]["rayClusterConfig"]
    fewest = {group["groupName"]: group["minReplicas"] for group in cluster["workerGroupSpecs"]}
    may_go = {
        document["spec"]["selector"]["matchLabels"]["ray.io/group"]: document["spec"][
            "minAvailable"
        ]
        for document in documents
        if document["kind"] == "PodDisruptionBudget"
    }
    for group, least in may_go.items():
        may_go[group] = fewest[group] - least
    assert may_go == {"cpu": 1} | ({"gpu": 0} if "gpu" in fewest else {})


def test_gpu_workers_wait_for_nodes_with_gpus() -> None:
    cluster = only(render("gpu"), "RayService")["spec"]["rayClusterConfig"]
    processors, gpus = cluster["workerGroupSpecs"]
    assert "nodeSelector" not in processors["template"]["spec"]
    pod = gpus["template"]["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["containers"][0]["image"].endswith("-gpu")
    assert processors["template"]["spec"]["containers"][0]["image"].endswith("-cpu")


def test_redis_keeps_data_as_the_embedded_one_does(tmp_path: Any) -> None:
    """But for where it is, how large it may get, and its password."""
    embedded = Supervisor(RedisFolder(tmp_path), "always", 1, 0)._configuration(1)
    assert settings((K8S / "base/redis/redis.conf").read_text()) == settings(embedded)


def test_nothing_that_ray_knows_makes_room_for_documents(documents: list[Manifest]) -> None:
    """Its control store ends when a write is refused: it has a Redis of its own."""
    own = settings((K8S / "base/ray-redis/redis.conf").read_text())
    store = settings((K8S / "base/redis/redis.conf").read_text())
    assert own == {**store, "maxmemory-policy": "noeviction"}
    cluster = only(documents, "RayService")["spec"]["rayClusterConfig"]
    options = cluster["gcsFaultToleranceOptions"]
    (container,) = pod_specs(documents)["ray-redis"]["containers"]
    assert options["redisAddress"] == "redis://ray-redis:6379"
    assert options["redisPassword"]["valueFrom"] == container["env"][0]["valueFrom"]
    (worker,) = pod_specs(documents)["worker cpu"]["containers"]
    urls = [one["value"] for one in worker["env"] if one["name"] == "REDIS_URL"]
    assert [url.rpartition("@")[2] for url in urls] == ["redis:6379/0"]


@pytest.mark.parametrize("name", ["redis", "ray-redis"])
def test_redis_may_copy_all_that_it_holds(name: str, documents: list[Manifest]) -> None:
    """As it does while it rewrites its file and everything in it changes."""
    (container,) = pod_specs(documents)[name]["containers"]
    limit = container["resources"]["limits"]["memory"]
    text = (K8S / "base" / name / "redis.conf").read_text()
    assert megabytes(limit) >= 2 * megabytes(maxmemory(text))


def test_redis_in_compose_may_copy_all_that_it_holds() -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    text = (K8S / "base/redis/redis.conf").read_text()
    assert megabytes(compose["services"]["redis"]["mem_limit"]) >= 2 * megabytes(maxmemory(text))


def maxmemory(text: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith("maxmemory "))
    return line.split()[1]


def megabytes(size: str) -> int:
    """Of `3gb`, `512Mi`, `6g`."""
    number = size.rstrip("GMgmibB")
    return int(number) * (1024 if size[len(number)].lower() == "g" else 1)


def settings(text: str) -> dict[str, str]:
    own = {"bind", "port", "requirepass", "dir", "maxmemory"}
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    values = dict(line.split(maxsplit=1) for line in lines)
    return {name: value for name, value in values.items() if name not in own}
