"""Two replicas of a service share its calls; whoever comes from outside has a key.

tests/integration/test_two_replicas_faults.py goes on with the same platform, and ends it.
"""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy import local
from deploy.ports import own_address
from deploy.processes import find_processes
from deploy.ray_token import TOKEN_PATH, ray_token_environment
from orrery import AuthenticationError, Client
from tests.integration.two_replicas import KEY, TwoReplicas

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NUM_CALLS = 40
EXPORTED_LIMIT_S = 60


def replicas_that_answered(
    two_replicas: TwoReplicas, application: str, metric: str
) -> dict[str, float]:
    """By replica, what it has counted; Ray exports counts every few seconds."""
    text = httpx.get(f"http://{two_replicas.state.metrics}/metrics").text
    counted: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith(metric) and sample.labels.get("application") == application:
                replica = sample.labels["replica"]
                counted[replica] = counted.get(replica, 0) + sample.value
    return {replica: count for replica, count in counted.items() if count > 0}


def wait_until_two_have_answered(two_replicas: TwoReplicas, application: str, metric: str) -> None:
    deadline = time.monotonic() + EXPORTED_LIMIT_S
    while len(found := replicas_that_answered(two_replicas, application, metric)) != 2:
        assert time.monotonic() < deadline, f"{application}: answers by {found}"
        time.sleep(1)


def test_two_replicas_of_a_model_share_the_calls_and_say_the_same(
    two_replicas: TwoReplicas,
) -> None:
    with Client(two_replicas.state.grpc, api_key=KEY) as client, ThreadPoolExecutor(8) as threads:

        def answer(_: int) -> str:
            return client.generate("The Dorlor", model="llama", max_tokens=16, temperature=0).text

        answers = set(threads.map(answer, range(NUM_CALLS)))
    assert len(answers) == 1
    wait_until_two_have_answered(two_replicas, "llama", "orrery_request_success_total")


def test_two_gateways_share_the_requests(two_replicas: TwoReplicas) -> None:
    url = f"http://{two_replicas.state.http}/v1/models"
    for _ in range(NUM_CALLS):  # each by a connection of its own
        assert httpx.get(url, headers=two_replicas.headers).status_code == 200
    wait_until_two_have_answered(two_replicas, "gateway", "orrery_http_requests_total")


def test_beyond_loopback_it_answers_those_who_have_a_key(two_replicas: TwoReplicas) -> None:
    _, _, port = two_replicas.state.http.partition(":")
    url = f"http://{own_address()}:{port}/v1/models"
    assert httpx.get(url, headers=two_replicas.headers).status_code == 200
    assert httpx.get(url).status_code == 401
    with Client(two_replicas.state.grpc) as client, pytest.raises(AuthenticationError):
        client.generate("The Dorlor", model="llama", max_tokens=1)


def test_rays_control_store_answers_those_who_have_the_token(two_replicas: TwoReplicas) -> None:
    run_dir = local.run_dir_of(two_replicas.state.platform_id)
    token = Path(ray_token_environment(run_dir)[TOKEN_PATH]).read_text()
    with grpc.insecure_channel(two_replicas.state.ray_address) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        assert ask(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=10)
        for metadata in ((), (("authorization", "Bearer another"),)):
            with pytest.raises(grpc.RpcError) as caught:
                ask(b"", metadata=metadata, timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_proxys_own_pages_stay_on_loopback(two_replicas: TwoReplicas) -> None:
    environment = next(
        process.environ()
        for process in find_processes(two_replicas.state.platform_id)
        if "RAY_SERVE_HAPROXY_STATS_PORT" in process.environ()
    )
    for name in ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"):
        port = int(environment[name])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        if own_address() != "127.0.0.1":
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((own_address(), port), timeout=5)


def test_services_log_in_lines_of_json(two_replicas: TwoReplicas) -> None:
    """Serve would take them for its own and drop what is below its level."""
    logs = (local.run_dir_of(two_replicas.state.platform_id) / "session_latest/logs").glob(
        "worker-*.err"
    )
    lines = [line for log in logs for line in log.read_text().splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    ready = [event["model"] for event in events if event["event"] == "ready" and "model" in event]
    assert ready.count("orrery-llama") == 2
