"""A platform as a container runs it: in the foreground, with keys, two replicas of two services.

What a cluster would get is this configuration with other numbers (tests/unit/deploy holds them
together); here it runs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy import local
from deploy.ports import own_address
from deploy.processes import find_processes
from deploy.ray_environment import REPOSITORY
from deploy.state import PlatformState
from orrery import AuthenticationError, Client

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

KEY = "a-key-of-this-test"
RESOURCES = """
applications:
  llama: {deployment: {num_replicas: 2}}
  gateway: {deployment: {num_replicas: 2}}
"""
NUM_CALLS = 40
READY_LIMIT_S = 300
EXPORTED_LIMIT_S = 60


@dataclass(frozen=True)
class Running:
    """The platform, and the process that stays with it."""

    process: subprocess.Popen[bytes]
    state: PlatformState
    data_dir: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("two-replicas")
    resources = folder / "resources.yaml"
    resources.write_text(RESOURCES)
    data_dir = folder / "data"
    log = folder / "log"
    environment = {name: one for name, one in os.environ.items() if not name.startswith("ORRERY_")}
    options = [
        "--host=0.0.0.0",
        f"--resources={resources}",
        f"--data-dir={data_dir}",
        "--http-port=0",
        "--grpc-port=0",
        "--metrics-port=0",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.foreground", *options],
            cwd=REPOSITORY,
            env={**environment, "ORRERY_API_KEYS": KEY},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + READY_LIMIT_S
        while (state := PlatformState.load(data_dir)) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield Running(process, state, data_dir)
    finally:
        process.terminate()
        process.wait(timeout=120)


def replicas_that_answered(running: Running, application: str, metric: str) -> dict[str, float]:
    """By replica, what it has counted; Ray exports counts every few seconds."""
    text = httpx.get(f"http://{running.state.metrics}/metrics").text
    counted: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith(metric) and sample.labels.get("application") == application:
                replica = sample.labels["replica"]
                counted[replica] = counted.get(replica, 0) + sample.value
    return {replica: count for replica, count in counted.items() if count > 0}


def wait_until_two_have_answered(running: Running, application: str, metric: str) -> None:
    deadline = time.monotonic() + EXPORTED_LIMIT_S
    while len(found := replicas_that_answered(running, application, metric)) != 2:
        assert time.monotonic() < deadline, f"{application}: answers by {found}"
        time.sleep(1)


def test_two_replicas_of_a_model_share_the_calls_and_say_the_same(running: Running) -> None:
    with Client(running.state.grpc, api_key=KEY) as client, ThreadPoolExecutor(8) as threads:

        def answer(_: int) -> str:
            return client.generate("The Dorlor", model="llama", max_tokens=16, temperature=0).text

        answers = set(threads.map(answer, range(NUM_CALLS)))
    assert len(answers) == 1
    wait_until_two_have_answered(running, "llama", "orrery_request_success_total")


def test_two_gateways_share_the_requests(running: Running) -> None:
    url = f"http://{running.state.http}/v1/models"
    for _ in range(NUM_CALLS):  # each by a connection of its own
        assert httpx.get(url, headers=running.headers).status_code == 200
    wait_until_two_have_answered(running, "gateway", "orrery_http_requests_total")


def test_beyond_loopback_it_answers_those_who_have_a_key(running: Running) -> None:
    _, _, port = running.state.http.partition(":")
    url = f"http://{own_address()}:{port}/v1/models"
    assert httpx.get(url, headers=running.headers).status_code == 200
    assert httpx.get(url).status_code == 401
    with Client(running.state.grpc) as client, pytest.raises(AuthenticationError):
        client.generate("The Dorlor", model="llama", max_tokens=1)


def test_the_proxys_own_pages_stay_on_loopback(running: Running) -> None:
    environment = next(
        process.environ()
        for process in find_processes(running.state.platform_id)
        if "RAY_SERVE_HAPROXY_STATS_PORT" in process.environ()
    )
    for name in ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"):
        port = int(environment[name])
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        if own_address() != "127.0.0.1":
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((own_address(), port), timeout=5)


def test_services_log_in_lines_of_json(running: Running) -> None:
    """Serve would take them for its own and drop what is below its level."""
    logs = (local._run_dir(running.state.platform_id) / "session_latest/logs").glob("worker-*.err")
    lines = [line for log in logs for line in log.read_text().splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    ready = [event["model"] for event in events if event["event"] == "ready" and "model" in event]
    assert ready.count("orrery-llama") == 2


def test_it_ends_in_order_when_told_and_leaves_nothing(running: Running) -> None:
    """The last of this module: afterwards nothing runs."""
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=120) == 0
    assert find_processes(running.state.platform_id) == []
    assert PlatformState.load(running.data_dir) is None
